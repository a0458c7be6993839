"""Tests that published.csv is complete and consistent, and marks the paper's contradictions."""

import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

from xlt_bench import store
from xlt_bench.tasks.registry import get_task
from xlt_bench.tasks.wmt23 import other_side

PATH = Path(store.__file__).with_name("published.csv")


@pytest.fixture(scope="module")
def rows():
    with PATH.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_file_has_every_table_of_results(rows):
    assert {int(row["paper_table"]) for row in rows} == {2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13}
    for row in rows:
        float(row["value"])
        if row["unit"]:
            setting = get_task(row["task"]).test_set(1).setting(row["unit"])
            split = row["split"]
            if row["task"] == "wmt23":
                side = "into" if row["unit"].endswith("-en") else "from"
                code = other_side(row["unit"])
                wanted = f"transfer {side} English" if code in ("he", "ja", "uk") else "supervised"
                assert split == wanted
            else:
                assert split == setting
    keys = [tuple(row[k] for k in list(row)[:7]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_means_of_the_languages_are_the_means_that_the_paper_prints(rows):
    """Compare Tables 11 and 12 with Table 2, to find typos and contradictions."""
    languages = defaultdict(list)
    for row in rows:
        if row["paper_table"] in ("11", "12") and row["usable"] == "yes":
            name = {"alignment": "SFT + alignment"}.get(row["row"].split(" ")[0], row["row"])
            languages[row["task"], row["model"], name, row["split"], row["metric"]].append(
                float(row["value"])
            )
    compared = 0
    for row in rows:
        key = tuple(row[k] for k in ("task", "model", "row", "split", "metric"))
        if row["paper_table"] == "2" and key in languages:
            compared += 1
            differs = abs(mean(languages[key]) - float(row["value"])) > 0.07
            assert differs == ("Table 12 average" in row["note"]), key
    assert compared == 4 * 2 + 4 * 6


def test_aligned_means_are_those_of_table_11(rows):
    aligned = {"cy", "ja", "jv", "sw", "tl"}
    for model, name, table2 in (
        ("Llama 3", "SFT", "SFT"),
        ("Llama 3", "alignment at layer 16 (middle)", "SFT + alignment"),
        ("Qwen 2.5", "SFT", "SFT"),
        ("Qwen 2.5", "alignment (middle)", "SFT + alignment"),
    ):
        values = [
            float(r["value"])
            for r in rows
            if (r["paper_table"], r["model"], r["row"]) == ("11", model, name)
            and r["unit"] in aligned
        ]
        (stated,) = [
            float(r["value"])
            for r in rows
            if (r["paper_table"], r["model"], r["row"], r["split"])
            == ("2", model, table2, "aligned")
        ]
        assert mean(values) == pytest.approx(stated, abs=0.07)


def test_figures_that_the_paper_contradicts_are_marked(rows):
    def of(table, name):
        return [r for r in rows if (r["paper_table"], r["row"]) == (table, name)]

    top, middle = (of("11", f"alignment at layer {layer}") for layer in ("32 (top)", "16 (middle)"))
    assert [r["value"] for r in top] == [r["value"] for r in middle]
    assert len(top) == 20
    assert all(r["usable"] == "no" and "copy" in r["note"] for r in top)
    assert all("same row" in r["note"] for r in middle)
    english = of("9", "SFT, English only")
    assert len(english) == 20
    assert all(r["usable"] == "no" and "shifted" in r["note"] for r in english)
    unusable = {(r["paper_table"], r["row"]) for r in rows if r["usable"] == "no"}
    assert unusable == {("11", "alignment at layer 32 (top)"), ("9", "SFT, English only")}
