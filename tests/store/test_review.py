"""Tests the review of a pull request's submissions, and the comment that is made of it."""

import json
import shutil
from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.store.review import comment, read_review, review
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.move import move

URL = "https://example.org/run"
SUBMISSIONS = Path(__file__).parents[2] / "submissions"
ARTIFACTS = SUBMISSIONS / "artifacts"


@pytest.fixture(scope="module")
def pull(make_run, made_up_root, tmp_path_factory):
    """A base with a bare model and six adapters, and the same with one more adapter, by id."""
    folder = tmp_path_factory.mktemp("pull")

    def add(name, right, seed, **options):
        run = make_run(folder / name, seed, right=right, **options)
        return submit(run, About(name=name), folder / "base", made_up_root).folder.name

    ids = {"bare": add("bare", 0.2, 0)}
    ids |= {f"a{i}": add(f"a{i}", 0.1 + i / 8, i + 1, adapter=f"a{i}") for i in range(6)}
    shutil.copytree(folder / "base", folder / "proposed")
    run = make_run(folder / "new", 50, right=0.5, adapter="new")
    new = submit(run, About(name="new | `x` @you"), folder / "proposed", made_up_root)
    return folder, ids | {"new": new.folder.name}


@pytest.fixture
def copied(pull, tmp_path):
    """Copies of the two folders, to be changed."""
    return [shutil.copytree(pull[0] / name, tmp_path / name) for name in ("proposed", "base")]


def test_only_what_is_added_is_checked(pull, made_up_root):
    folder, ids = pull
    found = review(folder / "proposed", folder / "base", made_up_root)
    assert [(one.name, one.state) for one in found.checked] == [(ids["new"], "checked")]
    assert (found.changed, found.exit_code) == ([], 0)
    # The made-up items are not the pinned ones, so nothing is ranked: each stands alone.
    shown = [(one.task, one.split, len(one.rows)) for one in found.rankings]
    means = {"massive": "transfer", "wmt23": "all", "uner": "transfer", "retrieval": "all"}
    assert shown == [(task, split, 1) for task, split in means.items()]
    assert {row.place for one in found.rankings for row in one.rows} == {None}


def _mean(name, kind="value"):
    results = json.loads((SUBMISSIONS / name / "record.json").read_text())["results"]
    (found,) = (
        mean[kind]
        for mean in results["means"]
        if (mean["task"], mean["metric"], mean["split"]) == ("massive", "slot_f1", "transfer")
    )
    return found


@pytest.mark.skipif(not ARTIFACTS.is_dir(), reason="this clone leaves the answers out")
def test_it_is_ranked_among_its_neighbours(tmp_path):
    """Against the records of real submissions, which the fixture's cannot stand for."""
    bare, new = "embedded-ee7b1a8920-f020ab4f96", "embedded-massive-baseline-seed3-87445ca235-"
    chosen = [
        next(path.name for path in SUBMISSIONS.iterdir() if path.name.startswith(start))
        for start in (
            bare,
            new,
            "embedded-massive-baseline-seed2-",
            "embedded-massive-align-middle-seed2-",
            "embedded-massive-align-middle-seed3-",
            "embedded-massive-align-all-all-seed1-",
            "embedded-massive-align-bottom-seed1-",
        )
    ]
    (tmp_path / "base").mkdir()
    (tmp_path / "proposed").mkdir()
    for name in chosen:
        shutil.copytree(SUBMISSIONS / name, tmp_path / "proposed" / name)
        if not name.startswith(new):
            shutil.copytree(SUBMISSIONS / name, tmp_path / "base" / name)
    found = review(tmp_path / "proposed", tmp_path / "base", tmp_path, [str(ARTIFACTS)])
    assert [(one.name, one.state) for one in found.checked] == [(chosen[1], "not fully checked")]
    ranking = next(one for one in found.rankings if one.task == "massive")
    order = sorted(chosen, key=_mean, reverse=True)
    at = order.index(chosen[1])
    first = max(0, at - 2)
    assert [row.submission for row in ranking.rows] == order[first : at + 3]
    # Those that a test cannot tell apart share the place of the first of them.
    places = [row.place for row in ranking.rows]
    positions = [*range(first + 1, min(at + 4, len(order) + 1))]
    assert places == sorted(places)
    assert all(
        place == position or (place < position and (i == 0 or place == places[i - 1]))
        for i, (place, position) in enumerate(zip(places, positions, strict=True))
    )
    assert places[-1] == positions[-1]
    for row in ranking.rows:
        assert (row.value, row.low) == (_mean(row.submission), _mean(row.submission, "low"))
        stated = json.loads((SUBMISSIONS / row.submission / "submission.json").read_text())
        baseline = stated["baseline"] or bare
        if row.gain is not None:  # None: the baseline is not among the chosen
            assert row.gain == pytest.approx(row.value - _mean(baseline), abs=1e-6)
    assert [row for row in ranking.rows if row.gain is not None]
    assert [row.submission for row in ranking.rows if row.added] == [chosen[1]]


