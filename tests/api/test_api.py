"""The Python interface against the command line, on a tiny random model."""

import csv
import json
import logging
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model

import xlt_bench
from tiny import byte_tokenizer, load_model, with_lora
from xlt_bench.api.quiet import quiet
from xlt_bench.results.run_folder import read_record
from xlt_bench.submissions.move import move
from xlt_bench.tasks.registry import get_text_task

ASKED = {"tasks": ["massive", "retrieval"], "languages": ["de", "sw"], "limit": 3}


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch):
    monkeypatch.setattr(get_text_task("massive"), "max_new_tokens", 6)


@pytest.fixture(scope="module")
def short(made_up_root):
    return ASKED | {"data_dir": made_up_root}


@pytest.fixture(scope="module")
def by_name(tiny_model, tiny_adapter, short, tmp_path_factory):
    """A run of the adapter by its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(get_text_task("massive"), "max_new_tokens", 6)
        return xlt_bench.evaluate(
            tiny_model, tiny_adapter, output=tmp_path_factory.mktemp("named") / "run",
            dtype="float32", device="cpu", progress=False, **short,
        )  # fmt: skip


def test_evaluate_does_what_the_command_does(
    by_name, tiny_model, tiny_adapter, made_up_root, run_cli, tmp_path
):
    code, _, _ = run_cli(
        "evaluate", "--model", tiny_model, "--adapter", tiny_adapter, "--output", tmp_path / "run",
        "--tasks", "massive,retrieval", "--languages", "de,sw", "--limit", 3, "--dtype", "float32",
        "--device", "cpu", "--data-dir", made_up_root,
    )  # fmt: skip
    assert code == 0
    typed, called = read_record(tmp_path / "run"), read_record(by_name.folder)
    assert called.plan == typed.plan
    assert called.results == typed.results
    code, out, _ = run_cli("score", by_name.folder, "--format", "csv", "--data-dir", made_up_root)
    assert code == 0
    rows = list(csv.DictReader(out.splitlines()))
    for kind, frame in (("unit", by_name.scores()), ("layer", by_name.layers())):
        values = [float(row["value"]) for row in rows if row["kind"] == kind]
        assert frame.value.tolist() == pytest.approx(values)
    means = [row for row in rows if row["kind"] == "mean"]
    assert by_name.means().split.tolist() == [row["name"] for row in means]


def test_a_model_in_memory_is_the_same_system_and_is_left_as_it_was(
    by_name, tiny_model, tiny_adapter, short, tmp_path
):
    model = PeftModel.from_pretrained(load_model(tiny_model), tiny_adapter, is_trainable=True)
    model.train()
    ids = torch.arange(2, 12)[None]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trainable
    modules = {name: type(module) for name, module in model.named_modules()}
    config = model.base_model.model.config.to_dict()
    expected = model(input_ids=ids).logits
    tokenizer = byte_tokenizer()
    run = xlt_bench.evaluate(
        model, tokenizer=tokenizer, output=tmp_path / "run", progress=False, **short
    )
    # The same system, so that the two are one on the leaderboard and gains are over the same base.
    assert run.record.plan.model_sha256 == by_name.record.plan.model_sha256
    assert run.record.plan.adapter_sha256 == by_name.record.plan.adapter_sha256
    assert run.record.adapter.probe_differing == by_name.record.adapter.probe_differing > 0
    assert run.record.adapter.merged is False
    assert run.scores().value.tolist() == by_name.scores().value.tolist()
    gains = run.gains(by_name)
    assert gains.attrs["notes"] == []
    assert gains.gain.tolist() == [0.0] * len(gains)
    # Left as it was.
    assert model.training
    assert [name for name, one in model.named_parameters() if one.requires_grad] == trainable
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert model.base_model.model.config.to_dict() == config
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=0, atol=0)
    assert tokenizer.chat_template is None


def test_a_changed_model_in_memory_is_another_base_model(tiny_model, short, tmp_path):
    model = load_model(tiny_model)
    run = xlt_bench.evaluate(model, output=tmp_path / "a", progress=False, **short)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    changed = xlt_bench.evaluate(model, output=tmp_path / "b", progress=False, **short)
    named = xlt_bench.evaluate(
        tiny_model, dtype="float32", device="cpu", output=tmp_path / "c", progress=False, **short
    )
    assert run.record.plan == named.record.plan
    assert changed.record.plan.model_sha256 not in (None, named.record.plan.model_sha256)
    assert "base models differ" in changed.gains(named).attrs["notes"][0]


def test_an_adapter_that_cannot_be_taken_out_is_refused_and_left_alone(tiny_model, short, tmp_path):
    model = with_lora(load_model(tiny_model), 1)
    model.merge_adapter()
    with pytest.raises(xlt_bench.InputError, match="is merged; call unmerge_adapter"):
        xlt_bench.evaluate(model, output=tmp_path / "run", **short)
    model.unmerge_adapter()
    pissa = with_lora(load_model(tiny_model), 1, init_lora_weights="pissa")
    with pytest.raises(xlt_bench.InputError, match="starts from pissa"):
        xlt_bench.evaluate(pissa, output=tmp_path / "run", **short)
    assert not (tmp_path / "run").exists()


def test_ia3_in_memory_is_taken_out_too(tiny_model, short, tmp_path):
    config = IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"], init_ia3_weights=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = get_peft_model(load_model(tiny_model), config)
    model.save_pretrained(tmp_path / "adapter")
    inside = xlt_bench.evaluate(model, output=tmp_path / "a", progress=False, **short)
    named = xlt_bench.evaluate(
        tiny_model, tmp_path / "adapter", dtype="float32", device="cpu", output=tmp_path / "b",
        progress=False, **short,
    )  # fmt: skip
    assert inside.record.plan.adapter_sha256 == named.record.plan.adapter_sha256
    assert inside.scores().equals(named.scores())


def test_items_are_scored_alone(by_name, made_up_root):
    items = by_name.items("massive", "sw")
    gold = get_text_task("massive").load(made_up_root, "sw")[:3]
    assert items.id.tolist() == [item.id for item in gold]
    assert items.text.tolist() == ["play song 0 now", "play song 1 now", "play song 2 now"]
    assert items.reference.tolist() == [item.target for item in gold]
    assert items.score.between(0, 100).all()
    with pytest.raises(xlt_bench.InputError, match="unknown unit of massive 'fr'"):
        by_name.items("massive", "fr")


def test_gains_are_those_of_the_command(make_run, made_up_root, run_cli, tmp_path):
    ours = make_run(tmp_path / "a", 1, right=0.9, adapter="x")
    theirs = make_run(tmp_path / "b", 2, right=0.2)
    found = xlt_bench.compare(ours, theirs, data_dir=made_up_root)
    _, out, err = run_cli("compare", ours, theirs, "--format", "json", "--data-dir", made_up_root)
    printed = [row for row in json.loads(out) if row]
    assert found.unit.tolist() == [row["unit"] for row in printed]
    for column in ("gain", "low", "high", "system", "baseline"):
        assert found[column].tolist() == pytest.approx([row[column] for row in printed], abs=1e-6)
    assert found.attrs["notes"] == err.splitlines()
    run = xlt_bench.load_run(ours, data_dir=made_up_root)
    pd.testing.assert_frame_equal(run.gains(theirs), found)
    pd.testing.assert_frame_equal(run.gains(xlt_bench.load_run(theirs)), found)


def test_seeds_are_those_of_the_command(make_run, made_up_root, run_cli, tmp_path):
    runs = [
        make_run(tmp_path / f"{kind}{seed}", seed, right=right, adapter=f"{kind}{seed}")
        for kind, right in (("a", 0.9), ("b", 0.2))
        for seed in (1, 2)
    ]
    found = xlt_bench.compare(runs[:2], runs[2:], data_dir=made_up_root)
    _, out, err = run_cli(
        "compare", ",".join(map(str, runs[:2])), ",".join(map(str, runs[2:])), "--format", "json",
        "--data-dir", made_up_root,
    )  # fmt: skip
    printed = [row for row in json.loads(out) if row]
    assert found.gain.tolist() == pytest.approx([row["gain"] for row in printed], abs=1e-6)
    assert found.high.tolist() == pytest.approx([row["high"] for row in printed], abs=1e-6)
    assert found.spread.notna().all()
    assert found.attrs["notes"] == err.splitlines()


def test_a_run_is_readable_in_a_notebook(make_run, made_up_root, tmp_path):
    folder = make_run(tmp_path / "a", 1, model="<b>base", adapter="x")
    run = xlt_bench.load_run(folder, data_dir=made_up_root)
    page = run._repr_html_()
    assert "&lt;b&gt;base + x" in page
    assert "<b>base" not in page
    mean = next(row for row in run.record.results.means if row.task == "massive")
    assert f"{mean.metric} {mean.value:.1f}" in page
    assert f"{mean.metric} {mean.value:.1f}" in repr(run)


def test_a_chart_has_every_unit(make_run, made_up_root, tmp_path):
    run = xlt_bench.load_run(make_run(tmp_path / "a", 1, right=0.9), data_dir=made_up_root)
    other = make_run(tmp_path / "b", 2, right=0.2)
    primary = {"slot_f1", "bleu", "entity_f1", "retrieval_accuracy"}
    scores = run.scores()[lambda rows: rows.metric.isin(primary)]
    gains = run.gains(other)[lambda rows: rows.kind == "unit"]
    drawn = _drawn(run.plot())
    assert sorted(row["value"] for row in drawn if "unit" in row) == sorted(scores.value)
    assert [row["value"] for row in drawn if "layer" in row] == run.layers().value.tolist()
    assert sorted(row["value"] for row in _drawn(run.plot(other))) == sorted(gains.gain)


def _drawn(chart):
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_submit_and_the_leaderboard(make_run, made_up_root, tmp_path):
    folder = make_run(tmp_path / "run", 1)
    run = xlt_bench.load_run(folder, data_dir=made_up_root)
    with pytest.warns(UserWarning, match="massive is partial and will not be ranked: "):
        done = xlt_bench.submit(
            run, name="Mine", submissions=tmp_path / "all", data_dir=made_up_root
        )
    assert done.parent == tmp_path / "all"
    means = xlt_bench.load_leaderboard(tmp_path / "all")
    assert set(means.name) == {"Mine"}
    scores = xlt_bench.load_leaderboard(tmp_path / "all", view="scores")
    assert sorted(scores.value) == pytest.approx(sorted(run.scores().value))
    with pytest.raises(xlt_bench.InputError, match="unknown view 'score'"):
        xlt_bench.load_leaderboard(tmp_path / "all", view="score")
    # A submission's folder is a run, too.
    theirs = xlt_bench.load_run(done, data_dir=made_up_root)
    assert theirs.means().value.tolist() == run.means().value.tolist()
    move(done, str(done.parent / "artifacts"))  # and may have its answers in a store
    with pytest.raises(xlt_bench.InputError, match="name the store in"):
        theirs.items("massive", "de")
    (done.parent / "stores.txt").write_text("artifacts\n")
    assert theirs.items("massive", "de").equals(run.items("massive", "de"))


def _options(monkeypatch, module, name):
    seen = []
    monkeypatch.setattr(module, name, lambda options, *_: seen.append(options) or {})
    return seen


def test_train_asks_for_what_the_command_asks_for(
    tiny_model, made_up_root, run_cli, monkeypatch, tmp_path
):
    from xlt_bench.training import objectives, run

    seen = _options(monkeypatch, run, "train")
    monkeypatch.setattr(objectives, "read_texts", lambda *_: {})
    code, _, _ = run_cli(
        "train", "massive-baseline", "--model", tiny_model, "--output", tmp_path / "out",
        "--set", "training.seed=2", "--set", "lora.targets=[q_proj]", "--chat-template", "plain",
        "--report-to", "tensorboard", "--data-dir", made_up_root,
    )  # fmt: skip
    assert code == 0
    xlt_bench.train(
        "massive-baseline", tiny_model, tmp_path / "out",
        changes={"training.seed": 2, "lora.targets": ["q_proj"]}, chat_template="plain",
        report_to="tensorboard", data_dir=made_up_root,
    )  # fmt: skip
    assert seen[0] == seen[1]
    assert seen[0].recipe.training.seed == 2


def test_merge_asks_for_what_the_command_asks_for(run_cli, monkeypatch, tmp_path):
    from xlt_bench.training import merge

    seen = _options(monkeypatch, merge, "merge")
    code, _, _ = run_cli(
        "merge", "--task", "a", "--alignment", "b", "--output", tmp_path, "--weights", "0.5,0.9",
        "--select-on", "massive", "--limit", 5,
    )  # fmt: skip
    assert code == 0
    xlt_bench.merge("a", tmp_path, "b", weights=[0.5, 0.9], select_on="massive", limit=5)
    run_cli(
        "merge", "--task", "a", "--alignment", "b", "--output", tmp_path, "--alignment-blocks",
        "2-3,1-2", "--transition", 1,
    )  # fmt: skip
    xlt_bench.merge("a", tmp_path, "b", alignment_blocks=["2-3", "1-2"], transition=1)
    run_cli(
        "merge", "--task", "a", "--output", tmp_path, "--reference-source", "c",
        "--reference-target", "d", "--weight", 0.7,
    )  # fmt: skip
    xlt_bench.merge("a", tmp_path, reference_source="c", reference_target="d", weight=0.7)
    assert seen[0::2] == seen[1::2]
    assert len(seen) == 6


def test_errors_name_arguments(tiny_model, short, tmp_path):
    with pytest.raises(xlt_bench.InputError, match=r"^batch_size must be 'auto' or at least 1"):
        xlt_bench.evaluate(tiny_model, batch_size=0, output=tmp_path / "run", **short)
    with pytest.raises(xlt_bench.InputError, match="give a model, or an adapter"):
        xlt_bench.evaluate(**short)
    with pytest.raises(xlt_bench.InputError, match="not a Linear"):
        xlt_bench.evaluate(torch.nn.Linear(2, 2), **short)
    model = load_model(tiny_model)
    with pytest.raises(xlt_bench.InputError, match="device cannot be used with a model that is"):
        xlt_bench.evaluate(model, device="cpu", **short)


def test_a_run_without_a_name_gets_one_and_resumes(tiny_model, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = short | {"tasks": "massive", "languages": "de", "progress": False}
    first = xlt_bench.evaluate(tiny_model, **options)
    assert first.folder.parent == Path("runs")
    assert xlt_bench.evaluate(tiny_model, **options).record == first.record
    assert xlt_bench.evaluate(tiny_model, **options | {"limit": 2}).folder != first.folder


@pytest.fixture
def _logging():
    """The command line silences its own process, which is this one in tests."""
    level = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    yield
    logging.disable(level)


def _told(given):
    """The warnings, without those of other tests' sockets and files that are just collected."""
    return [str(one.message) for one in given if one.category is not ResourceWarning]


@pytest.mark.usefixtures("_logging")
def test_libraries_are_silent_inside_only(capfd, recwarn):
    logger = logging.getLogger("transformers.a_module")
    with quiet():
        warnings.warn("inside", stacklevel=1)
        logger.warning("inside")
        logger.error("an error")
    assert "inside" not in capfd.readouterr().err
    assert _told(recwarn) == []
    assert logging.root.manager.disable == logging.NOTSET
    warnings.warn("outside", stacklevel=1)
    assert _told(recwarn) == ["outside"]


@pytest.mark.usefixtures("_logging")
def test_evaluate_prints_nothing_of_the_libraries(tiny_model, tiny_adapter, short, tmp_path, capfd):
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        xlt_bench.evaluate(
            tiny_model, tiny_adapter, output=tmp_path / "run", progress=False, **short
        )
    assert _told(given) == []
    assert capfd.readouterr() == ("", "")
