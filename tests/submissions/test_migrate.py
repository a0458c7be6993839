"""Tests that submissions and runs of every released schema are read, checked, built and migrated.

`fixtures/schema-<N>` has a submission as the release with schema N wrote it, of version 1 of all
tasks, on the mini suite. A new schema or task version adds a fixture; fixtures never change.
"""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from xlt_bench.data.root import MINI
from xlt_bench.results.migrations import upgrade_plan, upgrade_record
from xlt_bench.results.record import SCHEMA_VERSION
from xlt_bench.results.run_folder import read_digests, read_plan, write_bytes
from xlt_bench.store.build import build, connect
from xlt_bench.submissions.create import public
from xlt_bench.submissions.migrate import migrate
from xlt_bench.submissions.rescore import check
from xlt_bench.submissions.validate import open_package
from xlt_bench.tasks.registry import BUILT_IN

FIXTURES = Path(__file__).with_name("fixtures")
SCHEMAS = sorted(FIXTURES.glob("schema-*"))


def view(db, name):
    with connect(db) as store:
        return store.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()


@pytest.fixture(params=SCHEMAS, ids=lambda path: path.name)
def old(request, tmp_path):
    """A copy of a folder of submissions of an old schema."""
    return shutil.copytree(request.param, tmp_path / "submissions")


def test_there_is_a_fixture_of_every_schema_before_this_one():
    assert [path.name for path in SCHEMAS] == [f"schema-{n}" for n in range(1, SCHEMA_VERSION)]
    for path in SCHEMAS:
        (record,) = path.glob("*/record.json")
        assert json.loads(record.read_text())["schema_version"] == int(path.name[-1])


def test_there_is_a_fixture_of_every_version_before_the_current_one():
    wanted = {
        (task.name, version)
        for task in BUILT_IN
        for version in task.versions
        if version < task.version
    }
    plans = [json.loads(path.read_text())["plan"] for path in FIXTURES.glob("*/*/record.json")]
    assert ("massive", 1) in wanted
    assert wanted <= {pair for plan in plans for pair in plan["task_versions"].items()}


def test_an_old_submission_is_checked_and_built(old, tmp_path):
    (folder,) = old.iterdir()
    assert check(folder, MINI).state == "checked"
    record = open_package(folder).record
    assert set(record.plan.units) == {"massive", "wmt23", "uner", "retrieval"}
    assert build(old, tmp_path / "db").loaded == 1


def test_migration_changes_no_id_score_or_answer(old, tmp_path):
    (folder,) = old.iterdir()
    before = open_package(folder)
    build(old, tmp_path / "before")
    answers = {path: path.read_bytes() for path in folder.glob("*/**/*") if path.is_file()}
    assert answers
    assert migrate(folder)
    assert not migrate(folder)
    assert json.loads((folder / "record.json").read_text())["schema_version"] == SCHEMA_VERSION
    after = open_package(folder)
    assert after.record == public(before.record)
    digest = hashlib.sha256((folder / "record.json").read_bytes()).hexdigest()
    assert after.submission == before.submission.model_copy(update={"record_sha256": digest})
    assert check(folder, MINI).state == "checked"
    assert {path: path.read_bytes() for path in answers} == answers
    build(old, tmp_path / "after")
    for name in ("scores", "split_means", "layer_curves", "pair_accuracies", "runs"):
        assert view(tmp_path / "after", name) == view(tmp_path / "before", name)


def test_migration_shortens_paths(old, edit):
    (folder,) = old.iterdir()
    edit(folder / "record.json", lambda r: r.update(command="xlt-bench join /work/ada/a b/c"))
    edit(folder / "record.json", lambda r: r["notes"].append("read http://10.0.0.3:81/ada"))
    assert migrate(folder)
    record = open_package(folder).record
    assert (record.command, record.notes[-1]) == ("xlt-bench join a c", "read http://***/ada")
    assert not migrate(folder)
    assert check(folder, MINI).state == "checked"


