"""A user's own prompts: rendered by Jinja, recorded, and never compared with the benchmark's."""

from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import Template

from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import question
from xlt_bench.metrics.translation import is_wrong_language
from xlt_bench.results.record import Plan, UserPrompt
from xlt_bench.submissions.schema import covered_tasks, identity
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.prompt_file import read_prompts
from xlt_bench.tasks.registry import get_text_task

CANDIDATES = tuple(get_text_task("wmt23").test_set().identifier_languages)
ITEMS = {
    "massive": Item("1", "sw", "SYSTEM", "weka kengele {{ unit }}", "None", "None"),
    "wmt23": Item("2", "en-de", "SYSTEM", "Good night.", "Gute Nacht.", "Gute Nacht."),
}


def read(tmp_path, text, task="massive"):
    file = tmp_path / "mine.jinja"
    file.write_text(text, encoding="utf-8")
    return read_prompts([f"{task}={file}"], {task: get_text_task(task)})[task]


def test_a_plain_file_is_the_users_message(tmp_path):
    text = "Slots of {{ sentence }} ({{ language }}, {{ unit }})?\n{# unseen #}{{ system|lower }}"
    messages = read(tmp_path, text).messages(ITEMS["massive"])
    expected = Template(text).render(
        sentence=ITEMS["massive"].user, language="Swahili", unit="sw", system="SYSTEM"
    )
    assert messages == [{"role": "user", "content": expected}]
    assert "{{ unit }}" in messages[0]["content"]  # a sentence is text, and no template


def test_blocks_give_both_messages_and_directions_have_two_languages(tmp_path):
    text = (
        "ignored {% block system %} {{ source_language }} to {{ target_language }} {% endblock %}"
        "{% block user %}{{ sentence }}\n{{ language }}{% endblock %}"
    )
    assert read(tmp_path, text, "wmt23").messages(ITEMS["wmt23"]) == [
        {"role": "system", "content": "English to German"},
        {"role": "user", "content": "Good night.\nGerman"},
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{% if %}", "not a Jinja template"),
        ("{% block system %}x{% endblock %}", "needs a block `user`"),
        ("{% block usr %}x{% endblock %}", "block 'usr' is unknown"),
        ("{{ sentance }}", "it can use sentence"),
        ("{{ ().__class__.__base__.__subclasses__() }}", "fails on item 1 of sw"),
        ("{{ 1 // 0 }}", "fails on item 1 of sw"),
        ("{# nothing #}", "empty for item 1"),
    ],
)
def test_a_faulty_file_is_one_line(tmp_path, text, fault):
    with pytest.raises(InputError, match=fault) as raised:
        read(tmp_path, text).messages(ITEMS["massive"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["slots=mine.jinja"], "'slots' is not a text task"),
        (["mine.jinja"], "does not name its task"),
        (["massive=mine.jinja", "massive=mine.jinja"], "names massive twice"),
        (["massive=missing.jinja"], "cannot be read"),
        (["massive=latin.jinja"], "not UTF-8"),
    ],
)
def test_faulty_options_are_one_line(tmp_path, monkeypatch, given, fault):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jinja").write_text("{{ sentence }}")
    (tmp_path / "latin.jinja").write_bytes(b"\xe9{{ sentence }}")
    with pytest.raises(InputError, match=fault):
        read_prompts(given, {name: get_text_task(name) for name in ("massive", "wmt23")})


def test_a_file_alone_is_for_the_only_task(tmp_path):
    file = tmp_path / "a=b.jinja"
    file.write_text("{{ sentence }}")
    assert list(read_prompts([str(file)], {"uner": get_text_task("uner")})) == ["uner"]


def plan(**own):
    given = {
        "model": "m", "model_revision": None, "model_sha256": "1" * 64, "adapter": None,
        "adapter_sha256": None, "dtype": "float32", "template": "t", "template_sha256": "2" * 64,
        "limit": None, "layers": [], "units": {"massive": ["sw"], "uner": ["da"]},
        "task_versions": {"massive": 2, "uner": 2},
    }  # fmt: skip
    return Plan(**given, prompts={task: UserPrompt(name="p", sha256=s) for task, s in own.items()})


class Asked:
    def __init__(self, of):
        self.plan, self.data_digests = of, {"massive/sw": "a", "uner/da": "b"}


def test_answers_to_another_prompt_are_another_question():
    usual, own, other = plan(), plan(massive="3" * 64), plan(massive="4" * 64)
    digests = {"massive/sw": "a", "uner/da": "b"}
    asked = [question(one, digests, "massive", "sw") for one in (usual, own, other)]
    assert len(set(asked)) == 3
    assert asked[0] == "a"
    assert {question(one, digests, "uner", "da") for one in (usual, own, other)} == {"b"}
    assert covered_tasks(Asked(own), Asked(usual)) == ["uner"]
    assert covered_tasks(Asked(own), Asked(own)) == ["massive", "uner"]
    ids = {identity(one, {"massive/sw": "5" * 16}) for one in (usual, own, other)}
    assert len(ids) == 3


NATIVE = read_prompts(
    [f"{task}=native" for task in ("massive", "wmt23", "uner")],
    {task: get_text_task(task) for task in ("massive", "wmt23", "uner")},
)


@pytest.mark.parametrize("task", NATIVE)
def test_native_prompts_are_in_the_language_of_the_item(task, data_dir):
    """By the language identifier, which saw none of these texts; slot names are English words."""
    prompt, seen = NATIVE[task], set()
    for unit in prompt.task.test_set().units:
        item = prompt.task.load(data_dir, unit)[0]
        texts = [m["content"] for m in prompt.messages(item)]
        if unit == "en" or unit.startswith("en-"):
            assert texts == [m["content"] for m in item.messages]
            continue
        own = texts[0].partition("{")[0].replace("song name", "")
        language = unit.partition("-")[0]
        assert not is_wrong_language(own, language, CANDIDATES), (unit, own)
        assert is_wrong_language(own, "en", CANDIDATES), (unit, own)
        assert prompt.task.sentence(item) in texts[-1]
        assert own not in seen
        seen.add(own)


def test_a_native_prompt_of_uner_has_the_same_example(data_dir):
    for unit in ("da", "zh"):
        item = get_text_task("uner").load(data_dir, unit)[0]
        (message,) = NATIVE["uner"].messages(item)
        example = item.user.split("results:\n\n")[1].split("\n\nConsidering")[0]
        assert example.count("Results") == 1
        assert message["content"].count(f"\n\n{example}\n\n") == 1
        assert message["content"].endswith(f"\n\n{get_text_task('uner').sentence(item)}")


def test_native_prompts_are_the_ranked_languages_and_three_tasks(tmp_path):
    with pytest.raises(InputError, match="massive=native: there is no prompt for ko; leave it"):
        NATIVE["massive"].messages(replace(ITEMS["massive"], unit="ko"))
    with pytest.raises(InputError, match="only massive, uner, wmt23 have prompts"):
        read_prompts(["intents=native"], {"intents": get_text_task("intents")})


def test_a_file_called_native_is_not_taken_for_the_benchmarks_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("native").write_text("{{ sentence }}")
    tasks = {"massive": get_text_task("massive")}
    shipped, own = (
        read_prompts([f"massive={file}"], tasks)["massive"].prompt
        for file in ("native", "./native")
    )
    assert (shipped.name, own.name) == ("native", "./native")
    assert shipped == NATIVE["massive"].prompt
