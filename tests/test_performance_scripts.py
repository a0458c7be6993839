"""The scripts of performance/ start, and the one that runs them all keeps its promises."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "performance"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "side_by_side.py")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import bench

    return bench


def is_running(process: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_script_that_runs_out_of_time_leaves_no_processes(
    bench: ModuleType, tmp_path: Path
) -> None:
    """As states.py starts processes of its own."""
    child = "import time; time.sleep(60)"
    script = (
        "import pathlib, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(tmp_path / 'part')!r}).write_text(str(child.pid))\n"
        f"pathlib.Path({str(tmp_path / 'part')!r}).rename({str(tmp_path / 'child')!r})\n"
        "child.wait()\n"
    )
    # As long as it takes to start, on a busy machine too.
    for seconds in (1, 4, 16):
        assert bench._output([sys.executable, "-c", script], seconds) == (
            "",
            f"more than {seconds} s",
        )
        if (tmp_path / "child").exists():
            break
    process = int((tmp_path / "child").read_text())
    try:
        end = time.monotonic() + 10
        while is_running(process) and time.monotonic() < end:
            time.sleep(0.01)
        assert not is_running(process)
    finally:
        if is_running(process):
            os.kill(process, signal.SIGKILL)


def test_what_a_script_prints_and_its_exit_code_are_read(bench: ModuleType) -> None:
    command = [sys.executable, "-c", "print('states ratio=3'); raise SystemExit(1)"]
    assert bench._output(command, 60) == ("states ratio=3\n", "exit code 1")


def test_rows_of_another_machine_are_left_out(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = bench.ROWS[0]
    line = f"{bench._key(row)} x | 1.00 | at least 3: missed | 7 |"
    empty = f"before\n{bench.START}\n{bench.END}\nafter\n"
    page = bench._with_table(empty, {bench._key(row): line})
    assert page.startswith("before\n")
    assert page.endswith(f"{bench.END}\nafter\n")
    assert bench._lines(page)[bench._key(row)] == line
    monkeypatch.setattr(bench, "machine", lambda: "another")
    assert bench._lines(page) == {}


def test_an_unknown_name_is_refused(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--only", "retrieval,stats"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "no script stats; there are alignment_step, " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_starts_without_what_only_a_measurement_needs(name: str) -> None:
    command = [sys.executable, str(FOLDER / name), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
