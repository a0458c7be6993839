"""Lists the submissions in folders, and reports the result of checking one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlt_bench.errors import InputError, one_line
from xlt_bench.submissions.schema import ARTIFACTS, MAX_ID, REGISTER, SUBMISSION

MAX_LINE = 400  # characters of an error
State = Literal["checked", "not fully checked", "held", "refused"]
_OTHERS = ("README.md", ARTIFACTS, *REGISTER)  # in the folder, and no submissions


@dataclass(frozen=True)
class Report:
    """The result of checking one submission.

    Attributes:
        name: The name of the folder.
        state: The result.
        detail: Why it was refused or is held for the maintainers, what could not be checked, or
            what it supersedes; may be empty.
        warnings: What a reviewer should look at.
    """

    name: str
    state: State
    detail: str
    warnings: Sequence[str] = ()


def list_submissions(paths: Sequence[Path]) -> list[Path]:
    """List submissions, without temporary folders, whose names start with a dot.

    Args:
        paths: Submissions, or folders of submissions.

    Raises:
        InputError: A path is not a folder.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            what = "is not a folder; unpack archives first" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}")
        if (path / SUBMISSION).exists():
            found.append(path)
            continue
        names = sorted(entry.name for entry in os.scandir(path) if entry.name[0] != ".")
        found += [path / name for name in names if name not in _OTHERS]
    return found


def refused(folder: Path, error: Exception) -> Report:
    """Report a refused submission in one short line without control characters."""
    return Report(one_line(folder.name, MAX_ID), "refused", one_line(error, MAX_LINE))
