"""Builds the charts of languages, in Okabe and Ito's colours, which the colour-blind tell apart.

Vega shows titles and names as text, so a submission cannot bring markup into a chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
from specs import made_once

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
COLOURS = [BLUE, ORANGE, GREEN, VERMILION, "#56B4E9", "#CC79A7", "#F0E442"]
GREY = "#808080"  # contrast 4 : 1 on white and on the dark page
BEYOND = "beyond the ranked set"
# In the order of the charts.
GROUPS = {
    "supervised": BLUE,
    "aligned": GREEN,
    "transfer": ORANGE,
    "not aligned": ORANGE,
    BEYOND: "#CC79A7",
}
# A phone shows the start and the end of a name: layer and seed, and what was changed.
_SHORT = "replace(replace(datum.label, 'SFT + alignment, ', ''), 'aligned on ', '')"
_NAMES = alt.Axis(
    title=None,
    labelExpr=f"containerSize()[0] >= 600 ? datum.label : length({_SHORT}) <= 28 ? {_SHORT}"
    f" : slice({_SHORT}, 0, 16) + '…' + slice({_SHORT}, -11)",
    labelLimit=alt.ExprRef("containerSize()[0] < 600 ? 160 : 460"),
    labelOverlap=False,
    labelFlush=False,
    ticks=False,
)
# One row per language, all labels shown, headings bold; short labels leave room on a phone.
STEP = alt.Step(20)
_AXIS = alt.Axis(
    title=None,
    labelExpr="replace(datum.label, containerSize()[0] < 600 ? ' THE RANKED SET' : '', '')",
    labelLimit=alt.ExprRef("containerSize()[0] < 600 ? 120 : 220"),
    labelFontWeight={
        "condition": {"test": r"test(/^[A-Z ]+ \(/, datum.label)", "value": "bold"},
        "value": "normal",
    },
    labelOverlap=False,
    labelFlush=False,
    ticks=False,
)


def few(values: pd.Series) -> pd.Series:
    """The values, with the rarest replaced by `other` if there are more than eight."""
    counts = values.value_counts()
    if len(counts) <= len(COLOURS) + 1:
        return values
    return values.where(values.isin(counts.index[: len(COLOURS)]), "other")


def colour_scale(values: pd.Series) -> alt.Scale:
    """A colour for each value; groups have fixed ones, an eighth value and `other` are grey."""
    if set(values.dropna()) <= set(GROUPS):
        names = [name for name in GROUPS if name in set(values)]
        return alt.Scale(domain=names, range=[GROUPS[name] for name in names])
    names = [name for name in values.value_counts().index if name != "other"]
    range_ = [*COLOURS, GREY][: len(names)]
    if "other" in set(values):
        names, range_ = [*names, "other"], [*range_, GREY]
    return alt.Scale(domain=names, range=range_)


def legend(**options: Any) -> alt.Legend:
    """A legend above the chart, where it takes no width; names are never cut."""
    return alt.Legend(**{"orient": "top", "labelLimit": 0, **options})


def legend_columns(values: pd.Series) -> alt.ExprRef:
    """The columns of a legend: two long names do not fit side by side on a phone."""
    narrow = 1 if max(map(len, values.dropna()), default=0) > 16 else 2
    return alt.ExprRef(f"containerSize()[0] < 600 ? {narrow} : 4")


def _grouped(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with a heading for each group, and all labels in the order of the chart."""
    order: list[str] = []
    for group in [name for name in GROUPS if name in set(frame["group"])]:
        rows = frame[frame["group"] == group].sort_values("value", ascending=False)
        order += [f"{group.upper()} ({len(rows)})", *rows["label"]]
    headings = pd.DataFrame(
        {"label": [label for label in order if label not in set(frame["label"])]}
    )
    return pd.concat([frame, headings], ignore_index=True), order


def _interval_tooltip(title: str, *more: alt.Tooltip) -> list[alt.Tooltip]:
    ends = [("value", title), ("low", "95 % from"), ("high", "to")]
    return [
        alt.Tooltip("label:N", title="language"),
        *(alt.Tooltip(f"{field}:Q", title=name, format=".2f") for field, name in ends),
        *more,
    ]


@made_once
def gains(frame: pd.DataFrame, title: str, colour: str) -> alt.LayerChart:
    """Bars around zero with intervals, one per unit.

    Args:
        frame: `label`, `group`, `value`, `low`, `high`, `mark`, and `shown`, which colours the bar.
        title: The title of the x axis.
        colour: The title of the legend.
    """
    rows, order = _grouped(frame)
    most = float(frame[["value", "low", "high"]].abs().max().max()) * 1.08 or 1.0
    scale, axis = alt.Scale(domain=[-most, most]), alt.Axis(tickCount=8)
    x = alt.X("value:Q", title=title, scale=scale, axis=axis)
    base = alt.Chart(rows).encode(y=alt.Y("label:N", sort=order, axis=_AXIS))
    tooltip = _interval_tooltip(
        "gain",
        alt.Tooltip("p_holm:Q", title="p (Holm)", format=".4f"),
        alt.Tooltip("script:N"),
        alt.Tooltip("family:N"),
        alt.Tooltip("resource:N"),
    )
    bars = base.mark_bar(height=12).encode(
        x=x,
        color=alt.Color(
            "shown:N",
            title=colour,
            scale=colour_scale(frame["shown"]),
            legend=legend(columns=legend_columns(frame["shown"])),
        ),
        tooltip=tooltip,
    )
    rules = base.mark_rule(color=GREY, strokeWidth=1.5).encode(
        x=alt.X("low:Q"), x2="high:Q", tooltip=tooltip
    )
    marks = base.mark_text(align="left", dx=4, dy=4, color=GREY, fontSize=18).encode(
        x=alt.X("high:Q"), text="mark:N"
    )
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=GREY).encode(x="zero:Q")
    return alt.LayerChart(layer=[bars, rules, marks, zero], height=STEP)


