"""Tests commands that are killed, or whose disk is full, data removed or last file damaged.

Each must end like an undisturbed run, or stop with an error in one line.
"""

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cases import slow_but
from xlt_bench.results.atomic_write import is_part

NAMES = ["evaluate", "train", "submit", "leaderboard build", "join"]
# How often the slow test kills each command; more often if it runs longer.
KILLS = dict(zip(NAMES, (30, 30, 15, 10, 15), strict=True))
ROOM = {"evaluate": 160, "train": 3_000, "submit": 160, "leaderboard build": 4_000, "join": 160}


def killed(bench: Any, name: str, draw: random.Random, folder: Path, timed: bool) -> int:
    """Kill the command once or twice, then run it to its end; returns how many kills hit.

    Kills come before writes of files; with `timed`, also after seconds, perhaps after its end.
    """
    command, whole = bench.commands[name], bench.undisturbed(name)
    bench.trial(name, folder)
    hits = 0
    for _ in range(draw.choice((1, 1, 2))):
        if timed and draw.random() < 0.5:
            fault = {"after": draw.uniform(0, whole.ended.seconds)}
        else:
            fault = {"kill_at": draw.randint(1, whole.ended.writes)}
        hits += bench.forks.run(command.words, folder, **fault).code == -9
    ends_as_undisturbed(bench, name, folder)
    return hits


def ends_as_undisturbed(bench: Any, name: str, folder: Path) -> None:
    command = bench.commands[name]
    done = bench.forks.run(command.words, folder)
    if name == "join" and done.code:  # it does not write into an existing folder
        assert done.said == "error: disk/run exists; choose another --output\n"
    else:
        assert done.code == 0, done.said
    assert command.result(folder / "disk") == bench.undisturbed(name).result


def is_one_line(said: str) -> bool:
    """Whether the output ends with a one-line error and contains no traceback."""
    return said.splitlines()[-1].startswith("error: ") and "Traceback" not in said


# Killed trainings are also in tests/training/test_run.py.
@pytest.mark.parametrize("name", slow_but([x for x in NAMES if x != "train"], NAMES))
def test_killed_and_run_again(bench, name, tmp_path):
    assert killed(bench, name, random.Random(1), tmp_path / "trial", timed=False)


@pytest.mark.slow
def test_killed_in_each_task_an_evaluation_ends_as_undisturbed(bench, tmp_path):
    folder = bench.trial("evaluate", tmp_path / "trial")
    for name in (
        "predictions/massive/sw.jsonl.zst",
        "predictions/wmt23/en-de.jsonl.zst",
        "predictions/uner/en.jsonl.zst",
        "retrieval/states/en.safetensors",
        "retrieval/layer-004.parquet",
        "record.json",
    ):
        words = bench.commands["evaluate"].words
        assert bench.forks.run(words, folder, kill_before=name).code == -9
        assert not (folder / "disk" / "run" / name).exists()
    ends_as_undisturbed(bench, "evaluate", folder)


