"""Runs functions of the package in Python processes of their own, so that a build uses all cores.

They are started with the same interpreter and import nothing but the package: unlike those of
`multiprocessing`, they do not run the program's main module again, which may be a notebook's, a
server's or a script without a guard. Each uses one thread for linear algebra.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from xlt_bench.errors import InputError

Given = TypeVar("Given")
Found = TypeVar("Found")

MOST = 4
_AHEAD = 2  # calls a process that may wait or have a result that is not yet asked for
_START = "from xlt_bench.store.workers import serve; serve()"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """The number of cores that this process may use; 1 if it cannot start others."""
    if not sys.executable:
        return 1
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def ordered(
    function: Callable[[Given], Found], arguments: Iterable[Given], processes: int
) -> Generator[Found, None, None]:
    """Call a function with each argument, and yield what it returns in the order of the arguments.

    Args:
        function: A function of a module of the package.
        arguments: What to call it with; pickled, as is what it returns.
        processes: The number of processes; with one, it is called in this one. They end with the
            generator: close it, or take all that it yields.

    Raises:
        InputError: A process ended, for lack of memory for example.
        Exception: What the function raised.
    """
    if processes < 2:
        yield from map(function, arguments)
        return
    pool = _Pool(processes)
    try:
        waiting: deque[Future[Any]] = deque()
        for argument in arguments:
            waiting.append(pool.call(function, argument))
            if len(waiting) >= _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.close()


class _Pool:
    """Threads that each talk to one process."""

    def __init__(self, processes: int) -> None:
        self._threads = ThreadPoolExecutor(processes)
        self._own = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []

    def call(self, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        return self._threads.submit(self._ask, function, argument)

    def _ask(self, function: Callable[[Any], Any], argument: Any) -> Any:
        if not hasattr(self._own, "process"):
            self._own.process = self._started()
        process = self._own.process
        try:
            pickle.dump((function, argument), process.stdin)
            process.stdin.flush()
            raised, found = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise InputError(
                f"a process of the build ended early (exit code {process.wait()}); is memory short?"
            ) from None
        if raised:
            raise found
        return found

    def _started(self) -> subprocess.Popen[bytes]:
        more = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), **more}
        process = subprocess.Popen(
            # -P: a file pickle.py in the working directory is not ours.
            [sys.executable, "-P", "-c", _START],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End the processes; calls that have not begun are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        self._threads.shutdown()
        for process in self._processes:
            process.communicate()


def serve() -> None:
    """Answer the calls that come on standard input until it ends: what a process of a pool does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the build ends this one
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that nothing that the package prints is read as an answer
    while True:
        try:
            function, argument = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (False, function(argument))
        except Exception as error:
            answer = (True, error)
        pickle.dump(answer, out)
        out.flush()
