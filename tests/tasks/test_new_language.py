"""A language is a row, and a task an object: both are made up, in a copy of the package.

Every old submission keeps its scores and places, and both can be evaluated and ranked.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

import xlt_bench
from packages import CAPITALS, install

PACKAGE = Path(xlt_bench.__file__).parent
ROOT = PACKAGE.parent
# Of another script than any, and unknown to the language identifier.
ROW = "xqq\tMade-up\txqq_Qaaa\tQaaa\tMade-up\t\txq-XQ\t\n"
PLACES = """
SELECT submission, version, task, split, metric, value, place, place_all, units, complete
FROM split_means ORDER BY ALL
"""
SCORES = (
    "SELECT submission, task, version, unit, setting, metric, value, n FROM scores ORDER BY ALL"
)


def rows_of(db, query):
    with duckdb.connect(str(db), read_only=True) as store:
        return store.execute(query).fetchall()


def write_data(data, real):
    """MASSIVE and FLORES: the real files, and the made-up language's."""
    for folder in ("massive/1.1/data", "flores200_dataset/dev"):
        (data / folder).mkdir(parents=True)
        for path in (real / folder).iterdir():
            (data / folder / path.name).symlink_to(path)
    rows = [
        {"id": str(i), "locale": "xq-XQ", "partition": split, "utt": f"qaq {i} quq",
         "annot_utt": f"qaq [time : {i}] quq"}
        for split in ("train", "dev", "test")
        for i in range(4)
    ]  # fmt: skip
    path = data / "massive" / "1.1" / "data" / "xq-XQ.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "flores200_dataset" / "dev" / "xqq_Qaaa.dev").write_text(
        "".join(f"qaq {i} quq.\n" for i in range(997))
    )
    (data / "flores200_dataset" / "devtest").mkdir()
    (data / "flores200_dataset" / "devtest" / "xqq_Qaaa.devtest").write_text("qaq.\n" * 1012)


@pytest.fixture
def tree(data_dir, tmp_path_factory):
    """A checkout with the language added, and a command line that runs in it."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(PACKAGE, root / "xlt_bench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tasks", root / "tasks")
    write_data(root / "data", data_dir)

    def run(*words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "xlt_bench", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=root,
            env=os.environ
            | {"PYTHONPATH": str(root), "XLT_BENCH_DATA": str(root / "data"), "COLUMNS": "200"},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    with (root / "xlt_bench" / "languages.tsv").open("a", encoding="utf-8") as table:
        table.write(ROW)
    return root, run


@pytest.mark.skipif(not (ROOT / "submissions").is_dir(), reason="no submissions in this copy")
@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_a_new_language_and_a_new_task_leave_every_old_submission_as_it_is(tree, tmp_path, every):
    root, run = tree
    before, after = tmp_path / "before.duckdb", tmp_path / "after.duckdb"
    old = tmp_path / "submissions"
    for record in sorted(ROOT.glob("submissions/*/record.json"))[::every]:
        shutil.copytree(record.parent, old / record.parent.name)
    build = ("leaderboard", "build", "--submissions", old, "--db")
    run(*build, before)
    # A row alone: the language can be evaluated, and nothing else changes.
    small = ["--model", "embedded", "--adapter", "embedded:baseline", "--device", "cpu"]
    small += ["--layers", "2", "--limit", "1", "--output"]
    told = run("evaluate", *small, "beyond", "--languages", "xqq,de", "--tasks", "massive")
    assert "massive: xqq beyond the ranked set of version 2, so in no mean" in told
    record = json.loads((root / "beyond" / "record.json").read_text())
    assert record["plan"]["task_versions"] == {"massive": 2}
    assert {row["unit"]: row["setting"] for row in record["results"]["scores"]} == {
        "de": "transfer",
        "xqq": None,
    }
    assert {tuple(row["units"]) for row in record["results"]["means"]} == {("de",)}
    assert rows_of(before, PLACES)
    run("stubs", "--check")
    # Ranked: a version of its own.
    assert "massive-v3.json" in run("data", "pin", "massive", "--add", "xq-XQ=transfer")
    assert "retrieval-v2.json" in run("data", "pin", "retrieval", "--add", "xqq")
    assert "nothing to pin" in run("data", "pin", "retrieval", code=2)
    run("stubs", "--check", code=1)
    run("stubs")
    assert (root / "tasks" / "massive" / "xlt_massive_xqq.yaml").is_file()
    # A task of another package, with a pin of its own.
    install(CAPITALS, root)
    run(*build, after)
    assert rows_of(after, PLACES) == rows_of(before, PLACES)
    assert rows_of(after, SCORES) == rows_of(before, SCORES)
    chosen = ["--languages", "xqq,de", "--tasks", "massive,retrieval,capitals"]
    run("evaluate", *small, "ranked", *chosen)
    record = json.loads((root / "ranked" / "record.json").read_text())
    assert record["plan"]["task_versions"] == {"massive": 3, "retrieval": 2, "capitals": 1}
    means = {row["task"]: tuple(row["units"]) for row in record["results"]["means"]}
    assert means == {"massive": ("de", "xqq"), "retrieval": ("de", "xqq"), "capitals": ("de",)}
    # The old run is still scored, by its own version.
    told = run("score", "beyond")
    assert "states other scores" not in told
    # Both are submitted side by side; neither takes the other's place.
    for name in ("beyond", "ranked"):
        run("submit", name, "--submissions", "board")
    told = run("submissions", "check", "board")
    assert "2 checked" in told
    run("leaderboard", "build", "--submissions", "board", "--db", "board.duckdb")
    found = rows_of(
        root / "board.duckdb",
        "SELECT version, unit, setting, ranked, current FROM scores "
        "WHERE metric = 'slot_f1' ORDER BY ALL",
    )
    assert found == [
        (2, "de", "transfer", True, True),
        (2, "xqq", None, False, True),
        (3, "de", "transfer", True, True),
        (3, "xqq", "transfer", True, True),
    ]
    assert rows_of(
        root / "board.duckdb",
        "SELECT version, unit, setting, ranked FROM scores "
        "WHERE task = 'capitals' AND metric = 'exact_match'",
    ) == [(1, "de", "supervised", True)]


def test_data_check_and_languages_know_the_row(tree):
    _, run = tree
    assert "xqq" in run("languages")
    # Only two of the six data sets are there; what is pinned of them is right.
    told = run("data", "check", "massive", code=0)
    assert "massive" in told
