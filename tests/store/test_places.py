"""Places of systems and of methods, among the verified ones and among all, by `compare`'s tests."""

import shutil
from functools import cache

import numpy as np
import pytest

from boards import verify
from xlt_bench.metrics.paired import FEW
from xlt_bench.store.build import build, connect
from xlt_bench.store.export import page
from xlt_bench.store.places import bins
from xlt_bench.submissions.compare import compare_methods, load_system
from xlt_bench.submissions.create import About, submit

TASK = {"task.name": "massive", "task.units": ["de"], "training.max_steps": 100}
ALIGNED = {**TASK, "alignment.data": "tatoeba", "alignment.pairs": ["sw-en"]}
UNITS = {"massive": ["de", "sw"], "retrieval": ["de", "en", "sw"]}
RIGHT = {"sft": 0.3, "middle": 0.75, "top": 0.6}


@pytest.fixture(scope="module")
def board(make_run, made_up_root, tmp_path_factory, accept):
    """Three methods with three seeds, a bare model, and answers of a forger. All count as complete.

    Verified are two seeds of SFT and of the middle layer, and the bare model.
    """
    folder = tmp_path_factory.mktemp("places")
    submissions, ids = folder / "submissions", {}

    def add(name, seed, **options):
        run = make_run(folder / name, seed, units=UNITS, **options)
        ids[name] = submit(run, About(name=name), submissions, made_up_root).folder.name

    for i, (kind, right) in enumerate(RIGHT.items()):
        changed = {} if kind == "sft" else {"alignment.layers": [i]}
        for seed in (1, 2, 3):
            settings = {**(TASK if kind == "sft" else ALIGNED), **changed}
            training = {"settings": settings, "seed": seed}
            aligned = () if kind == "sft" else ("sw",)
            options = {"training": training, "aligned": aligned, "right": right}
            add(f"{kind} {seed}", 10 * i + seed, adapter=f"{kind}{seed}", **options)
    add("bare", 0, right=0.1)
    add("forged", 50, adapter="forged", right=0.999)
    for name in ("sft 1", "sft 2", "middle 1", "middle 2", "bare"):
        accept(submissions, ids[name])
        verify(submissions / ids[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xlt_bench.store.rows.missing", lambda record, task: [])
        built = build(submissions, folder / "db")
    assert built.refused == []
    return folder, ids


def rows(board, query):
    with connect(board[0] / "db") as store:
        found = store.execute(query)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.fixture(scope="module")
def tested(board, made_up_root):
    """p and whether it covers seeds, by `compare`, of two tuples of submissions in a mean."""
    folder, _ = board

    @cache
    def load(name):
        return load_system(name, folder / "submissions", made_up_root)

    def p(ours, theirs, task, split):
        compared, _ = compare_methods([load(one) for one in ours], [load(one) for one in theirs])
        (found,) = [one for one in compared if one.task == task]
        return next(m.gain.p for m in found.means if m.split == split), found.covers_seeds

    return p


def ranked(candidates, tested, task, split):
    """Places by the rule in docs/submissions.md: candidates are ids and a value, by name."""
    ordered = sorted(candidates, key=lambda name: -candidates[name][1])
    head, place, found = ordered[0], 1, {}
    for position, name in enumerate(ordered, 1):
        covers = None
        if name != head:
            p, covers = tested(candidates[name][0], candidates[head][0], task, split)
            if p < 0.05:
                head, place = name, position
        found[name] = (place, covers)
    return found


TASKS = [("massive", "transfer", "slot_f1"), ("retrieval", "all", "retrieval_accuracy")]


@pytest.mark.parametrize(("task", "split", "metric"), TASKS)
def test_systems_are_ranked_among_the_verified_and_among_all(board, tested, task, split, metric):
    ids = board[1]
    means = {
        row["submission"]: row
        for row in rows(
            board,
            f"SELECT * FROM split_means WHERE task = '{task}' AND split = '{split}' "
            f"AND metric = '{metric}'",
        )
    }
    assert means.keys() == set(ids.values())
    verified = {one for one, row in means.items() if row["rank_class"] == "verified"}
    assert len(verified) == 5
    assert means[ids["forged"]]["place_all"] == 1
    for column, some in (("place", verified), ("place_all", set(means))):
        wanted = ranked({one: ([one], means[one]["value"]) for one in some}, tested, task, split)
        assert {one: row[column] for one, row in means.items() if row[column]} == {
            one: place for one, (place, _) in wanted.items()
        }
        for one in some:
            tied = sum(means[other][column] == means[one][column] for other in some)
            assert means[one][column.replace("place", "tied")] == tied
    if task == "retrieval":  # slot filling has too few items here
        assert len({row["place"] for row in means.values()} - {None}) > 1


@pytest.mark.parametrize(("task", "split", "metric"), TASKS)
def test_methods_are_ranked_over_their_seeds(board, tested, task, split, metric):
    ids = board[1]
    query = f"SELECT * FROM method_means WHERE task = '{task}' AND split = '{split}'"
    found = {tuple(sorted(row["submissions"])): row for row in rows(board, query)}
    query = f"SELECT * FROM split_means WHERE task = '{task}' AND split = '{split}' "
    query += f"AND metric = '{metric}'"
    values = {row["submission"]: row["value"] for row in rows(board, query)}
    methods = {kind: [ids[f"{kind} {seed}"] for seed in (1, 2, 3)] for kind in RIGHT}
    methods |= {"bare": [ids["bare"]], "forged": [ids["forged"]]}
    assert found.keys() == {tuple(sorted(some)) for some in methods.values()}
    verified = {"sft": methods["sft"][:2], "middle": methods["middle"][:2], "bare": [ids["bare"]]}
    for end, chosen in (("_all", methods), ("", verified)):
        candidates = {
            name: (some, sum(values[one] for one in some) / len(some))
            for name, some in chosen.items()
        }
        wanted = ranked(candidates, tested, task, split)
        for name, some in methods.items():
            row = found[tuple(sorted(some))]
            place, covers = wanted.get(name, (None, None))
            verdict = {True: "methods", False: "systems", None: None}[covers]
            assert (row[f"place{end}"], row[f"verdict{end}"]) == (place, verdict), name
            same = [other for other, (at, _) in wanted.items() if at == place]
            assert row[f"tied{end}"] == (len(same) if place else None)
            if end:
                assert row["value"] == pytest.approx(candidates[name][1])
            assert row["seeds_verified"] == len(verified.get(name, []))
    assert {row["verdict"] for row in found.values()} >= {"methods", None}


def test_a_forged_row_changes_no_place_among_the_verified(board, tmp_path):
    """It is the head of the ranking of all, which decides their ties."""
    folder, ids = board
    query = "SELECT submission, task, split, metric, place, tied FROM split_means ORDER BY ALL"
    before = [row for row in rows(board, query) if row["submission"] != ids["forged"]]
    kept = shutil.copytree(folder / "submissions", tmp_path / "submissions")
    shutil.rmtree(kept / ids["forged"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xlt_bench.store.rows.missing", lambda record, task: [])
        build(kept, tmp_path / "db")
    assert rows((tmp_path, ids), query) == before


def test_a_page_for_print_gives_the_same_places(board):
    ids = board[1]
    query = "SELECT name, place, place_all FROM split_means WHERE task = 'massive' "
    query += "AND split = 'transfer' AND metric = 'slot_f1'"
    stored = {row["name"]: row for row in rows(board, query)}
    with connect(board[0] / "db") as store:
        for every, column in ((False, "place"), (True, "place_all")):
            table = page(store, every=every)[0]
            assert table.title == "massive v2"
            assert len(table.rows) == len(ids), "every row is there, with a place or without"
            for place, name, *_ in table.rows:
                assert place == str(stored[name][column] or "")
            assert ("among all" in table.notes[1]) == every


def test_bins_of_counts_never_tell_more_items_apart_than_differ():
    """Only then may they stand for the counts, of which the exact test is of at most 12 items."""
    generator = np.random.default_rng(0)
    for differing in (0, 1, 5, 12, 40):
        ours = [generator.integers(0, 9, size=(n, 3)) for n in (300, 300, 77)]
        theirs = [counts.copy() for counts in ours]
        for item in generator.choice(300, differing, replace=False):
            for counts in theirs[:2]:  # an item of parallel languages is one item
                counts[item, 1] += 1 + item % 3
        apart = np.count_nonzero(bins(ours) != bins(theirs))
        assert apart <= differing
        assert (apart > FEW) == (differing > FEW), "or nothing is saved"
