"""Commands that are killed, whose disk fills, whose data vanish, whose last file is spoiled.

Each then ends as an undisturbed run does, or stops with one line that says what is wrong.
"""

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ["evaluate", "train", "submit", "leaderboard build", "join"]
# How often the long form kills each: the longer a command runs, the more there is to lose.
KILLS = dict(zip(NAMES, (30, 30, 15, 10, 15), strict=True))
ROOM = {"evaluate": 160, "train": 3_000, "submit": 160, "leaderboard build": 4_000, "join": 160}


def killed(bench: Any, name: str, draw: random.Random, folder: Path) -> int:
    """Kill the command once or twice, run it to its end; how many kills hit."""
    command, whole = bench.commands[name], bench.undisturbed(name)
    bench.trial(name, folder)
    hits = 0
    for _ in range(draw.choice((1, 1, 2))):
        if draw.random() < 0.5:
            fault = {"after": draw.uniform(0, whole.seconds)}
        else:
            fault = {"at": draw.randint(1, whole.writes)}
        hits += bench.forks.run(command.words, folder, **fault).code == -9
    ends_as_undisturbed(bench, name, folder)
    return hits


def ends_as_undisturbed(bench: Any, name: str, folder: Path) -> None:
    command = bench.commands[name]
    done = bench.forks.run(command.words, folder)
    if name == "join" and done.code:  # it makes a folder, and takes none that is there
        assert done.said == "error: disk/run exists; choose another --output\n"
    else:
        assert done.code == 0, done.said
    assert command.result(folder / "disk") == bench.undisturbed(name).result


def is_one_line(said: str) -> bool:
    """Whether a command's last words are an error, and it has no others on what went wrong."""
    return said.splitlines()[-1].startswith("error: ") and "Traceback" not in said


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_run_again(bench, name, tmp_path):
    draw = random.Random(1)
    assert sum(killed(bench, name, draw, tmp_path / str(i)) for i in range(3))


@pytest.mark.slow
def test_a_hundred_kills(bench, tmp_path, capsys):
    counts: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    draw = random.Random(2)
    for name, wanted in KILLS.items():
        while counts[name] < wanted:
            counts[name] += killed(bench, name, draw, tmp_path / f"{name} {runs[name]}")
            runs[name] += 1
    with capsys.disabled():
        for name in NAMES:
            print(f"\n{name}: killed {counts[name]} times, {runs[name]} runs ended as undisturbed", end="")
    assert sum(counts.values()) >= 100
