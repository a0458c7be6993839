"""Tests the files of hits and accuracies: bits counted by hand, and hostile files."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from parquet_rows import edit_rows
from retrieval_forms import with_neighbours
from xlt_bench.errors import InputError
from xlt_bench.results.run_folder import read_layer, write_layer
from xlt_bench.submissions.accepted import other_answers
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.hits import as_hits, parse_hits, read_accuracies, write_hits
from xlt_bench.submissions.rescore import check
from xlt_bench.submissions.validate import open_package

PAIRS = [("de", "en"), ("en", "de")]


@pytest.fixture(scope="module")
def made(make_run, made_up_root, tmp_path_factory):
    """A run, and its submission."""
    folder = tmp_path_factory.mktemp("made")
    run = make_run(folder / "run", adapter="lora")
    return run, submit(run, About(), folder / "submissions", made_up_root).folder


@pytest.fixture
def submission(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "submissions" / made[1].name)


def test_hits_by_hand(tmp_path):
    """Ten sentences: the bits of a byte are from the highest, the last byte is filled with 0."""
    answers = np.array([[0, 5, 2, 3, 9, 5, 6, 7, 8, 1], list(range(10))])
    write_hits(tmp_path / "h", PAIRS, answers.astype(np.int16))
    rows = pq.read_table(tmp_path / "h").to_pylist()
    assert [row["hits"] for row in rows] == [[0b10110111, 0b10000000], [255, 0b11000000]]
    pairs, found = parse_hits((tmp_path / "h").read_bytes(), "h", ["de", "en"])
    assert pairs == PAIRS
    assert found.tolist() == [[0, -1, 2, 3, -1, 5, 6, 7, 8, -1], list(range(10))]
    assert found.tolist() == as_hits(answers).tolist()


def test_a_submission_keeps_hits_and_accuracies_of_its_run(made):
    run, folder = made
    plan = open_package(folder).record.plan
    pairs, stated = read_accuracies(folder / "accuracies.parquet", ["de", "en", "sw"], 2)
    for place, layer in enumerate(plan.layers):
        table = read_layer(run / "retrieval" / f"layer-{layer:03d}.parquet")
        data = (folder / "retrieval" / f"layer-{layer:03d}.parquet").read_bytes()
        hits = dict(zip(*parse_hits(data, "h", ["de", "en", "sw"]), strict=True))
        for pair, accuracies in zip(pairs, stated, strict=True):
            right = [i for i, found in enumerate(table[pair]) if i == found]
            assert [i for i, found in enumerate(hits[pair]) if found >= 0] == right
            assert accuracies[place] == 100 * len(right) / len(table[pair])


def _set(name, value):
    return lambda rows: rows[0].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "a pair is missing or repeated"),
        (_set("source", "fr"), "pair fr-"),
        (_set("hits", None), "must be one list per pair"),
        (_set("hits", [1, 2]), "must be one list per pair"),
        (_set("sentences", 5), "are not those of"),
        (_set("sentences", None), "are not those of"),
        (lambda rows: [row.update(sentences=9) for row in rows], "are not those of 9 sentences"),
        (lambda rows: [row.update(sentences=0) for row in rows], "are not those of 0 sentences"),
        (
            lambda rows: [row.update(sentences=7, hits=[255]) for row in rows],
            "a bit is set beyond the last sentence",
        ),
        (_set("hits", [0]), "retrieval/2 has digest"),
    ],
)
def test_hostile_hits(change, message, submission, made_up_root):
    path = submission / "retrieval" / "layer-002.parquet"
    edit_rows(path, change)
    report = check(submission, made_up_root)
    assert report.state == "refused"
    assert message in report.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "a pair is missing or repeated"),
        (_set("accuracy", [50.0]), "must be one list per pair"),
        (_set("accuracy", [float("nan"), 1.0]), "must be between 0 and 100"),
        (_set("accuracy", [101.0, 1.0]), "must be between 0 and 100"),
        (
            lambda rows: [row.update(accuracy=[50.0]) for row in rows],
            "1 layers, but the plan has 2",
        ),
        (_set("accuracy", [33.0, 33.0]), "accuracy of "),
    ],
)
def test_hostile_accuracies(change, message, submission, made_up_root):
    path = submission / "accuracies.parquet"
    edit_rows(path, change)
    report = check(submission, made_up_root)
    assert report.state == "refused"
    assert message in report.detail


def test_a_form_that_the_files_do_not_have(submission, made_up_root, edit):
    edit(submission / "submission.json", lambda about: about.update(retrieval="neighbours"))
    (submission / "accuracies.parquet").unlink()
    assert "wrong columns" in check(submission, made_up_root).detail
    edit(submission / "submission.json", lambda about: about.update(retrieval="ranks"))
    assert "retrieval: Input should be" in check(submission, made_up_root).detail


def test_a_run_that_was_submitted_with_neighbours_is_recognised(made, made_up_root, tmp_path):
    run, folder = made
    copy = shutil.copytree(folder, tmp_path / "submissions" / folder.name)
    older = with_neighbours(copy, run)
    assert older.name != folder.name
    assert check(older, made_up_root).state == "checked"
    done = submit(run, About(), older.parent, made_up_root)
    assert (done.repeat, done.folder) == (True, older)


def test_hits_and_neighbours_of_one_system_are_compared(made, made_up_root, tmp_path):
    """Else other hits could take the place of neighbours without being held."""
    run, folder = made
    copy = shutil.copytree(folder, tmp_path / "submissions" / folder.name)
    older = with_neighbours(copy, run)
    package, before = open_package(folder), open_package(older)
    assert other_answers(package, before)[1] == []
    path = older / "accuracies.parquet"
    assert not path.exists()
    other = shutil.copytree(run, tmp_path / "other")
    table = read_layer(other / "retrieval" / "layer-002.parquet")
    write_layer(other / "retrieval" / "layer-002.parquet", {p: [7] * 8 for p in table})
    changed = shutil.copytree(folder, tmp_path / "changed" / folder.name)
    differs = open_package(with_neighbours(changed, other))
    assert other_answers(package, differs)[1] == ["retrieval/2"]


def test_a_file_of_hits_that_is_no_parquet():
    with pytest.raises(InputError, match="is damaged"):
        parse_hits(b"PAR1" + bytes(50) + b"PAR1", "h", ["de", "en"])
