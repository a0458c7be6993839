"""Tests `xlt-bench score` in every format against the record of the run."""

import csv
import io
import json
import re

import pytest

from xlt_bench.results.run_folder import read_record


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "lora", 1, adapter="lora")


@pytest.fixture
def score(run, made_up_root, run_cli):
    return lambda *words: run_cli("score", run, "--data-dir", made_up_root, *words)


def test_json_holds_all_scores_and_no_lists_of_units(run, score):
    code, out, _ = score("--format", "json")
    assert code == 0
    found, wanted = json.loads(out), read_record(run).results
    assert list(found) == ["units", "means", "layers"]
    for row in wanted.scores:
        one = found["units"][row.task][row.unit][row.metric]
        assert one == {"value": row.value, "low": row.low, "high": row.high, "n": row.n}
    for mean in wanted.means:
        one = found["means"][mean.task][mean.split][mean.metric]
        n = len(mean.units)
        assert (one["value"], one["low"], one["high"]) == (mean.value, mean.low, mean.high)
        assert (one["units"], one["of"]) == (n, n + len(mean.missing))
    assert any(mean.missing for mean in wanted.means)
    assert "missing" not in out
    assert "[" not in out
    assert found["layers"] == {
        str(row.layer): {"value": row.value, "low": row.low, "high": row.high}
        for row in wanted.layers
    }
    units = {(row.task, row.unit) for row in wanted.scores}
    splits = {(mean.task, mean.split) for mean in wanted.means}
    tasks = {row.task for row in wanted.scores}
    assert len(out.splitlines()) == len(units) + len(splits) + 2 * len(tasks) + 3 + len(
        wanted.layers
    )


def test_csv_is_one_table_of_all_scores(run, score):
    code, out, _ = score("--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    wanted = read_record(run).results
    found = [(r["task"], r["name"], r["metric"], float(r["value"])) for r in rows]
    assert found == [
        *((row.task, row.unit, row.metric, row.value) for row in wanted.scores),
        *((row.task, row.split, row.metric, row.value) for row in wanted.means),
        *(("retrieval", str(row.layer), "retrieval_accuracy", row.value) for row in wanted.layers),
    ]
    assert {row["kind"] for row in rows} == {"unit", "mean", "layer"}
    assert {row["name"] for row in rows if row["aligned"] == "yes"} == {"sw"}


@pytest.mark.parametrize("width", [None, 80])
def test_tables_show_units_by_setting_and_means(run, score, monkeypatch, width):
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = score()
    assert code == 0
    assert max(map(len, out.splitlines())) <= (width or 1000)
    record = read_record(run).results
    cells = {(row.unit, row.metric): row for row in record.scores if row.task == "massive"}
    for unit, label in (("de", "de"), ("sw", r"sw \*")):
        value = cells[unit, "slot_f1"]
        interval = f"{value.low:.1f}–{value.high:.1f}"
        pattern = rf"(?m)^{label} +{value.value:.1f}  {interval}"
        assert len(re.findall(pattern, out)) >= 1
    (mean,) = [
        one
        for one in record.means
        if (one.task, one.split, one.metric) == ("massive", "transfer", "slot_f1")
    ]
    assert f"transfer ({len(mean.units)} of {len(mean.units) + len(mean.missing)})" in " ".join(
        out.split()
    )
    assert ("95 % of exact match" in out.splitlines()[1]) == (width is None)


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_record_that_differs_is_exit_code_1_in_every_format(
    make_run, made_up_root, tmp_path, run_cli, edit, form
):
    forged = make_run(tmp_path / "forged", 2, units={"uner": ["da"]})

    def forge(record):
        record["results"]["scores"][0]["value"] = 99.0

    edit(forged / "record.json", forge)
    code, out, err = run_cli("score", forged, "--data-dir", made_up_root, "--format", form)
    assert code == 1
    assert "record.json differs from the scores of its predictions" in err
    assert "99.0" not in out


def test_a_metric_that_an_older_version_lacks_has_no_column(run, score, monkeypatch):
    from xlt_bench.cli.print_scores import score_tables

    scores = read_record(run).results
    older = scores.model_copy(
        update={
            part: [row for row in getattr(scores, part) if row.metric != "entity_f1_lenient"]
            for part in ("scores", "means")
        }
    )
    (now,), (before,) = (
        [table for table in score_tables(one, "run") if table.title.startswith("uner")]
        for one in (scores, older)
    )
    assert "entity f1 lenient" in now.names
    assert before.names == [
        name for name in now.names if name not in ("entity f1 lenient", "95 % of entity f1 lenient")
    ]
