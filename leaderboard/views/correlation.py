"""Correlation: the retrieval accuracy of each language against its score."""

from __future__ import annotations

import math
from typing import Any

import choices
import curves
import pins
import streamlit as st
from queries import TEXT, TaskVersion, ask, describe, one
from specs import show
from widgets import choose, figures, footer, nothing, part

SPLITS = {"transfer": "transfer languages", "all": "all languages"}
RETRIEVAL = ("own, even layers", "own, middle layer", "bare model, middle layer")
_POINTS = """
SELECT p.unit, l.name AS language_name, p.setting, p.aligned, true AS ranked, p.metric,
    p.retrieval, p.retrieval_task, p.retrieval_version, p.score AS value
FROM transfer_points p JOIN languages l ON l.code = p.language
WHERE p.submission = $system AND p.task = $task AND p.version = $version
    AND p.retrieval_of = $retrieval_of
    AND ($split = 'all' OR p.setting = $split)
"""
_OPENING = """
SELECT p.submission
FROM transfer_points p JOIN submissions s ON s.id = p.submission
JOIN runs r ON r.number = s.number AND r.task = p.task
WHERE p.task = $task AND p.version = $version AND r.superseded_by IS NULL
GROUP BY p.submission, s.created, s.alignment_languages
ORDER BY count(*) DESC, len(s.alignment_languages) > 0 DESC, s.created DESC, p.submission LIMIT 1
"""
NO_POINTS = (
    "No system has both scores of this task and retrieval accuracies of its languages. Evaluate "
    "one with --tasks retrieval as well."
)
_FIT = """
SELECT * FROM transfer_correlation
WHERE submission = $system AND task = $task AND version = $version
    AND retrieval_of = $retrieval_of AND split = $split
"""


_PREDICTORS = """
SELECT states_of, measure, layer, n, spearman FROM transfer_predictors
WHERE submission = $system AND task = $task AND version = $version AND spearman IS NOT NULL
ORDER BY measure, states_of, layer
"""


def opening(task: TaskVersion) -> str | None:
    """The system with the most points, the newest aligned one of these; None if none has points."""
    found = one(_OPENING, task.bound)
    return str(found["submission"]) if found else None


def statistics(fit: dict[str, Any]) -> None:
    """Show Pearson's r with its interval, Spearman's rho, and the number of points."""
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


def shown(task: TaskVersion, given: dict[str, Any], name: str) -> bool:
    """Show the points of a system with its correlation; False if it has no points."""
    rows = ask(_POINTS, given)
    if rows.empty:
        return False
    describe(rows)
    fit = one(_FIT, given)
    line = None
    st.text(name)
    if fit:
        statistics(fit)
        ends = (_number(fit["slope"]), _number(fit["intercept"]))
        line = None if any(map(math.isnan, ends)) else ends
    metric = str(rows["metric"].iloc[0])
    version = int(rows.pop("retrieval_version").iloc[0])
    pairing = str(rows.pop("retrieval_task").iloc[0])
    caption = (
        f"{task}: a point is a language, with its retrieval accuracy ({pairing} v{version}; "
        f"{given['retrieval_of']}) and its {metric}. The line is fitted by least squares, the "
        "interval of r is Fisher's. The points are few, so read it with care."
    )
    chart = curves.correlation(rows, line, metric)
    show(chart, caption)
    file = f"correlation-{task.name}-v{task.version}-{given['system']}"
    footer(file, caption, rows.drop(columns=["label", "ranked"]), chart, name)
    return True


@part
def points(task: TaskVersion, system: str, name: str, pinned: dict[str, str]) -> None:
    """Show the points of a system, and of the pinned methods, for the chosen retrieval."""
    left, right = st.columns(2)
    with left:
        retrieval_of = choose("Retrieval of", RETRIEVAL, "retrieval")
    with right:
        split = choose("Over", list(SPLITS), "split", name=SPLITS.__getitem__)
    given = {"system": system, **task.bound, "retrieval_of": retrieval_of, "split": split}
    if not shown(task, given, name):
        nothing(
            "This system has no such retrieval accuracy, or its bare model was not submitted. "
            "Choose another retrieval above, or evaluate the bare model with --tasks retrieval as "
            "well."
        )
    others = [(one, text) for one, text in pinned.items() if one != system]
    if not others:
        return
    st.header("The other pinned methods")
    for column, (one_, text) in zip(st.columns(len(others)), others, strict=True):
        with column:
            if not shown(task, {**given, "system": one_}, text):
                st.text(f"{text}: no such retrieval accuracy")


def predictors(task: TaskVersion, system: str, name: str) -> None:
    """Show the rank correlation of every measure at every layer with the scores."""
    rows = ask(_PREDICTORS, {"system": system, **task.bound})
    if rows.empty:
        return
    st.header("Which measure at which layer predicts transfer?")
    best = rows.iloc[int(rows["spearman"].abs().argmax())]
    st.text(
        f"Highest: {best['measure']} at layer {int(best['layer'])} ({best['states_of']}), "
        f"rho {best['spearman']:.2f} over {int(best['n'])} languages"
    )
    rows["line"] = rows["measure"] + ", " + rows["states_of"]
    caption = (
        f"{task}: Spearman's rho of each measure with the scores of the transfer languages, by "
        "layer. The languages are few and the measures many: the highest value is the highest of "
        f"{len(rows)} and is higher than it would be on other languages."
    )
    chart = curves.predictors(rows)
    show(chart, caption)
    file = f"predictors-{task.name}-v{task.version}-{system}"
    footer(file, caption, rows.drop(columns="line"), chart, name)


task = choices.task(TEXT)
pinned = pins.systems(task)
system, name = choices.system(
    "System",
    default=next(iter(pinned), None) or opening(task),
    with_points=True,
    empty=NO_POINTS,
    **task.bound,
)
points(task, system, name, pinned)
predictors(task, system, name)
