"""Parts: nobody loses one in use, whatever others remove at that moment; abandoned ones go."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from xlt_bench.results import atomic_write
from xlt_bench.results.atomic_write import (
    is_part,
    locked,
    part_file,
    part_folder,
    remove_abandoned,
)
from xlt_bench.results.run_folder import write_bytes

KILLED = """
import os, sys
from pathlib import Path
from xlt_bench.results.atomic_write import part_file, part_folder
place = Path(sys.argv[1])
with part_folder(place) as folder:
    (folder / "half").write_text("")
    part_file(place)
    os.kill(os.getpid(), 9)
"""
# Four processes make parts, and some of their forks die with parts in use; three others clean.
CROWD = """
import multiprocessing, os, sys
from pathlib import Path
from xlt_bench.results.atomic_write import part_file, part_folder, remove_abandoned
from xlt_bench.results.run_folder import write_bytes

folder, made, each = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
context = multiprocessing.get_context("fork")
done = context.Event()

def dies():
    if os.fork() == 0:
        handle, _ = part_file(folder / "new")
        with part_folder(folder / "new") as part:
            (part / "half").write_text("")
            os._exit(0)
    os.wait()

def makes(name):
    for i in range(each):
        with part_folder(folder / "new") as part:
            (part / "whole").mkdir()
            (part / "whole" / "text").write_text("text")
            (part / "whole").rename(made / f"{name}-{i}")
        write_bytes(folder / str(name), b"%d" % i)
        assert (folder / str(name)).read_bytes() == b"%d" % i
        if i % 50 == 0:
            dies()

def cleans():
    while not done.is_set():
        remove_abandoned(folder.glob(".*"))

makers = [context.Process(target=makes, args=(i,)) for i in range(4)]
cleaners = [context.Process(target=cleans) for _ in range(3)]
for process in [*makers, *cleaners]:
    process.start()
for process in makers:
    process.join()
done.set()
for process in cleaners:
    process.join()
