"""The submissions in a folder, and the state that a check or a build finds each in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlt_bench.errors import InputError, one_line
from xlt_bench.submissions.schema import MAX_ID, SUBMISSION

MAX_LINE = 400  # characters of a refusal
State = Literal["checked", "not fully checked", "refused"]


@dataclass(frozen=True)
class Report:
    """The state of one folder.

    `detail` says why it is refused, what could not be checked, or what a checked one supersedes.
    """

    name: str
    state: State
    detail: str


def folders(paths: Sequence[Path]) -> list[Path]:
    """The submissions at the paths: each a submission itself or a folder of them.

    Half-written folders (their names begin with a dot) are no submissions. Raises InputError for a
    path that is neither.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; unpack archives first")
        if (path / SUBMISSION).exists():
            found.append(path)
            continue
        names = sorted(entry.name for entry in os.scandir(path) if entry.name[0] != ".")
        found += [path / name for name in names if name != "README.md"]
    return found


def refused(folder: Path, error: Exception) -> Report:
    """Why a folder is refused: one short line, whatever its name and its files hold."""
    return Report(one_line(folder.name, MAX_ID), "refused", one_line(error, MAX_LINE))
