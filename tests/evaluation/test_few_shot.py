"""Runs of the embedded model with examples before the prompts."""

import random

import pytest
from transformers import AutoTokenizer

from xlt_bench.data.root import data_root
from xlt_bench.models import embedded
from xlt_bench.models.lm import XltLM
from xlt_bench.results.run_folder import read_record
from xlt_bench.submissions.schema import missing
from xlt_bench.tasks.registry import get_text_task


def test_examples_are_in_the_prompt_recorded_and_not_ranked(tmp_path, run_cli, monkeypatch):
    prompts, generate = [], XltLM.generate

    def spy(lm, asked, *rest):
        prompts.extend(asked)
        return generate(lm, asked, *rest)

    monkeypatch.setattr(XltLM, "generate", spy)
    monkeypatch.setattr(get_text_task("massive"), "max_new_tokens", 4)
    given = (
        "evaluate --model embedded --device cpu --data-dir mini --tasks massive --limit 2".split()
    )
    given += ["--languages", "en,sw"]
    shots = ["--num-fewshot", 2, "--fewshot-language", "en"]
    run, usual = tmp_path / "run", tmp_path / "usual"
    code, _, err = run_cli(*given, *shots, "--output", run)
    assert code == 0
    note = "massive: answered with 2 examples in English, so not ranked"
    assert note in " ".join(err.split())

    task, mini = get_text_task("massive"), data_root("mini")
    rows = task.load(mini, "en", "train")
    turns = []
    for one in (rows[i] for i in random.Random(1234).sample(range(len(rows)), 2)):
        turns += [
            {"role": "user", "content": one.user},
            {"role": "assistant", "content": one.target},
        ]
    tokenizer = AutoTokenizer.from_pretrained(embedded.NAMES["embedded"])
    asked = [item for unit in ("en", "sw") for item in task.load(mini, unit)[:2]]
    assert prompts[-4:] == [
        tokenizer.apply_chat_template(
            [item.messages[0], *turns, item.messages[1]], add_generation_prompt=True, tokenize=False
        )
        for item in asked
    ]

    record = read_record(run)
    prompt = record.plan.prompts["massive"]
    assert (prompt.shots, prompt.language, set(prompt.examples)) == (2, "en", {"en", "sw"})
    assert "the benchmark's prompt" in missing(record, "massive")
    run_cli(*given, "--num-fewshot", 0, "--output", usual)
    assert read_record(usual).plan == record.plan.model_copy(update={"prompts": {}})
    assert prompts[-4:] == [
        tokenizer.apply_chat_template(item.messages, add_generation_prompt=True, tokenize=False)
        for item in asked
    ]
    code, _, err = run_cli("compare", run, usual, "--data-dir", "mini")
    told = "the prompts differ (2 examples in English and the benchmark's)"
    assert told in " ".join(err.split())
    assert run_cli("score", run, "--data-dir", "mini")[0] == 0
    code, _, err = run_cli(*given, "--output", run)
    told = "other prompts of massive: 2 examples in English there, the benchmark's now"
    assert (code, told in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("--num-fewshot 2", "has no prompts; choose --tasks massive,wmt23,uner"),
        ("--tasks massive --num-fewshot -1", "must be between 0 and 1,000, got -1"),
        ("--tasks massive --num-fewshot 1001", "must be between 0 and 1,000, got 1001"),
        ("--tasks massive --num-fewshot 2 --fewshot-language fr", "unknown --fewshot-language"),
        ("--tasks xcopa --num-fewshot 2", "has lm-eval's own examples"),
        (
            "--tasks massive --languages de --num-fewshot 2",
            "here in de (0); choose other",
        ),
        ("--tasks wmt23 --num-fewshot 2 --fewshot-language en", "no items in English"),
        ("--tasks wmt23 --num-fewshot 2 --languages he,uk", "uk-en (0); choose other --languages"),
    ],
)
def test_examples_that_cannot_be_given_are_one_line(tmp_path, run_cli, options, fault):
    run = tmp_path / "run"
    given = ["evaluate", "--model", "embedded", "--data-dir", "mini", "--output", run]
    code, _, err = run_cli(*given, *options.split())
    assert code == 2
    assert fault in " ".join(err.split())
    assert len(err.strip().splitlines()[-1]) < 300
    assert not run.exists()


def test_truncated_prompts_are_told(tmp_path, run_cli, monkeypatch):
    monkeypatch.setattr(get_text_task("massive"), "max_new_tokens", 4)
    (tmp_path / "long.jinja").write_text("{{ sentence * 2000 }}")
    given = "evaluate --model embedded --device cpu --data-dir mini --tasks massive --limit 1"
    given += " --languages en --output"
    long = tmp_path / "long"
    code, _, err = run_cli(*given.split(), long, "--prompt", f"massive={long}.jinja")
    assert code == 0
    assert "to leave room for the answer: 1" in " ".join(err.split())
