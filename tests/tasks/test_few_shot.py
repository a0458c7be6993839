"""Examples before a prompt: equal to hand-built chats, recorded, and never ranked."""

import pytest

from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import question
from xlt_bench.results.record import Plan, ShotPrompt, UserPrompt, same_prompt
from xlt_bench.submissions.schema import identity
from xlt_bench.tasks.base import Item, TextTask
from xlt_bench.tasks.few_shot import few_shot
from xlt_bench.tasks.prompt_file import read_prompts
from xlt_bench.tasks.registry import get_text_task


class Made(TextTask):
    """Commands c0 to c8 in English and German; Swahili has a test split only."""

    name = "massive"  # which has these languages
    max_new_tokens = 4

    def units(self):
        return ["en", "de", "sw"]

    def splits(self, unit):
        return ("test",) if unit == "sw" else ("train", "test")

    def load(self, root, unit, split="test"):
        assert split == "train"
        return [item(unit, f"c{i}") for i in range(9)]

    def count(self, items, hypotheses, test_set):
        raise NotImplementedError


def item(unit, text):
    return Item(text, unit, "SYSTEM", f"{unit} {text}?", f"{unit} {text}!", "")


def said(*texts):
    roles = ["system", *(["user", "assistant"] * len(texts))]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


@pytest.mark.parametrize(("language", "theirs"), [("en", "en"), ("same", "de")])
def test_a_chat_is_the_one_built_by_hand(tmp_path, language, theirs):
    # The draw is fixed for ever: another one is another prompt.
    found = few_shot(Made(), ["de", "en"], tmp_path, 2, language, None)
    assert found.messages(item("de", "x")) == said(
        "SYSTEM", f"{theirs} c7?", f"{theirs} c7!", f"{theirs} c1?", f"{theirs} c1!", "de x?"
    )
    assert found.messages(item("en", "x"))[1:3] == said("", "en c7?", "en c7!")[1:]
    assert (found.prompt.shots, found.prompt.language) == (2, language)


def test_a_prompt_of_ones_own_is_that_of_the_examples_too(tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{{ user }} ({{ language }})")
    (own,) = read_prompts([str(file)], {"massive": Made()}).values()
    found = few_shot(Made(), ["de"], tmp_path, 1, "en", own)
    assert [turn["content"] for turn in found.messages(item("de", "x"))] == [
        "en c7? (English)", "en c7!", "de x? (German)",
    ]  # fmt: skip
    assert found.prompt.name == "mine.jinja with 1 example in English"


@pytest.mark.parametrize(
    ("units", "shots", "fault"),
    [
        (["sw"], 1, r"massive has here in sw \(0\)"),
        (["de"], 10, r"massive has here in de \(9\)"),
    ],
)
def test_too_few_items_are_one_line(tmp_path, units, shots, fault):
    with pytest.raises(InputError, match=fault) as raised:
        few_shot(Made(), units, tmp_path, shots, "same", None)
    assert "\n" not in str(raised.value)


def test_directions_have_no_english_items(tmp_path):
    with pytest.raises(InputError, match="use --fewshot-language same"):
        few_shot(get_text_task("wmt23"), ["de-en"], tmp_path, 1, "en", None)


def test_real_training_items_are_parallel_and_not_in_the_test_split(data_dir):
    task = get_text_task("massive")
    found = few_shot(task, ["de", "sw"], data_dir, 5, "same", None)
    ids = {unit: [one.id for one in rows] for unit, rows in found.examples.items()}
    assert ids["de"] == ids["sw"]
    assert not set(ids["de"]) & {one.id for one in task.load(data_dir, "de")}


def plan(**prompts):
    return Plan(
        model="m", model_revision=None, model_sha256="1" * 64, adapter=None, adapter_sha256=None,
        dtype="float32", template="t", template_sha256="2" * 64, limit=None, layers=[],
        units={"massive": ["de"]}, task_versions={"massive": 2}, prompts=prompts,
    )  # fmt: skip


def test_a_number_a_language_and_other_examples_are_each_another_question(tmp_path):
    asked = {"massive/de": "a"}
    variants = [
        few_shot(Made(), ["de"], tmp_path, shots, language, None).prompt
        for shots, language in ((1, "en"), (2, "en"), (2, "same"))
    ]
    changed = variants[0].model_copy(update={"examples": {"de": "0" * 16}})
    plans = [plan(), *(plan(massive=one) for one in (*variants, changed))]
    assert len({question(one, asked, "massive", "de") for one in plans}) == 5
    assert question(plans[0], asked, "massive", "de") == "a"
    assert len({identity(one, {}) for one in plans}) == 4  # the last two by their answers
    assert Plan.model_validate_json(plans[1].model_dump_json()) == plans[1]
    assert "shots" not in plan(massive=UserPrompt(name="p", sha256="3" * 64)).model_dump_json()


def test_prompts_are_the_same_if_the_units_of_both_have_the_same_examples():
    def prompt(sha, **examples):
        return ShotPrompt(name="p", sha256=sha * 64, shots=1, language="same", examples=examples)

    one = prompt("1", de="a" * 16, sw="b" * 16)
    assert same_prompt(one, prompt("1", de="a" * 16, fr="c" * 16))
    assert not same_prompt(one, prompt("1", de="b" * 16))
    assert not same_prompt(one, prompt("2", de="a" * 16))
    assert not same_prompt(one, None)
    assert not same_prompt(UserPrompt(name="p", sha256="1" * 64), one)
    assert same_prompt(None, None)
