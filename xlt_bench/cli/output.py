"""What commands print: lines, tables and progress bars. Importing it imports no torch."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from xlt_bench.distributed import rank
from xlt_bench.results.tables import Table, render

console = Console(soft_wrap=True, markup=False, highlight=False)
"""For single lines, which may hold text of submitters: no markup, no line breaks added."""
errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def show(tables: Sequence[Table], form: str = "table") -> None:
    """Print tables, as wide as the terminal; piped, a row is a line unless $COLUMNS is set."""
    width = None
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        width = shutil.get_terminal_size().columns
    print(render(tables, form, width), end="")


def quiet(progress: bool = False) -> None:
    """Silence the libraries' advice, and their progress bars too unless `progress`."""
    if not progress:
        os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import logging
    import warnings

    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


@contextmanager
def track(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over `total` items; in a log file, one line per finished unit.

    Yields:
        A function that advances the bar by a number of items.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if rank() and errors.is_terminal:  # several bars would overwrite each other
        yield lambda _done: None
        return
    if not errors.is_terminal:
        yield lambda _done: None
        errors.print(f"{name}: {total} done")
        return
    columns = (
        TextColumn("{task.description:>20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done: progress.advance(task, done)
