"""The rows of Overview: names, groups, counts, the paper's gains."""

from pathlib import Path

import pytest

from xlt_bench.store.build import connect

APP = Path(__file__).parents[2] / "leaderboard"


@pytest.fixture
def names(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import names

    return names


@pytest.fixture
def made(board, monkeypatch):
    """The groups of slot filling on the small board."""
    monkeypatch.syspath_prepend(str(APP))
    monkeypatch.setenv("XLT_BENCH_LEADERBOARD", str(board[0] / "leaderboard.duckdb"))
    import method_rows
    import queries

    task = next(one for one in queries.tasks() if one.name == "massive")
    return method_rows.groups(task, "slot_f1")


def method(**changed):
    known = {
        "kind": "aligned",
        "name": "what a submitter calls it",
        "task": "massive",
        "task_units": ["en", "fr"],
        "layers": [9],
        "alignment_languages": ["cy", "sw"],
        "changes": ["training.max_steps=100"],
        "dtype": "float32",
        "recipe": "massive-align-middle",
    }
    return {**known, **changed}


def test_names_leave_out_what_all_share(names):
    named = names.distinct(
        {
            "a": names.method_parts(method()),
            "b": names.method_parts(method(layers=[18])),
            "c": names.method_parts(method(alignment_languages=["de"])),
            "d": names.method_parts(method(kind="sft", layers=[], alignment_languages=[])),
        }
    )
    assert named == {
        "a": "SFT + alignment, layer 9, aligned on cy sw",
        "b": "SFT + alignment, layer 18, aligned on cy sw",
        "c": "SFT + alignment, layer 9, aligned on de",
        "d": "SFT",
    }


def test_a_setting_is_named_where_it_is_unusual(names):
    odd = method(changes=["training.max_steps=100", "alignment.symmetric=true"])
    named = names.distinct(
        {
            "a": names.method_parts(method()),
            "b": names.method_parts(odd),
            "c": names.method_parts(method(layers=[2])),
        }
    )
    assert named["a"] == "SFT + alignment, layer 9"
    assert named["b"] == "SFT + alignment, layer 9, symmetric true"
    assert named["c"] == "SFT + alignment, layer 2"


def test_no_two_names_are_equal(names):
    minor = method(changes=["training.max_steps=200"])
    named = names.distinct(
        {
            "first-0a1b2c": names.method_parts(method()),
            "second-3d4e5f": names.method_parts(method()),
            "third-667788": names.method_parts(minor),
            "fourth-99aabb": names.method_parts(method(recipe="another")),
        }
    )
    assert len(set(named.values())) == 4
    assert "another" in named["fourth-99aabb"]
    assert "max_steps 200" in named["third-667788"]


def test_an_unknown_training_has_its_submitters_name(names):
    unknown = method(kind="unknown", name="my <b>system</b>")
    assert names.distinct({"a": names.method_parts(unknown)}) == {"a": "my <b>system</b>"}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [(268_098_176, "268M"), (8_030_261_248, "8B"), (4_100_000, "4.1M"), (900, "900")],
)
def test_sizes(names, parameters, said):
    assert names.size(parameters) == said


def test_rows_of_a_group_can_be_compared(board, made):
    folder, _ = board
    with connect(folder / "leaderboard.duckdb") as store:
        query = "SELECT id, base_model, item_limit FROM submissions"
        known = {one: (base, limit) for one, base, limit in store.execute(query).fetchall()}
        query = "SELECT submission, kind FROM baselines WHERE task = 'massive' AND is_default"
        over = dict(store.execute(query).fetchall())
    computed = [group for group in made if group.rows[0].id]
    for group in computed:
        ids = [one for row in group.rows for one in row.submissions]
        assert len({(*known[one], over.get(one)) for one in ids}) == 1, group.title
    shown = [one for group in computed for row in group.rows for one in row.submissions]
    assert sorted(shown) == sorted(known), "every submission is in one row"
    limited = [group for group in computed if "first 3 items" in group.note]
    assert [row.items for group in limited for row in group.rows] == ["first 3"]


def test_a_row_holds_the_gains_of_the_database(board, made):
    folder, ids = board
    (row,) = [r for g in made for r in g.rows if r.submissions == [ids["good"]]]
    with connect(folder / "leaderboard.duckdb") as store:
        query = (
            "SELECT split, gain, low, high FROM method_gain_means "
            "WHERE task = 'massive' AND list_contains(submissions, ?)"
        )
        stored = {s: numbers for s, *numbers in store.execute(query, [ids["good"]]).fetchall()}
        query = "SELECT unit, gain, significant FROM significance WHERE submission = ? "
        query += "AND task = 'massive' AND ranked AND is_default"
        units = store.execute(query, [ids["good"]]).fetchall()
    assert set(row.gains) == set(stored)
    for split, (gain, low, high) in stored.items():
        found = row.gains[split]
        assert (found["gain"], found["low"], found["high"]) == (gain, low, high)
        assert found["value"] - found["from"] == pytest.approx(gain)
    assert row.up[0] == sum(gain > 0 for _, gain, _ in units)
    assert row.down[0] == sum(gain < 0 for _, gain, _ in units)
    assert row.up[1] + row.down[1] <= sum(sure for *_, sure in units)
    assert {cell["unit"]: cell["gain"] for cell in row.cells} == {u: gain for u, gain, _ in units}
    assert not row.covers_seeds
    assert "one seed" in dict(row.badges)


def test_the_papers_rows_have_the_papers_gains(made):
    (llama,) = [group for group in made if group.title == "Llama 3"]
    assert "not computed here" in llama.note
    (middle,) = [row for row in llama.rows if "layer 16 (middle)" in row.name]
    # Table 2: transfer 60.2 to 61.7, aligned 51.7 to 55.5, supervised 76.6 to 77.0.
    printed = {"transfer": 1.5, "aligned": 3.8, "supervised": 0.4}
    for split, gain in printed.items():
        assert middle.gains[split]["gain"] == pytest.approx(gain)
        assert middle.gains[split]["low"] is None
    assert len(middle.cells) == 20, "the languages of Table 11"
    assert not any(row.id for row in llama.rows)
