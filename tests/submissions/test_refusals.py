"""Invalid and hostile submissions are refused in one line that names the file, field or item."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from parquet_rows import edit_rows
from retrieval_forms import with_neighbours
from xlt_bench.errors import InputError
from xlt_bench.results.record import Plan, Record
from xlt_bench.results.run_folder import (
    Prediction,
    predictions_path,
    read_predictions,
    write_predictions,
)
from xlt_bench.submissions import rescore as checking
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.report import list_submissions
from xlt_bench.submissions.rescore import answers_digest, check
from xlt_bench.submissions.safe_read import MAX_PACKED
from xlt_bench.submissions.schema import Submission, identity
from xlt_bench.tasks.registry import get_task


@pytest.fixture(scope="module")
def accepted(make_run, made_up_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("accepted")
    run = make_run(folder / "run", adapter="lora")
    return submit(run, About(), folder / "submissions", made_up_root).folder


@pytest.fixture
def submission(accepted, tmp_path):
    return shutil.copytree(accepted, tmp_path / "submissions" / accepted.name)


@pytest.fixture(scope="module")
def accepted_before(make_run, made_up_root, tmp_path_factory):
    """A submission with neighbours, as older releases wrote it."""
    folder = tmp_path_factory.mktemp("accepted before")
    run = make_run(folder / "run", adapter="lora")
    done = submit(run, About(), folder / "submissions", made_up_root)
    return with_neighbours(done.folder, run)


@pytest.fixture
def older(accepted_before, tmp_path):
    return shutil.copytree(accepted_before, tmp_path / "older" / accepted_before.name)


def refusal(folder, root):
    report = check(folder, root)
    assert report.state == "refused"
    assert "\n" not in report.detail
    return report.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["scores"][0].update(low=1.5), "massive de slot_f1: low is 1.5"),
        (lambda r: r["scores"][0].update(aligned=True), "slot_f1: aligned is True"),
        (lambda r: r["scores"][0].update(n=500), "slot_f1: n is 500"),
        (lambda r: r["means"][0].update(value=77), "mean slot_f1: value is 77"),
        (lambda r: r["means"][0].update(missing=[]), "missing is []"),
        (lambda r: r["layers"][1].update(value=77), "retrieval layer 4: value is 77"),
        (lambda r: r["layers"].pop(), "retrieval layer 4 is missing"),
        (lambda r: r["scores"].pop(0), "massive de slot_f1 is missing"),
        (lambda r: r["scores"].append(r["scores"][0]), "occurs twice"),
        (lambda r: r["scores"][0].update(metric="accuracy"), "is not a score of this run"),
    ],
)
@pytest.mark.parametrize("data", [True, False])
def test_forged_results_are_seen_with_and_without_the_test_sets(
    change, message, data, submission, made_up_root, edit
):
    edit(submission / "record.json", lambda record: change(record["results"]))
    assert message in refusal(submission, made_up_root if data else None)


def test_a_record_that_was_changed_after_submitting(submission, made_up_root):
    path = submission / "record.json"
    path.write_text(path.read_text().replace("xlt-bench evaluate", "xlt-bench evaluate --limit 9"))
    found = refusal(submission, made_up_root)
    assert found == "record.json was changed: its sha256 is not the one in submission.json"


def numbers(model, where=""):
    """The fields of a pydantic model that hold numbers, with the bounds of each."""
    schema = model.model_json_schema()
    left, seen = [(where, schema)], []
    while left:
        name, part = left.pop()
        if "$ref" in part:
            left.append((name, schema["$defs"][part["$ref"].rpartition("/")[2]]))
        left += [(f"{name}.{key}", one) for key, one in part.get("properties", {}).items()]
        left += [(name, one) for one in part.get("anyOf", [])]
        left += [(name, part[key]) for key in ("items", "additionalProperties")
                 if isinstance(part.get(key), dict)]  # fmt: skip
        if part.get("type") in ("integer", "number") and "const" not in part:
            seen.append((name, part.get("minimum"), part.get("maximum")))
    return seen


def test_every_number_of_a_record_has_bounds():
    found = numbers(Record)
    assert {".plan.limit", ".results.scores.value", ".seconds", ".adapter.change_norms"} <= {
        name for name, *_ in found
    }
    assert [name for name, low, high in found if low is None or high is None] == []
    assert numbers(Submission) == [(".artifacts.size", 1, MAX_PACKED)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r["seconds"].update(all=-1.0), "seconds.all"),
        (lambda r: r["seconds"].update(all=1e300), "seconds.all"),
        (lambda r: r["model"].update(parameters=-5), "model.parameters"),
        (lambda r: r["model"].update(parameters=10**18), "model.parameters"),
        (lambda r: r["adapter"]["change_norms"].update(q_proj=-1.0), "adapter.change_norms.q_proj"),
        (lambda r: r["adapter"].update(probe_prompts=10**9), "adapter.probe_prompts"),
        (lambda r: r.update(bos_per_prompt=[-1]), "bos_per_prompt.0"),
        (lambda r: r["results"]["scores"][0].update(value=101.0), "results.scores.0.value"),
        (lambda r: r["results"]["scores"][0].update(n=10**30), "results.scores.0.n"),
    ],
)
def test_numbers_out_of_bounds(change, field, submission, made_up_root, edit):
    edit(submission / "record.json", change)
    assert refusal(submission, made_up_root).startswith(f"record.json: {field}: Input should be")


def test_scores_and_counts_forged_together(submission, made_up_root, edit):
    """Only the test sets reveal this; without them the submission is not reported as checked."""
    path = submission / "counts.parquet"
    rows = pq.read_table(path).to_pylist()
    row = next(row for row in rows if (row["unit"], row["metric"]) == ("da", "entity_f1"))
    row["counts"] = [2, 2, 2] * (len(row["counts"]) // 3)
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)

    def forge(record):
        for kind in ("scores", "means"):
            for score in record["results"][kind]:
                if score["metric"] == "entity_f1":
                    score.update(value=100.0, low=100.0, high=100.0)

    edit(submission / "record.json", forge)
    found = refusal(submission, made_up_root)
    assert found == "counts.parquet: uner da entity_f1 does not match the answers"
    report = check(submission, None)
    assert report.state == "not fully checked"
    assert "uner da" in report.detail


def forged_answers(folder, answers):
    """A copy with other answers, and with digests and id that match them."""
    copy = shutil.copytree(folder, folder.parent / "copy")
    write_predictions(predictions_path(copy, "massive", "de"), answers)
    about = json.loads((copy / "submission.json").read_text())
    about["contents"]["massive/de"] = answers_digest(answers)
    plan = Plan.model_validate(json.loads((copy / "record.json").read_text())["plan"])
    about["id"] = "base-lora-" + identity(plan, about["contents"])
    (copy / "submission.json").write_text(json.dumps(about))
    return copy.rename(copy.with_name(about["id"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answers: answers[:-1], "item 4 is missing"),
        (
            lambda answers: [*answers[:3], replace(answers[3], id="9999"), *answers[4:]],
            "item 3 expected, 9999 found",
        ),
        (lambda answers: [*answers, Prediction("5", "", False)], "item 5 does not belong"),
    ],
)
def test_items_dropped_swapped_or_added(change, message, submission, made_up_root):
    answers = read_predictions(predictions_path(submission, "massive", "de"))
    found = refusal(forged_answers(submission, change(answers)), made_up_root)
    assert "massive de" in found
    assert message in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "a pair is missing or repeated"),
        (lambda rows: rows.__setitem__(1, rows[0]), "a pair is missing or repeated"),
        (lambda rows: rows[0].update(source="fr"), "pair fr-"),
        (lambda rows: rows[0].update(accuracy=float("nan")), "must be between 0 and 100"),
        (lambda rows: rows[0].update(accuracy=None), "must be between 0 and 100"),
        (lambda rows: rows[0]["neighbours"].pop(), "must be one list per pair"),
        (lambda rows: rows[0]["neighbours"].__setitem__(0, -1), "must be from 0 to 7"),
        (lambda rows: rows[0]["neighbours"].__setitem__(0, 8), "must be from 0 to 7"),
        (lambda rows: rows[0]["neighbours"].__setitem__(0, None), "one list per pair"),
        (lambda rows: rows[0].update(neighbours=None), "one list per pair"),
        (lambda rows: rows.clear(), "must have 1 to"),
    ],
)
def test_layers(change, message, older, made_up_root):
    path = older / "retrieval" / "layer-002.parquet"
    edit_rows(path, change)
    found = refusal(older, made_up_root)
    assert found.startswith("layer-002.parquet")
    assert message in found


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.set_column(3, "neighbours", t["neighbours"].cast(pa.list_(pa.int64()))),
        lambda t: t.drop_columns(["accuracy"]),
        lambda t: t.append_column("x", t["source"]),
    ],
    ids=["wide", "fewer", "more"],
)
def test_columns_of_other_types(change, older, made_up_root):
    path = older / "retrieval" / "layer-002.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    assert "wrong columns or column types" in refusal(older, made_up_root)


def test_a_file_that_is_not_parquet(submission, made_up_root):
    (submission / "retrieval" / "layer-002.parquet").write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    assert "is damaged" in refusal(submission, made_up_root)


def test_a_small_file_of_many_values_is_refused_before_it_is_read(older, made_up_root):
    path = older / "retrieval" / "layer-002.parquet"
    table = pq.read_table(path)
    many = pa.array([np.zeros(20_000_000, dtype=np.int16)], type=pa.list_(pa.int16()))
    pq.write_table(table.slice(0, 1).set_column(3, "neighbours", many), path, compression="zstd")
    assert path.stat().st_size < 10_000
    before = pa.total_allocated_bytes()
    assert "has more than" in refusal(older, made_up_root)
    assert pa.total_allocated_bytes() - before < 1 << 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].update(metric="accuracy"), "unknown task or metric"),
        (lambda rows: rows[0].update(unit="fr"), "massive fr slot_f1 is not in the plan"),
        (lambda rows: rows[0].update(width=4), "expected 3 counts per item, got 4"),
        (lambda rows: rows.append(rows[0]), "massive de slot_f1 occurs twice"),
        (lambda rows: rows[0]["counts"].pop(), "not a matrix of 3 columns"),
        (lambda rows: rows[0].update(counts=None), "not a matrix of 3 columns"),
        (lambda rows: rows[0]["counts"].__setitem__(0, -1), "is negative"),
        (lambda rows: rows.pop(0), "massive de slot_f1 is missing"),
        (lambda rows: rows[0].update(counts=[1] * 9), "3 items, but 5 answers"),
    ],
)
def test_counts(change, message, submission):
    path = submission / "counts.parquet"
    edit_rows(path, change)
    found = refusal(submission, None)
    assert found.startswith("counts.parquet")
    assert message in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r["data_digests"].update({"retrieval/sw": "0" * 16}),
            "retrieval/sw does not match",
        ),
        (lambda r: r["data_digests"].pop("uner/da"), "data_digests: uner/da"),
        (
            lambda r: r["plan"]["task_versions"].update(massive=7),
            "massive: unknown version 7",
        ),
        (lambda r: r["plan"]["task_versions"].update(massive=0), "massive: unknown version 0"),
        (lambda r: r["plan"]["task_versions"].pop("uner"), "task_versions"),
        (lambda r: r["plan"]["units"].update(uner=["da", "xx"]), "unknown unit 'xx'"),
        (lambda r: r["plan"]["units"].update(uner=["da", "da"]), "da occurs twice"),
        (lambda r: r["plan"].update(layers=[2, 4, 9]), "plan.layers"),
        (lambda r: r["plan"].update(limit=0), "plan.limit"),
        (lambda r: r["plan"].update(adapter="other"), "adapter.name differs from the plan"),
        (lambda r: r["model"].update(sha256=None), "model.sha256 differs"),
        (lambda r: r.update(schema_version=9), "unknown schema_version"),
        (lambda r: r.update(created="2999-01-01T00:00:00+00:00"), "is in the future"),
        (lambda r: r.update(created="yesterday"), "created is not a date"),
        (lambda r: r.update(surprise=1), "surprise"),
        (lambda r: r.update(truncated_prompts="0"), "truncated_prompts"),
        (lambda r: r.update(notes=["x" * 5000]), "notes has 5,000 characters"),
        (lambda r: r.update(command="a\u202eb"), "command contains the character U+202E"),
        (lambda r: r["seconds"].update(all=float("inf")), "Infinity is not allowed"),
        (lambda r: r["seconds"].update(all=float("nan")), "NaN is not allowed"),
    ],
)
def test_records(change, message, submission, made_up_root, edit):
    edit(submission / "record.json", change)
    found = refusal(submission, made_up_root)
    assert found.startswith("record.json")
    assert message in found


def test_a_real_digest_with_another_number_of_items(submission, edit):
    """The digest of a pinned test set implies its number of items, even if the file is missing."""
    pinned = get_task("massive").test_set(1).units["de"]
    n, digest = pinned.items, pinned.digest
    edit(submission / "record.json", lambda r: r["data_digests"].update({"massive/de": digest}))
    found = refusal(submission, None)
    assert found == f"record.json: massive de slot_f1: n is 5, but the test set has {n} items"


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace(b"{", b'{"created": "x",', 1), "key 'created' occurs twice"),
        (lambda t: t[:-100], "cannot be read as JSON"),
        (lambda t: t.replace(b'"notes": []', f'"notes": {DEEP}'.encode()), "maximum recursion"),
        (lambda t: t.replace(b'"q_proj": 1.0', b'"q_proj": 1e999'), "finite number"),
        (lambda t: b"\xff\xfe", "utf-8"),
        (lambda t: b" " * (5 << 20), "the limit is 4,194,304"),
    ],
    ids=["twice", "cut", "deep", "infinite", "encoding", "large"],
)
def test_broken_json(change, message, submission, made_up_root):
    path = submission / "record.json"
    text = path.read_bytes()
    path.write_bytes(change(text))
    assert path.read_bytes() != text
    assert message in refusal(submission, made_up_root)


ANSWER_FILES = {
    "is damaged": lambda packed: packed[:-5] + bytes(5),
    "de.jsonl.zst": lambda packed: packed[: len(packed) // 2],
    "is not exactly one zstd frame": lambda packed: packed + b"smuggled",
    "zst is not exactly one": lambda packed: packed + zstandard.compress(b"another"),
    "unpacks to more than": lambda _: zstandard.compress(bytes(200 << 20)),
    "the limit is 10,000": lambda _: zstandard.compress(b"{}\n" * 20_000),
    "is not UTF-8": lambda _: zstandard.compress(b"\xff"),
}
FIRST_LINES = {
    "key 'id' occurs twice": '{"id": "0", "id": "0", "hypothesis": ""}',
    "line 1 must be {": '{"id": "0", "hypothesis": "", "cut_off": false, "x": 1}',
    "id must be a string": '{"id": 0, "hypothesis": "", "cut_off": false}',
    "hypothesis of item '0'": '{"id": "0", "hypothesis": null, "cut_off": false}',
    "cut_off of item '0'": '{"id": "0", "hypothesis": "", "cut_off": 0}',
    "contains a lone surrogate": '{"id": "0", "hypothesis": "\\ud800", "cut_off": false}',
    "NaN is not allowed": '{"id": NaN, "hypothesis": "", "cut_off": false}',
    "maximum recursion": "[" * 50_000,
}


@pytest.mark.parametrize("message", ANSWER_FILES)
def test_broken_files_of_answers(message, submission, made_up_root):
    path = predictions_path(submission, "massive", "de")
    path.write_bytes(ANSWER_FILES[message](path.read_bytes()))
    found = refusal(submission, made_up_root)
    assert "de.jsonl.zst" in found
    assert message in found


@pytest.mark.parametrize("message", FIRST_LINES)
def test_broken_lines_of_answers(message, submission, made_up_root):
    path = predictions_path(submission, "massive", "de")
    unpacked = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    lines = [FIRST_LINES[message], *unpacked.decode().splitlines()[1:]]
    path.write_bytes(zstandard.compress("\n".join(lines).encode()))
    found = refusal(submission, made_up_root)
    assert "de.jsonl.zst" in found
    assert message in found


def test_the_text_of_all_answers_is_bounded(submission, made_up_root, monkeypatch):
    files = sorted(submission.rglob("*.jsonl.zst"))
    answers = [len(answer.hypothesis) for path in files for answer in read_predictions(path)]
    text = sum(n + n * n // 5_000 for n in answers)
    monkeypatch.setattr(checking, "MAX_TEXT", text)
    assert check(submission, made_up_root).state == "checked"
    monkeypatch.setattr(checking, "MAX_TEXT", text - 1)
    assert f"all answers so far have over {text - 1:,} characters" in refusal(
        submission, made_up_root
    )


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("notes.txt", Path.touch, "'notes.txt' is not part of this submission"),
        ("predictions/massive/fr.jsonl.zst", Path.touch, "fr.jsonl.zst"),
        ("retrieval/states", Path.mkdir, "'retrieval/states' is not part of"),
        ("away", lambda path: path.symlink_to("/etc"), "'away' is a symbolic link"),
        ("predictions/massive/.x", Path.touch, "is not part of this submission"),
    ],
)
def test_links_and_extra_files(name, make, message, submission, made_up_root):
    make(submission / name)
    assert message in refusal(submission, made_up_root)


def test_a_record_that_is_missing_or_a_pipe(submission, made_up_root):
    record = submission / "record.json"
    record.unlink()
    assert "record.json is missing" in refusal(submission, made_up_root)
    os.mkfifo(record)
    assert "is not a regular file" in refusal(submission, made_up_root)


def test_a_link_to_a_submission(submission, made_up_root):
    linked = submission.with_name("base-lora-0123456789-0123456789")
    linked.symlink_to(submission)
    assert "is not a folder" in refusal(linked, made_up_root)


CYRILLIC = "b\u0430se-0123456789-0123456789"


@pytest.mark.parametrize("odd", ["Base-0123456789-0123456789", CYRILLIC, "x" * 200, "..a"])
def test_names_that_are_not_ids(odd, submission, made_up_root):
    (submission.parent / odd).mkdir()
    assert "is not a submission id" in refusal(submission.parent / odd, made_up_root)


def test_another_name_for_the_same(submission, made_up_root, edit):
    other = submission.with_name("other-" + submission.name)
    shutil.copytree(submission, other)
    assert "id differs from the folder name" in refusal(other, made_up_root)
    edit(other / "submission.json", lambda about: about.update(id=other.name))
    assert f"are already submitted as {submission.name}" in refusal(other, made_up_root)


def test_missing_test_sets_are_named(submission, made_up_root, tmp_path):
    root = shutil.copytree(made_up_root, tmp_path / "data")
    (root / "massive" / "1.1" / "data" / "sw-KE.jsonl.gz").unlink()
    shutil.rmtree(root / "uner")
    report = check(submission, root)
    assert report.state == "not fully checked"
    assert report.detail.endswith("for massive sw, uner da")


def test_folders(submission):
    above = submission.parent
    (above / ".new-half").mkdir()
    (above / "README.md").write_text("")
    (above / "packed.zip").write_text("")
    assert list_submissions([above]) == [submission, above / "packed.zip"]
    assert list_submissions([submission]) == [submission]
    with pytest.raises(InputError, match="unpack archives first"):
        list_submissions([above / "packed.zip"])


def test_a_forged_score(submission, made_up_root, edit):
    def raise_first(record):
        record["results"]["scores"][0]["value"] += 5

    edit(submission / "record.json", raise_first)
    assert "massive de slot_f1: value is" in refusal(submission, made_up_root)


def test_a_forged_mean_and_a_left_out_score(submission, made_up_root, edit):
    shutil.copytree(submission, submission.parent / "copy")
    edit(submission / "record.json", lambda r: r["results"]["means"][0].update(high=100.0))
    assert "high is 100.0" in refusal(submission, made_up_root)


def test_a_dropped_a_doubled_and_a_swapped_item(submission, made_up_root):
    whole = read_predictions(predictions_path(submission, "massive", "de"))
    for change, said in [
        (lambda rows: rows[:2] + rows[3:], "item 2 is missing"),
        (lambda rows: [*rows[:2], rows[1], *rows[3:]], "item 1 occurs twice"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "item 0 expected, 1 found"),
    ]:
        assert said in refusal(forged_answers(submission, change(whole)), made_up_root)


def test_other_answers_than_those_that_were_counted(submission, made_up_root):
    rows = read_predictions(predictions_path(submission, "massive", "de"))
    forged = forged_answers(submission, [Prediction(r.id, "None", r.cut_off) for r in rows])
    assert "counts.parquet: massive de" in refusal(forged, made_up_root)


def test_an_id_that_is_not_that_of_the_contents(submission, made_up_root, edit):
    edit(submission / "submission.json", lambda s: s["contents"].update({"uner/da": "0" * 16}))
    assert "id does not match" in refusal(submission, made_up_root)


def test_answers_that_were_changed_after_submitting(submission, made_up_root):
    path = predictions_path(submission, "uner", "da")
    rows = read_predictions(path)
    write_predictions(path, [rows[0], *[Prediction(r.id, "None", r.cut_off) for r in rows[1:]]])
    assert "uner/da has digest" in refusal(submission, made_up_root)


def test_a_wrong_data_digest_and_an_unknown_version(submission, made_up_root, edit):
    shutil.copytree(submission, submission.parent.parent / "spare" / submission.name)
    edit(submission / "record.json", lambda r: r["data_digests"].update({"massive/de": "f" * 16}))
    assert "data_digests: massive/de" in refusal(submission, made_up_root)
    spare = submission.parent.parent / "spare" / submission.name
    edit(spare / "record.json", lambda r: r["plan"]["task_versions"].update(massive=99))
    assert "99" in refusal(spare, made_up_root)


def test_neighbours_that_do_not_give_the_accuracy(older, made_up_root):
    path = older / "retrieval" / "layer-002.parquet"
    table = pq.read_table(path)
    column = pa.array([100.0] * len(table))
    pq.write_table(table.set_column(2, "accuracy", column), path)
    assert "accuracy of" in refusal(older, made_up_root)


def test_what_cannot_be_checked_is_not_claimed(submission, tmp_path):
    report = check(submission, tmp_path / "no data here")
    assert report.state == "not fully checked"
    assert "massive de" in report.detail


def test_links_to_extra_files_are_refused(submission, made_up_root, tmp_path):
    (tmp_path / "secret").write_text("mine")
    (submission / "predictions" / "massive" / "extra.jsonl.zst").symlink_to(tmp_path / "secret")
    assert refusal(submission, made_up_root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r["model"].update(layers=2**31),
            "model.layers: Input should be less than or equal to 1000",
        ),
        (lambda r: r["plan"].update(limit=10**30), "plan.limit"),
        (lambda r: r.update(notes=[""] * 20_000), "has 20,000 elements"),
        (lambda r: r.update(created="0001-01-01T00:00:00+23:59"), "before the year 2000"),
        (lambda r: r["adapter"].update(alignment_languages=["x" * 10_000]), "unknown language"),
    ],
)
def test_records_that_would_break_the_store(
    change, message, submission, made_up_root, tmp_path, edit
):
    edit(submission / "record.json", change)
    assert message in refusal(submission, made_up_root)
    from xlt_bench.store.build import build

    (report,) = build(submission.parent, tmp_path / "db").refused
    assert message in report.detail
    assert len(report.detail) <= 400


@pytest.mark.parametrize(
    "broken",
    [
        lambda record: record.write_text("{}"),
        Path.unlink,
        lambda record: record.write_text(record.read_text().replace("2026-01-", "yester")),
    ],
    ids=["empty", "missing", "date"],
)
def test_a_broken_submission_does_not_affect_others(
    broken, accepted, make_run, made_up_root, tmp_path
):
    submission = shutil.copytree(accepted, tmp_path / "submissions" / accepted.name)
    later = "2026-02-02T00:00:00+00:00"
    run = make_run(tmp_path / "run", 1, adapter="lora", created=later)
    newer = submit(run, About(), submission.parent, made_up_root).folder
    broken(submission / "record.json")
    report = check(newer, made_up_root)
    assert (report.state, report.detail) == ("checked", "")


def test_a_table_whose_text_is_not_utf8(submission, made_up_root):
    path = submission / "retrieval" / "layer-002.parquet"
    pq.write_table(pq.read_table(path), path, compression="none", use_dictionary=False)
    data = path.read_bytes()
    place = data.index(b"\x02\x00\x00\x00de")
    path.write_bytes(data[: place + 4] + b"\xff\xfe" + data[place + 6 :])
    assert refusal(submission, made_up_root).startswith("layer-002.parquet is damaged")


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", b"\xff".decode(errors="surrogateescape")])
def test_names_with_terminal_escapes(name, submission, made_up_root):
    report = check(submission.rename(submission.with_name(name)), made_up_root)
    assert report.state == "refused"
    assert report.name.isprintable()
    assert report.detail.isprintable()
    report.name.encode()


def test_a_page_that_does_not_match_its_checksum(older, made_up_root):
    """Without the checksum, only the changed accuracy would be noticed."""
    path = older / "retrieval" / "layer-002.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    table = pq.read_table(path)
    pq.write_table(table, path, **options)
    data = path.read_bytes()
    first = np.array(table.column("accuracy")[:2].to_pylist()).tobytes()
    place = data.index(first)
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert "CRC" in refusal(older, made_up_root)
