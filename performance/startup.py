"""Measures the CPU seconds (user and system) of `xlt-bench --help` and of wrong arguments.

    python performance/startup.py

Each command runs several times, in a process of its own; the median counts. `lm_eval --help` is
timed for comparison. Every wrong argument must end with exit code 2. The last line is
`startup ratio=X goal=1.0 met|missed`: the slowest command divided by half a second. The exit code
is 1 if the goal is missed or a command has another exit code.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import run, verdict

LIMIT = 0.5
_RUN = "evaluate --model embedded --output OUT --data-dir mini"
_TRAIN = "train massive-baseline --output OUT"
_MERGE = "merge --task embedded:baseline --alignment embedded:aligned --output OUT"
HELP = ["--help", "evaluate --help", "train --help", "languages --help"]
WRONG = [
    "evaluat",
    "evaluate --model embedded",
    f"{_RUN} --tasks masive",
    f"{_RUN} --languages xx",
    f"{_RUN} --limit 0",
    f"{_RUN} --layers x",
    f"{_RUN} --layers 0",
    f"{_RUN} --batch-size x",
    f"{_RUN} --dtype float8",
    f"{_RUN} --device gpu",
    f"{_RUN} --chat-template lama3",
    f"{_RUN} --adapter ./none",
    f"{_RUN} --adapter embedded:none",
    f"{_RUN} --adapter a@@b",
    f"{_RUN} --adapter ''",
    "evaluate --model ./none --output OUT --data-dir mini",
    "evaluate --model a@@b --output OUT --data-dir mini",
    "evaluate --model embedded --output OUT --data-dir none",
    "evaluate --model embedded --output '' --data-dir mini",
    "evaluate --model embedded --output /dev/null --data-dir mini",
    "demo --output /dev/null",
    "join none --output OUT",
    "score none",
    "compare none none",
    "submit none",
    "submissions check none",
    "submissions check ''",
    "leaderboard build --submissions none",
    "leaderboard build --submissions . --db .",
    "leaderboard serve --submissions none",
    "data check none",
    "data fetch none",
    "train none --model embedded --output OUT",
    f"{_TRAIN} --model ./none",
    f"{_TRAIN} --model embedded --set nonsense=1",
    f"{_TRAIN} --model embedded --set training.epochs=1e999",
    f"{_TRAIN} --model embedded --data-dir none",
    f"{_MERGE} --weight 3",
    f"{_MERGE} --combination mean",
    "merge --task ./none --alignment embedded:aligned --output OUT",
]


def main() -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    slowest, refused = 0.0, True
    with tempfile.TemporaryDirectory() as folder:
        for words in [*HELP, *WRONG]:
            seconds, code = _cpu_seconds("xlt-bench", words, Path(folder), turns)
            expected = 0 if words in HELP else 2
            refused &= code == expected
            slowest = max(slowest, seconds)
            print(f"{seconds:.2f} s  exit {code}  xlt-bench {words}")
        seconds, _ = _cpu_seconds("lm_eval", "--help", Path(folder), turns)
    print(f"{seconds:.2f} s  lm_eval --help")
    return verdict("startup", slowest / LIMIT, 1.0, slowest <= LIMIT and refused)


def _cpu_seconds(program: str, words: str, folder: Path, turns: int) -> tuple[float, int]:
    """The median of the CPU seconds (user and system), and the exit code."""
    times = []
    command = [str(Path(sys.executable).with_name(program)), *shlex.split(words)]
    for _ in range(turns):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            command, capture_output=True, cwd=folder, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return statistics.median(times), done.returncode


if __name__ == "__main__":
    run(main)
