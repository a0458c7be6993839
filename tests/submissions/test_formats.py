"""Tests that other tools read what we export, and that a card keeps what others wrote."""

import json
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest
import yaml

from xlt_bench.errors import InputError
from xlt_bench.results.record import ShotPrompt
from xlt_bench.results.run_folder import read_record
from xlt_bench.submissions.adapter_readme import with_scores, write_card, write_eval_results
from xlt_bench.submissions.formats import write_format
from xlt_bench.tasks import lm_eval_yaml

# github evaleval/every_eval_ever at 9bce4136 (MIT licence), every_eval_ever/schemas/.
SCHEMA = Path(__file__).parent / "fixtures" / "every-eval-ever-0.3.0.schema.json"


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "mine", 1, adapter="user/mine")


@pytest.fixture(scope="module")
def record(run):
    return read_record(run)


def test_every_eval_ever_accepts_it(record):
    found = json.loads(write_format(record, "eee"))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(found)
    rows = {
        (r["evaluation_name"], r["metric_config"]["metric_id"]): r
        for r in found["evaluation_results"]
    }
    assert len(rows) == len(record.results.scores) + len(record.results.means)
    for score in record.results.scores:
        row = rows[f"{score.task}/{score.unit}", score.metric]
        assert row["score_details"]["score"] == score.value
    details = rows["wmt23/de-en", "bleu"]["source_data"]["additional_details"]
    assert (details["language"], details["unit"]) == ("de", "de-en")
    sources = [row["source_data"] for name, row in rows.items() if name[0].startswith("retrieval")]
    assert {one["additional_details"]["sentences"] for one in sources} == {"FLORES dev"}
    about = found["model_info"]["additional_details"]
    assert (about["base_model"], about["adapter"]) == ("base", "user/mine")


