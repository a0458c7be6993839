"""Scoring with a fake COMET: which scores are kept, which are stale, and every error."""

import json
import shutil

import pytest

from xlt_bench.evaluation.comet import worker
from xlt_bench.evaluation.comet.stored import segments_path
from xlt_bench.metrics.significance import interval, percent
from xlt_bench.results.run_folder import (
    predictions_path,
    read_predictions,
    read_record,
    write_predictions,
)
from xlt_bench.store.build import build
from xlt_bench.submissions.compare import compare_systems, load_system
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import check
from xlt_bench.tasks.registry import get_text_task

UNITS = ["de-en", "en-de"]


@pytest.fixture
def score(made_up_root, run_cli):
    return lambda *argv: run_cli("score", *argv, "--data-dir", made_up_root, "--format", "json")


def lengths(run, unit):
    answers = read_predictions(predictions_path(run, "wmt23", unit))
    return [len(answer.hypothesis.strip()) / 64 for answer in answers]


def test_scores_are_kept_and_recomputed_without_comet(
    make_run, made_up_root, fake_comet, checkpoint, tmp_path, score, monkeypatch
):
    run = make_run(tmp_path / "run", adapter="lora")
    path = predictions_path(run, "wmt23", "de-en")
    before = read_record(run)
    code, _, err = score(run, "--comet", "--comet-model", checkpoint)
    assert code == 0
    assert err.splitlines() == [
        "comet checkpoint: 1 done",
        "comet de-en: 5 done",
        "comet en-de: 5 done",
    ]
    item = get_text_task("wmt23").load(made_up_root, "de-en")[0]
    answer = read_predictions(path)[0].hypothesis
    assert {"src": item.user, "mt": answer.strip(), "ref": item.gold} in fake_comet.calls[0]
    record = read_record(run)
    rows = {row.unit: row for row in record.results.scores if row.metric == "comet"}
    assert list(rows) == UNITS
    for unit, row in rows.items():
        kept = json.loads(segments_path(run, unit).read_bytes())
        assert kept["scores"] == lengths(run, unit)
        wanted = interval([(value, 1) for value in kept["scores"]], percent)
        assert (row.value, row.low, row.high) == (wanted.value, wanted.low, wanted.high)
        assert row.value == pytest.approx(100 * sum(kept["scores"]) / 5)
        signature = record.signatures[f"{unit}/comet"]
        assert signature == f"model:checkpoint|version:0.1|sha256:{kept['sha256']}"
    means = {row.split: row for row in record.results.means if row.metric == "comet"}
    assert means["all"].value == pytest.approx(sum(row.value for row in rows.values()) / 2)
    others = [row for row in record.results.scores if row.metric != "comet"]
    assert others == before.results.scores
    monkeypatch.setenv("XLT_BENCH_COMET", str(tmp_path / "nowhere"))
    code, out, _ = score(run)
    assert (code, list(json.loads(out)["means"]["wmt23"]["all"])[-1]) == (0, "comet")


def test_only_what_is_stale_is_scored_again(
    make_run, fake_comet, checkpoint, make_checkpoint, tmp_path, score
):
    run = make_run(tmp_path / "run")
    argv = (run, "--comet", "--comet-model")
    assert score(*argv, checkpoint)[0] == 0
    assert score(*argv, checkpoint / "checkpoints" / "model.ckpt")[0] == 0
    assert len(fake_comet.calls) == 2
    assert score(*argv, make_checkpoint("other", "other weights"))[0] == 0
    assert len(fake_comet.calls) == 4
    assert read_record(run).signatures["de-en/comet"].startswith("model:other|")

    path = predictions_path(run, "wmt23", "en-de")
    answers = read_predictions(path)
    write_predictions(path, [*answers[:-1], type(answers[0])(answers[-1].id, "another", False)])
    code, out, err = score(run)
    assert (code, "differs from the scores of its predictions" in err) == (1, True)
    units = json.loads(out)["units"]["wmt23"]
    assert [unit for unit, by_metric in units.items() if "comet" in by_metric] == ["de-en"]
    told = (run / "record.json").read_bytes()
    # Its BLEU is wrong, and scoring with COMET does not correct it.
    assert score(*argv, tmp_path / "other")[0] == 1
    assert (run / "record.json").read_bytes() == told
    assert [sample["mt"] for sample in fake_comet.calls[-1]].count("another") == 1
    assert len(fake_comet.calls) == 5


