import os
import sys
from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.store.workers import ordered


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_arguments(processes):
    words = ["a" * (1000 - i) for i in range(20)]
    assert list(ordered(len, words, processes)) == [1000 - i for i in range(20)]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_exception_of_a_call_is_raised(processes):
    found = ordered(int, ["1", "two", "3"], processes)
    assert next(found) == 1
    with pytest.raises(ValueError, match="two"):
        list(found)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_calls_run_in_other_processes_which_end_with_them():
    found = ordered(os.readlink, ["/proc/self"] * 8, 2)
    pids = {next(found) for _ in range(4)}
    assert str(os.getpid()) not in pids
    found.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_process_that_ends_early_is_one_line():
    with pytest.raises(InputError, match=r"ended early \(exit code 3\)"):
        list(ordered(os._exit, [3], 2))


def test_processes_import_nothing_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "selectors.py").write_text("raise SystemExit('not the standard library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    assert list(ordered(len, ["a", "bb"], 2)) == [1, 2]
