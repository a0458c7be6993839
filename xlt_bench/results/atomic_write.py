"""Temporary files and folders that are renamed when complete; locks on folders, short and long.

A temporary file for NAME is called `.NAME.xxxxxxxx.part` and stands in the same folder, so that a
rename puts it in place. Its owner holds an exclusive lock (flock) on it. The operating system
releases the lock when the owner ends, even if it is killed, so a part that can be locked is
abandoned, and any process may remove it.

A part cannot be created and locked in one step: another process may lock and remove it in between.
Three rules make this safe:

- The owner waits for the lock, then checks that the part still exists. If not, it makes another.
- A process removes a part only while it holds the lock on that part.
- It first checks that the name still belongs to the file that it has locked.

If a cleaner is killed halfway, its lock is released too, and the next cleaner removes the rest. On
a file system without locks, neither side can lock a part, and abandoned parts stay. On one whose
locks are not seen by other machines, only one machine at a time may write to a folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from glob import escape
from pathlib import Path

from xlt_bench.errors import InputError, one_line

SUFFIX = ".part"
_NAME = re.compile(r"\..+\.[a-z0-9_]{8}\.part", re.DOTALL)  # the middle as tempfile makes it


def is_part(path: Path) -> bool:
    """Whether a path has the name of a temporary file or folder made by this module."""
    return _NAME.fullmatch(path.name) is not None


def remove_abandoned(parts: Iterable[Path]) -> None:
    """Remove the parts whose owner has ended. Parts in use are left alone."""
    for path in parts:
        with suppress(OSError):  # in use, already removed, or no locks on this file system
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), path.lstat()):
                    _remove(path)
            finally:
                os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def part_file(place: Path) -> tuple[int, Path]:
    """Create a temporary file for `place`.

    Returns:
        A handle open for writing, and the path. The file is locked until the handle is closed:
        rename it before that.
    """
    while True:
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.", suffix=SUFFIX)
        if _lock_new(handle, Path(name)):
            return handle, Path(name)


@contextmanager
def part_folder(place: Path) -> Iterator[Path]:
    """A temporary folder for `place`, removed at the end of the `with` block.

    Removes abandoned folders for the same place first. Creates the parent folder if necessary.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place.parent.glob(f".{escape(place.name)}.????????{SUFFIX}"))
    handle, folder = _new_folder(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _new_folder(place: Path) -> tuple[int, Path]:
    """A handle that holds the lock on a new folder, and the folder's path."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=SUFFIX))
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # a cleaner removed it before it could be opened
            continue
        if _lock_new(handle, folder):
            return handle, folder


def _lock_new(handle: int, path: Path) -> bool:
    """Lock a new part. Closes the handle and returns False if a cleaner has removed the part."""
    with suppress(OSError):  # no locks on this file system, so no cleaner can lock it either
        fcntl.flock(handle, fcntl.LOCK_EX)
    if path.exists():
        return True
    os.close(handle)
    return False


@contextmanager
def locked(folder: Path, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let one process at a time run the `with` block for a folder, which is created if necessary.

    For work that first looks at a folder and then changes it. Do not nest two for one folder. On a
    file system without locks, nothing is locked.

    Args:
        folder: What to lock.
        waits: Called before waiting for another process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # no locks on this file system
            pass
        yield
    finally:
        os.close(handle)


# A part, since it does not belong to the result, and may be removed if its owner was killed.
_IN_USE = f".xlt-bench.inuse_by{SUFFIX}"


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep other processes from working in a folder, which is created if necessary.

    For work of any length: unlike `locked`, it does not wait. The lock is on a file in the folder
    that says who holds it, and the operating system releases it when its owner ends, even if it is
    killed. On a file system without locks, or that is read-only, nothing is locked.

    Args:
        folder: Where this process is going to write.

    Raises:
        InputError: If another process works there; the message says which.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / _IN_USE
    handle = _lock_file(folder, path)
    if handle is None:
        yield
        return
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        os.write(handle, json.dumps(owner).encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)
        with suppress(OSError):  # not empty, unless the work was refused
            for made in new:
                made.rmdir()


def _lock_file(folder: Path, path: Path) -> int | None:
    """A handle that holds the lock of `in_use` on a file; None if the folder is read-only."""
    while True:
        _make(folder)
        try:
            # Open for writing, without which NFS gives no exclusive lock.
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:  # its owner ended meanwhile, and removed the folder too
            continue
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EROFS):  # a finished run can still be read
                return None
            raise
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 1000)
            os.close(handle)
            raise InputError(_used_by(folder, owner)) from None
        except OSError:  # no locks on this file system
            return handle
        with suppress(FileNotFoundError):  # removed by its owner, or as abandoned
            if os.path.samestat(os.fstat(handle), path.lstat()):
                os.ftruncate(handle, 0)
                return handle
        os.close(handle)


def _make(folder: Path) -> None:
    """Create a folder, although processes that end may remove it, or a parent, at the same time."""
    for _ in range(1000):
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)  # raises: it is not due to others


def _used_by(folder: Path, owner: bytes) -> str:
    try:
        told = json.loads(owner)
        who = f"process {told['pid']} on {told['host']} since {told['since']}"
    except (ValueError, KeyError, TypeError):  # it has not written it yet
        who = "another process"
    return f"{folder} is in use by {one_line(who, 120)}; wait for it, or choose another --output"


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