@pytest.mark.slow
def test_a_hundred_kills(bench, tmp_path, capsys):
    counts: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    draw = random.Random(2)
    for name, wanted in KILLS.items():
        while counts[name] < wanted:
            folder = tmp_path / f"{name} {runs[name]}"
            counts[name] += killed(bench, name, draw, folder, timed=True)
            runs[name] += 1
    with capsys.disabled():
        for name in NAMES:
            print(
                f"\n{name}: killed {counts[name]} times, {runs[name]} runs ended as undisturbed",
                end="",
            )
    assert sum(counts.values()) >= 100


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Mount a file system of this size at a folder."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a small disk requires root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def filled(bench: Any, name: str, draw: random.Random, folder: Path) -> int:
    """Run the command on a small disk, enlarge it, run it again; returns 1 if it was too small."""
    command = bench.commands[name]
    bench.trial(name, folder)
    with small_disk(folder / "disk", draw.randint(1, ROOM[name] // 4) * 4):
        done = bench.forks.run(command.words, folder)
        if done.code:
            assert done.code == 2, done.said
            assert is_one_line(done.said), done.said
            line = done.said.splitlines()[-1]
            assert "disk/" in line, line
            assert "again" in line or "to resume" in line, line
        else:
            assert command.result(folder / "disk") == bench.undisturbed(name).result
        more = ["mount", "-o", "remount,size=64m", str(folder / "disk")]
        subprocess.run(more, check=True)
        ends_as_undisturbed(bench, name, folder)
    return int(done.code != 0)


def bereft(bench: Any, name: str, draw: random.Random, folder: Path) -> int:
    """Rename the input during the command, restore it, run it again; returns 1 if it failed."""
    command, whole = bench.commands[name], bench.undisturbed(name)
    bench.trial(name, folder)
    at = draw.randint(1, whole.ended.reads)
    done = bench.forks.run(command.words, folder, given=command.reads, move_at=at)
    (folder / f"{command.reads}.away").rename(folder / command.reads)
    if done.code:
        assert done.code == 2, done.said
        assert is_one_line(done.said), done.said
        assert f" {command.reads}" in done.said.splitlines()[-1]
    ends_as_undisturbed(bench, name, folder)
    return int(done.code != 0)


def empty(data: bytes, draw: random.Random) -> bytes:
    return b""


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def zeros(data: bytes, draw: random.Random) -> bytes:
    """Zero the last block, as when a machine crashes before it is written."""
    n = min(512, len(data))
    return data[:-n] + bytes(n)


def noise(data: bytes, draw: random.Random) -> bytes:
    n = min(512, len(data))
    return data[:-n] + draw.randbytes(n)


def finished(path: Path) -> bool:
    """Whether a file is complete: not a temporary file that was left behind."""
    parts = any(is_part(place) for place in (path, *path.parents))
    return path.is_file() and path.stat().st_size > 0 and not parts


def spoiled(bench: Any, name: str, draw: random.Random, folder: Path) -> int:
    """Damage the last file that a killed command completed, run it again; 1 if it failed."""
    command, whole = bench.commands[name], bench.undisturbed(name)
    writes = whole.ended.writes
    files: list[Path] = []
    tries = (draw.randint(writes // 4, writes), draw.randint(writes // 2, writes))
    for at in (*tries, writes + 1):  # one more than all means not killing
        shutil.rmtree(folder, ignore_errors=True)
        bench.trial(name, folder)
        bench.forks.run(command.words, folder, kill_at=at)
        files = [path for path in (folder / "disk").rglob("*") if finished(path)]
        if files:
            break
    last = max(files, key=lambda path: (path.stat().st_mtime_ns, path))
    spoil = draw.choice((empty, cut, zeros, noise))
    last.write_bytes(spoil(last.read_bytes(), draw))
    done = bench.forks.run(command.words, folder)
    if done.code == 0:
        assert command.result(folder / "disk") == whole.result, (last, spoil)
        return 0
    assert done.code == 2, (last, spoil, done.said)
    assert is_one_line(done.said), (last, spoil, done.said)
    assert last.name in done.said.splitlines()[-1] or "exists" in done.said
    return 1


# Evaluating and training take longest.
QUICK = list(product([filled, bereft, spoiled], NAMES[2:]))


@pytest.mark.parametrize(
    ("disturb", "name"), slow_but(QUICK, product([filled, bereft, spoiled], NAMES))
)
def test_disturbed_otherwise(bench, name, disturb, tmp_path):
    disturb(bench, name, random.Random(3), tmp_path / "trial")


@pytest.mark.slow
@pytest.mark.parametrize("disturb", [filled, bereft, spoiled])
def test_disturbed_otherwise_often(bench, disturb, tmp_path, capsys):
    draw = random.Random(4)
    for name in NAMES:
        minded = [disturb(bench, name, draw, tmp_path / f"{name} {i}") for i in range(10)]
        with capsys.disabled():
            print(
                f"\n{disturb.__name__} {name}: {len(minded)} times, {sum(minded)} said so", end=""
            )
