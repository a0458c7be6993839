"""Units counted in several processes, against one."""

import math
from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.evaluation.parallel import each, processes_for
from xlt_bench.submissions import rescore

SUBMISSIONS = Path(__file__).resolve().parents[2] / "submissions"


def refuse(number: int) -> int:
    raise InputError(f"{number} is refused")


def test_results_come_in_the_order_of_the_jobs() -> None:
    jobs = [900, 25, 4, 100]
    assert list(each(math.isqrt, jobs, 2)) == list(each(math.isqrt, jobs, 1)) == [30, 5, 2, 10]


def test_an_error_is_that_of_the_first_job_that_fails() -> None:
    for processes in (1, 2):
        with pytest.raises(InputError, match="3 is refused"):
            list(each(refuse, [3, 4], processes))


def test_few_answers_stay_in_one_process() -> None:
    assert processes_for(44, 10) == 1
    assert processes_for(1, None) == 1
    assert processes_for(44, None) >= 1


def test_a_submission_is_checked_alike(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """One with 100 items of each unit, in two processes."""
    folder = next(
        path for path in sorted(SUBMISSIONS.iterdir()) if "gemma" in path.name and path.is_dir()
    )
    alone = rescore.check(folder, data_dir)
    asked: list[int] = []

    def two(units: int, limit: int | None) -> int:
        asked.append(units)
        return 2

    monkeypatch.setattr(rescore, "processes_for", two)
    assert rescore.check(folder, data_dir, spread=True) == alone
    assert asked
    assert alone.state == "checked"
