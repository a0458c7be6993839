"""Runs the scripts of this folder one after the other and writes the table of docs/performance.md.

    python performance/bench.py [--model MODEL] [--only states,retrieval]

Each script has three minutes. A goal that was missed is shown as missed, and so is a script that
failed or ran out of time. The table keeps the rows of scripts that were not run, if they were
measured on the same machine. Without --model, a random model of SmolLM2-135M's shape is run.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from side_by_side import machine

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parent / "docs/performance.md"
LIMIT = 180
STOCK = "`lm_eval --model hf`"
START, END = "<!-- written by performance/bench.py -->", "<!-- end -->"
VERDICT = re.compile(r"^\w+ ratio=(\S+) goal=(\S+) (met|missed)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    step: str
    command: str
    peer: str
    at_least: bool = True
    """Whether the goal is the lowest ratio, or the highest."""
    takes_model: bool = True

    @property
    def script(self) -> str:
        """The name of the script, without .py."""
        return self.command.partition(".py")[0]


# Four prompts and more for each row of a batch: a test set has thousands.
ROWS = [
    *(
        Row(f"generation, batches of {n}", f"generation.py {more} --batch-size {n}", STOCK)
        for n, more in (
            (8, "--prompts 64 --turns 2"),
            (16, "--prompts 64 --turns 2"),
            (32, "--prompts 128 --turns 1"),
            (64, "--prompts 256 --turns 1"),
        )
    ),
    Row(
        "generation, bfloat16",
        "generation.py --prompts 128 --turns 1 --batch-size 32 --dtype bfloat16",
        STOCK,
    ),
    *(
        Row(
            f"generation, {name}",
            f"generation.py --family {name} --prompts 64 --turns 2",
            STOCK,
            takes_model=False,
        )
        for name in ("qwen2", "gemma3_text", "gpt2", "bloom")
    ),
    Row("one adapter", "lora.py --turns 3", "the bare base model", at_least=False),
    Row("sentence states", "states.py", "all hidden states of a full forward", takes_model=False),
    Row("retrieval", "retrieval.py --languages 4", "LASER's xSIM", takes_model=False),
    Row("training update", "training.py --updates 2", "transformers' Trainer and peft"),
    Row(
        "training update, bfloat16",
        "training.py --updates 2 --dtype bfloat16",
        "transformers' Trainer and peft",
    ),
    Row("task step", "task_step.py --turns 2", "`model(**batch).loss`"),
    Row(
        "alignment step",
        "alignment_step.py --turns 2",
        "a step through all blocks and the head",
        at_least=False,
    ),
    Row(
        "slot F1, all intervals",
        "scoring.py --resamples 3",
        "a loop of seqeval over resamples",
        takes_model=False,
    ),
    Row("start-up", "startup.py", "half a second of CPU time", at_least=False, takes_model=False),
]


def main() -> int:
    """Run the scripts and write the table. Returns the exit code: 1 if a goal is missed."""
    options = _options()
    chosen = [row for row in ROWS if not options.only or row.script in options.only]
    missed = False
    for row in chosen:
        line = _measured(row, options)
        missed |= "missed" in line
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(_with_table(page, _lines(page) | {_key(row): line}), encoding="utf-8")
    return int(missed)


def _key(row: Row) -> str:
    return f"| {row.step} | `{row.command}` |"


def _measured(row: Row, options: argparse.Namespace) -> str:
    """The row's line of the table."""
    words = row.command.split()
    if row.takes_model and options.model:
        words += ["--model", options.model]
    if options.data_dir and words[0] not in ("retrieval.py", "startup.py"):
        words += ["--data-dir", options.data_dir]
    print(f"== {' '.join(words)}", flush=True)
    started = time.monotonic()
    output, fault = _output([sys.executable, str(FOLDER / words[0]), *words[1:]], LIMIT)
    seconds = time.monotonic() - started
    print(output, flush=True)
    if found := VERDICT.search(output):
        ratio, goal, verdict = found.groups()
        bound = f"at {'least' if row.at_least else 'most'} {float(goal):g}: {verdict}"
    else:
        ratio, bound = "", f"missed: {fault}"
    return f"{_key(row)} {row.peer} | {ratio} | {bound} | {seconds:.0f} |"


def _output(command: list[str], limit: float) -> tuple[str, str]:
    """What a script prints, and how it ends; its own processes end with it."""
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parent)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as script:
        try:
            output, _ = script.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return "", f"more than {limit:g} s"
        finally:  # Ctrl-C too: a script that is left would slow down what is timed next
            with suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
        return output, f"exit code {script.returncode}"


def _lines(page: str) -> dict[str, str]:
    """The lines of the page's table, by what they begin with; none from another machine."""
    table = page[page.index(START) : page.index(END)]
    if f": {machine()}.\n" not in table:
        return {}
    lines = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    return {" |".join(line.split(" |")[:2]) + " |": line for line in lines}


def _with_table(page: str, lines: dict[str, str]) -> str:
    """The page with the table's lines, in the order of ROWS."""
    table = [
        START,
        "",
        "| step | command (`python performance/...`) | peer | ratio | goal | s |",
        "|---|---|---|---|---|---|",
        *(lines[_key(row)] for row in ROWS if _key(row) in lines),
        "",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}: {machine()}.",
        "",
    ]
    return page[: page.index(START)] + "\n".join(table) + page[page.index(END) :]


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("--model", help="model folder or hub name of the scripts that take one")
    made.add_argument("--data-dir", help="data folder, as in xlt-bench")
    made.add_argument(
        "--only", default="", help="names of scripts, without .py, separated by commas"
    )
    options = made.parse_args()
    options.only = {name for name in options.only.split(",") if name}
    names = {row.script for row in ROWS}
    if unknown := options.only - names:
        made.error(f"--only: no script {sorted(unknown)[0]}; there are {', '.join(sorted(names))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
