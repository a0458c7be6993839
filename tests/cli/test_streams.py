"""Where the output goes: terminals and files of any encoding, readers that end early, no HOME."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xlt_bench.cli import main as cli
from xlt_bench.cli.output import track

ENCODINGS = ["ascii", "latin-1", "cp437", "shift_jis", "utf-8"]
TEXT = "0.5–0.9 × “a”… ━━│ ¿qué? 日本"


@pytest.fixture
def run_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bytes, bytes]]:
    """Runs a command line with streams of an encoding: its exit code and the bytes it wrote."""

    def run(encoding: str, *words: object) -> tuple[int, bytes, bytes]:
        raw = io.BytesIO(), io.BytesIO()
        streams = [io.TextIOWrapper(file, encoding=encoding) for file in raw]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "argv", ["xlt-bench", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        for stream in streams:
            stream.flush()
        return int(ended.value.code or 0), raw[0].getvalue(), raw[1].getvalue()

    return run


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_and_help_can_be_printed_in_any_encoding(
    run_in: Callable[..., tuple[int, bytes, bytes]],
    make_run: Callable[..., Path],
    made_up_root: Path,
    tmp_path: Path,
    encoding: str,
) -> None:
    run = make_run(tmp_path / "run", adapter="lora")
    for words in (
        ["--help"],
        ["evaluate", "--help"],
        ["languages"],
        ["recipes"],
        ["score", run, "--data-dir", made_up_root],
        ["compare", run, run, "--data-dir", made_up_root],
    ):
        code, out, _ = run_in(encoding, *words)
        assert code == 0
        assert out.decode(encoding).strip()
        if words[0] == "score" and encoding != "utf-8":
            assert b"?" not in out  # intervals have a dash, or what looks like it
    code, _, said = run_in(encoding, "score", tmp_path / "日本–", "--data-dir", "mini")
    assert code == 2
    assert said.decode(encoding).startswith("error: ")
    assert said.count(b"\n") == 1


@pytest.mark.parametrize("form", ["json", "csv"])
def test_data_are_utf_8_in_any_encoding(
    run_in: Callable[..., tuple[int, bytes, bytes]],
    make_run: Callable[..., Path],
    made_up_root: Path,
    tmp_path: Path,
    form: str,
) -> None:
    for words in (
        ["languages"],
        ["recipes"],
        ["score", make_run(tmp_path / "日本"), "--data-dir", made_up_root],
    ):
        plain = run_in("ascii", *words, "--format", form)
        assert plain == run_in("utf-8", *words, "--format", form)
        assert plain[0] == 0
        if form == "json":
            json.loads(plain[1].decode())


def test_a_progress_bar_can_be_drawn_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from xlt_bench.cli import output

    for encoding, terminal in (("ascii", "xterm"), ("ascii", "dumb"), ("latin-1", "xterm")):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        monkeypatch.setenv("TERM", terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        output.prepare_streams()
        monkeypatch.setattr(output, "errors", Console(file=stream, force_terminal=True))
        with track("massive 日本", 2) as progress:
            progress(1)
        stream.flush()
        assert raw.getvalue().decode(encoding)


def test_what_an_encoding_lacks_looks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    from xlt_bench.cli.output import prepare_streams

    shown = {
        "ascii": '0.5-0.9 x "a"... --| ?qu?? ??',
        "latin-1": '0.5-0.9 × "a"... --| ¿qué? ??',
        "utf-8": TEXT,
    }
    for encoding, wanted in shown.items():
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        prepare_streams()
        print(TEXT, end="", flush=True)
        assert raw.getvalue().decode(encoding) == wanted


def run(words: str, **settings: str | None) -> subprocess.CompletedProcess[str]:
    """By a shell, with `xlt-bench` as $X; a setting of None is unset."""
    env = {**os.environ, **{key: value for key, value in settings.items() if value is not None}}
    env = {key: value for key, value in env.items() if settings.get(key, value) is not None}
    env["X"] = f"{sys.executable} -m xlt_bench"
    return subprocess.run(
        ["bash", "-c", words], env=env, capture_output=True, text=True, check=False
    )


def test_a_reader_that_ends_and_streams_that_are_closed_are_no_error() -> None:
    done = run("$X languages | (exec 0<&-; sleep 3); exit ${PIPESTATUS[0]}")
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # 1 if it noticed while it wrote
    assert run("$X languages >&-").stderr == ""
    done = run("$X score nowhere >&- 2>&-")
    assert done.returncode == 2


@pytest.mark.slow
def test_no_home_and_no_folder_for_temporary_files(tmp_path: Path) -> None:
    words = f"$X evaluate --model embedded --data-dir mini --tasks uner --languages en --limit 1 \
        --device cpu --output {tmp_path}/run"
    settings = {"HOME": None, "TMPDIR": "/no/such/folder", "TERM": "dumb", "NO_COLOR": "1"}
    done = run(words, **settings, PYTHONIOENCODING="ascii", XLT_BENCH_DATA=None)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "record: " in done.stdout
