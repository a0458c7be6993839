"""The pinned test sets against the publishers' files, the paper and each other."""

import json

import pytest

from xlt_bench.errors import InputError
from xlt_bench.tasks.pin import next_version
from xlt_bench.tasks.registry import BUILT_IN, get_task
from xlt_bench.tasks.test_set import TestSet, path_of, read_test_set, rendered, versions

TASKS = [task.name for task in BUILT_IN]


@pytest.mark.parametrize("name", TASKS)
def test_the_current_version_is_what_data_and_code_give(name, data_dir):
    with pytest.raises(InputError, match="nothing to pin"):
        next_version(get_task(name), data_dir, {})


@pytest.mark.parametrize("name", TASKS)
def test_files_are_written_as_they_are_rendered(name):
    task = get_task(name)
    for version in task.versions:
        text = path_of(task.pins, name, version).read_text(encoding="utf-8")
        assert rendered(task.test_set(version)) == text


@pytest.mark.parametrize("name", TASKS)
def test_every_ranked_unit_is_one_that_the_task_knows(name):
    task = get_task(name)
    for version in task.versions:
        ranked = list(task.test_set(version).units)
        assert ranked == task.order(ranked)


def test_sizes_are_those_of_the_publishers_papers():
    assert {unit.items for unit in get_task("massive").test_set(1).units.values()} == {2974}
    assert {unit.items for unit in get_task("retrieval").test_set(1).units.values()} == {997}


# Written apart from the pins, from the paper's Table 1, Table 10 and Appendix C.
SETTINGS = {
    ("massive", "supervised"): "ar en es ru zh",
    ("massive", "transfer"): "af az cy de el fr hi is ja jv sw th tl tr ur",
    ("uner", "supervised"): "en pt zh",
    ("uner", "transfer"): "da hr sk sr sv",
    ("wmt23", "supervised"): "cs-en de-en en-cs en-de en-is en-ru en-zh is-en ru-en zh-en",
    ("wmt23", "transfer"): "en-he en-ja en-uk he-en ja-en uk-en",
}


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_version_1_has_the_settings_of_the_paper(name, setting):
    units = get_task(name).test_set(1).units
    found = " ".join(sorted(unit for unit, one in units.items() if one.setting == setting))
    assert found == SETTINGS[name, setting]


def test_version_1_of_retrieval_has_the_35_languages_of_the_paper():
    further = "am bn hu hy id it ka km kn ko lv mn"
    downstream = {
        code
        for name in ("massive", "wmt23")
        for unit in get_task(name).test_set(1).units
        for code in get_task(name).languages_of(unit)
    }
    assert set(get_task("retrieval").test_set(1).units) == downstream | set(further.split())
    assert len(get_task("retrieval").test_set(1).units) == 35


def test_a_version_that_is_not_known_says_which_are():
    with pytest.raises(InputError, match=r"version 7 of massive is unknown .*known: 1, 2\)"):
        get_task("massive").test_set(7)


def pin(folder, name, **changes):
    path = path_of(folder, name, 1)
    value = {"task": name, "version": 1, "units": {"a": {"items": 1, "digest": "0" * 16}}}
    path.write_text(json.dumps(value | changes))
    return path


def test_a_broken_pin_is_one_line(tmp_path):
    pin(tmp_path, "odd", version=2)
    with pytest.raises(InputError, match=r"odd-v1.json pins version 2 of odd; rename it"):
        read_test_set(tmp_path, "odd", 1)
    pin(tmp_path, "more", extra=1)
    with pytest.raises(
        InputError, match=r"more-v1.json is not a valid test set \(extra: .*; restore it"
    ):
        read_test_set(tmp_path, "more", 1)
    assert versions(tmp_path, "odd") == [1]
    assert versions(tmp_path, "od") == []


def test_a_unit_beyond_the_ranked_set_has_no_setting():
    test_set = TestSet(task="x", version=1, units={})
    assert test_set.setting("yo") is None


def test_a_changed_score_makes_a_version_of_the_same_items(data_dir):
    task = get_task("uner")
    raised = next_version(task, data_dir, {}, scores_changed=True)
    assert (raised.version, raised.units) == (task.version + 1, task.test_set().units)


@pytest.mark.parametrize("name", ["massive", "uner"])
def test_version_2_scores_the_items_of_version_1_differently(name):
    task = get_task(name)
    assert task.test_set(2).units == task.test_set(1).units
    assert task.rescored_from == 1


def test_a_unit_that_is_ranked_already_is_refused(data_dir):
    with pytest.raises(InputError, match="de is already in version 2 of massive"):
        next_version(get_task("massive"), data_dir, {"de": "transfer"})


@pytest.mark.parametrize(
    ("name", "added", "message"),
    [
        ("massive", "ko", "write it as UNIT=SETTING, such as ko=transfer"),
        ("massive", "ko=aligned", "write it as UNIT=SETTING"),
        ("massive", "yo=transfer", "massive has no data for yo"),
        ("massive", "xx=transfer", "unknown language 'xx'"),
        ("retrieval", "yo=transfer", "retrieval has no settings; write it as yo"),
        ("wmt23", "en-xx=transfer", "unknown direction 'en-xx'"),
        ("masive", "ko=transfer", "did you mean 'massive'"),
    ],
)
def test_wrong_units_are_one_line_and_nothing_is_written(name, added, message, run_cli, tmp_path):
    before = {task.name: task.versions for task in BUILT_IN}
    code, _, err = run_cli("data", "pin", name, "--add", added, "--data-dir", tmp_path)
    assert (code, message in err, err.count("\n")) == (2, True, 1), err
    assert {task.name: task.versions for task in BUILT_IN} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["massive", "--scores-changed", "--data-dir", "mini"], "only a part of each test set"),
        (["retrieval", "--add", "yo", "--add", "yo"], "--add names yo twice"),
    ],
)
def test_a_version_of_a_sample_or_with_a_unit_twice_is_refused(words, message, run_cli):
    before = {task.name: task.versions for task in BUILT_IN}
    code, _, err = run_cli("data", "pin", *words)
    assert (code, message in err, err.count("\n")) == (2, True, 1), err
    assert {task.name: task.versions for task in BUILT_IN} == before
