"""Tests many processes that submit, build and read at once."""

import json
import subprocess
import sys

import pytest

from xlt_bench.store.build import build, connect
from xlt_bench.submissions.report import list_submissions
from xlt_bench.submissions.rescore import check

# One process imports everything and forks the others, which saves the imports.
SCRIPT = """
import json, multiprocessing, queue, sys, time
from pathlib import Path
from xlt_bench.errors import InputError
from xlt_bench.store.build import build, connect
from xlt_bench.submissions.create import About, submit

runs, submissions, db, root = map(Path, sys.argv[1:5])
submitters, builders, readers = map(int, sys.argv[5:8])
context = multiprocessing.get_context("fork")
done, told = context.Event(), context.Queue()

def submitting(place):
    names = sorted(runs.glob(f"{place}-*"))
    for run in [*names, runs / "shared"]:
        outcome = submit(run, About(), submissions, root)
        told.put(["submit", outcome.folder.name, outcome.repeat])

def building(place):
    counts, last = [], False
    while not last:
        last = done.is_set()  # build once more after the last submission
        built = build(submissions, db)
        assert not built.refused, built.refused
        counts.append(built.loaded)
    assert counts == sorted(counts), counts
    told.put(["build", None, counts[-1]])

def reading(place):
    last = False
    while not last:
        if not db.exists():
            time.sleep(0.001)
            continue
        last = done.is_set()
        with connect(db) as store:
            (n,) = store.execute("SELECT count(*) FROM submissions").fetchone()
            (scored,) = store.execute("SELECT count(DISTINCT submission) FROM scores").fetchone()
            (paired,) = store.execute(
                "SELECT count(DISTINCT submission) FROM pair_accuracies"
            ).fetchone()
            assert n == scored == paired, (n, scored, paired)
            for view in ("split_means", "gains", "significance", "transfer_correlation"):
                store.execute(f"SELECT count(*) FROM {view}").fetchone()
    told.put(["read", None, None])

submissions.mkdir()
jobs = [(submitting, i) for i in range(submitters)]
others = [(building, i) for i in range(builders)] + [(reading, i) for i in range(readers)]
# Daemons: if one fails, the others end with this process.
start = [context.Process(target=job, args=(i,), daemon=True) for job, i in jobs]
helpers = [context.Process(target=job, args=(i,), daemon=True) for job, i in others]
for process in [*start, *helpers]:
    process.start()
lines = []
def collect(n):
    while len(lines) < n:
        try:
            lines.append(told.get(timeout=1))
        except queue.Empty:  # however long it takes, unless one that is waited for has failed
            assert all(process.exitcode in (None, 0) for process in [*start, *helpers])
n_submits = sum(len(list(runs.glob(f"{i}-*"))) + 1 for i in range(submitters))
collect(n_submits)
done.set()
collect(n_submits + len(others))
for process in [*start, *helpers]:
    process.join()
    assert process.exitcode == 0, process.exitcode
print(json.dumps(lines))
"""


def at_once(make_run, root, folder, *, submitters, each, builders, readers):
    runs, submissions, db = (folder / name for name in ("runs", "submissions", "board.db"))
    make_run(runs / "shared", 10_000)
    for place in range(submitters):
        for i in range(each):
            make_run(runs / f"{place}-{i}", 100 * place + i, adapter=f"lora-{place}-{i}")
    command = [sys.executable, "-c", SCRIPT, runs, submissions, db, root]
    counts = map(str, (submitters, builders, readers))
    done = subprocess.run([*map(str, command), *counts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout.splitlines()[-1])  # DuckDB may print a progress bar first
    submitted = [(name, repeat) for kind, name, repeat in lines if kind == "submit"]
    new = [name for name, repeat in submitted if not repeat]
    assert len(new) == len(set(new)) == submitters * each + 1
    assert len(submitted) - len(new) == submitters - 1  # the shared one was new once
    assert sorted(path.name for path in submissions.iterdir()) == sorted(new)
    for path in list_submissions([submissions]):
        assert check(path, root).state == "checked"
    assert [count for kind, _, count in lines if kind == "build"] == [len(new)] * builders
    assert [kind for kind, *_ in lines].count("read") == readers
    assert build(submissions, db).loaded == len(new)
    with connect(db) as store:
        found = store.execute("SELECT id FROM submissions ORDER BY id").fetchall()
    assert [name for (name,) in found] == sorted(new)
    assert sorted(p.name for p in folder.iterdir()) == ["board.db", "runs", "submissions"]


def test_four_submit_and_two_build(make_run, made_up_root, tmp_path):
    at_once(make_run, made_up_root, tmp_path, submitters=4, each=2, builders=2, readers=1)


@pytest.mark.slow
def test_sixteen_submit_and_two_build(make_run, made_up_root, tmp_path):
    at_once(make_run, made_up_root, tmp_path, submitters=16, each=6, builders=2, readers=4)
