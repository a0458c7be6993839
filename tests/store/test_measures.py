"""The stored measures of transfer against `compare`, and which submission is the oracle."""

import pytest

import xlt_bench
from boards import frame
from xlt_bench.data.root import MINI
from xlt_bench.store.build import build
from xlt_bench.submissions.create import About, submit
from xlt_bench.tasks.registry import get_task

SFT = {"task.name": "massive", "task.units": ["ar", "en", "es", "ru", "zh"]}
ALIGNED = {**SFT, "alignment.data.0.name": "tatoeba"}
ORACLE = {**SFT, "task.units": list(get_task("massive").test_set().units)}


@pytest.fixture(scope="module")
def board(make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measures")
    ids = {}

    def add(name, seed, right, settings=None, **options):
        training = settings and {"settings": settings, "seed": 1, "data_digests": {}}
        given = {"units": {"massive": ["de", "en", "ru", "sw"]}, "root": MINI, "layers": ()}
        run = make_run(
            folder / name, seed, right=right, adapter=settings and name, training=training,
            **{"aligned": (), **given, **options},
        )  # fmt: skip
        package = submit(run, About(name=name), folder / "submissions", MINI)
        ids[name] = package.folder.name

    add("bare", 0, 0.3)
    add("sft", 1, 0.5, SFT)
    add("aligned", 2, 0.7, ALIGNED, aligned=("sw",))
    add("oracle", 3, 0.95, {**ORACLE, "training.max_steps": 900})
    add("other oracle", 4, 0.99, {**ORACLE, "training.learning_rate": 0.1})
    add("limited oracle", 5, 0.9, ORACLE, limit=2)
    assert build(folder / "submissions", folder / "db").loaded == 6
    return folder, ids


def test_the_measures_are_those_of_the_command(board):
    folder, ids = board
    found = frame(
        board, "SELECT * FROM transfer_measures WHERE submission = $id", id=ids["aligned"]
    )
    assert set(found.baseline) == {ids["sft"]}
    compared = xlt_bench.compare(ids["aligned"], ids["sft"], submissions=folder / "submissions")
    units = compared[compared.kind == "unit"].set_index("unit")
    assert set(found.measure) >= {"content", "format", "neither", "relative_transfer"}
    for row in found.itertuples():
        assert row.value == pytest.approx(units[row.measure][row.unit])
        assert row.low == pytest.approx(units[f"{row.measure}_low"][row.unit])
        if row.measure in ("relative_transfer", "consistency"):
            assert row.baseline_value == pytest.approx(units[f"{row.measure}_baseline"][row.unit])
    means = compared[compared.kind == "mean"].set_index("unit")
    query = "SELECT * FROM transfer_measure_means WHERE submission = $id"
    for row in frame(board, query, id=ids["aligned"]).itertuples():
        assert row.value == pytest.approx(means[row.measure][row.split])


def test_the_parts_of_every_submission_add_up_to_its_gain(board):
    found = frame(
        board,
        "SELECT any_value(s.gain) AS gain, sum(m.difference) AS total FROM transfer_measures m "
        "JOIN significance s USING (submission, baseline, task, unit) "
        "WHERE m.measure IN ('content', 'format', 'neither') GROUP BY submission, baseline, unit",
    )
    assert len(found) > 8
    assert found.total.tolist() == pytest.approx(found.gain.tolist(), abs=1e-9)


def test_the_oracle_is_the_same_training_in_all_languages_on_the_same_items(board):
    folder, ids = board
    found = frame(board, "SELECT *, coalesce(unit, split) AS row FROM gaps_closed")
    assert set(found.submission) == {ids["aligned"]}
    assert set(found.oracle) == {ids["oracle"]}
    compared = xlt_bench.compare(
        ids["aligned"], ids["sft"], oracle=ids["oracle"], submissions=folder / "submissions"
    )
    expected = compared.set_index("unit").gap_closed
    for row in found.itertuples():
        assert row.value == pytest.approx(expected[row.row])


def test_relative_transfer_stands_beside_the_bare_models(board):
    _, ids = board
    scores = frame(board, "SELECT * FROM scores WHERE metric = 'slot_f1'").set_index(
        ["submission", "unit"]
    )
    found = frame(board, "SELECT * FROM relative_transfer").set_index(["submission", "unit"])

    def ratio(name):
        source = (scores.value[ids[name], "en"] + scores.value[ids[name], "ru"]) / 2
        return 100 * scores.value[ids[name], "sw"] / source

    row = found.loc[(ids["aligned"], "sw")]
    assert row.relative == pytest.approx(ratio("aligned"))
    assert row.bare_relative == pytest.approx(ratio("bare"))


def test_an_unchanged_board_keeps_its_measures(board, tmp_path):
    folder, _ = board
    first = frame(board, "SELECT * FROM transfer_measures ORDER BY ALL")
    build(folder / "submissions", folder / "db")
    assert frame(board, "SELECT * FROM transfer_measures ORDER BY ALL").equals(first)