def test_a_killed_worker_is_one_line_and_finished_directions_stay(
    make_run, fake_comet, checkpoint, make_checkpoint, tmp_path, score
):
    run = make_run(tmp_path / "run")
    other = make_checkpoint("other", "other weights")
    assert score(run, "--comet", "--comet-model", other)[0] == 0
    fake_comet.dies_after(1)
    code, _, err = score(run, "--comet", "--comet-model", checkpoint)
    assert code == 2
    assert err.splitlines()[-1] == (
        "error: COMET stopped: killed by signal 9 (out of memory?); the run keeps its other "
        "scores and the directions that COMET has finished"
    )
    assert [path.stem for path in (run / "comet").iterdir()] == ["de-en"]
    fake_comet.dies_after(None)
    assert score(run, "--comet", "--comet-model", checkpoint)[0] == 0
    assert len(fake_comet.calls) == 4


def test_scores_that_are_no_numbers_are_not_kept(make_run, fake_comet, checkpoint, tmp_path, score):
    fake_comet.gives_nan()
    run = make_run(tmp_path / "run")
    code, _, err = score(run, "--comet", "--comet-model", checkpoint)
    assert (code, "no finite score for segment 0 of de-en" in err) == (2, True)
    assert list(run.glob("comet/*")) == []


REFUSED = {
    "{run} --comet-model {checkpoint}": "--comet-model needs --comet",
    "{run} --comet --comet-model ./none": "no such file or folder",
    "{run} --comet --comet-model none.ckpt": "no such file or folder",
    "{run} --comet --comet-model {empty}": "not a checkpoint; give a .ckpt file",
    "{run} --comet --comet-model {bare}": "hparams.yaml is missing",
    "{run} --comet --comet-model {junk}": "cannot be loaded (ValueError: no such key)",
    "{run} --comet": "cannot be downloaded (ConnectionError: the hub is far away); check",
    "{text_only} --comet": "has no translations to score",
    "{empty} --comet": "is not a run folder",
}


@pytest.fixture
def places(make_run, make_checkpoint, checkpoint, tmp_path):
    """What the command lines above name."""
    bare = make_checkpoint("bare", "weights")
    (bare / "hparams.yaml").unlink()
    (tmp_path / "empty").mkdir()
    return {
        "run": make_run(tmp_path / "run"),
        "text_only": make_run(tmp_path / "text only", units={"massive": ["de"]}),
        "checkpoint": checkpoint,
        "junk": make_checkpoint("junk", "junk"),
        "bare": bare,
        "empty": tmp_path / "empty",
    }


@pytest.mark.parametrize("line", REFUSED)
def test_every_refusal_is_one_line(line, places, fake_comet, score):
    before = (places["run"] / "record.json").read_bytes()
    code, _, err = score(*(word.format(**places) for word in line.split()))
    assert (code, err.count("\n"), REFUSED[line] in err) == (2, 1, True), err
    assert (places["run"] / "record.json").read_bytes() == before
    assert not (places["run"] / "comet").exists()


def test_a_missing_environment_is_one_line(places, score, tmp_path, monkeypatch):
    monkeypatch.setenv("XLT_BENCH_COMET", str(tmp_path / "nowhere"))
    code, _, err = score(places["run"], "--comet", "--comet-model", places["checkpoint"])
    assert (code, err.count("\n"), "create it with: xlt-bench comet setup" in err) == (2, 1, True)


def test_damaged_or_mixed_scores_are_named(make_run, fake_comet, checkpoint, tmp_path, score):
    run = make_run(tmp_path / "run")
    assert score(run, "--comet", "--comet-model", checkpoint)[0] == 0
    path = segments_path(run, "de-en")
    whole = json.loads(path.read_bytes())
    path.write_text(json.dumps(whole | {"sha256": "0" * 64}))
    code, _, err = score(run)
    assert (code, "has scores of several checkpoints" in err) == (2, True)
    path.write_text(json.dumps(whole)[:-9])
    code, _, err = score(run)
    assert (code, err.count("\n"), "is damaged" in err) == (2, 1, True)


@pytest.fixture
def scored_runs(make_run, fake_comet, checkpoint, tmp_path, score):
    for i, name in enumerate(("bare", "lora")):
        run = make_run(tmp_path / name, i, adapter=None if name == "bare" else name)
        assert score(run, "--comet", "--comet-model", checkpoint)[0] == 0
    return tmp_path


