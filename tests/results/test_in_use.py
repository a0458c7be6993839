"""Two processes with one output folder at once: the second says at once who has it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.results.atomic_write import in_use, remove_abandoned

RunCli = Callable[..., tuple[int, str, str]]
HOLDER = """
import sys
from pathlib import Path
from xlt_bench.results.atomic_write import in_use

with in_use(Path(sys.argv[1])):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts a process that works in a folder until its input is closed."""
    started = []

    def start(folder: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLDER, str(folder)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "has it\n"
        return process

    yield start
    for process in started:
        process.communicate()


def used_by(folder: Path, process: subprocess.Popen[str]) -> str:
    host = re.escape(socket.gethostname())
    return (
        rf"{re.escape(str(folder))} is in use by process {process.pid} on {host} since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+; wait for it, or choose another --output"
    )


def test_the_second_says_who_has_the_folder(
    hold: Callable[[Path], subprocess.Popen[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "run"
    process = hold(folder)
    with pytest.raises(InputError, match=used_by(folder, process)), in_use(folder):
        pass
    # Who cleans up leaves the lock alone.
    remove_abandoned(folder.iterdir())
    with pytest.raises(InputError, match=used_by(folder, process)), in_use(folder):
        pass
    process.communicate()
    assert not (tmp_path / "a").exists()  # nothing was written
    with in_use(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_killed_process_has_it_no_longer(
    hold: Callable[[Path], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with in_use(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_of_many_has_it_at_a_time(tmp_path: Path) -> None:
    crowd = """
import sys
from pathlib import Path
from xlt_bench.errors import InputError
from xlt_bench.results.atomic_write import in_use
folder, turns = Path(sys.argv[1]), 0
while turns < 200:
    try:
        with in_use(folder / "run"):
            (folder / "here").mkdir()  # fails if another process is here
            (folder / "here").rmdir()
            turns += 1
    except InputError as error:
        assert "is in use by" in str(error), error
"""
    several = [subprocess.Popen([sys.executable, "-c", crowd, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in several] == [0, 0, 0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_folder_may_vanish_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """Another process has just made it, or its parent, and removes it as it ends."""
    make, times = os.mkdir, iter(range(9))

    def vanishing(path: Path, *more: object) -> None:
        if next(times) < 3:
            raise error(0, "made and removed by another process", str(path))
        make(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", vanishing)
    with in_use(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for place in ("link", "link/run", "file", "file/run"):
        with pytest.raises(OSError, match=place.split("/")[0]), in_use(tmp_path / place):
            pass


def test_a_folder_that_cannot_be_written_is_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a finished run on a read-only disk, whose scores evaluate prints again."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "open", refuse)
    with in_use(tmp_path):
        assert list(tmp_path.iterdir()) == []


EVALUATE = "evaluate --model embedded --data-dir mini --tasks uner --limit 1 --languages en".split()
TRAIN = "train massive-baseline --model embedded --data-dir mini".split()
MERGE = "merge --task embedded:baseline --alignment embedded:aligned --model embedded".split()


@pytest.mark.parametrize("words", [EVALUATE, TRAIN, MERGE], ids=["evaluate", "train", "merge"])
def test_commands_do_not_share_a_folder(
    hold: Callable[[Path], subprocess.Popen[str]],
    tmp_path: Path,
    run_cli: RunCli,
    words: list[str],
) -> None:
    output = tmp_path / "output"
    process = hold(output)
    before = list(output.iterdir())
    code, _, said = run_cli(*words, "--output", output)
    assert code == 2
    assert re.fullmatch(f"error: {used_by(output, process)}\n", said)
    assert list(output.iterdir()) == before


def test_the_run_of_one_adapter_may_be_in_use(
    hold: Callable[[Path], subprocess.Popen[str]], tmp_path: Path, run_cli: RunCli
) -> None:
    adapters = ["--adapter", "embedded:baseline", "--adapter", "embedded:aligned"]
    process = hold(tmp_path / "embedded-aligned")
    code, _, said = run_cli(*EVALUATE, *adapters, "--output", tmp_path)
    assert code == 2
    assert re.search(used_by(tmp_path / "embedded-aligned", process), said)
    assert [path.name for path in tmp_path.iterdir()] == ["embedded-aligned"]


def test_comet_and_a_reproduction_lock_their_folders(
    hold: Callable[[Path], subprocess.Popen[str]],
    tmp_path: Path,
    run_cli: RunCli,
    make_run: Callable[..., Path],
    made_up_root: Path,
) -> None:
    run = make_run(tmp_path / "run", units={"wmt23": ["de-en"]})
    process = hold(run)
    words = ["--comet", "--data-dir", made_up_root]
    code, _, said = run_cli("score", run, *words)
    assert (code, re.search(used_by(run, process), said) is not None) == (2, True)
    assert run_cli("score", run, "--data-dir", made_up_root)[0] == 0  # only reads
    output = tmp_path / "reproduction"
    process = hold(output)
    words = ["table5", "--model", "embedded", "--output", output, "--data-dir", "mini"]
    assert run_cli("reproduce", *words, "--plan")[0] == 0
    code, _, said = run_cli("reproduce", *words, "--yes")
    assert (code, re.search(used_by(output, process), said) is not None) == (2, True)
    shutil.rmtree(output, ignore_errors=True)
