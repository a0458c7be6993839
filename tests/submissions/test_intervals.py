"""Intervals of records: Jeffreys' for accuracies, and the bootstrap in those of older releases."""

import json
import shutil

import numpy as np
import pytest

from xlt_bench.evaluation.score import count_run, score_run, scores_of
from xlt_bench.metrics.accuracy import accuracy_interval
from xlt_bench.metrics.significance import percent
from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import read_plan, read_record
from xlt_bench.store.build import build, connect
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import check
from xlt_bench.tasks.registry import get_task


@pytest.fixture(scope="module")
def run(make_run, made_up_root, tmp_path_factory):
    """A run in which nothing is right."""
    return make_run(tmp_path_factory.mktemp("intervals") / "run", right=0.0, adapter="lora")


def older(record):
    """The record as an older release wrote it, given its bootstrap intervals."""
    value = json.loads(record.model_dump_json())
    del value["results"]["accuracy_intervals"]
    return value


def test_accuracies_have_jeffreys_intervals_and_other_scores_do_not(run, made_up_root):
    record = read_record(run)
    assert record.results.accuracy_intervals == "jeffreys"
    counted = count_run(read_plan(run), run, made_up_root)
    bootstrap = scores_of(record.plan, counted, record.alignment_languages, accuracies="bootstrap")
    seen = set()
    for ours, other in zip(record.results.scores, bootstrap.scores, strict=True):
        assert ours.value == other.value
        is_accuracy = (
            get_task(ours.task).metric(ours.metric).score is percent
        )  # COMET has a test of its own
        seen.add(is_accuracy)
        if is_accuracy:
            found = accuracy_interval(counted.tasks[ours.task][ours.metric][ours.unit])
            assert (ours.low, ours.high) == (found.low, found.high)
            assert ours.low < ours.high, "never certain"
        else:
            assert (ours.low, ours.high) == (other.low, other.high)
    assert seen == {True, False}
    for ours, other in zip(record.results.layers, bootstrap.layers, strict=True):
        assert ours.value == other.value
        found = accuracy_interval(counted.layers[ours.layer])
        assert (ours.low, ours.high) == (found.low, found.high)
    several = [n for n, mean in enumerate(bootstrap.means) if len(mean.units) > 1]
    assert several
    for n in several:
        ours, other = record.results.means[n], bootstrap.means[n]
        if get_task(ours.task).is_accuracy(ours.metric) and other.low == other.high:
            assert ours.value == other.value
            assert ours.low < ours.high, "never certain"
        else:
            assert ours == other


def test_nothing_right_leaves_room_for_something(run, made_up_root):
    """scipy's posterior for no hit of n, where the bootstrap has 0 to 0."""
    from scipy import stats

    record = read_record(run)
    (row,) = [r for r in record.results.scores if (r.unit, r.metric) == ("de", "exact_match")]
    assert (row.value, row.low) == (0, 0)
    assert row.high == pytest.approx(100 * stats.beta.ppf(0.975, 0.5, row.n + 0.5))
    counted = count_run(record.plan, run, made_up_root)
    before = scores_of(record.plan, counted, accuracies="bootstrap").scores
    assert next(r.high for r in before if (r.unit, r.metric) == ("de", "exact_match")) == 0


def test_a_record_with_bootstrap_intervals_stays_valid(
    make_run, made_up_root, tmp_path, edit, run_cli
):
    run = make_run(tmp_path / "run", adapter="lora")
    record = read_record(run)
    scores = score_run(run, made_up_root, record.alignment_languages, "bootstrap")
    before = older(record.model_copy(update={"results": scores}))
    (run / "record.json").write_text(json.dumps(before))
    assert Record.model_validate(before).results.accuracy_intervals == "bootstrap"
    code, _, err = run_cli("score", run, "--data-dir", made_up_root)
    assert code == 0, err
    folder = submit(run, About(), tmp_path / "submissions", made_up_root).folder
    assert check(folder, made_up_root).state == "checked"
    edit(folder / "record.json", lambda value: value["results"].pop("accuracy_intervals"))
    assert check(folder, made_up_root).state == "checked"
    # The intervals are those that it states, not any of the two.
    edit(folder / "record.json", lambda v: v["results"].update(accuracy_intervals="jeffreys"))
    report = check(folder, made_up_root)
    assert report.state == "refused"
    assert "when recomputed" in report.detail


def test_the_kinds_differ_on_these_answers(run, made_up_root):
    """Otherwise the test above would pass with any of the two."""
    both = [
        score_run(run, made_up_root, [], kind).model_dump()["layers"]
        for kind in ("bootstrap", "jeffreys")
    ]
    ends = np.array([[(row["low"], row["high"]) for row in rows] for rows in both])
    assert (ends[0] != ends[1]).any()


def test_means_of_an_older_record_are_not_certain_in_the_database(run, made_up_root, tmp_path):
    record, copy = read_record(run), tmp_path / "run"
    shutil.copytree(run, copy)
    scores = score_run(run, made_up_root, record.alignment_languages, "bootstrap")
    before = older(record.model_copy(update={"results": scores}))
    (copy / "record.json").write_text(json.dumps(before))
    submit(copy, About(), tmp_path / "submissions", made_up_root)
    build(tmp_path / "submissions", tmp_path / "board.duckdb")
    with connect(tmp_path / "board.duckdb") as store:
        found = store.execute(
            "SELECT task, split, metric, units, value, low, high FROM mean_scores"
        ).fetchall()
    ours = {(m.task, m.split, m.metric): m for m in record.results.means}
    assert len(found) == len(ours)
    for task, split, metric, units, *ends in found:
        if len(units) > 1:
            mean = ours[task, split, metric]
            assert ends == pytest.approx([mean.value, mean.low, mean.high])
