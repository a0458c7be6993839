"""Intents: a case worked by hand, and the same items as slot filling."""

import pytest

from xlt_bench.data.root import MINI
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.intents import INTENTS, TASK
from xlt_bench.tasks.registry import BY_DEFAULT, get_text_task


def test_answers_are_compared_whole():
    """Two of five are right; of the others, two do not name an intent and one names another."""
    gold = ["alarm_set", "play_music", "play_music", "qa_maths", "iot_coffee"]
    answers = ["alarm_set", " play_music\n", "play music", "qa_stock", "iot_coffee."]
    items = [Item(str(i), "de", "", "", label, label) for i, label in enumerate(gold)]
    counts = TASK.count(items, answers, TASK.test_set())
    assert counts["accuracy"].tolist() == [[1, 1], [1, 1], [0, 1], [0, 1], [0, 1]]
    assert TASK.metrics["accuracy"](counts["accuracy"]) == pytest.approx(40)
    assert TASK.metrics["unknown_intent"](counts["unknown_intent"]) == pytest.approx(40)


@pytest.mark.parametrize("unit", ["en", "sw"])
def test_items_are_those_of_slot_filling_with_60_intents(unit, data_dir):
    slots, seen = get_text_task("massive"), set()
    for split in ("train", "validation", "test"):
        items = TASK.load(data_dir, unit, split)
        assert [(i.id, i.user) for i in items] == [
            (i.id, i.user) for i in slots.load(data_dir, unit, split)
        ]
        seen |= {item.target for item in items}
    assert seen == set(INTENTS)
    assert len(INTENTS) == 60
    assert list(INTENTS) == sorted(INTENTS)


def test_it_ranks_the_languages_of_slot_filling():
    def settings(name):
        return {unit: one.setting for unit, one in get_text_task(name).test_set(1).units.items()}

    assert settings("intents") == settings("massive")
    assert "intents" not in BY_DEFAULT


def test_the_prompt_names_every_intent_and_the_command_comes_bare():
    item = TASK.load(MINI, "en")[0]
    assert item.user == "wake me up at six thirty tomorrow"
    assert item.target == "alarm_set"
    assert item.system.count("\n") == 2
    assert all(intent in item.system for intent in INTENTS)
