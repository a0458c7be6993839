"""What is written beside its place and then renamed, and what killed processes left of it.

Such a part is called `.NAME.xxxxxxxx.part`. Its owner holds a lock on it, which the system gives
back when a process dies: a part that can be locked belongs to nobody and is removed. Where a file
system has no locks, parts stay.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

SUFFIX = ".part"


def is_part(path: Path) -> bool:
    """Whether a name is one of those given here."""
    return path.name.startswith(".") and path.name.endswith(SUFFIX)


def remove_abandoned(parts: Iterable[Path]) -> None:
    """Remove those of `parts` whose process was killed."""
    for path in parts:
        with suppress(OSError):  # in use, gone, or no locks here
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(handle)


def part_file(place: Path) -> tuple[int, Path]:
    """A new file beside `place`, its handle and its path; locked until the handle is closed."""
    while True:
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.", suffix=SUFFIX)
        if _kept(handle, Path(name)):
            return handle, Path(name)


@contextmanager
def part_folder(place: Path) -> Iterator[Path]:
    """A folder beside `place`, of this process alone and gone at the end; older ones go first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place.parent.glob(f".{escape(place.name)}.????????{SUFFIX}"))
    while True:
        name = tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=SUFFIX)
        handle, folder = os.open(name, os.O_RDONLY), Path(name)
        if _kept(handle, folder):
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _kept(handle: int, path: Path) -> bool:
    """Lock a part that was just made; False where it was removed before it could be."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    if path.exists():
        return True
    os.close(handle)
    return False