@pytest.mark.parametrize("end", ["submission.json", "counts.parquet", "record.json"])
def test_an_interrupted_migration_leaves_a_valid_submission(old, end, monkeypatch):
    (folder,) = old.iterdir()

    def write(path, data):
        write_bytes(path, data)
        if path.name == end:
            raise KeyboardInterrupt

    monkeypatch.setattr("xlt_bench.submissions.migrate.write_bytes", write)
    monkeypatch.setattr("xlt_bench.submissions.counts.write_bytes", write)
    with pytest.raises(KeyboardInterrupt):
        migrate(folder)
    assert check(folder, MINI).state == "checked"
    monkeypatch.undo()
    assert migrate(folder)
    assert open_package(folder).submission.record_sha256


def test_the_command_migrates_a_folder_and_says_how_many(old, run_cli):
    code, out, _ = run_cli("submissions", "migrate", old)
    assert (code, "1 migrated, 0 already current" in out) == (0, True)
    code, out, _ = run_cli("submissions", "migrate", old)
    assert (code, "0 migrated, 1 already current" in out) == (0, True)


def test_a_broken_submission_is_not_migrated(old, run_cli):
    (folder,) = old.iterdir()
    (folder / "more.txt").write_text("")
    before = (folder / "record.json").read_bytes()
    code, _, err = run_cli("submissions", "migrate", old)
    assert (code, "is not part of this submission" in err, err.count("\n")) == (1, True, 1)
    assert (folder / "record.json").read_bytes() == before


def test_the_others_are_migrated_beside_a_broken_submission(old, run_cli):
    (folder,) = old.iterdir()
    first = old / "a-0123456789-0123456789"
    first.mkdir()
    code, out, err = run_cli("submissions", "migrate", old)
    assert (code, err.count("\n"), first.name in err) == (1, 1, True)
    assert "1 migrated, 0 already current, 1 invalid and left as they are" in " ".join(out.split())
    assert json.loads((folder / "record.json").read_text())["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize("version", [{}, [], "1", None, 1.0, True])
def test_an_odd_schema_version_is_refused_in_a_line(old, version, run_cli):
    (folder,) = old.iterdir()
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, "schema_version": version}))
    code, _, err = run_cli("submissions", "migrate", old)
    assert (code, "schema_version" in err, err.count("\n")) == (1, True, 1), err


def test_the_schema_is_found_anywhere_in_the_record(old, run_cli):
    (folder,) = old.iterdir()
    record = json.loads((folder / "record.json").read_text())
    last = {**{k: v for k, v in record.items() if k != "schema_version"}, "schema_version": 1}
    (folder / "record.json").write_text(json.dumps(last))
    code, out, _ = run_cli("submissions", "migrate", old)
    assert (code, "1 migrated" in out) == (0, True)


def test_a_run_of_schema_1_can_be_resumed(tmp_path):
    run = shutil.copytree(FIXTURES / "run-schema-1", tmp_path / "run")
    plan = read_plan(run)
    assert plan.schema_version == SCHEMA_VERSION
    assert plan.units["retrieval"] == ["de", "en", "sw"]
    assert set(plan.task_versions) == {"massive", "wmt23", "uner", "retrieval"}
    assert {name.split("/")[0] for name in read_digests(run)} == set(plan.units)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        1,
        {},
        {"schema_version": True},
        {"schema_version": {}},
        {"schema_version": []},
        {"schema_version": 1, "plan": [], "results": 3},
        {"schema_version": 1, "units": 7, "data_digests": "x", "results": {"scores": [None, {}]}},
    ],
)
def test_anything_else_is_left_for_the_reader_to_refuse(value):
    upgrade_plan(value)
    upgrade_record(value)


def test_two_tasks_that_would_get_one_name_are_not_merged():
    plan = {"schema_version": 1, "units": {"flores": ["de"], "retrieval": ["en"]}}
    assert upgrade_plan(plan)["units"] == plan["units"]
