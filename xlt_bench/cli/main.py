"""The command line: parses, calls, prints. `xlt-bench --help` imports no torch."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Annotated

import typer

from xlt_bench.cli import data, demo, evaluate, leaderboard, share, train
from xlt_bench.cli.extras import extra_of
from xlt_bench.cli.output import errors, prepare_streams
from xlt_bench.distributed import rank
from xlt_bench.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _unwrap_help(group: typer.Typer) -> None:
    """Join the lines of each paragraph: typer does so for the first one only."""
    for command in group.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(part.replace("\n", " ") for part in text.split("\n\n"))
    for subgroup in group.registered_groups:
        if subgroup.typer_instance:
            _unwrap_help(subgroup.typer_instance)


# The panels of `--help`, in this order.
for panel, group in (
    ("Evaluate", evaluate.app),
    ("Evaluate", demo.app),
    ("Train", train.app),
    ("Share", share.app),
    ("Leaderboard", leaderboard.app),
    ("Data", data.app),
):
    for command in group.registered_commands:
        command.rich_help_panel = panel
    for subgroup in group.registered_groups:
        subgroup.rich_help_panel = panel
    _unwrap_help(group)
    app.add_typer(group)


def main() -> None:
    """Run the command line. What the user got wrong is one line and exit code 2."""
    # SIGTERM comes from torchrun where another process died, and from a scheduler at its limit.
    prepare_streams()
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _run()
    except _Stopped as stopped:  # also while an error is printed
        errors.print("interrupted; run the same command again to resume")
        raise SystemExit(128 + stopped.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _flush()


def _flush() -> None:
    """Flush standard output; if its reader has ended (`| head`), drop the rest without a word."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:  # reported where it was written
        pass


def _run() -> None:
    try:
        _check_words(sys.argv[1:])
        app(standalone_mode=True)
    except InputError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = extra_of(package)
        if extra is None:
            raise
        _fail(f"this command needs {package}, which `pip install 'xlt-bench[{extra}]'` installs")
    except OSError as error:
        # Disk full, no permission, a folder that vanished: the system names the file.
        where = f": {error.filename}" if error.filename else ""
        # Only a full or failing disk leaves the command itself as it should be.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        hint = "; finished work is kept: free the disk, then run it again" if full else ""
        _fail(f"{error.strerror or error}{where}{hint}")


class _Stopped(BaseException):
    """A signal to stop. Not KeyboardInterrupt, which typer handles itself, without a message."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, _frame: object) -> None:
    raise _Stopped(number)


def _check_words(words: Sequence[str]) -> None:
    """Raise InputError for an empty word: `Path("")` would be the current folder."""
    for before, word in pairwise(["xlt-bench", *words]):
        name, equals, value = word.partition("=")
        if not word or (word.startswith("--") and equals and not value):
            raise InputError(f"empty value after {name or before}: is a shell variable unset?")


def _fail(message: str) -> None:
    with suppress(InputError):  # RANK may be what is wrong
        message = f"process {rank()}: {message}" if rank() else message
    with suppress(OSError):  # where both go to one file, the error is the last line
        if sys.stdout:
            sys.stdout.flush()
    errors.print("error: " + " ".join(message.split()))
    raise SystemExit(2)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"xlt-bench {version('xlt-bench')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Measure cross-lingual transfer of fine-tuned LLMs, language by language."""
