"""The paper's tables: every published number and every step they need, and measured values."""

import csv
from itertools import permutations
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from xlt_bench.errors import InputError
from xlt_bench.reproduce import report
from xlt_bench.reproduce.steps import Project, Settings, Step, languages_of, reproduction, steps
from xlt_bench.reproduce.tables import BASE, REPRODUCTIONS, Panel, System
from xlt_bench.results.tables import render
from xlt_bench.training.recipe import names

CSV = Path(report.__file__).parents[1] / "store" / "published.csv"
_KEY = ("task", "model", "row", "split", "unit", "metric")


def _panels(name: str) -> list[Panel]:
    return [part for part in REPRODUCTIONS[name].parts if isinstance(part, Panel)]


@pytest.mark.parametrize("name", [name for name in REPRODUCTIONS if name.startswith("table")])
def test_every_published_number_of_a_table_is_in_it(name: str) -> None:
    with CSV.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if f"table{row['paper_table']}" == name]
    wanted = {tuple(row[key] for key in _KEY) for row in rows if row["usable"] == "yes"}
    cells = {
        (panel.task, model, title, *column.published)
        for panel in _panels(name)
        for row in panel.rows
        for model, title in row.published.items()
        for column in panel.columns
    }
    assert wanted
    assert wanted <= cells
    # And no row of ours names a published row that does not exist.
    assert {cell[:3] for cell in cells} == {cell[:3] for cell in wanted}


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_every_step_comes_after_those_it_needs(name: str) -> None:
    todo = steps(REPRODUCTIONS[name], 2)
    assert len(todo) == len(set(todo))
    for i, step in enumerate(todo):
        parts = [part for part in (step.system.recipe, step.system.merged_with) if part]
        assert set(parts) <= set(names())
        if step.task or step.system.merged_with:
            made = {(before.system.recipe, before.seed) for before in todo[:i] if not before.task}
            assert {(part, step.seed) for part in parts} <= made
    assert sum(step.system == BASE for step in todo) == len(
        {step.task for step in todo if step.system == BASE}
    )


def test_tables_share_their_trainings() -> None:
    by_table = [set(steps(REPRODUCTIONS[name], 1)) for name in ("table2", "table3", "table11")]
    assert Step(System("massive-align-middle"), 1) in set.intersection(*by_table)
    assert Step(System("massive-align-middle"), 1, "massive") in set.intersection(*by_table)


def test_panels_of_one_task_and_unknown_names() -> None:
    assert [part.task for part in reproduction("table3", ["massive"]).parts] == ["massive"]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="did you mean 'table3'"):
        reproduction("tabel3")
    with pytest.raises(InputError, match="uner"):
        reproduction("table3", ["uner"])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(Settings(model="embedded", output=tmp_path / "out"))


def _published_as_measured(results: report.Results) -> None:
    """Replace measured scores by Table 11's for Llama 3: SFT and alignment at the middle layer."""
    rows = {
        "massive-baseline": "SFT",
        "massive-align-middle": "alignment at layer 16 (middle)",
    }

    def scores(system: System, seed: int, task: str) -> dict[tuple[str, str], float] | None:
        title = rows.get(system.name)
        return (
            title
            and {  # type: ignore[return-value]
                ("slot_f1_midalign", key[5]): value
                for key, value in report.published().items()
                if key[:4] == ("11", "massive", "Llama 3", title)
            }
        )

    results.scores = scores  # type: ignore[assignment]
    results.answers = lambda *_: None  # type: ignore[assignment]


def _cells(table: Any, label: str, source: str) -> list[str]:
    (row,) = [row for row in table.rows if row[0] == label and source in row[1]]
    return list(row[2:])


def test_the_means_and_the_spread_of_table_3_come_from_table_11(project: Project) -> None:
    wanted = reproduction("table3", ["massive"])
    results = report.Results(project)
    _published_as_measured(results)
    (panel,) = wanted.parts
    assert isinstance(panel, Panel)
    table = report.panel_table("table3", wanted, panel, results, project)
    for label in ("SFT baseline", "middle"):
        assert _cells(table, label, "measured") == _cells(table, label, "published")
    assert _cells(table, "middle", "measured") == ["77.0", "61.7", "2.6"]
    assert _cells(table, "top", "measured") == ["", "", ""]  # nothing was run
    assert "61.7" in render([table], "md")


def test_the_gain_on_the_alignment_languages_of_a_row(project: Project) -> None:
    wanted = reproduction("table5")
    results = report.Results(project)
    _published_as_measured(results)
    (panel,) = wanted.parts
    assert isinstance(panel, Panel)
    table = report.panel_table("table5", wanted, panel, results, project)
    # cy 5.4, ja 0.7, jv 7.2, sw 4.9, tl 0.5
    assert _cells(table, "low", "measured")[2] == "3.7"
    assert _cells(table, "SFT", "measured")[2] == ""


def test_a_wide_table_is_transposed(project: Project) -> None:
    wanted = reproduction("table11")
    results = report.Results(project)
    _published_as_measured(results)
    table = report.panel_table("table11", wanted, wanted.parts[0], results, project)  # type: ignore[arg-type]
    rows = {row[0]: row[1:] for row in table.rows}
    assert len(rows) == 20
    assert dict(zip(table.columns[1:], rows["cy"], strict=True)) == {
        "SFT Llama 3, published": "44.0",
        "SFT Qwen 2.5, published": "27.0",
        "SFT embedded, measured": "44.0",
        "align (middle) Llama 3, published": "49.4",
        "align (middle) Qwen 2.5, published": "36.5",
        "align (middle) embedded, measured": "49.4",
        "align (top) embedded, measured": "",
    }


def test_retrieval_is_averaged_over_even_layers_and_the_languages_of_the_task() -> None:
    pairs = dict.fromkeys(permutations(["de", "en", "am"], 2), 0.0)
    two = pairs | {("de", "en"): 40.0, ("en", "de"): 20.0, ("am", "de"): 100.0}
    four = pairs | {("de", "en"): 10.0}
    layers = {2: two, 3: dict.fromkeys(pairs, 99.0), 4: four}
    assert report.mean_retrieval(layers, ["de", "en"]) == pytest.approx((30 + 5) / 2)
    assert report.of_language(two, "de", ["de", "en", "am"]) == pytest.approx((40 + 20 + 100) / 4)
    assert [len(languages_of(task)) for task in ("massive", "wmt23")] == [20, 9]


def test_correlation_by_hand() -> None:
    r, low, high, rho = report.correlation([1, 2, 3, 4, 5], [1, 8, 27, 64, 125])
    assert r == pytest.approx(0.9431175)  # by hand: 300 / sqrt(10 * 10118)
    # Fisher's: atanh(r) = 1.7655, 1.95996 / sqrt(5 - 3) = 1.3859; tanh(0.3796), tanh(3.1514).
    assert (low, high) == pytest.approx((0.3624, 0.9963), abs=1e-4)
    assert rho == pytest.approx(1)
    assert all(map(isnan, report.correlation([1, 2, 3, 4], [5, 5, 5, 5])))


def test_a_seed_that_is_missing_leaves_its_cell_empty(project: Project) -> None:
    assert report._cell([60.0, None]) == ""
    assert report._cell([60.0, 62.0]) == "61.0 ± 1.4"
