"""What a run's record says of its costs."""

import json

import pytest
from pydantic import ValidationError

import xlt_bench
from tiny import byte_tokenizer
from xlt_bench.evaluation import costs
from xlt_bench.models.chat import encode_prompt, encode_sentence, render_chat, set_chat_template
from xlt_bench.results.record import Costs, Record
from xlt_bench.tasks import retrieval
from xlt_bench.tasks.registry import get_text_task


def test_tokens_are_those_of_prompts_sentences_and_answers(
    tiny_model, made_up_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(get_text_task("massive"), "max_new_tokens", 6)
    counter = tmp_path / "energy"
    counter.write_text("5000000")
    monkeypatch.setattr(costs, "_RAPL", counter)
    run = xlt_bench.evaluate(
        tiny_model, tasks=["massive", "retrieval"], languages=["de", "sw"], limit=3, layers=[2],
        output=tmp_path / "run", data_dir=made_up_root, device="cpu", progress=False,
    )  # fmt: skip
    tokenizer = byte_tokenizer()
    args = set_chat_template(tokenizer, None).args
    prompts = [
        encode_prompt(
            tokenizer, render_chat(tokenizer, item.messages, add_generation_prompt=True, **args)
        )
        for unit in ("de", "sw")
        for item in get_text_task("massive").load(made_up_root, unit)[:3]
    ]
    sentences = [
        encode_sentence(tokenizer, text)
        for code in ("de", "sw")
        for text in retrieval.TASK.load(made_up_root, code)[:3]
    ]
    found = run.record.costs
    assert found.tokens_in == sum(map(len, [*prompts, *sentences]))
    assert 0 < found.tokens_out <= 6 * len(prompts)
    assert found.device_seconds == pytest.approx(sum(run.record.seconds.values()))
    assert found.peak_memory_bytes > 10_000_000
    assert found.energy_joules == 0  # the counter stood still


def test_energy_is_unknown_without_a_counter_or_if_it_began_again(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "_RAPL", tmp_path / "energy")
    monkeypatch.setattr(costs.torch.cuda, "is_available", lambda: False)
    assert costs.Meter().read()["energy_joules"] is None
    (tmp_path / "energy").write_text("7000000")
    meter = costs.Meter()
    (tmp_path / "energy").write_text("9500000")
    assert meter.read()["energy_joules"] == 2.5
    (tmp_path / "energy").write_text("100")
    assert meter.read()["energy_joules"] is None


def test_sums_are_unknown_if_a_part_is():
    parts = [
        {"tokens_in": 5, "tokens_out": None, "device_seconds": 1.5, "peak_memory_bytes": 70},
        {"tokens_in": 6, "tokens_out": 2, "device_seconds": 2.0, "peak_memory_bytes": 50},
    ]
    expected = Costs(tokens_in=11, device_seconds=3.5, peak_memory_bytes=70)
    assert costs.of_parts(parts) == expected


def test_older_records_stay_valid_and_numbers_have_bounds(make_run, tmp_path):
    old = json.loads((make_run(tmp_path / "run") / "record.json").read_text())
    old.pop("costs", None)
    assert Record.model_validate(old).costs is None
    for name, value in (("tokens_in", -1), ("energy_joules", 1e16), ("peak_memory_bytes", 10**16)):
        with pytest.raises(ValidationError, match=name):
            Record.model_validate(old | {"costs": {name: value}})
