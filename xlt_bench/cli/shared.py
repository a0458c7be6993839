"""What the commands share: consoles, options, a progress bar. Nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from xlt_bench.distributed import rank

console = Console(soft_wrap=True, markup=False, highlight=False)
"""For lines that may hold anything, such as what strangers wrote; they are not broken."""
errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)

TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
]
DataDir = Annotated[
    str | None,
    typer.Option(help="Data folder, or mini; else $XLT_BENCH_DATA, else the user's cache."),
]


def listed(text: str | None) -> list[str]:
    """The parts of an option such as `de,sw`; none of one that is not given."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def quiet(progress: bool = False) -> None:
    """Libraries' own advice off, and their bars too unless `progress`: mostly the line is ours."""
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
    """A progress bar over `total` items, moved on by calling what is yielded; in a file, a line."""
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
    if not errors.is_terminal:  # a log file: one line a finished unit
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
