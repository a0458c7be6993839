"""Counts the units of a large run in several processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

# A process takes a second or two to start, in which some thousand answers are counted.
_WORTHWHILE = 10_000


def processes_for(units: int, limit: int | None) -> int:
    """Choose the number of processes for a command, which may start others.

    Args:
        units: The number of units that are answered with text.
        limit: The most answers of a unit; None for whole test sets, of some 2,000 on average.

    Returns:
        The cores of this process; 1 if the answers are too few.
    """
    if units * min(limit or 2000, 2000) < _WORTHWHILE:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    function: Callable[[_Job], _Result], jobs: Sequence[_Job], processes: int
) -> Iterator[_Result]:
    """Yield what a function returns for each job, in order.

    Args:
        function: A function that other processes can import, perhaps with `functools.partial`.
        jobs: Its arguments.
        processes: Processes to share the jobs out to; with 1, they are done in this one. A script
            that uses more must guard its main part by `if __name__ == "__main__"`.

    Yields:
        The results.

    Raises:
        Exception: What the function raises for the first job that fails.
    """
    if processes == 1 or len(jobs) < 2:
        yield from map(function, jobs)
        return
    # Spawned, since a fork of a process with threads, such as torch's, may hang.
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)),
        get_context("spawn"),
        signal.signal,
        (signal.SIGINT, signal.SIG_IGN),
    )
    try:
        yield from pool.map(function, jobs)
    finally:
        pool.shutdown(cancel_futures=True)
