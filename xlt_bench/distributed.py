"""Coordinates the processes of one command, as torchrun and `accelerate launch` start them.

They share a run folder, and use gloo only to wait for each other.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any, TypeVar

from xlt_bench.errors import InputError, one_line

_T = TypeVar("_T")


_LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_MEETING = 40  # seconds; variables of a job that has ended must not look like work


def rank() -> int:
    """Return the number of this process, from 0.

    Raises:
        InputError: If the launcher's variable is not a number; so do the next three.
    """
    return _number("RANK", 0)


def local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def world_size() -> int:
    """Return the number of processes."""
    return _number("WORLD_SIZE", 1)


def local_world_size() -> int:
    """Return the number of processes on this machine; of all, if the launcher does not say."""
    return max(1, _number("LOCAL_WORLD_SIZE", world_size()))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise InputError(f"{name}={one_line(repr(text), 60)} is not a number; {_REMEDY}")
    return int(text)


_REMEDY = "unset it, or start the processes with torchrun"


def check_launcher() -> None:
    """Check the launcher's environment variables, before anything is imported or loaded.

    Raises:
        InputError: If they cannot be those of one job.
    """
    size, number, local = world_size(), rank(), local_rank()
    port = _number("MASTER_PORT", 1)
    given = [name for name in _LAUNCHER if os.environ.get(name)]
    needed = ["RANK", "MASTER_ADDR", "MASTER_PORT"] if size > 1 else []
    if "RANK" in given or "LOCAL_RANK" in given:
        needed.append("WORLD_SIZE")
    if lacking := [name for name in needed if name not in given]:
        raise InputError(f"{_given()} but not {lacking[0]}; {_REMEDY}")
    if max(number, local) >= size or not 0 < port < 65_536:
        raise InputError(f"{_given()}, which does not describe a job; {_REMEDY}")


def _given() -> str:
    found = [f"{name}={os.environ[name]}" for name in _LAUNCHER if name in os.environ]
    return one_line(f"the environment has {', '.join(found)}", 300)


@contextmanager
def meeting() -> Iterator[None]:
    """Wait until all processes have come, less than a minute; then run the body.

    torch would wait for half an hour or longer for the processes of a job that has ended, and whose
    variables are still set. The store of this meeting lives until the body has ended, since other
    processes may be about to connect to it.

    Raises:
        InputError: If a process has not come.
    """
    remedy = "unset these variables if another job left them, or start the processes with torchrun"
    try:
        store = _within(_MEETING, _meet)
    except TimeoutError:
        raise InputError(
            f"{_given()}, but the other processes did not come within {_MEETING} seconds; {remedy}"
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        line = one_line(str(error).split("\n")[0], 200)
        raise InputError(f"{_given()}, but no meeting is possible ({line}); {remedy}") from None
    yield
    del store


def _meet() -> Any:
    """Wait for all processes at torch's store, and return it."""
    from torch.distributed.rendezvous import rendezvous

    _reach_master()
    limit = timedelta(seconds=2 * _MEETING)
    store, number, size = next(iter(rendezvous("env://", timeout=limit)))
    store.set(f"xlt-bench/{number}", "here")
    store.wait([f"xlt-bench/{i}" for i in range(size)], limit)
    return store


def _within(seconds: float, compute: Callable[[], _T]) -> _T:
    """Compute something, or raise TimeoutError; torch may try for twice its own timeout."""
    box: list[_T | Exception] = []

    def run() -> None:
        try:
            box.append(compute())
        except Exception as error:
            box.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not box:
        raise TimeoutError
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0]


def _reach_master() -> None:
    """Wait until the process that the others meet at listens; torch would log every attempt."""
    if rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # it is this one
    place = os.environ["MASTER_ADDR"], _number("MASTER_PORT", 0)
    end = time.monotonic() + _MEETING
    while time.monotonic() < end:
        try:
            socket.create_connection(place, timeout=_MEETING).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError


@contextmanager
def together() -> Iterator[None]:
    """Connect the processes while the body runs, so that they can wait for each other.

    Raises:
        InputError: If a process has not come, or has died.
    """
    if world_size() == 1:
        yield
        return
    import torch.distributed as dist

    with meeting():
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
