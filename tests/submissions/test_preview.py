"""Tests `leaderboard serve --run`: unsubmitted runs beside submissions, which stay as they are."""

import hashlib
import os
import re
from pathlib import Path

import duckdb
import pytest

from xlt_bench.cli import leaderboard
from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import score_run
from xlt_bench.store.build import build, connect
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.preview import MARK, finished_runs, preview


@pytest.fixture(scope="module")
def place(make_run, made_up_root, tmp_path_factory):
    """Two submissions and their database, a submitted run, and two runs that are not submitted."""
    folder = tmp_path_factory.mktemp("preview")
    for seed, (name, adapter) in enumerate({"bare": None, "old": "lora"}.items()):
        run = make_run(folder / name, seed, adapter=adapter, right=0.3)
        submit(run, About(name=name), folder / "submissions", made_up_root)
    build(folder / "submissions", folder / "leaderboard.duckdb")
    make_run(folder / "mine" / "a", 5, adapter="a", right=0.9)
    make_run(folder / "mine" / "b", 6, adapter="b", right=0.6)
    (folder / "mine" / "unfinished").mkdir()
    return folder


def contents(folder):
    """Every path below a folder with the digest and the time of its file."""
    return {
        path: path.is_file()
        and (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def served(monkeypatch):
    """Puts a reader of the database in Streamlit's place; what it was started with and read."""
    seen = {}

    class Server:
        def __init__(self, command, env):
            seen.update(command=command, env=env)
            with connect(Path(env["XLT_BENCH_LEADERBOARD"])) as store:
                query = "SELECT name, task, unit, metric, value, low, high FROM scores ORDER BY ALL"
                seen["scores"] = store.execute(query).fetchall()
                query = "SELECT DISTINCT name FROM gains JOIN significance USING (submission)"
                seen["gains"] = {name for (name,) in store.execute(query).fetchall()}
            seen["folders"] = list(Path(env["XLT_BENCH_SUBMISSIONS"]).iterdir())

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def wait(self):
            return 0

        def terminate(self):
            seen["stopped"] = True

    monkeypatch.setattr(leaderboard.subprocess, "Popen", Server)
    return seen


def serve(run_cli, place, root, *runs):
    words = [word for run in runs for word in ("--run", run)]
    places = ["--submissions", place / "submissions", "--db", place / "leaderboard.duckdb"]
    return run_cli("leaderboard", "serve", *places, *words, "--data-dir", root)


def interval(metric, low, high):
    """Bootstrap intervals; the database has others for accuracies and rates."""
    return (low, high) if metric in ("slot_f1", "bleu", "chrf", "entity_f1") else ()


def test_the_scores_shown_are_those_that_score_computes(place, made_up_root, run_cli, served):
    code, said, _ = serve(run_cli, place, made_up_root, place / "mine", place / "old")
    assert code == 0
    names = {f"{MARK} {place / 'mine' / one}"[:200]: place / "mine" / one for one in "ab"}
    assert {row[0] for row in served["scores"]} == {"bare", "old", *names}
    for name, run in names.items():
        aligned = ["sw"]
        wanted = [
            (row.task, row.unit, row.metric, row.value, *interval(row.metric, row.low, row.high))
            for row in score_run(run, made_up_root, aligned).scores
        ]
        shown = [
            (*row[1:5], *interval(row[3], *row[5:])) for row in served["scores"] if row[0] == name
        ]
        assert shown == [pytest.approx(row) for row in sorted(wanted)]
        assert f"{run} is shown as {MARK}" in said
    assert names.keys() <= served["gains"]  # over the submitted bare model
    assert re.search(r"old is among the submissions already: base-lora-", said)
    assert served["env"]["XLT_BENCH_DATA"] == str(made_up_root)


def test_submissions_database_and_runs_stay_as_they_are(place, made_up_root, run_cli, served):
    before = contents(place)
    assert serve(run_cli, place, made_up_root, place / "mine" / "a")[0] == 0
    assert contents(place) == before
    assert served["stopped"]
    assert sum(path.name != "accepted.txt" for path in served["folders"]) == 3
    for left in ("XLT_BENCH_SUBMISSIONS", "XLT_BENCH_LEADERBOARD"):
        assert not Path(served["env"][left]).exists()


def test_the_scores_of_submissions_are_those_of_the_stored_database(
    place, made_up_root, run_cli, served
):
    serve(run_cli, place, made_up_root, place / "mine" / "a")
    with duckdb.connect(place / "leaderboard.duckdb", read_only=True) as store:
        query = "SELECT name, task, unit, metric, value, low, high FROM scores ORDER BY ALL"
        stored = store.execute(query).fetchall()
    assert [row for row in served["scores"] if not row[0].startswith(MARK)] == stored


def test_a_newer_run_of_a_submitted_system_is_said_to_take_its_place(
    place, make_run, made_up_root, tmp_path
):
    run = make_run(
        tmp_path / "again", 9, adapter="lora", right=0.5, created="2026-02-02T03:04:05+00:00"
    )
    (shown,) = preview([run], place / "submissions", tmp_path / "copy", made_up_root)
    assert [one.split("-")[1] for one in shown.supersedes] == ["lora"]
    assert not shown.repeat


def test_where_links_are_impossible_files_are_copied(place, made_up_root, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", fail)
    preview([], place / "submissions", tmp_path / "copy", made_up_root)
    first = next((tmp_path / "copy").rglob("record.json"))
    assert first.stat().st_nlink == 1
    assert build(tmp_path / "copy", tmp_path / "db").loaded == 2


def test_runs_are_found_alone_or_in_a_folder(place):
    a, b = place / "mine" / "a", place / "mine" / "b"
    assert finished_runs([place / "mine", a]) == [a, b]
    with pytest.raises(InputError, match="unfinished has no finished run"):
        finished_runs([place / "mine" / "unfinished"])


def test_without_submissions_the_runs_are_shown_alone(
    place, made_up_root, run_cli, served, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = place / "mine" / "a"
    words = "leaderboard", "serve", "--run", run, "--data-dir", made_up_root
    assert run_cli(*words)[0] == 0
    assert {row[0] for row in served["scores"]} == {f"{MARK} {run}"[:200]}
    assert not list(tmp_path.iterdir())
    code, _, said = run_cli(*words, "--submissions", "none")
    assert (code, "none is not a folder" in said) == (2, True)


def test_a_run_that_submit_refuses_is_an_error_in_one_line(
    place, make_run, made_up_root, tmp_path, run_cli, served, edit
):
    run = make_run(tmp_path / "edited", 7, adapter="c")

    def raise_score(record):
        record["results"]["scores"][0]["value"] = 99.0

    edit(run / "record.json", raise_score)
    code, _, said = serve(run_cli, place, made_up_root, run)
    assert code == 2
    assert re.fullmatch(r"error: .*edited: record.json: .* is 99.0, but .* when recomputed\n", said)
    assert not served
