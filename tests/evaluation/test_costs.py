"""What a run's record says of its costs."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import xlt_bench
from tiny import byte_tokenizer
from xlt_bench.evaluation import codecarbon_energy, costs
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
    assert found.energy_source == "rapl"


def test_energy_is_unknown_without_a_counter_or_if_it_began_again(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "_RAPL", tmp_path / "energy")
    monkeypatch.setattr(costs.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(codecarbon_energy, "_tracker", lambda: None)
    assert energy_of(costs.Meter()) == (None, None)
    (tmp_path / "energy").write_text("7000000")
    meter = costs.Meter()
    (tmp_path / "energy").write_text("9500000")
    assert energy_of(meter) == (2.5, "rapl")
    (tmp_path / "energy").write_text("100")
    assert energy_of(meter) == (None, None)
    (tmp_path / "energy").unlink()
    assert energy_of(meter) == (None, None)


def energy_of(meter):
    found = meter.read()
    return found["energy_joules"], found["energy_source"]


# Runs with no counter, no network, and settings of codecarbon that would write and send.
ESTIMATED = """
import socket, sys
def refuse(*_): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
import codecarbon, logging, xlt_bench
from xlt_bench.evaluation import costs
costs._RAPL = Path("missing")
logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
whole = codecarbon.OfflineEmissionsTracker(
    tracking_mode="process", output_methods=[], emissions_endpoint="", log_level="critical",
    force_carbon_intensity_g_co2e_kwh=0,
)
model, root = sys.argv[1:]
def evaluate(output):
    return xlt_bench.evaluate(
        model, tasks=["massive", "retrieval"], languages=["de", "sw"], limit=3, layers=[2],
        output=output, data_dir=root, device="cpu", progress=False,
    ).record.costs
evaluate("first")  # the hardware is detected
whole.start_task("all")
found = evaluate("second")
print(found.energy_source, found.energy_joules, whole.stop_task().energy_consumed * 3.6e6)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("codecarbon") is None, reason="codecarbon is not installed")
def test_codecarbon_estimates_the_energy_offline_and_in_silence(tiny_model, made_up_root, tmp_path):
    (tmp_path / ".codecarbon.config").write_text(
        "[codecarbon]\nforce_cpu_power = 90\nforce_ram_power = 10\noutput_methods = csv,api\n"
        "emissions_endpoint = http://localhost:1/emissions\nlog_level = debug\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(xlt_bench.__file__).parents[1]), *sys.path]
    )
    words = [sys.executable, "-c", ESTIMATED, str(tiny_model), str(made_up_root)]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")
    source, joules, whole = done.stdout.split()
    assert source == "codecarbon"
    assert 0 < float(joules) < float(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".codecarbon.config",
        "first",
        "second",
    ]


def test_sums_are_unknown_if_a_part_is():
    parts = [
        {"tokens_in": 5, "tokens_out": None, "device_seconds": 1.5, "peak_memory_bytes": 70},
        {"tokens_in": 6, "tokens_out": 2, "device_seconds": 2.0, "peak_memory_bytes": 50},
    ]
    expected = Costs(tokens_in=11, device_seconds=3.5, peak_memory_bytes=70)
    assert costs.of_parts(parts) == expected


@pytest.mark.parametrize(
    ("sources", "energy"),
    [
        (["rapl", "rapl"], (5, "rapl")),
        (["rapl", "codecarbon"], (None, None)),
        ([None] * 2, (5, None)),
    ],
)
def test_energies_are_added_if_they_are_of_one_source(sources, energy):
    parts = [{"energy_joules": i + 2, "energy_source": one} for i, one in enumerate(sources)]
    found = costs.of_parts(parts)
    assert (found.energy_joules, found.energy_source) == energy


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=9),
    st.integers(0, 10**6),
    st.floats(0, 1e4).map(lambda seconds: round(seconds, 3)),
)
def test_what_several_units_took_is_split_by_their_items(sizes, tokens, seconds):
    whole = {"tokens_in": tokens, "seconds": seconds, "tokens_out": None, "batch_size": "32"}
    parts = costs.split_costs(whole, sizes)
    assert sum(part["tokens_in"] for part in parts) == tokens
    assert sum(part["seconds"] for part in parts) == pytest.approx(seconds, abs=0.001)
    for part, size in zip(parts, sizes, strict=True):
        assert abs(part["tokens_in"] - tokens * size / sum(sizes)) <= 1
        assert (part["tokens_out"], part["batch_size"]) == (None, "32")


def test_older_records_stay_valid_and_numbers_have_bounds(make_run, tmp_path):
    old = json.loads((make_run(tmp_path / "run") / "record.json").read_text())
    old.pop("costs", None)
    assert Record.model_validate(old).costs is None
    for name, value in (("tokens_in", -1), ("energy_joules", 1e16), ("peak_memory_bytes", 10**16)):
        with pytest.raises(ValidationError, match=name):
            Record.model_validate(old | {"costs": {name: value}})
