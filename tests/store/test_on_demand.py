"""Tests the answers of two submissions side by side: which items stand beside them."""

import pytest

from xlt_bench.data.root import MINI
from xlt_bench.store.on_demand import answers
from xlt_bench.submissions.create import About, submit
from xlt_bench.tasks.registry import get_text_task


@pytest.fixture(scope="module")
def two(make_run, made_up_root, tmp_path_factory):
    """A folder of submissions, and the ids of two on the first four made-up segments."""
    folder = tmp_path_factory.mktemp("two")
    ids = []
    for seed in (1, 2):
        run = make_run(
            folder / str(seed), seed, adapter=str(seed), units={"wmt23": ["en-de"]}, limit=4
        )
        ids.append(submit(run, About(), folder / "submissions", made_up_root).folder.name)
    return folder / "submissions", *ids


def test_the_items_are_those_of_the_test_set(two, made_up_root):
    items = get_text_task("wmt23").load(made_up_root, "en-de")[:4]
    rows = answers(*two, "wmt23", "en-de", str(made_up_root))
    assert [(row.id, row.source, row.reference) for row in rows] == [
        (item.id, f"sources line {i} of en-de.", item.target) for i, item in enumerate(items)
    ]


def test_other_items_of_the_same_ids_are_not_shown(two):
    rows = answers(*two, "wmt23", "en-de", str(MINI))
    there = {item.id for item in get_text_task("wmt23").load(MINI, "en-de")}
    assert {row.id for row in rows} <= there
    assert [(row.source, row.reference) for row in rows] == [(None, None)] * 4
