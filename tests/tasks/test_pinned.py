"""The pinned test sets against the publishers' files."""

from xlt_bench.languages import FAMILIES, units
from xlt_bench.tasks import pinned as test_sets
from xlt_bench.tasks import task_version
from xlt_bench.tasks.base import RETRIEVAL_VERSION


def test_they_are_those_of_the_data(data_dir):
    assert test_sets.PATH.read_text() == test_sets.rendered(data_dir)


def test_every_unit_of_this_version_is_pinned():
    for task in FAMILIES:
        pinned = test_sets.pinned(task, task_version(task))
        assert list(pinned) == list(units(task))
        assert test_sets.pinned(task, task_version(task) + 1) == {}
    # MASSIVE's test split and FLORES-200 dev, as their papers count them.
    assert {n for n, _ in test_sets.pinned("massive", 1).values()} == {2974}
    assert {n for n, _ in test_sets.pinned("flores", 1).values()} == {997}


def test_the_retrieval_version_is_one_number():
    from xlt_bench.tasks import retrieval as flores

    assert flores.VERSION == RETRIEVAL_VERSION