@made_once
def parts(frame: pd.DataFrame, names: Sequence[str], title: str) -> alt.LayerChart:
    """Stacked bars around zero, one per unit: `label`, `measure` (one of `names`), `difference`."""
    totals = frame.groupby("label", sort=False)["difference"].sum()
    order = list(totals.sort_values(ascending=False).index)
    base = alt.Chart(frame).encode(y=alt.Y("label:N", sort=order, axis=_AXIS))
    bars = base.mark_bar(height=12).encode(
        x=alt.X("difference:Q", title=title, axis=alt.Axis(tickCount=8)),
        color=alt.Color(
            "measure:N",
            title=None,
            scale=alt.Scale(domain=list(names), range=COLOURS[: len(names)]),
            legend=legend(columns=1),
        ),
        tooltip=[
            alt.Tooltip("label:N", title="language"),
            alt.Tooltip("measure:N", title="part"),
            alt.Tooltip("difference:Q", title="points", format="+.2f"),
            alt.Tooltip("low:Q", title="95 % from", format="+.2f"),
            alt.Tooltip("high:Q", title="to", format="+.2f"),
        ],
    )
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=GREY).encode(x="zero:Q")
    return alt.LayerChart(layer=[bars, zero], height=STEP)


@made_once
def side_by_side(frame: pd.DataFrame, methods: Sequence[str], title: str) -> alt.LayerChart:
    """A point with its interval for each `method` in each unit: `label`, `value`, `low`, `high`."""
    names = [name for name in methods if name in set(frame["method"])]
    first = frame[frame["method"] == names[0]].sort_values("value", ascending=False)
    order = list(dict.fromkeys([*first["label"], *frame["label"]]))
    scale = alt.Scale(domain=names, range=COLOURS[: len(names)])
    colour = alt.Color("method:N", title=None, scale=scale, legend=legend(columns=1, labelLimit=0))
    base = alt.Chart(frame).encode(
        y=alt.Y("label:N", sort=order, axis=_AXIS),
        yOffset=alt.YOffset("method:N", sort=names),
        tooltip=[
            alt.Tooltip("method:N"),
            *_interval_tooltip("gain"),
        ],
    )
    rules = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q", color=colour)
    points = base.mark_point(filled=True, size=45, opacity=1).encode(
        x=alt.X("value:Q", title=title, axis=alt.Axis(tickCount=8)),
        color=colour,
        shape=alt.Shape("method:N", title=None, sort=names, legend=None),
    )
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=GREY).encode(x="zero:Q")
    return alt.LayerChart(layer=[rules, points, zero], height=alt.Step(10 + 8 * len(names)))


@made_once
def scores(frame: pd.DataFrame, title: str) -> alt.LayerChart:
    """Points with intervals, one per unit: `label`, `group`, `value`, `low`, `high`, `n`."""
    rows, order = _grouped(frame)
    base = alt.Chart(rows).encode(y=alt.Y("label:N", sort=order, axis=_AXIS))
    tooltip = _interval_tooltip(title, alt.Tooltip("n:Q", title="items"))
    rules = base.mark_rule(color=GREY, strokeWidth=1.5).encode(
        x=alt.X("low:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=8)),
        x2="high:Q",
        tooltip=tooltip,
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x="value:Q",
        color=alt.Color(
            "group:N",
            title=None,
            scale=colour_scale(frame["group"]),
            legend=legend(columns=legend_columns(frame["group"])),
        ),
        tooltip=tooltip,
    )
    return alt.LayerChart(layer=[rules, points], height=STEP)


@made_once
def heat(frame: pd.DataFrame, systems: Sequence[str], units: Sequence[str]) -> alt.LayerChart:
    """A cell for each `system` and `unit`, with a star where `gain` is `significant`."""
    most = float(frame["gain"].abs().max()) or 1.0
    base = alt.Chart(frame).encode(
        x=alt.X(
            "unit:N",
            sort=list(units),
            title=None,
            # A phone has room for twenty codes, not for thirty-five.
            axis=alt.Axis(
                labelAngle=-90 if len(units) > 9 else -40,
                labelOverlap=len(units) > 24,
                labelLimit=140,
            ),
        ),
        y=alt.Y("system:N", sort=list(systems), title=None, axis=_NAMES),
    )
    cells = base.mark_rect(stroke=GREY, strokeWidth=0.5).encode(
        color=alt.Color(
            "gain:Q",
            scale=alt.Scale(domain=[-most, 0, most], range=[VERMILION, "#F5F5F5", BLUE]),
            legend=legend(title="gain"),
        ),
        tooltip=[
            alt.Tooltip("system:N"),
            alt.Tooltip("label:N", title="language"),
            alt.Tooltip("gain:Q", format="+.2f"),
            alt.Tooltip("p_holm:Q", title="p (Holm)", format=".4f"),
        ],
    )
    stars = base.transform_filter("datum.significant").mark_text(
        text="*", color="black", fontSize=16, dy=5
    )
    return alt.LayerChart(layer=[cells, stars], height=alt.Step(22))
