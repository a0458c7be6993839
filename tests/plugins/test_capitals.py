"""A task of another package, from its pin to the leaderboard's page, through new processes."""

import json

import pytest

XLT = ("-m", "xlt_bench")

APP = """
import sys
from streamlit.testing.v1 import AppTest
# The first run imports DuckDB and pandas. A limit for hangs on a busy machine.
app = AppTest.from_file("leaderboard/app.py", default_timeout=1800)
app.query_params["task"] = "capitals"
app.run()
assert not app.exception, app.exception
# The only task with submissions: there is nothing to choose.
assert not [box for box in app.segmented_control if box.label == "Task"]
print("\\n".join(caption.value for caption in app.caption))
"""


@pytest.fixture(scope="module")
def run(with_package, tiny_model, tmp_path_factory):
    """A finished run of the example task."""
    folder = tmp_path_factory.mktemp("capitals") / "run"
    words = ["evaluate", "--model", tiny_model, "--output", folder, "--tasks", "capitals"]
    with_package(*XLT, *words, "--device", "cpu", "--chat-template", "plain")
    return folder


def test_evaluate_writes_scores_and_means_of_its_units(run):
    record = json.loads((run / "record.json").read_text())
    assert record["plan"]["units"] == {"capitals": ["de", "sw"]}
    found = {(row["unit"], row["metric"], row["setting"]) for row in record["results"]["scores"]}
    assert ("de", "exact_match", "supervised") in found
    assert ("sw", "cut_off", "transfer") in found
    means = {(row["split"], row["metric"]) for row in record["results"]["means"]}
    assert ("transfer", "exact_match") in means


def test_score_submit_check_build_export_and_page(run, with_package, tmp_path):
    submissions, db = tmp_path / "submissions", tmp_path / "board.duckdb"
    assert "capitals" in with_package(*XLT, "score", run)
    with_package(*XLT, "submit", run, "--submissions", submissions)
    assert "1 checked" in with_package(*XLT, "submissions", "check", submissions)
    build = ["leaderboard", "build", "--submissions", submissions, "--db", db]
    assert "1 submissions" in with_package(*XLT, *build)
    export = ["leaderboard", "export", "--format", "md", "--db", db, "--output", tmp_path / "out"]
    with_package(*XLT, *export)
    assert "capitals v1" in (tmp_path / "out" / "leaderboard.md").read_text()
    places = f"XLT_BENCH_LEADERBOARD={db}\nXLT_BENCH_SUBMISSIONS={submissions}\n".splitlines()
    given = f"import os; os.environ.update(dict(x.split('=') for x in {places}))"
    page = with_package("-c", given + APP)
    assert "capitals v1, 1 row" in page
    assert "means over the languages of a split" in page


def test_the_pin_is_what_the_package_gives(with_package):
    told = with_package(*XLT, "data", "pin", "capitals", ok=False)
    assert "nothing to pin" in told


def test_without_the_package_the_submission_is_refused_in_one_line(run, with_package, tmp_path):
    from xlt_bench.submissions.rescore import check

    submissions = tmp_path / "submissions"
    with_package(*XLT, "submit", run, "--submissions", submissions)
    (folder,) = submissions.iterdir()
    report = check(folder, None)
    assert report.state == "refused"
    assert "unknown task 'capitals'; install the package" in report.detail
