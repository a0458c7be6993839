"""Forgeries and odd submissions are told to the reviewer; impossible ones are refused."""

import json
import shutil
from dataclasses import replace

import pytest

from xlt_bench.evaluation.score import score_run
from xlt_bench.results.run_folder import predictions_path, read_predictions, write_predictions
from xlt_bench.submissions import suspicions as module
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.move import move
from xlt_bench.submissions.rescore import check
from xlt_bench.submissions.suspicions import skeleton, suspicions
from xlt_bench.submissions.validate import open_package
from xlt_bench.tasks.registry import get_task


@pytest.fixture(scope="module")
def accepted_one(make_run, made_up_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suspicions")
    run = make_run(folder / "run", adapter="lora")
    return submit(run, About(), folder / "submissions", made_up_root).folder


@pytest.fixture
def submission(accepted_one, tmp_path):
    return shutil.copytree(accepted_one, tmp_path / "submissions" / accepted_one.name)


@pytest.fixture
def few_are_enough(monkeypatch):
    """The made-up test sets have five items."""
    monkeypatch.setattr(module, "ENOUGH", 5)


def found(folder, others=()):
    package = open_package(folder)
    every = suspicions(package, [open_package(o) for o in others])
    return {one.kind: one for one in sorted(every, key=lambda one: one.impossible)}


def test_an_honest_submission_is_not_suspicious(submission, made_up_root, few_are_enough):
    assert found(submission) == {}
    assert check(submission, made_up_root).warnings == []


def test_gold_answers_and_identity_neighbours_made_without_a_model(
    make_run, made_up_root, tmp_path, few_are_enough, run_cli
):
    """The forgery that took place 1 in all tasks, with the hashes of no adapter."""
    run = make_run(tmp_path / "run", right=1.0, adapter="invented", layers=(1, 2, 4))
    done = submit(run, About(), tmp_path / "submissions", made_up_root)
    report = check(done.folder, made_up_root)
    assert report.state == "refused"
    assert "no honest run shows this: massive: within 1 point of the gold answers" in report.detail
    kinds = found(done.folder)
    assert kinds["layers"].impossible
    code, _, err = run_cli("submissions", "check", done.folder, "--data-dir", made_up_root)
    assert (code, "no honest run shows this" in err) == (1, True)


def test_gold_answers_are_refused_beside_a_unit_that_is_not_ranked(
    make_run, made_up_root, tmp_path, few_are_enough, monkeypatch
):
    run = make_run(tmp_path / "run", right=1.0, adapter="invented", units={"massive": ["de", "sw"]})
    done = submit(run, About(), tmp_path / "submissions", made_up_root)
    whole = get_task("massive").test_set(2)
    ranked = whole.model_copy(update={"units": {"de": whole.units["de"]}})
    monkeypatch.setattr(type(get_task("massive")), "test_set", lambda self, version: ranked)
    assert found(done.folder)["ceiling"].impossible


@pytest.mark.parametrize(
    ("change", "kind", "impossible"),
    [
        (lambda r: r["adapter"].update(probe_differing=0), "probe", False),
        (lambda r: r["adapter"].update(probe_prompts=0, probe_differing=0), "probe", False),
        (lambda r: r["adapter"].update(probe_prompts=4), "probe", True),
        (lambda r: r["adapter"].update(change_norms={"q_proj": 0.0}), "norm", True),
        (
            lambda r: r["adapter"].update(change_norms={"q_proj": 0.0}, probe_differing=0),
            "norm",
            False,
        ),
        (lambda r: r["model"].update(parameters=3), "parameters", True),
        (lambda r: r["seconds"].update(massive_de=0.0), "seconds", True),
        (lambda r: r["versions"].update(torch="the newest"), "versions", True),
    ],
)
def test_records(change, kind, impossible, submission, edit, few_are_enough, made_up_root):
    edit(submission / "record.json", change)
    assert found(submission)[kind].impossible is impossible
    report = check(submission, made_up_root)
    assert report.state == ("refused" if impossible else "checked")
    assert impossible or report.warnings


def test_versions_of_vendors_are_versions(submission, edit):
    names = ["2.13.0+cpu", "2.6.0a0+ecf3bae40a.nv25.1", "0.1.0.dev3", "5.23.0"]
    edit(submission / "record.json", lambda r: r["versions"].update(enumerate(names)))
    edit(
        submission / "record.json",
        lambda r: r.update(versions=dict(zip("abcd", names, strict=True))),
    )
    assert found(submission) == {}


@pytest.mark.parametrize(
    ("name", "impossible"),
    [
        ("Gemm\u0430 aligned", False),  # a Cyrillic letter
        ("\u3164\u2800", True),
        ("Z\u0301\u0302\u0303\u0304algo", True),
    ],
)
def test_names(name, impossible, submission, edit):
    edit(submission / "submission.json", lambda about: about.update(name=name))
    assert found(submission)["name"].impossible is impossible


@pytest.mark.parametrize(
    "name",
    [
        "Llama 3.1, aligned (ours)",
        "модель № 3",
        "μ-LoRA",
        "Qwen中文版",
        "हिन्दी मॉडल",
        "Tiếng Việt",
        "שָׁלוֹם",
    ],
)
def test_names_in_other_scripts_are_fine(name, submission, edit):
    edit(submission / "submission.json", lambda about: about.update(name=name))
    assert found(submission) == {}


def test_a_name_that_looks_like_another(submission, make_run, made_up_root, tmp_path, edit):
    run = make_run(tmp_path / "other", 3, adapter="other")
    about = About(name="Gemma aligned")
    other = submit(run, about, submission.parent, made_up_root).folder
    edit(submission / "submission.json", lambda one: one.update(name="gemma  al\u0456gned"))
    assert "looks like that of" in found(submission, [other])["name"].detail
    assert skeleton("Ｇemma") == skeleton("gemma")


def test_nearly_the_answers_of_another_system(
    make_run, submission, made_up_root, tmp_path, few_are_enough
):
    run = make_run(tmp_path / "copied", 0, adapter="mine")  # the same seed: the same answers
    copied = submit(run, About(), submission.parent, made_up_root).folder
    answers = [
        read_predictions(predictions_path(folder, "massive", "de"))
        for folder in (copied, submission)
    ]
    assert answers[0] == answers[1]
    detail = found(copied, [submission])["copy"].detail
    assert detail.startswith("100.0 % of ")
    assert submission.name in detail
    assert check(copied, made_up_root).warnings == [detail]
    other = submit(
        make_run(tmp_path / "other", 9, adapter="third"), About(), submission.parent, made_up_root
    )
    assert "copy" not in found(other.folder, [submission])


def test_a_copy_with_one_unit_made_worse_is_still_seen(
    make_run, submission, made_up_root, tmp_path, few_are_enough
):
    run = make_run(tmp_path / "copied", 0, adapter="mine")
    path = predictions_path(run, "massive", "de")
    rows = [replace(one, hypothesis="{}") for one in read_predictions(path)]
    write_predictions(path, rows)
    record = json.loads((run / "record.json").read_text())
    record["results"] = score_run(run, made_up_root, ["sw"]).model_dump()
    (run / "record.json").write_text(json.dumps(record))
    copied = submit(run, About(), submission.parent, made_up_root).folder
    assert found(copied, [submission])["copy"].detail.startswith("100.0 % of ")


def test_answers_of_others_that_are_not_there_are_told_once(
    make_run, submission, made_up_root, tmp_path, few_are_enough
):
    """A clone may leave out the store."""
    others = [
        submit(make_run(tmp_path / name, 0, adapter=name), About(), submission.parent, made_up_root)
        for name in ("two", "three")
    ]
    for one in others:
        move(one.folder, str(tmp_path / "store"))
    *_, last = suspicions(open_package(submission), [open_package(o.folder) for o in others])
    assert last.detail.startswith(f"not compared with the answers of {others[0].folder.name}")
    assert " and 1 more: massive/de is in an artifact store" in last.detail


def test_copied_retrieval_is_seen_without_other_tasks(
    make_run, made_up_root, tmp_path, few_are_enough
):
    units = {"retrieval": ["de", "en", "sw"]}
    one, two, three = (
        submit(
            make_run(tmp_path / name, seed, adapter=name, units=units),
            About(), tmp_path / "submissions", made_up_root,
        ).folder
        for name, seed in (("one", 0), ("two", 0), ("three", 5))
    )  # fmt: skip
    detail = found(two, [three, one])["copy"].detail
    assert detail == f"retrieval: the answers of {one.name} at 2 layers"
    assert "copy" not in found(three, [one, two])


def test_many_near_equal_rows_of_one_contact(make_run, made_up_root, tmp_path):
    names = []
    for i in range(5):
        run = make_run(tmp_path / f"run {i}", 0, adapter=f"lora-{i}")
        about = About(contact="Me@example.org" if i % 2 else "me@example.org")
        names.append(submit(run, about, tmp_path / "submissions", made_up_root).folder)
    assert "4 other submissions" in found(names[0], names[1:])["crowd"].detail
    assert "crowd" not in found(names[0], names[1:4])


def test_another_size_of_the_same_base_model(submission, make_run, made_up_root, tmp_path, edit):
    run = make_run(tmp_path / "other", 3, adapter="other")
    other = submit(run, About(), submission.parent, made_up_root).folder
    edit(submission / "record.json", lambda r: r["model"].update(parameters=2000))
    assert "parameters is 2000, but 1000" in found(submission, [other])["parameters"].detail
