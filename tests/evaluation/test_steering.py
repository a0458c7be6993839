"""A steered run answers as plain transformers with a hook, language by language; its record."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel

import xlt_bench
from steered import random_vectors, save_steering, with_devtest
from tiny import byte_tokenizer, load_model
from xlt_bench.evaluation import predict
from xlt_bench.evaluation.config import Options, prepare
from xlt_bench.evaluation.run import evaluate
from xlt_bench.metrics.retrieval import all_pairs
from xlt_bench.models.chat import encode_prompt, render_chat, set_chat_template
from xlt_bench.results.run_folder import (
    layer_path,
    predictions_path,
    read_layer,
    read_predictions,
    read_record,
)
from xlt_bench.store.build import build, connect
from xlt_bench.submissions import accepted
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import check
from xlt_bench.tasks.registry import get_text_task, text_tasks
from xlt_bench.training.steer import SteerOptions, steer

# The units of text and what is added when they are answered.
UNITS = {
    ("massive", "de"): ("de", 1),
    ("massive", "sw"): ("sw", 1),
    ("wmt23", "de-en"): ("de", 1),
    ("wmt23", "en-de"): ("de", -1),
}
SCALE = 2.0
VECTORS = random_vectors("de", "sw", size=0.3)


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    for task in map(get_text_task, text_tasks()):
        monkeypatch.setattr(task, "max_new_tokens", 8)


@pytest.fixture
def options(tiny_model, made_up_root, tmp_path):
    """A run of the steered model; vectors of de and sw at layer 3."""
    folder = save_steering(tmp_path / "vectors", tiny_model, VECTORS, scale=SCALE)
    return Options(
        model=str(tiny_model), adapters=[str(folder)], output=tmp_path / "run", dtype="float32",
        device="cpu", data_dir=str(made_up_root), tasks=["massive", "wmt23", "retrieval"],
        languages=["de", "en", "sw"], layers=[1, 2, 3, 4],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def only_what_is_there(monkeypatch):
    """The made-up data lack the English of MASSIVE."""
    monkeypatch.setattr(get_text_task("massive"), "units", lambda: ["de", "sw"])


def run(options):
    [(folder, record)] = evaluate(prepare(options))
    assert folder == options.output
    return record


def answers(folder):
    return {
        unit: [one.hypothesis for one in read_predictions(predictions_path(folder, *unit))]
        for unit in UNITS
        if predictions_path(folder, *unit).exists()
    }


def layers(folder):
    return {layer: read_layer(layer_path(folder, layer)) for layer in (1, 2, 3, 4)}


def hooked(model, vector):
    """A plain model whose third block adds a vector to its output."""

    def add(_block, _inputs, output):
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    model.get_submodule("model.layers.2").register_forward_hook(add)
    return model.eval()


def plain_answers(model, root, unit):
    """The answers to a unit, each prompt on its own, by transformers' generate."""
    tokenizer, task, found = byte_tokenizer(), get_text_task(unit[0]), []
    set_chat_template(tokenizer, None)
    for item in task.load(root, unit[1]):
        text = render_chat(tokenizer, item.messages, add_generation_prompt=True)
        ids = torch.tensor([encode_prompt(tokenizer, text)])
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8
        )
        found.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    return found


def test_answers_are_those_of_a_plain_model_with_a_hook(options, tiny_model, made_up_root):
    record = run(options)
    found, bare = answers(options.output), {}
    for unit, (code, sign) in UNITS.items():
        model = hooked(load_model(tiny_model), sign * SCALE * VECTORS[code])
        assert found[unit] == plain_answers(model, made_up_root, unit), unit
        bare[unit] = plain_answers(load_model(tiny_model), made_up_root, unit)
        assert found[unit] != bare[unit], unit  # or the test could not fail
    adapter = record.adapter
    assert (adapter.peft_type, adapter.recipe) == ("STEERING", "steering at layer 3, scale 2")
    assert (adapter.alignment_languages, adapter.merged) == (["de", "sw"], False)
    assert adapter.trained_on_flores is False
    assert adapter.probe_differing > 0
    norms = {code: pytest.approx(SCALE * float(v.norm())) for code, v in VECTORS.items()}
    assert adapter.change_norms == norms
    assert adapter.training.settings["steering.layer"] == 3
    nothing = replace(options, adapters=[], output=options.output.with_name("bare"))
    run(nothing)
    assert answers(nothing.output) == bare


