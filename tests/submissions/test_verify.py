"""`submissions verify` runs the model again: honest answers pass, other ones do not."""

import json
import shutil

import pytest

from tiny import save_adapter
from xlt_bench.results.run_folder import predictions_path, read_predictions, write_predictions
from xlt_bench.store.build import build, connect
from xlt_bench.submissions import accepted
from xlt_bench.submissions import verify as verification
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import check
from xlt_bench.submissions.schema import Agreement
from xlt_bench.submissions.verify import draw, is_telling, passes, wilson
from xlt_bench.tasks.registry import get_text_task, text_tasks


@pytest.fixture(scope="module")
def made(tiny_model, tiny_adapter, made_up_root, tmp_path_factory):
    """An accepted submission of a real run of the tiny model with its adapter."""
    from xlt_bench.evaluation.config import Options, prepare
    from xlt_bench.evaluation.run import evaluate

    folder = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        for task in map(get_text_task, text_tasks()):
            patch.setattr(task, "max_new_tokens", 6)
        options = Options(
            model=str(tiny_model), adapters=[str(tiny_adapter)], dtype="float32", device="cpu",
            output=folder / "run", data_dir=str(made_up_root), languages=["de", "sw"],
            tasks=["massive", "retrieval"],
        )  # fmt: skip
        [(run, _)] = evaluate(prepare(options))
    done = submit(run, About(), folder / "submissions", made_up_root).folder
    accepted.accept(folder / "submissions", [done.name])
    return done


@pytest.fixture
def submission(made, tmp_path, monkeypatch):
    for task in map(get_text_task, text_tasks()):
        monkeypatch.setattr(task, "max_new_tokens", 6)
    return shutil.copytree(made.parent, tmp_path / "submissions") / made.name


@pytest.fixture
def verify(run_cli, tiny_model, tiny_adapter, made_up_root):
    def run(folder, *more, model=tiny_model, adapter=tiny_adapter):
        return run_cli(
            "submissions", "verify", folder.name, "--by", "a maintainer", "--items", 8, "--seed", 1,
            "--model", model, "--adapter", adapter, "--device", "cpu", "--data-dir", made_up_root,
            "--submissions", folder.parent, *more,
        )  # fmt: skip

    return run


def test_an_unknown_id_is_one_line(verify, tmp_path):
    code, _, err = verify(tmp_path / "nobody")
    assert (code, "has no submission nobody: pass its id" in " ".join(err.split())) == (2, True)


def test_a_wrong_batch_size_is_one_line(submission, verify):
    code, _, err = verify(submission, "--batch-size", "many")
    assert (code, "must be 'auto' or at least 1, not 'many'" in " ".join(err.split())) == (2, True)


def test_an_honest_submission_is_verified_and_ranked(submission, verify, made_up_root, tmp_path):
    code, out, err = verify(submission)
    assert code == 0, err
    assert "massive: 8 of 8 answers are equal, 100.0 %" in " ".join(out.split())
    found = json.loads((submission / "verified.json").read_text())
    assert (found["by"], found["basis"], found["seed"]) == ("a maintainer", "weights", 1)
    assert [(one["task"], one["judged_by"]) for one in found["agreement"]] == [
        ("massive", "answers"),
        ("retrieval", "answers"),
    ]
    assert check(submission, made_up_root).state == "checked"
    query = "SELECT rank_class, verified_by, verified_basis FROM submissions"
    assert build(submission.parent, tmp_path / "db").refused == []
    with connect(tmp_path / "db") as store:
        assert store.execute(query).fetchall() == [("verified", "a maintainer", "weights")]
        columns = {name for name, *_ in store.execute("DESCRIBE submissions").fetchall()}
        labelled = {name for (name,) in store.execute("SELECT field FROM evidence").fetchall()}
        assert columns == labelled
    # A submitter who brings one is refused, and gains nothing in the database.
    (submission.parent / "accepted.txt").unlink()
    report = check(submission, made_up_root)
    assert (report.state, "written by maintainers" in report.detail) == ("refused", True)
    build(submission.parent, tmp_path / "db")
    with connect(tmp_path / "db") as store:
        assert store.execute(query).fetchall() == [("self-reported", None, None)]


def test_answers_of_no_model_are_not_verified(
    made, submission, verify, made_up_root, tmp_path, short_answers
):
    """A forger keeps the hashes of a model and pastes gold answers in, with matching scores."""
    run = tmp_path / "forged"
    shutil.copytree(made.parent.parent / "run", run)
    for unit in ("de", "sw"):
        path = predictions_path(run, "massive", unit)
        gold = get_text_task("massive").load(made_up_root, unit)
        answers = read_predictions(path)
        rows = [
            type(one)(one.id, item.target, False) for one, item in zip(answers, gold, strict=True)
        ]
        write_predictions(path, rows)
    from xlt_bench.evaluation.score import score_run

    record = json.loads((run / "record.json").read_text())
    record["results"] = score_run(run, made_up_root, ["sw"]).model_dump()
    (run / "record.json").write_text(json.dumps(record))
    forged = submit(run, About(), tmp_path / "forgeries", made_up_root).folder
    assert check(forged, made_up_root).state == "checked"
    assert verify(forged)[0] == 2  # not accepted yet
    accepted.accept(forged.parent, [forged.name])
    code, out, err = verify(forged)
    assert (code, "massive does not agree" in " ".join(err.split())) == (1, True), (out, err)
    assert not (forged / "verified.json").exists()


