"""The pinned test sets: how many items each unit has, and the digest that a record states of them.

A run on other items (a limit, another edition, the mini suite) is partial, whatever it is called.
test_sets.json is written by `python -m xlt_bench.tasks.pinned ROOT` from a data folder that
`xlt-bench data check` accepts; a raised task version needs it written again.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

from xlt_bench.data import flores
from xlt_bench.data.root import content_digest
from xlt_bench.languages import FAMILIES, Family, language, units
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.tasks import TEXT, task_version

PATH = Path(__file__).with_name("test_sets.json")
Pinned = dict[str, tuple[int, str]]
"""Number of items and digest by unit."""


def pinned(task: Family, version: int) -> Pinned:
    """The pinned test sets of a task version; empty where it is another than the pinned one."""
    stated, by_unit = _stored()[task]
    return by_unit if stated == version else {}


@cache
def _stored() -> dict[str, tuple[int, Pinned]]:
    stored = json.loads(PATH.read_text(encoding="utf-8"))
    return {
        task: (one["version"], {unit: (n, digest) for unit, (n, digest) in one["units"].items()})
        for task, one in stored.items()
    }


def read(task: Family, root: Path) -> Pinned:
    """What the test sets below `root` are. Raises InputError for a missing or broken file."""
    found: Pinned = {}
    for unit in units(task):
        rows = (
            flores.load(root, language(unit).flores)
            if task == "flores"
            else TEXT[task].load(root, unit)
        )
        found[unit] = len(rows), content_digest(rows)
    return found


def rendered(root: Path) -> str:
    """The text of test_sets.json for a data folder, a line a unit."""
    parts = []
    for task in FAMILIES:
        rows = read(task, root).items()
        lines = ",\n".join(f'   "{unit}": {json.dumps(list(row))}' for unit, row in rows)
        head = f' "{task}": {{\n  "version": {task_version(task)},\n  "units": {{\n'
        parts.append(f"{head}{lines}\n  }}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    write_bytes(PATH, rendered(Path(sys.argv[1])).encode())