def test_comet_is_compared_under_one_checkpoint_only(
    scored_runs, made_up_root, make_checkpoint, score
):
    def compare():
        names = (str(scored_runs / name) for name in ("lora", "bare"))
        return compare_systems(*(load_system(name, scored_runs, made_up_root) for name in names))

    found, notes = compare()
    assert notes == []
    (comet,) = [one for one in found if one.metric == "comet"]
    assert [unit.unit for unit in comet.units] == UNITS
    for unit in comet.units:
        ours, theirs = (lengths(scored_runs / name, unit.unit) for name in ("lora", "bare"))
        assert unit.gain.value == pytest.approx(20 * (sum(ours) - sum(theirs)))
    segments_path(scored_runs / "bare", "en-de").unlink()
    found, notes = compare()
    assert notes == ["wmt23 comet: only one of the two has en-de; left out of the means"]
    other = make_checkpoint("other", "other weights")
    assert score(scored_runs / "bare", "--comet", "--comet-model", other)[0] == 0
    found, notes = compare()
    assert "comet" not in [one.metric for one in found]
    assert notes[0].startswith("wmt23 comet is left out: the checkpoints differ ")
    shutil.rmtree(scored_runs / "bare" / "comet")
    found, notes = compare()
    assert notes == [f"wmt23 comet is left out: only {scored_runs / 'lora'} has it"]


def test_a_submission_carries_no_comet_and_says_so(
    scored_runs, made_up_root, make_run, run_cli, edit
):
    folder = scored_runs / "submissions"
    argv = ("submit", scored_runs / "lora", "--submissions", folder, "--data-dir", made_up_root)
    code, out, _ = run_cli(*argv)
    assert (code, "COMET is left out" in out) == (0, True)
    (there,) = folder.iterdir()
    assert check(there, made_up_root).state == "checked"
    assert "comet" not in (there / "record.json").read_text()
    assert build(folder, scored_runs / "db").loaded == 1
    bare = make_run(scored_runs / "lora without", 1, adapter="lora")
    again = submit(bare, About(), folder, made_up_root)
    assert (again.repeat, again.comet) == (True, False)
    # Restored by hand, it is refused.
    whole = json.loads((scored_runs / "lora" / "record.json").read_text())
    edit(there / "record.json", lambda record: record.update(whole))
    report = check(there, made_up_root)
    assert (report.state, "is not a score of this run" in report.detail) == ("refused", True)


def test_evaluate_scores_when_the_answers_are_there(
    fake_comet, checkpoint, tmp_path, monkeypatch, run_cli
):
    monkeypatch.setattr(get_text_task("wmt23"), "max_new_tokens", 4)
    run = tmp_path / "run"
    argv = [
        "evaluate", "--model", "embedded", "--data-dir", "mini", "--output", run, "--limit", 2,
        "--languages", "de", "--tasks",
    ]  # fmt: skip
    code, _, err = run_cli(*argv, "uner,wmt23", "--comet-model", checkpoint)
    assert (code, "needs --comet" in err) == (2, True)
    code, _, err = run_cli(*argv, "massive", "--comet")
    assert (code, "add wmt23 to --tasks" in err) == (2, True)
    with monkeypatch.context() as patched:
        patched.setenv("XLT_BENCH_COMET", str(tmp_path / "nowhere"))
        code, _, err = run_cli(*argv, "wmt23", "--comet")
        assert (code, "xlt-bench comet setup" in err) == (2, True)
    assert not run.exists()
    argv += ["wmt23", "--comet", "--comet-model", checkpoint]
    fake_comet.dies_after(0)
    code, out, err = run_cli(*argv)
    assert (code, "COMET stopped" in err, "bleu" in out) == (2, True, True)
    assert {row.metric for row in read_record(run).results.scores} >= {"bleu", "chrf"}
    fake_comet.dies_after(None)
    code, out, _ = run_cli(*argv)
    assert (code, "comet" in out) == (0, True)
    assert set(read_record(run).signatures) >= {"de-en/comet", "en-de/comet"}
    code, _, _ = run_cli("score", run, "--data-dir", "mini")
    assert code == 0
    # A rebuilt record names the checkpoint of the stored scores.
    (run / "record.json").unlink()
    code, _, _ = run_cli(*argv[:-3])
    assert code == 0
    assert set(read_record(run).signatures) >= {"de-en/comet", "en-de/comet"}


def test_the_worker_gives_comet_batches_of_like_length_and_keeps_the_order() -> None:
    class Model:
        chunks: list[list[int]] = []  # noqa: RUF012

        def predict(self, samples, **_options):
            self.chunks.append([len(sample["src"]) for sample in samples])
            return {"scores": [float(sample["mt"]) for sample in samples]}

    segments = [{"src": "x" * (i * 7 % 300), "mt": str(i), "ref": ""} for i in range(300)]
    done: list[int] = []
    assert worker.score(Model(), segments, done.append) == list(range(300))
    assert done == [128, 128, 44]
    given = [length for chunk in Model.chunks for length in chunk]
    assert given == sorted(i * 7 % 300 for i in range(300))