def test_retrieval_changes_from_the_steered_layer_on(options, tiny_model, made_up_root):
    options = replace(options, tasks=["retrieval"])
    run(options)
    bare = replace(options, adapters=[], output=options.output.with_name("bare"))
    run(bare)
    steered, plain = layers(options.output), layers(bare.output)
    states, tokenizer = {}, byte_tokenizer()
    for code, name in {"de": "deu_Latn", "en": "eng_Latn", "sw": "swh_Latn"}.items():
        vector = SCALE * VECTORS[code] if code in VECTORS else torch.zeros(32)
        model, read = hooked(load_model(tiny_model), vector), []
        model.get_submodule("model.layers.3").register_forward_pre_hook(
            lambda _block, inputs, read=read: read.append(inputs[0][0].mean(dim=0))
        )
        path = made_up_root / "flores200_dataset" / "dev" / f"{name}.dev"
        for line in path.read_text().splitlines():
            with torch.no_grad():
                model(torch.tensor([tokenizer(line)["input_ids"]]))
        states[code] = torch.stack(read)
    assert [steered[layer] == plain[layer] for layer in (1, 2, 3)] == [True, True, False]
    wanted = all_pairs(states)
    assert all(np.array_equal(steered[3][pair], wanted[pair]) for pair in wanted)


@pytest.mark.slow
def test_each_language_is_answered_as_alone(options):
    options = replace(options, tasks=["massive", "wmt23"])
    run(options)
    together, alone = answers(options.output), {}
    for code in ("de", "sw"):
        one = replace(options, languages=[code], output=options.output.with_name(code))
        run(one)
        alone |= answers(one.output)
    assert together == alone


def test_scale_0_is_the_bare_model_and_the_probe_says_so(options, tiny_model, tmp_path):
    zero = save_steering(tmp_path / "zero", tiny_model, VECTORS, scale=0.0)
    record = run(replace(options, adapters=[str(zero)]))
    bare = replace(options, adapters=[], output=tmp_path / "bare")
    run(bare)
    assert answers(options.output) == answers(bare.output)
    assert layers(options.output) == layers(bare.output)
    assert f"WARNING: adapter {zero} changes no weight" in record.notes
    assert record.adapter.probe_differing == 0


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_answers(options, monkeypatch, tmp_path):
    whole = replace(options, output=tmp_path / "whole")
    run(whole)
    write, done = predict.write_predictions, []

    def stop(path, predictions):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(path)
        write(path, predictions)

    monkeypatch.setattr(predict, "write_predictions", stop)
    with pytest.raises(KeyboardInterrupt):
        run(options)
    monkeypatch.setattr(predict, "write_predictions", write)
    assert len(answers(options.output)) == 1
    run(options)
    assert answers(options.output) == answers(whole.output)
    assert layers(options.output) == layers(whole.output)


def test_a_model_in_memory_is_given_back_without_a_hook(options, tiny_model, tmp_path):
    model = load_model(tiny_model)
    ids = torch.tensor([[0, 5, 9, 40]])
    before = model(ids).logits
    found = xlt_bench.evaluate(
        model, adapter=options.adapters[0], tokenizer=byte_tokenizer(), tasks="massive",
        languages="de", output=tmp_path / "memory", data_dir=options.data_dir, progress=False,
    )  # fmt: skip
    assert found.record.adapter.probe_differing > 0
    assert torch.equal(model(ids).logits, before)
    run(replace(options, tasks=["massive"], languages=["de"]))
    unit = ("massive", "de")
    assert answers(tmp_path / "memory")[unit] == answers(options.output)[unit]


