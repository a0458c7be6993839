"""Stored alignment measures, and the rank correlation with scores against scipy."""

import shutil

import duckdb
import pytest
from scipy.stats import spearmanr

import xlt_bench
from boards import frame
from xlt_bench.data.root import MINI
from xlt_bench.results.run_folder import read_record
from xlt_bench.store.build import build
from xlt_bench.submissions.create import About, submit

CODES = ["de", "en", "hi", "ja", "sw", "th", "tr"]


@pytest.fixture(scope="module")
def board(make_run, tmp_path_factory, edit):
    folder = tmp_path_factory.mktemp("alignment")
    units = {"massive": CODES, "retrieval": CODES}
    ids = {}
    for name, right in (("bare", 0.3), ("mine", 0.6)):
        run = make_run(
            folder / name, 3, right=right, adapter=None if name == "bare" else name, units=units,
            root=MINI,
        )  # fmt: skip
        rows = [
            {
                "layer": layer, "language": code, "mexa_weighted": 10.0 * place % 47,
                "mexa_last": 50.0, "cka": 0.1 * place, "cosine_margin": 0.3 / (1 + place * layer),
            }
            for layer in (2, 4, 400)
            for place, code in enumerate([*CODES[:1], *CODES[2:], "xx"])
        ]  # fmt: skip
        edit(run / "record.json", lambda record, rows=rows: record.update(alignment=rows))
        ids[name] = submit(run, About(name=name), folder / "submissions", MINI).folder.name
    assert build(folder / "submissions", folder / "db").loaded == 2
    return folder, ids


def test_layers_and_languages_that_were_not_planned_are_left_out(board):
    folder, ids = board
    found = frame(board, "SELECT * FROM alignment_measures WHERE submission = $id", id=ids["mine"])
    found = found[found.measure != "retrieval"]
    assert set(found.layer) == {2, 4}
    assert set(found.language) == set(CODES) - {"en"}
    stated = read_record(folder / "submissions" / ids["mine"]).alignment
    assert len(stated) == 3 * len(CODES)


def test_mexa_of_a_language_is_the_mean_and_the_maximum_over_the_layers_that_were_planned(
    board, tmp_path
):
    """By hand: of the made-up values, sw's differ by layer."""
    folder, ids = board
    shutil.copy(folder / "db", tmp_path / "db")
    values = {("sw", 2): 30.0, ("sw", 4): 50.0, ("tr", 2): 7.0, ("tr", 4): 7.0}
    wanted = {"sw": (40, 50, 4, [2, 4]), "tr": (7, 7, 2, [2, 4])}
    with duckdb.connect(tmp_path / "db") as store:
        for (code, layer), value in values.items():
            store.execute(
                "UPDATE alignments SET value = ? WHERE language = ? AND layer = ? "
                "AND measure = 'mexa_last'",
                [value, code, layer],
            )
    found = frame(
        (tmp_path, ids), "SELECT * FROM mexa_scores WHERE submission = $id", id=ids["mine"]
    )
    assert set(found.language) == set(CODES) - {"en"}
    for code, row_ in wanted.items():
        (row,) = found[(found.language == code) & (found.pooling == "last")].itertuples()
        assert (row.mean, row.max, row.best_layer, list(row.layers)) == row_


def test_mexa_of_a_run_is_that_of_its_record(board):
    folder, _ = board
    run = xlt_bench.load_run(folder / "mine", data_dir=MINI)
    found = run.mexa().set_index(["language", "pooling"])
    rows = read_record(folder / "mine").alignment
    for code in {row.language for row in rows}:
        for pooling in ("weighted", "last"):
            by_layer = {
                row.layer: getattr(row, f"mexa_{pooling}") for row in rows if row.language == code
            }
            one = found.loc[code, pooling]
            assert one["max"] == max(by_layer.values())
            assert one["mean"] == pytest.approx(sum(by_layer.values()) / len(by_layer))
            best = min(layer for layer, value in by_layer.items() if value == one["max"])
            assert (one["best_layer"], one["layers"]) == (best, len(by_layer))


@pytest.mark.parametrize("states_of", ["own", "bare model"])
def test_the_rank_correlation_is_scipys(board, states_of):
    _, ids = board
    found = frame(
        board,
        "SELECT * FROM transfer_predictors WHERE submission = $id AND states_of = $of",
        id=ids["mine"], of=states_of,
    )  # fmt: skip
    assert set(found.measure) >= {"retrieval", "mexa_weighted", "cka", "cosine_margin"}
    other = ids["mine" if states_of == "own" else "bare"]
    scores = frame(
        board,
        "SELECT language, value FROM scores WHERE submission = $id AND metric = 'slot_f1' "
        "AND setting = 'transfer'",
        id=ids["mine"],
    ).set_index("language")
    for row in found.itertuples():
        values = frame(
            board,
            "SELECT language, value FROM alignment_measures "
            "WHERE submission = $id AND measure = $m AND layer = $l",
            id=other, m=row.measure, l=int(row.layer),
        ).set_index("language")  # fmt: skip
        pairs = scores.join(values.add_suffix("_measure")).dropna()
        assert row.n == len(pairs)
        if row.measure == "mexa_last":
            assert row.spearman != row.spearman  # no variance
        else:
            expected = spearmanr(pairs.value, pairs.value_measure).statistic
            assert row.spearman == pytest.approx(expected)
