"""Tests that the output files of lm-eval become a checked submission."""

import json

import pytest

from xlt_bench.errors import InputError
from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import read_predictions
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import check

TASKS = {"massive": ["sw"], "uner": ["da"]}


def test_the_same_answers_and_scores(logged, output, made_up_root, tmp_path):
    done = submit(output, About(), tmp_path / "submissions", made_up_root)
    assert check(done.folder, made_up_root).state == "checked"
    record = Record.model_validate_json((done.folder / "record.json").read_bytes())
    assert record.harness == "lm-eval"
    assert record.plan.units == TASKS
    assert record.plan.limit == 4
    assert record.adapter is not None
    assert record.adapter.alignment_languages == ["sw"]
    assert record.model.sha256 is not None
    assert str(tmp_path) not in record.model_dump_json()
    scores = {(r.task, r.unit, r.metric): r.value for r in record.results.scores}
    assert {metric for _, _, metric in scores} & {"slot_f1", "entity_f1", "cut_off"} == {
        "slot_f1",
        "entity_f1",
    }
    for (task, unit, metric), value in scores.items():
        theirs = logged[1]["results"][f"xlt_{task}_{unit}"][f"{metric},none"]
        assert value == pytest.approx(theirs)
    answers = read_predictions(done.folder / "predictions" / "massive" / "sw.jsonl.zst")
    assert [answer.cut_off for answer in answers] == [None] * 4
    again = submit(output, About(), tmp_path / "submissions", made_up_root)
    assert again.repeat


def test_a_token_that_lm_eval_was_given_is_not_published(output, made_up_root, tmp_path):
    (path,) = output.glob("*/results_*")
    results = json.loads(path.read_text())
    given = results["config"]["model_args"]
    if isinstance(given, str):
        results["config"]["model_args"] = f"{given},token=s3cr3t"
    else:
        given["token"] = "s3cr3t"
    path.write_text(json.dumps(results))
    done = submit(output, About(), tmp_path / "submissions", made_up_root)
    record = (done.folder / "record.json").read_text()
    assert "s3cr3t" not in record
    assert "token=***" in record


def test_our_own_run_of_the_same_is_the_same_system(
    output, made_up_root, tiny_adapter, tmp_path, monkeypatch
):
    """`evaluate` and lm-eval give the same hashes of weights, adapter and template."""
    from xlt_bench.evaluation import config as asked
    from xlt_bench.evaluation.run import evaluate

    results = json.loads(next(output.glob("*/results_*")).read_text())
    model = results["config"]["model_args"]
    model = dict(part.split("=") for part in model.split(",")) if isinstance(model, str) else model
    monkeypatch.setattr(asked, "plan_units", lambda options: TASKS)
    options = asked.Options(
        model=model["pretrained"],
        adapters=[str(tiny_adapter)],
        output=tmp_path / "run",
        limit=4,
        dtype="float32",
        device="cpu",
        data_dir=str(made_up_root),
    )
    list(evaluate(asked.prepare(options)))
    ours = submit(tmp_path / "run", About(), tmp_path / "ours", made_up_root).folder.name
    theirs = submit(output, About(), tmp_path / "theirs", made_up_root).folder.name
    assert ours.split("-")[-2] == theirs.split("-")[-2]
    # lm-eval does not log which answers were cut off, so the answers have different digests.
    assert ours.split("-")[-1] != theirs.split("-")[-1]


def test_an_output_of_an_older_version_is_scored_by_its_rules(output, made_up_root, tmp_path):
    rewrite_results(output, lambda r: r["versions"].update(xlt_uner_da=1))
    done = submit(output, About(), tmp_path / "submissions", made_up_root)
    record = Record.model_validate_json((done.folder / "record.json").read_bytes())
    assert record.plan.task_versions == {"massive": 2, "uner": 1}
    assert "entity_f1_lenient" not in {row.metric for row in record.results.scores}
    assert check(done.folder, made_up_root).state == "checked"


def rewrite_samples(output, change):
    path = next(output.glob("*/samples_xlt_massive_sw_*"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rewrite_results(output, change):
    path = next(output.glob("*/results_*"))
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


SAMPLES = {
    "expected 4 samples, found 3": lambda rows: rows.pop(),
    "expected item 0, found another": lambda rows: rows[0]["doc"].update(user="play nothing"),
    "the prompt of item 1": lambda rows: rows[1]["arguments"]["gen_args_0"].update(arg_0="Hello"),
    "must be greedy": lambda rows: rows[0]["arguments"]["gen_args_0"]["arg_1"].update(
        do_sample=True
    ),
    "at most 6 new tokens": lambda rows: rows[0]["arguments"]["gen_args_0"]["arg_1"].update(
        max_gen_toks=7
    ),
    "'num_beams': 8": lambda rows: rows[0]["arguments"]["gen_args_0"]["arg_1"].update(num_beams=8),
    "differ in more than": lambda rows: rows[0]["arguments"]["gen_args_0"].update(
        arg_0="Hint: " + rows[0]["arguments"]["gen_args_0"]["arg_0"]
    ),
    "must be a string": lambda rows: rows[2].update(filtered_resps=[None]),
    "is not a samples file of lm-eval": lambda rows: rows[0].pop("arguments"),
}
RESULTS = {
    "this release scores 1 and 2": lambda r: r["versions"].update(xlt_massive_sw=0),
    "in version True": lambda r: r["versions"].update(xlt_massive_sw=True),
    "in version 3": lambda r: r["versions"].update(xlt_massive_sw=3),
    "5 few-shot examples": lambda r: r["n-shot"].update(xlt_massive_sw=5),
    "no chat template": lambda r: r.update(chat_template_sha=None),
    "own system prompt": lambda r: r.update(system_instruction="Be brief."),
    "got 0.5": lambda r: r["config"].update(limit=0.5),
    "do not name a model": lambda r: r["config"].update(model_args={}),
    "cannot hash the local model /nowhere/model": lambda r: r["config"].update(
        model_args="pretrained=/nowhere/model"
    ),
    "(versions: ": lambda r: r.pop("versions"),
    "(n-shot: ": lambda r: r.pop("n-shot"),
    "(date: ": lambda r: r.pop("date"),
    "no text task of xlt-bench": lambda r: r.update(configs={"hellaswag": {}}),
}


@pytest.mark.parametrize(
    ("rewrite", "change", "message"),
    [
        *[(rewrite_samples, change, message) for message, change in SAMPLES.items()],
        *[(rewrite_results, change, message) for message, change in RESULTS.items()],
    ],
)
def test_other_settings_and_items_are_refused(
    rewrite, change, message, output, made_up_root, tmp_path
):
    rewrite(output, change)
    with pytest.raises(InputError) as refused:
        submit(output, About(), tmp_path / "submissions", made_up_root)
    assert message in str(refused.value)
    assert list((tmp_path / "submissions").iterdir()) == []