def test_another_scale_does_not_resume(options, run_cli, tmp_path):
    options = replace(options, tasks=["massive"])
    run(options)
    path = tmp_path / "vectors" / "steering_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale": 1.0}))
    with pytest.raises(ValueError, match=r"was started with .*choose another --output"):
        run(options)


def test_what_is_not_steered_is_told(options, tiny_model, tmp_path, made_up_root):
    folder = save_steering(tmp_path / "de", tiny_model, {"de": VECTORS["de"]})
    record = run(replace(options, adapters=[str(folder)], tasks=["massive"]))
    assert f"not steered, since {folder} has no vector: sw" in record.notes
    root = with_devtest(made_up_root, tmp_path / "data")
    other = replace(options, data_dir=str(root), tasks=["retrieval-devtest"], layers=[2])
    record = run(replace(other, output=tmp_path / "devtest"))
    assert any(note.startswith("retrieval is inflated: the vectors") for note in record.notes)


def test_a_steered_adapter_is_held_against_its_sft(
    options, tiny_model, tiny_adapter, made_up_root, tmp_path, run_cli
):
    settings = "{task.name: massive, task.units: [de], training.max_steps: 100}"
    card = f"---\nxlt_bench: {{recipe: mine, seed: 3, settings: {settings}}}\n---\n"
    adapter = tmp_path / "sft"
    PeftModel.from_pretrained(load_model(tiny_model), str(tiny_adapter)).save_pretrained(adapter)
    (adapter / "README.md").write_text(card)
    root, folder = with_devtest(made_up_root, tmp_path / "data"), tmp_path / "steered"
    steer(
        SteerOptions(
            folder, str(tiny_model), str(adapter), 3, ["de", "sw"], scale=3.0, dtype="float32",
            device="cpu", data_dir=str(root),
        )
    )  # fmt: skip
    submissions, ids = tmp_path / "submissions", {}
    for name in (adapter, folder):
        asked = replace(options, adapters=[str(name)], output=tmp_path / f"run-{name.name}")
        run(asked)
        done = submit(asked.output, About(), submissions, made_up_root).folder
        accepted.accept(submissions, [done.name])
        ids[name.name] = done.name
        assert check(done, made_up_root).state == "checked"
    record = read_record(tmp_path / "run-steered")
    assert record.adapter.recipe == "mine + steering at layer 3, scale 3"
    assert record.adapter.training.seed == 3
    vector = 3.0 * torch.from_numpy(_vector(folder, "de"))
    plain = PeftModel.from_pretrained(load_model(tiny_model), str(adapter)).merge_and_unload()
    unit = ("massive", "de")
    assert answers(tmp_path / "run-steered")[unit] == plain_answers(
        hooked(plain, vector), made_up_root, unit
    )
    assert build(submissions, tmp_path / "db").refused == []
    with connect(tmp_path / "db") as store:
        methods = "SELECT kind, layers, task FROM methods ORDER BY kind"
        assert store.execute(methods).fetchall() == [
            ("sft", [], "massive"),
            ("steered", [3], "massive"),
        ]
        chosen = store.execute(
            "SELECT baseline, kind FROM baselines WHERE submission = ? AND task = 'massive'",
            [ids["steered"]],
        ).fetchall()
        assert chosen == [(ids["sft"], "sft")]
    code, _, err = run_cli(
        "submissions", "verify", ids["steered"], "--by", "a maintainer", "--items", 8, "--model",
        tiny_model, "--adapter", folder, "--device", "cpu", "--data-dir", made_up_root,
        "--submissions", submissions,
    )  # fmt: skip
    assert code == 0, err


def _vector(folder, code):
    from safetensors.numpy import load_file

    return load_file(folder / "steering.safetensors")[code]
