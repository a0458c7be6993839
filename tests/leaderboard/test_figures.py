"""Figures and tables for a paper, and queries that are asked once."""

import html
import re
from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(autouse=True)
def _app(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "leaderboard"))


@pytest.fixture
def gains():
    """A chart of three languages in two groups."""
    import charts

    rows = [
        ("Welsh (cy)", "aligned", 2.5),
        ("German (de)", "transfer", -1.25),
        ("Thai (th)", "transfer", 0.75),
    ]
    frame = pd.DataFrame(rows, columns=["label", "group", "value"])
    frame["low"], frame["high"] = frame["value"] - 1, frame["value"] + 1
    more = {"mark": "*", "p_holm": 0.01, "script": "Latin", "family": "x", "resource": "low"}
    return charts.gains(frame.assign(shown=frame["group"], **more), "gain", "setting")


def test_a_figure_holds_title_systems_metric_date_and_every_language(gains):
    import figures

    lines = ["SFT + <alignment> against SFT", "massive v2: slot_f1"]
    svg = figures.figure(gains, "Gains & losses", lines, "svg").decode()
    texts = [html.unescape(one) for one in re.findall(r">([^<>]+)</(?:text|tspan)>", svg)]
    for text in ("Gains & losses", *lines, "Welsh (cy)", "German (de)", "TRANSFER (2)"):
        assert text in texts
    assert any(re.fullmatch(r"xlt-bench, \d{4}-\d\d-\d\d", one) for one in texts)
    width = float(re.search(r'<svg[^>]* width="([\d.]+)"', svg)[1])
    assert figures.WIDTH < width < figures.WIDTH + 300, "the width of a page, not of a phone"


def test_a_figure_is_a_pdf(gains):
    import figures

    assert figures.figure(gains, "Gains", [], "pdf").startswith(b"%PDF-")


def test_a_table_is_latex_in_which_nothing_is_a_command():
    import figures

    frame = pd.DataFrame({"name": ["50 % & more_\\", None], "gain": [1.005, float("nan")]})
    said = figures.latex(frame, "A caption.").decode()
    assert r"50 \% \& more\_\textbackslash{} & 1.00 \\" in said
    assert "nan" not in said.lower()
    assert "None" not in said


def test_a_query_is_asked_once(board, monkeypatch):
    import queries

    monkeypatch.setenv("XLT_BENCH_LEADERBOARD", str(board[0] / "leaderboard.duckdb"))
    asked = []
    opened = queries._open
    monkeypatch.setattr(queries, "_open", lambda stamp: (asked.append(stamp), opened(stamp))[1])
    query = "SELECT $x + 1 AS one_more"
    assert [queries.records(query, {"x": x})[0]["one_more"] for x in (1, 1, 2)] == [2, 2, 3]
    assert len(asked) == 2
    frame = queries.ask(query, {"x": 1})
    frame["one_more"] = 0  # a page may change its own copy
    assert queries.records(query, {"x": 1}) == [{"one_more": 2}]