def test_a_wrong_submission_is_refused_and_has_no_ranking(copied, pull, made_up_root):
    new = copied[0] / pull[1]["new"]
    record = json.loads((new / "record.json").read_text())
    record["results"]["scores"][0]["value"] += 1
    (new / "record.json").write_text(json.dumps(record))
    found = review(*copied, made_up_root)
    assert [one.state for one in found.checked] == ["refused"]
    assert (found.rankings, found.exit_code) == ([], 1)


def test_without_test_sets_it_is_not_fully_checked(pull, tmp_path):
    found = review(pull[0] / "proposed", pull[0] / "base", tmp_path)
    assert ([one.state for one in found.checked], found.exit_code) == (["not fully checked"], 3)
    assert found.rankings


@pytest.mark.parametrize("kind", ["file", "more", "link", "folder link", "removed"])
def test_submissions_that_are_there_may_not_change(kind, copied, pull, made_up_root):
    old = copied[0] / pull[1]["a0"]
    counts = old / "counts.parquet"
    if kind == "file":
        counts.write_bytes(counts.read_bytes()[:-1] + b"x")
    elif kind == "more":
        (old / "predictions" / "extra").touch()
    elif kind == "link":
        counts.unlink()
        counts.symlink_to(copied[1] / old.name / "counts.parquet")
    else:
        shutil.rmtree(old)
        if kind == "folder link":
            old.symlink_to(copied[1] / old.name)
    found = review(*copied, made_up_root)
    assert (found.changed, found.exit_code) == ([old.name], 1)
    assert f"❌ `{old.name}`: changed or removed" in comment(found, 0, URL)


def test_hidden_files_and_what_is_no_submission_are_seen(copied, made_up_root):
    """A .gitattributes can leave files out of the archive from which a board is served."""
    for folder in copied:
        (folder / "artifacts").mkdir()
        (folder / "artifacts" / "ab").write_text("answers")
    (copied[0] / ".gitattributes").write_text("accepted.txt export-ignore\n")
    (copied[0] / "artifacts" / "ab").unlink()
    found = review(*copied, made_up_root)
    assert (found.changed, found.exit_code) == (["artifacts"], 1)
    assert [one.state for one in found.checked if one.name == ".gitattributes"] == ["refused"]


def test_added_links_and_odd_names_are_refused(copied, pull, made_up_root):
    (copied[0] / "a link").symlink_to("/etc")
    (copied[0] / "`<b>\n@you").mkdir()
    found = review(*copied, made_up_root)
    assert sorted(one.state for one in found.checked) == ["checked", "refused", "refused"]
    text = comment(found, 0, URL)
    assert "`'<b> @you`: refused" in text


def test_the_comment_shows_texts_as_code(pull, made_up_root):
    found = review(pull[0] / "proposed", pull[0] / "base", made_up_root)
    text = comment(found, 0, URL)
    assert "| **`new \\| 'x' @you`** (new) |" in text
    assert text.count("(new)") == 4
    assert "outside" not in text
    assert "also changes 3 files outside `submissions/`" in comment(found, 3, URL)
    # Every line of a table has the same number of columns.
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}