def test_a_wrong_export_is_refused_by_the_schema(record):
    found = json.loads(write_format(record, "eee"))
    found["model_info"]["additional_details"]["seed"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(found)


def test_lm_eval_prints_it_as_its_own(record):
    from lm_eval.utils import make_table

    found = json.loads(write_format(record, "lm-eval"))
    ours = {path.stem for path in lm_eval_yaml.tasks_dir().rglob("xlt_*.yaml")}
    assert set(found["results"]) <= ours
    values, task = {}, ""
    for line in make_table(found).splitlines()[2:]:
        cells = [cell.strip() for cell in line.split("|")[1:]]
        task = cells[0] or task  # named in its first row only
        values[task, cells[4]] = float(cells[6])
    for score in record.results.scores:
        if score.task != "retrieval":
            name = f"xlt_{score.task}_{score.unit}"
            assert values[name, score.metric] == pytest.approx(score.value, abs=1e-4)


def test_lm_eval_has_the_version_of_a_task_whose_name_has_an_underscore(record):
    score = record.results.scores[0].model_copy(
        update={"task": "global_mmlu", "unit": "de", "metric": "acc"}
    )
    results = record.results.model_copy(update={"scores": [score]})
    plan = record.plan.model_copy(update={"task_versions": {"global_mmlu": 7}})
    asked = record.model_copy(update={"results": results, "plan": plan})
    found = json.loads(write_format(asked, "lm-eval"))
    assert found["versions"] == {"xlt_global_mmlu_de": 7}
    assert found["n-shot"] == {"xlt_global_mmlu_de": 0}


def test_parquet_has_a_row_for_each_score(record, tmp_path):
    (tmp_path / "scores.parquet").write_bytes(write_format(record, "parquet"))
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [row["value"] for row in rows] == [row.value for row in record.results.scores]
    assert {row["adapter"] for row in rows} == {"user/mine"}


def test_an_unknown_format_is_refused(record):
    with pytest.raises(InputError, match="unknown format 'xml'"):
        write_format(record, "xml")


PEFT = """---
base_model: base
# a comment
library_name: peft
model-index:
- name: old
  results: []

alignment_languages: [sw, "no"]
---

# Model Card for Model ID

- **Developed by:** [More Information Needed]

### Framework versions

- PEFT 0.21.2
"""


def test_a_card_keeps_what_peft_wrote_and_the_hub_reads_the_scores(record):
    from huggingface_hub import ModelCard

    text = with_scores(PEFT, record, "mine")
    assert with_scores(text, record, "mine") == text
    for line in PEFT.splitlines():
        assert line in text or line in ("- name: old", "  results: []")
    assert "old" not in text
    card = ModelCard(text)
    assert card.data.model_name == "mine"
    values = {(r.dataset_config, r.metric_type): r.metric_value for r in card.data.eval_results}
    for score in record.results.scores:
        if score.metric in ("slot_f1", "bleu", "entity_f1") and score.task != "retrieval":
            assert values[score.unit, score.metric] == pytest.approx(score.value, abs=0.01)
    assert card.data.alignment_languages == ["sw", "no"]


@pytest.mark.parametrize("text", ["", "No metadata.\n", "---\n---\n", "---\na: 1\n---"])
def test_a_card_may_be_short(text, record):
    found = with_scores(text, record, "mine")
    assert found.startswith("---\n")
    assert "## Cross-lingual transfer" in found
    assert text.strip("-\n") in found
    assert with_scores(found, record, "mine") == found


def test_metadata_that_is_not_yaml_is_refused(record):
    with pytest.raises(InputError, match="not valid YAML"):
        with_scores("---\na: [\n---\n", record, "mine")


def test_the_commands(run, tmp_path, run_cli):
    code, out, _ = run_cli("export", run, "--format", "eee", "--output", tmp_path / "a.json")
    assert (code, out) == (0, f"written: {tmp_path / 'a.json'}\n")
    assert json.loads((tmp_path / "a.json").read_text())["schema_version"] == "0.3.0"
    code, _, err = run_cli("card", run, tmp_path)
    assert code == 2
    assert "is not the folder of an adapter" in err
    (tmp_path / "adapter_config.json").write_text("{}")
    assert run_cli("card", run, tmp_path)[0] == 0
    assert "model-index" in (tmp_path / "README.md").read_text()


def test_the_hub_reads_the_results_of_complete_means(record, run, tmp_path, run_cli):
    from huggingface_hub import parse_eval_result_entries

    whole = record.model_copy(update={"plan": record.plan.model_copy(update={"limit": None})})
    means = [mean.model_copy(update={"missing": []}) for mean in record.results.means]
    whole = whole.model_copy(update={"results": record.results.model_copy(update={"means": means})})
    path = write_eval_results(whole, tmp_path, "someone/xlt-bench")
    assert path == tmp_path / ".eval_results" / "xlt-bench.yaml"
    found = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    values = {one.task_id: one.value for one in found}
    assert {one.dataset_id for one in found} == {"someone/xlt-bench"}
    for mean in means:
        if mean.metric == "slot_f1":
            assert values[f"massive_{mean.split}"] == pytest.approx(mean.value, abs=0.01)
    assert "notes" in yaml.safe_load(path.read_text())[0]
    part = whole.model_copy(update={"plan": record.plan.model_copy(update={"limit": 2})})
    with pytest.raises(InputError, match="a part of the test sets"):
        write_eval_results(part, tmp_path, "someone/xlt-bench")
    (tmp_path / "adapter_config.json").write_text("{}")
    path.unlink()
    assert run_cli("card", run, tmp_path, "--benchmark", "someone/xlt-bench")[0] == 0
    assert path.exists()


def test_a_bare_model_has_no_card(make_run, tmp_path):
    record = read_record(make_run(tmp_path / "bare", 0))
    with pytest.raises(InputError, match="bare model"):
        write_card(record, tmp_path)


def test_few_shot_scores_are_marked_as_such(record, tmp_path):
    name = "5 examples in English"
    prompt = ShotPrompt(name=name, sha256="0" * 64, shots=5, language="en", examples={})
    plan = record.plan.model_copy(update={"prompts": {"massive": prompt}})
    asked = record.model_copy(update={"plan": plan})
    shots = json.loads(write_format(asked, "lm-eval"))["n-shot"]
    assert {task.split("_")[1]: n for task, n in shots.items()} == {
        "massive": 5,
        "wmt23": 0,
        "uner": 0,
    }
    eee = json.loads(write_format(asked, "eee"))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(eee)
    for row in eee["evaluation_results"]:
        told = row["source_data"]["additional_details"].get("prompt")
        assert told == (name if row["evaluation_name"].startswith("massive") else None)
    (tmp_path / "all.parquet").write_bytes(write_format(asked, "parquet"))
    for row in pq.read_table(tmp_path / "all.parquet").to_pylist():
        assert row["prompt"] == (name if row["task"] == "massive" else None)
    text = with_scores(PEFT, asked, "mine")
    assert f"massive ({name})" in text
    means = [mean.model_copy(update={"missing": []}) for mean in asked.results.means]
    asked = asked.model_copy(update={"results": asked.results.model_copy(update={"means": means})})
    for_hub = yaml.safe_load(write_eval_results(asked, tmp_path, "a/b").read_text())
    told = {row["dataset"]["task_id"].rpartition("_")[0] for row in for_hub}
    assert told == {mean.task for mean in means} - {"massive"}
    assert f"xlt-bench massive v{plan.task_versions['massive']}, {name}" in text
