"""Correlation: how a language's retrieval accuracy goes with its score."""

from __future__ import annotations

import math
from typing import Any

import charts
import choices
import streamlit as st
from queries import ask, describe, one
from widgets import choose, figures, footer, nothing

SPLITS = {"transfer": "transfer languages", "all": "all languages"}
RETRIEVAL = ("own, even layers", "own, middle layer", "bare model, middle layer")
_POINTS = """
SELECT p.unit, l.name AS language_name, p.setting, p.aligned, p.metric, p.retrieval,
    p.score AS value
FROM transfer_points p JOIN languages l ON l.code = p.language
WHERE p.submission = $system AND p.task = $task AND p.retrieval_of = $retrieval_of
    AND ($split = 'all' OR p.setting = $split)
"""
_FIT = """
SELECT * FROM transfer_correlation
WHERE submission = $system AND task = $task AND retrieval_of = $retrieval_of AND split = $split
"""


def statistics(fit: dict[str, Any]) -> None:
    """Pearson's r with its interval, Spearman's rho, and over how many points."""
    known = not math.isnan(_number(fit["pearson"]))
    ends = [_number(fit[end]) for end in ("pearson_low", "pearson_high")]
    interval = None if any(map(math.isnan, ends)) else f"95 %: {ends[0]:.2f} to {ends[1]:.2f}"
    figures(
        ("Pearson's r", f"{fit['pearson']:.2f}" if known else "–", interval),
        ("Spearman's rho", f"{fit['spearman']:.2f}" if known else "–", None),
        ("Points", int(fit["n"]), None),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


task = choices.task("flores")
left, middle, right = st.columns([2, 1, 1])
with left:
    system, name = choices.system("System", task=task)
with middle:
    retrieval_of = choose("Retrieval of", RETRIEVAL, "retrieval")
with right:
    split = choose("Over", list(SPLITS), "split", name=SPLITS.__getitem__)
given = {"system": system, "task": task, "retrieval_of": retrieval_of, "split": split}
rows = ask(_POINTS, given)
if rows.empty:
    nothing(
        "This system has no retrieval of these languages, or its bare model was not submitted. "
        "Choose another, or evaluate it with --tasks retrieval as well."
    )
describe(rows)
fit = one(_FIT, given)
line = None
st.text(name)
if fit:
    statistics(fit)
    ends = (_number(fit["slope"]), _number(fit["intercept"]))
    line = None if any(map(math.isnan, ends)) else ends
metric = str(rows["metric"].iloc[0])
caption = (
    f"A point is a language: its retrieval accuracy ({retrieval_of}) and its {metric}; the line is "
    "fitted by least squares, the interval of r is Fisher's. Few points, so read it with care."
)
st.altair_chart(charts.correlation(rows, line, metric), alt=caption)
footer(f"correlation-{task}", caption, rows.drop(columns="label"))
