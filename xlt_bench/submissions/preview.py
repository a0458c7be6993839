"""Shows unsubmitted runs among the submissions: a copy of the folder, to which they are submitted.

`xlt-bench leaderboard serve --run` builds a temporary database from it. The runs pass the checks of
`submit`, so what is shown is what a submission would show.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xlt_bench.errors import InputError, one_line
from xlt_bench.submissions import from_lm_eval
from xlt_bench.submissions.accepted import (
    Supersession,
    accept,
    of_one_system,
    read_register,
    superseded,
)
from xlt_bench.submissions.artifacts import read_stores
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.report import list_submissions
from xlt_bench.submissions.schema import ACCEPTED, RECORD, STORES, SUPERSESSIONS
from xlt_bench.submissions.validate import open_package

MARK = "UNSUBMITTED"
"""How the names of unsubmitted runs begin."""
_MAX_NAME = 200


@dataclass(frozen=True)
class Shown:
    """A run in the copy.

    Attributes:
        run: The run.
        id: The id that it would be submitted under, or was.
        repeat: Whether it is among the submissions already, under its submitted name.
        supersedes: The older submissions whose places it takes, and in which tasks.
    """

    run: Path
    id: str
    repeat: bool
    supersedes: Sequence[str]


def finished_runs(paths: Sequence[Path]) -> list[Path]:
    """List finished runs.

    Args:
        paths: Runs, output of lm_eval, or folders of runs, as `evaluate` writes for several
            adapters.

    Raises:
        InputError: A path has none.
    """
    found = []
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path} is not a folder: pass a run folder to --run")
        below = [path, *sorted(path.iterdir())]
        runs = [run for run in below if (run / RECORD).is_file()]
        if not runs and from_lm_eval.is_output(path):
            runs = [path]
        if not runs:
            raise InputError(
                f"{path} has no finished run ({RECORD} is missing): finish it with the "
                "`evaluate` command that began it"
            )
        found += runs
    return list(dict.fromkeys(found))


def preview(runs: Sequence[Path], submissions: Path | None, copy: Path, root: Path) -> list[Shown]:
    """Copy a folder of submissions and submit runs to the copy. The folder stays as it is.

    Args:
        runs: Finished runs.
        submissions: The folder of submissions; None to show the runs alone.
        copy: The folder to write. Where the file system allows, its files are hard links.
        root: The data folder.

    Returns:
        What each run is in the copy.

    Raises:
        InputError: A run cannot be submitted.
    """
    copy.mkdir(parents=True)
    for path in list_submissions([submissions] if submissions else []):
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, copy / path.name, symlinks=True, copy_function=_linked)
    for name in (ACCEPTED, SUPERSESSIONS):
        if submissions and (submissions / name).is_file():
            shutil.copyfile(submissions / name, copy / name)
    if submissions and (submissions / STORES).is_file():  # folders in it are relative
        lines = [f"{one}\n" for one in read_stores(submissions.resolve()).addresses]
        (copy / STORES).write_text("".join(lines), encoding="utf-8")
    shown = []
    for run in runs:
        name = one_line(f"{MARK} {run}", _MAX_NAME)
        done = submit(run, About(name=name, notes=f"{MARK}: a run on this machine."), copy, root)
        older = [] if done.repeat else _take_places(done.folder)
        shown.append(Shown(run, done.folder.name, done.repeat, older))
    return shown


def _take_places(folder: Path) -> list[str]:
    """Accept a run in the copy as if a maintainer had allowed it to supersede its system's others.

    Returns:
        The submissions that it supersedes.
    """
    copy, name = folder.parent, folder.name
    others = of_one_system(folder)
    names = [one.folder.name for one in others]
    pairs = [Supersession(newer=name, older=other, why=MARK) for other in names]
    accept(copy, [*names, name], pairs)
    return [str(one) for one in superseded(open_package(folder), others, read_register(copy))]


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copy2(source, target, follow_symlinks=False)