assert [process.exitcode for process in [*makers, *cleaners]] == [0] * 7
remove_abandoned(folder.glob(".*"))
"""


@pytest.mark.parametrize("each", [250, pytest.param(5000, marks=pytest.mark.slow)])
def test_of_thousands_of_parts_none_is_lost(tmp_path: Path, each: int) -> None:
    folder, made = tmp_path / "parts", tmp_path / "made"
    folder.mkdir()
    made.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CROWD, folder, made, str(each)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = {f"{maker}-{i}" for maker in range(4) for i in range(each)}
    assert {path.name for path in made.iterdir()} == names
    assert {(made / name / "text").read_text() for name in names} == {"text"}
    assert {path.name for path in folder.iterdir()} == {"0", "1", "2", "3"}


def meanwhile(step: int, run: Callable[[], object], other: Callable[[], object]) -> bool:
    """Run the one, and the other before the `step`th line of atomic_write that the one comes to.

    False where it ends before. This stands for another process that is faster at that moment.
    """
    left = step

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != atomic_write.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                other()  # which is not traced: Python is within a trace function
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return left <= 0


def cleans(folder: Path) -> None:
    remove_abandoned(path for path in folder.iterdir() if is_part(path))


def makes_folder(place: Path) -> None:
    with part_folder(place) as folder:
        (folder / "half").write_text("")
        assert [path.name for path in folder.iterdir()] == ["half"]


def test_a_cleaner_at_any_moment_harms_no_folder(tmp_path: Path) -> None:
    place = tmp_path / "new"
    for step in count(1):
        if not meanwhile(step, lambda: makes_folder(place), lambda: cleans(tmp_path)):
            break
        assert list(tmp_path.iterdir()) == []
    assert step > 15


def test_a_cleaner_at_any_moment_harms_no_file(tmp_path: Path) -> None:
    for step in count(1):
        place = tmp_path / f"{step}"
        if not meanwhile(
            step, lambda place=place: write_bytes(place, b"x"), lambda: cleans(tmp_path)
        ):
            break
        assert place.read_bytes() == b"x"
    assert {path.name for path in tmp_path.iterdir()} == {str(i + 1) for i in range(step)}
    assert step > 5


def test_an_owner_that_finishes_while_a_cleaner_looks_loses_nothing(tmp_path: Path) -> None:
    for step in count(1):
        place = tmp_path / f"{step}"
        handle, part = part_file(place)

        def finish(handle: int = handle, part: Path = part, place: Path = place) -> None:
            part.replace(place)
            os.close(handle)

        if not meanwhile(step, lambda part=part: remove_abandoned([part]), finish):
            finish()
            break
        assert place.exists()
    assert step > 3
    assert {path.name for path in tmp_path.iterdir()} == {str(i + 1) for i in range(step)}


def test_a_new_part_by_the_name_of_one_that_is_being_removed_stays(tmp_path: Path) -> None:
    part, again = tmp_path / ".new.abcdefgh.part", 0
    for step in count(1):
        part.write_text("abandoned")
        handles: list[int] = []

        def other(handles: list[int] = handles) -> None:
            remove_abandoned([part])
            with suppress(FileExistsError):
                handles.append(os.open(part, os.O_CREAT | os.O_EXCL))
                fcntl.flock(handles[0], fcntl.LOCK_EX)

        reached = meanwhile(step, lambda: remove_abandoned([part]), other)
        assert part.exists() == bool(handles)
        again += len(handles)
        for handle in handles:
            os.close(handle)
        if not reached:
            break
    assert again > 2


def test_an_owner_killed_at_any_moment_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    place = tmp_path / "new"
    for step in count(1):
        child = os.fork()
        if child == 0:
            try:
                meanwhile(step, lambda: makes_folder(place), lambda: os.kill(os.getpid(), 9))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        with part_folder(place) as folder:
            assert list(tmp_path.iterdir()) == [folder]
        if status == 0:
            break
    assert step > 15


def killed_beside(place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, place])
    assert done.returncode == -9


def test_parts_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    place = tmp_path / "board.db"
    mine = tmp_path / ".other.db.abcdefgh.part"
    mine.write_text("of another place")
    with part_folder(place) as living:
        killed_beside(place)
        assert len(list(tmp_path.iterdir())) == 4
        with part_folder(place) as second:
            assert set(tmp_path.iterdir()) == {mine, living, second}
    assert list(tmp_path.iterdir()) == [mine]


def test_where_there_are_no_locks_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    killed_beside(tmp_path / "x")
    left = set(tmp_path.iterdir())
    monkeypatch.setattr(fcntl, "flock", no_locks)
    remove_abandoned(tmp_path.iterdir())
    assert set(tmp_path.iterdir()) == left
    write_bytes(tmp_path / "x", b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_a_link_among_the_parts_is_not_followed(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    link = tmp_path / ".x.abcdefgh.part"
    link.symlink_to(treasure)
    remove_abandoned([link])
    assert treasure.is_dir()


def test_only_names_of_our_own_are_parts(tmp_path: Path) -> None:
    handle, part = part_file(tmp_path / "a name\nof two lines")
    os.close(handle)
    assert is_part(part)
    with part_folder(tmp_path / "x.json") as folder:
        assert is_part(folder)
    for name in (".notes.part", "x.abcdefgh.part", ".x.ABCDEFGH.part", ".x.abcdefgh.part.zst"):
        assert not is_part(tmp_path / name)


def test_one_at_a_time_works_in_a_locked_folder(tmp_path: Path) -> None:
    folder, waited = tmp_path / "new" / "folder", threading.Event()
    said = []

    def works(name: str) -> None:
        with locked(folder, waited.set):
            said.append(name)

    with locked(folder):
        other = threading.Thread(target=works, args=("second",))
        other.start()
        assert waited.wait(600)
        said.append("first")
    other.join()
    assert said == ["first", "second"]
    assert list(folder.iterdir()) == []


def test_without_locks_a_folder_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")  # NFS, of a folder

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path), locked(tmp_path):
        (tmp_path / "x").touch()