HOSTILE = {
    "markdown in a task": ("rankings.0.task", "x](http://evil) @you"),
    "line break": ("rankings.0.metric", "a\nb"),
    "wrong state": ("checked.0.state", "approved"),
    "text for a number": ("rankings.0.rows.0.value", "1"),
    "huge number": ("rankings.0.rows.0.value", 1e300),
    "long text": ("checked.0.detail", "x" * 401),
    "unknown key": ("comment", "approved"),
    "many": ("changed", ["x"] * 21),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_forged_review_is_refused(kind, pull, made_up_root, tmp_path):
    found = review(pull[0] / "proposed", pull[0] / "base", made_up_root)
    value = json.loads(found.model_dump_json())
    (tmp_path / "good.json").write_text(json.dumps(value))
    assert read_review(tmp_path / "good.json") == found
    *path, last = HOSTILE[kind][0].split(".")
    part = value
    for key in path:
        part = part[int(key) if isinstance(part, list) else key]
    part[last] = HOSTILE[kind][1]
    (tmp_path / "forged.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"forged\.json"):
        read_review(tmp_path / "forged.json")


def test_the_longest_comment_fits(pull, made_up_root):
    found = review(pull[0] / "proposed", pull[0] / "base", made_up_root)
    text = comment(found.model_copy(update={"rankings": found.rankings * 100}), 0, URL)
    assert len(text) < 65_536
    assert "more tables are left out." in text


def test_the_commands(pull, made_up_root, run_cli, tmp_path):
    folder, ids = pull
    words = ("submissions", "review", folder / "proposed", "--base", folder / "base")
    words += ("--output", tmp_path / "review.json", "--data-dir", made_up_root)
    assert run_cli(*words) == (0, f"{ids['new']}: checked\n", "")
    code, out, _ = run_cli("submissions", "comment", tmp_path / "review.json", "--url", URL)
    assert code == 0
    assert out == comment(read_review(tmp_path / "review.json"), 0, URL)
    code, _, err = run_cli("submissions", "comment", tmp_path / "none.json", "--url", URL)
    assert (code, err) == (2, "error: none.json is missing\n")


@pytest.mark.parametrize("name", ["accepted.txt", "supersessions.json", "stores.txt"])
def test_the_maintainers_files_may_not_change_with_a_submission(
    name, copied, pull, made_up_root, run_cli, tmp_path
):
    text = '{"allowed": []}' if name == "supersessions.json" else ""
    (copied[0] / name).write_text(text)
    found = review(*copied, made_up_root)
    assert (found.register_changed, found.exit_code) == ([name], 1)
    assert [one.name for one in found.checked] == [pull[1]["new"]]
    assert f"❌ `{name}` is changed" in comment(found, 0, URL)
    asked = ("submissions", "review", copied[0], "--base", copied[1], "--output", tmp_path / "r")
    code, out, _ = run_cli(*asked, "--data-dir", made_up_root)
    assert (code, f"{name}: changed; only maintainers" in " ".join(out.split())) == (1, True)


def test_maintainers_change_their_files_without_a_submission(copied, pull, made_up_root):
    shutil.rmtree(copied[0] / pull[1]["new"])
    (copied[0] / "accepted.txt").write_text(f"{pull[1]['bare']}\n")
    found = review(*copied, made_up_root)
    assert (found.register_changed, found.exit_code) == (["accepted.txt"], 0)


def test_a_store_that_the_pull_request_names_is_not_read(copied, pull, made_up_root, tmp_path):
    move(copied[0] / pull[1]["new"], str(tmp_path / "store"))
    (copied[0] / "stores.txt").write_text(f"{tmp_path / 'store'}\n")
    (found,) = review(*copied, made_up_root).checked
    assert (found.state, "name the store" in found.detail) == ("refused", True)
    (copied[1] / "stores.txt").write_text(f"{tmp_path / 'store'}\n")
    found = review(*copied, made_up_root)
    assert ([one.state for one in found.checked], found.exit_code) == (["checked"], 0)
