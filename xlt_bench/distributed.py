"""Coordinates the processes of one command, as torchrun and `accelerate launch` start them.

They share a run folder, and use gloo only to wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from xlt_bench.errors import InputError

_T = TypeVar("_T")


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def together() -> Iterator[None]:
    """Connect the processes while the body runs, so that they can wait for each other.

    Raises:
        InputError: If a process has died.
    """
    if world_size() == 1:
        yield
        return
    import torch.distributed as dist

    # A process may wait for hours for one that has more work.
    with _peer_errors():
        dist.init_process_group("gloo", timeout=timedelta(weeks=52))
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Wait until all processes have called this.

    Raises:
        InputError: If a process has died.
    """
    if world_size() > 1:
        import torch.distributed as dist

        with _peer_errors():
            dist.barrier()


def from_first(compute: Callable[[], _T]) -> _T:
    """Compute something in the first process and send it to the others.

    Args:
        compute: Called in the first process only.

    Returns:
        What `compute` returned, in every process.

    Raises:
        InputError: If the first process has died.
    """
    if world_size() == 1:
        return compute()
    import torch.distributed as dist

    box: list[Any] = [compute() if rank() == 0 else None]
    with _peer_errors():
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[no-any-return]


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Turn what gloo raises when another process has died into an InputError."""
    try:
        yield
    except RuntimeError:  # a closed connection
        raise InputError(
            "another process of this run stopped; finished work is kept, run the same command to "
            "resume"
        ) from None
