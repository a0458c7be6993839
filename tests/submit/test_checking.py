"""Forged submissions: each is refused, with the item or field named."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xlt_bench.record import Record
from xlt_bench.runs import predictions_path, read_predictions, write_predictions
from xlt_bench.submit.checking import answers_digest, check
from xlt_bench.submit.package import submission_id
from xlt_bench.submit.packing import About, submit


@pytest.fixture
def package(make_run, made_up_root, tmp_path):
    """An accepted submission."""
    run = make_run(tmp_path / "run", adapter="lora")
    return submit(run, About(), tmp_path / "submissions", made_up_root).folder


def edit(folder, name, change):
    path = folder / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def forge_answers(folder, change):
    """Other answers, their digest and the id that fits it, as a careful forger would make them."""
    path = predictions_path(folder, "massive", "de")
    answers = change(read_predictions(path))
    write_predictions(path, answers)
    value = json.loads((folder / "submission.json").read_text())
    value["contents"]["massive/de"] = answers_digest(answers)
    record = Record.model_validate_json((folder / "record.json").read_bytes())
    value["id"] = submission_id(record.plan, value["contents"])
    (folder / "submission.json").write_text(json.dumps(value))
    return folder.rename(folder.with_name(value["id"]))


def refusal(folder, root):
    report = check(folder, root)
    assert report.state == "refused"
    assert "\n" not in report.detail
    return report.detail


def test_a_forged_score(package, made_up_root):
    def raise_first(record):
        record["results"]["scores"][0]["value"] += 5

    edit(package, "record.json", raise_first)
    assert "massive de slot_f1: value is" in refusal(package, made_up_root)


def test_a_forged_mean_and_a_left_out_score(package, made_up_root):
    shutil.copytree(package, package.parent / "copy")
    edit(package, "record.json", lambda r: r["results"]["means"][0].update(high=100.0))
    assert "high is 100.0" in refusal(package, made_up_root)


def test_a_dropped_a_doubled_and_a_swapped_item(package, made_up_root):
    whole = read_predictions(predictions_path(package, "massive", "de"))
    for change, said in [
        (lambda rows: rows[:2] + rows[3:], "item 2 is missing"),
        (lambda rows: [*rows[:2], rows[1], *rows[3:]], "item 1 occurs twice"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "item 0 expected, 1 found"),
    ]:
        package = forge_answers(package, lambda _, change=change: change(whole))
        assert said in refusal(package, made_up_root)


def test_other_answers_than_those_that_were_counted(package, made_up_root):
    package = forge_answers(package, lambda rows: [type(r)(r.id, "None", r.cut_off) for r in rows])
    assert "counts.parquet: massive de" in refusal(package, made_up_root)


def test_an_id_that_is_not_that_of_the_contents(package, made_up_root):
    edit(package, "submission.json", lambda s: s["contents"].update({"uner/da": "0" * 16}))
    assert "id does not belong to" in refusal(package, made_up_root)


def test_answers_that_were_changed_after_the_packing(package, made_up_root):
    path = predictions_path(package, "uner", "da")
    rows = read_predictions(path)
    write_predictions(path, [rows[0], *[type(r)(r.id, "None", r.cut_off) for r in rows[1:]]])
    assert "uner/da has the digest" in refusal(package, made_up_root)


def test_a_wrong_data_digest_and_an_unknown_version(package, made_up_root):
    shutil.copytree(package, package.parent.parent / "spare" / package.name)
    edit(package, "record.json", lambda r: r["data_digests"].update({"massive/de": "f" * 16}))
    assert "data_digests: massive/de" in refusal(package, made_up_root)
    spare = package.parent.parent / "spare" / package.name
    edit(spare, "record.json", lambda r: r["plan"]["task_versions"].update(massive=99))
    assert "99" in refusal(spare, made_up_root)


def test_neighbours_that_do_not_give_the_accuracy(package, made_up_root):
    path = package / "retrieval" / "layer-002.parquet"
    table = pq.read_table(path)
    column = pa.array([100.0] * len(table))
    pq.write_table(table.set_column(2, "accuracy", column), path)
    assert "accuracy of" in refusal(package, made_up_root)


def test_what_cannot_be_checked_is_not_claimed(package, tmp_path):
    report = check(package, tmp_path / "no data here")
    assert report.state == "not fully checked"
    assert "massive de" in report.detail


def test_links_and_strange_files_are_refused(package, made_up_root, tmp_path):
    (tmp_path / "secret").write_text("mine")
    (package / "predictions" / "massive" / "extra.jsonl.zst").symlink_to(tmp_path / "secret")
    assert refusal(package, made_up_root)
