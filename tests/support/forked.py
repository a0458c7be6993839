"""Command lines in forks of this process, which has imported everything already.

A program that starts afresh imports torch and transformers for several seconds.
"""

import os
import runpy
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accelerate.state import AcceleratorState

from xlt_bench.cli import main as cli

Before = Callable[[], object]


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus a signal's number, and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class _Started:
    pid: int
    folder: Path

    def end(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out, err)


def run_forked(words: tuple[str, ...], folder: Path, **environment: str) -> Ended:
    """Run a command line in a process of its own, whose output goes to files in `folder`."""
    return _start(words, folder, environment).end()


def run_ranks(
    words: tuple[str, ...], processes: int, folder: Path, before: Before = lambda: None
) -> list[Ended]:
    """Run a command line in several processes with torchrun's variables; each calls `before`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    several = str(processes)
    every = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    every |= {"WORLD_SIZE": several, "LOCAL_WORLD_SIZE": several}
    started = [
        _start(words, folder / rank, every | {"RANK": rank, "LOCAL_RANK": rank}, before)
        for rank in map(str, range(processes))
    ]
    return [one.end() for one in started]


def _start(
    words: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    before: Before = lambda: None,
) -> _Started:
    folder.mkdir(parents=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        _run(words, folder, environment, before)
    return _Started(pid, folder)


def _run(words: tuple[str, ...], folder: Path, environment: dict[str, str], before: Before) -> None:
    """Run the command; does not return."""
    code = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o644), number)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2)
        )
        os.environ.update(environment)
        if "KILLED_BEFORE" in environment:  # by a module that Python reads only when it starts
            runpy.run_path(environment["PYTHONPATH"].split(os.pathsep)[0] + "/sitecustomize.py")
        AcceleratorState._reset_state(reset_partial_state=True)  # it counts processes only once
        before()
        sys.argv = ["xlt-bench", *words]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
