"""What commands print: lines, tables and progress bars. Importing it imports no torch."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from xlt_bench.distributed import rank
from xlt_bench.results.tables import DATA_FORMATS, Table, render

console = Console(soft_wrap=True, markup=False, highlight=False)
"""For single lines, which may hold text of submitters: no markup, no line breaks added."""
errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


_PLAIN = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),  # hyphens, dashes, minus
    **dict.fromkeys("\u2018\u2019\u201a", "'"),
    **dict.fromkeys("\u201c\u201d\u201e", '"'),
    "\u2026": "...",
    "\u00d7": "x",
    "\u00a0": " ",
}
_PLAIN |= dict.fromkeys(map(chr, range(0x2500, 0x2580)), "-")  # box drawing
_PLAIN |= dict.fromkeys("\u2502\u2503\u2551", "|")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks by ASCII characters that look like it, else by `?`."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end


def prepare_streams() -> None:
    """Let standard output and error print everything, whatever their encoding."""
    codecs.register_error("xlt-bench-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        # surrogateescape and `replace`, which a user may choose, do not fail where it matters.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors="xlt-bench-plain")


def write_data(text: str) -> None:
    """Print CSV or JSON, which is UTF-8 whatever the terminal's encoding is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    print(text, end="")


def show(tables: Sequence[Table], form: str = "table") -> None:
    """Print tables, as wide as the terminal; piped, a row is a line unless $COLUMNS is set."""
    if form in DATA_FORMATS:
        return write_data(render(tables, form))
    width = None
    if (sys.stdout and sys.stdout.isatty()) or os.environ.get("COLUMNS"):
        width = shutil.get_terminal_size().columns
    print(render(tables, form, width), end="")


def quiet(progress: bool = False) -> None:
    """Silence the libraries' advice, and their progress bars too unless `progress`."""
    if not progress:
        os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import logging
    import warnings

    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")  # advice on training


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
