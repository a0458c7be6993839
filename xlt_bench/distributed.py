"""The processes of one command, as torchrun and `accelerate launch` start them.

They share a run folder; what they say to each other is only who is done, over gloo.
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
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def together() -> Iterator[None]:
    """While the body runs, the processes can wait for each other."""
    if world_size() == 1:
        yield
        return
    import torch.distributed as dist

    # One may have hours of work left where another has none.
    with _the_others():
        dist.init_process_group("gloo", timeout=timedelta(weeks=52))
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Go on when all processes are here. Raises InputError where one has died."""
    if world_size() > 1:
        import torch.distributed as dist

        with _the_others():
            dist.barrier()


def from_first(compute: Callable[[], _T]) -> _T:
    """What `compute` gives in the first process, in every one; the others do not call it.

    Raises InputError where the first process has died.
    """
    if world_size() == 1:
        return compute()
    import torch.distributed as dist

    box: list[Any] = [compute() if rank() == 0 else None]
    with _the_others():
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[no-any-return]


@contextmanager
def _the_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError:  # gloo's, of a connection that was closed
        raise InputError(
            "another process of this run stopped; what is finished is kept, and the same command "
            "goes on from here"
        ) from None
