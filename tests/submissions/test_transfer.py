"""Measures of transfer of runs, against pandas on their answers, in Python and on the terminal."""

import json
from pathlib import Path

import pandas as pd
import pytest

import xlt_bench
from xlt_bench.metrics.slots import parse
from xlt_bench.submissions.compare import compare_methods, load_system

MINI = Path(xlt_bench.__file__).parent / "data" / "mini"
UNITS = {"massive": ["de", "en", "ru", "sw"], "uner": ["da", "en"]}


@pytest.fixture(scope="module")
def runs(make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    given = {"units": UNITS, "root": MINI, "layers": ()}
    make_run(folder / "sft", 1, right=0.5, adapter="sft", aligned=(), **given)
    make_run(folder / "aligned", 2, right=0.7, adapter="aligned", **given)
    make_run(folder / "oracle", 3, right=0.95, adapter="oracle", aligned=(), **given)
    part = {"units": {"massive": ["de", "sw"]}, "root": MINI, "layers": ()}
    make_run(folder / "part", 4, right=0.95, adapter="part", aligned=(), **part)
    return folder


@pytest.fixture(scope="module")
def found(runs):
    names = [runs / name for name in ("aligned", "sft", "oracle")]
    frame = xlt_bench.compare(*names[:2], oracle=names[2], data_dir=MINI)
    return frame.set_index(["kind", "task", "unit"])


def items(runs, name, unit):
    run = xlt_bench.load_run(runs / name, data_dir=MINI)
    return run.items("massive", unit)


def test_the_parts_add_up_to_the_gain_of_each_row(found):
    rows = found.loc[["unit", "mean"]]
    parts = rows.content + rows.format + rows.neither
    assert parts.tolist() == pytest.approx(rows.gain.tolist(), abs=1e-9)
    # A made-up answer that is wrong is not in the form asked for, so all of the gain is format.
    assert rows.content.abs().max() == 0
    assert (rows.format.abs() > 1).any()


def test_the_parts_are_those_of_the_answers_that_parse(runs, found):
    ours, theirs = (items(runs, name, "sw") for name in ("aligned", "sft"))
    formed = [answers.answer.map(lambda text: parse(text)[1]) for answers in (ours, theirs)]
    assert not (formed[0] == formed[1]).all()
    row = found.loc["unit", "massive", "sw"]
    assert row.format_low <= row.format <= row.format_high
    assert row.gain == pytest.approx(row.format)


def test_consistency_is_over_the_items_that_both_have_right_in_english(runs, found):
    frame = pd.DataFrame(
        {
            (name, unit): items(runs, name, unit).set_index("id").score == 100
            for name in ("aligned", "sft")
            for unit in ("en", "sw")
        }
    )
    slots = (items(runs, "sft", "en").set_index("id").reference != "None").reindex(frame.index)
    assert not slots.all()
    both = frame[slots & frame["aligned", "en"] & frame["sft", "en"]]
    row = found.loc["unit", "massive", "sw"]
    assert row.consistency == pytest.approx(100 * both["aligned", "sw"].mean())
    assert row.consistency_baseline == pytest.approx(100 * both["sft", "sw"].mean())
    assert row.consistency_low <= row.consistency - row.consistency_baseline <= row.consistency_high
    assert pd.isna(found.loc["unit", "massive", "en"].consistency)
    assert found.loc["unit", "uner"].consistency.isna().all()  # other sentences in each language


def test_relative_transfer_is_of_the_supervised_mean(found):
    rows = found.loc["unit", "massive"]
    for side, column in (("system", ""), ("baseline", "_baseline")):
        expected = 100 * rows[side] / rows.loc[["en", "ru"], side].mean()
        assert rows[f"relative_transfer{column}"].tolist() == pytest.approx(expected.tolist())
    # The few items of the only supervised language may all be wrong in a resample.
    assert found.loc["unit", "uner"].relative_transfer.isna().all()


def test_the_gap_closed_is_the_ratio_of_two_gains(runs, found):
    oracle = xlt_bench.compare(runs / "oracle", runs / "sft", data_dir=MINI)
    oracle = oracle.set_index(["kind", "task", "unit"])
    assert oracle.gap_closed.isna().all()
    # The oracle has no aligned languages.
    expected = (100 * found.gain / oracle.gain).reindex(found.index)
    there = found.gap_closed.notna() & expected.notna()
    assert there.sum() > 4
    assert found.gap_closed[there].tolist() == pytest.approx(expected[there].tolist())
    bounded = found[found.gap_closed_low.notna()]
    assert len(bounded)
    assert (bounded.gap_closed_low <= bounded.gap_closed).all()


def test_an_oracle_of_other_items_closes_no_gap(runs, make_run, tmp_path):
    limited = {"units": UNITS, "root": MINI, "layers": (), "limit": 2}
    make_run(tmp_path / "limited", 5, adapter="limited", **limited)
    names = [*(runs / name for name in ("aligned", "sft")), tmp_path / "limited"]
    systems = [load_system(str(name), runs, MINI) for name in names]
    compared, notes = compare_methods(systems[:1], systems[1:2], systems[2:])
    assert all(not one.gaps for one in compared)
    assert [note.split(": ")[1] for note in notes] == [f"no gap to {names[2]}"] * 2
    assert "the limits differ" in notes[0]


def test_without_english_there_is_no_consistency(runs):
    compared = xlt_bench.compare(runs / "part", runs / "sft", data_dir=MINI)
    assert compared.consistency.isna().all()
    assert compared.relative_transfer.isna().all()  # no supervised language in common
    assert compared.format.notna().all()


def test_the_measures_of_two_seeds_are_means_over_seeds(make_run, tmp_path, runs):
    training = {"settings": {"task.name": "massive"}, "data_digests": {}}
    for name, right in (("a", 0.8), ("b", 0.4)):
        for seed in (1, 2):
            make_run(
                tmp_path / f"{name}{seed}", 10 * seed, right=right, adapter=f"{name}{seed}",
                units=UNITS, root=MINI, layers=(), aligned=(),
                training={**training, "settings": {"task.name": name}, "seed": seed},
            )  # fmt: skip
    a, b = ([tmp_path / f"{name}{seed}" for seed in (1, 2)] for name in "ab")
    both = xlt_bench.compare(a, b, data_dir=MINI)
    each = [xlt_bench.compare(one, other, data_dir=MINI) for one, other in zip(a, b, strict=True)]
    for column in ("relative_transfer", "format", "content"):
        expected = (each[0][column] + each[1][column]) / 2
        assert both[column].tolist() == pytest.approx(expected.tolist(), nan_ok=True)
    crossed = xlt_bench.compare(a[:1], b, data_dir=MINI)
    assert crossed.format.isna().all()  # the seeds are not paired


def test_the_command_prints_the_measures(runs, found, run_cli):
    names = [runs / name for name in ("aligned", "sft")]
    more = ("--oracle", runs / "oracle", "--data-dir", MINI)
    code, out, _ = run_cli("compare", *names, *more)
    assert code == 0
    assert "massive transfer" in out
    assert "gap closed" in " ".join(out.split())
    assert "uner transfer" in out
    code, out, _ = run_cli("compare", *names, *more, "--format", "json")
    printed = [row for row in json.loads(out) if row]
    for column in ("content", "format_low", "consistency", "relative_transfer", "gap_closed_high"):
        values = [row[column] for row in printed]
        assert pd.Series(values, dtype=float).tolist() == pytest.approx(
            found[column].astype(float).tolist(), abs=1e-6, nan_ok=True
        )