def test_what_is_run_must_have_the_hashes_of_the_record(
    submission, verify, tiny_model, tiny_adapter, tmp_path
):
    from tiny import save_adapter

    other = save_adapter(tiny_model, tmp_path / "other", seed=2)
    code, _, err = verify(submission, adapter=other)
    assert (code, "weights are not those of record.json" in " ".join(err.split())) == (2, True)
    code, _, err = verify(submission, "--retrained")
    assert (code, "leave --retrained out" in " ".join(err.split())) == (2, True)


def test_the_number_of_layers_must_be_the_models(submission, verify, edit):
    """Retrieval is ranked by its even layers: whoever says fewer could leave out the worst."""

    def change(record):
        record["model"]["layers"] += 1  # the same even layers, so that the submission is valid

    edit(submission / "record.json", change)
    edit(submission / "submission.json", lambda one: one.update(record_sha256=None))
    code, _, err = verify(submission)
    assert (code, "layers, but" in " ".join(err.split())) == (2, True), err
    assert not (submission / "verified.json").exists()


@pytest.mark.parametrize("day", ["2026-02-30", "2026-19-39", "26-01-01"])
def test_a_day_that_does_not_exist_is_refused_and_ends_no_build(
    day, submission, verify, made_up_root, edit, tmp_path
):
    assert verify(submission)[0] == 0
    edit(submission / "verified.json", lambda found: found.update(on=day))
    report = check(submission, made_up_root)
    assert (report.state, "verified.json: on" in report.detail) == ("refused", True)
    built = build(submission.parent, tmp_path / "db")
    assert (built.loaded, [one.name for one in built.refused]) == (0, [submission.name])


def test_a_verification_is_bound_to_record_and_answers(submission, verify, made_up_root, edit):
    assert verify(submission)[0] == 0
    edit(submission / "record.json", lambda record: record["notes"].append("a new note"))
    report = check(submission, made_up_root)
    assert (report.state, "of another record" in report.detail) == ("refused", True)


def agreement(judged_by, equal=100, low=0.0, high=0.0):
    return Agreement(
        task="massive", items=100, equal=equal, low=0, high=100, submitted=50, recomputed=50,
        gain_low=low, gain_high=high, judged_by=judged_by,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "basis", "passed"),
    [
        (agreement("answers", 95), "weights", True),
        (agreement("answers", 94), "weights", False),
        (agreement("scores", 60, -0.5, 3.0), "weights", True),
        (agreement("scores", 60, 1.5, 3.0), "weights", False),
        (agreement("scores", 60, -3.0, -1.5), "weights", False),  # a straw man
        (agreement("scores", 60, 1.5, 5.0), "recipe", True),
        (agreement("scores", 60, 3.5, 5.0), "recipe", False),
    ],
)
def test_what_passes(one, basis, passed):
    assert passes(one, basis) is passed


def without_adapter(low, high):
    return agreement("scores").model_copy(
        update={"bare": 50.0 - (low + high) / 2, "bare_low": low, "bare_high": high}
    )


@pytest.mark.parametrize(
    ("one", "telling"),
    [
        (agreement("scores"), False),
        (without_adapter(3.5, 9.0), True),
        (without_adapter(-9.0, -3.5), True),  # an adapter that does harm
        (without_adapter(2.5, 9.0), False),
        (without_adapter(-1.0, 1.0), False),
    ],
)
def test_what_tells_a_retrained_adapter_from_any_other(one, telling):
    assert is_telling(one) is telling


def test_a_retrained_adapter_needs_a_sample_on_which_the_bare_model_differs(
    submission, verify, tiny_model, tmp_path, monkeypatch
):
    again = save_adapter(tiny_model, tmp_path / "again", seed=2)
    monkeypatch.setattr(verification, "RETRAINED", 100.0)  # so that any answers agree
    code, out, err = verify(submission, "--retrained", adapter=again)
    assert code == 1, (out, err)
    assert "any adapter would agree" in " ".join(err.split())
    assert "without the adapter (difference" in " ".join(out.split())
    assert not (submission / "verified.json").exists()
    monkeypatch.setattr(verification, "is_telling", lambda one: one.bare is not None)
    assert verify(submission, "--retrained", adapter=again)[0] == 0
    found = json.loads((submission / "verified.json").read_text())
    assert found["basis"] == "recipe"
    assert all(one["bare_low"] <= one["bare_high"] for one in found["agreement"])


def test_the_sample_covers_all_tasks_and_depends_on_the_seed(make_run, tmp_path):
    from xlt_bench.results.run_folder import read_plan

    plan = read_plan(make_run(tmp_path / "run"))
    sizes = {("massive", "de"): 500, ("massive", "sw"): 500, ("uner", "da"): 30}
    sample = draw(plan, sizes, 100, seed=3)
    by_task = {"massive": 0, "uner": 0}
    for (task, unit), places in sample.places.items():
        assert places == sorted(set(places))
        assert 0 <= places[0] <= places[-1] < sizes[task, unit]
        by_task[task] += len(places)
    assert by_task == {"massive": 50, "uner": 30}
    assert len(set(sample.languages)) == 2
    assert sample.layer in plan.layers
    assert draw(plan, sizes, 100, seed=3) == sample
    assert draw(plan, sizes, 100, seed=4) != sample


def test_wilson_is_scipys():
    from scipy.stats import binomtest

    for hits, n in ((0, 7), (190, 200), (200, 200)):
        found = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((100 * found.low, 100 * found.high), abs=1e-4)
