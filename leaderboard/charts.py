"""Builds the charts, in Okabe and Ito's colours, which colour-blind readers can tell apart.

Vega shows titles and names as text, so a submission cannot bring markup into a chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

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
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 2]]
# Names of methods differ at their ends, so a phone shows the ends.
_NAMES = alt.Axis(
    title=None,
    labelExpr="containerSize()[0] < 600 && length(datum.label) > 26"
    " ? '…' + slice(datum.label, -25) : datum.label",
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


def _legend(**options: Any) -> alt.Legend:
    """A legend above the chart, where it takes no width; names are never cut."""
    return alt.Legend(**{"orient": "top", "labelLimit": 0, **options})


def _columns(values: pd.Series) -> alt.ExprRef:
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
            legend=_legend(columns=_columns(frame["shown"])),
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


def side_by_side(frame: pd.DataFrame, methods: Sequence[str], title: str) -> alt.LayerChart:
    """A point with its interval for each `method` in each unit: `label`, `value`, `low`, `high`."""
    names = [name for name in methods if name in set(frame["method"])]
    first = frame[frame["method"] == names[0]].sort_values("value", ascending=False)
    order = list(dict.fromkeys([*first["label"], *frame["label"]]))
    scale = alt.Scale(domain=names, range=COLOURS[: len(names)])
    colour = alt.Color(
        "method:N", title=None, scale=scale, legend=_legend(columns=1, labelLimit=600)
    )
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
            legend=_legend(columns=_columns(frame["group"])),
        ),
        tooltip=tooltip,
    )
    return alt.LayerChart(layer=[rules, points], height=STEP)


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
            legend=_legend(title="gain"),
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


def sizes(frame: pd.DataFrame, metric: str) -> alt.Chart:
    """A point for each method: `parameters`, `score`, `kind`, `items`, `method`, `base_model`."""
    kinds = frame["kind"].value_counts().index
    chart: alt.Chart = (
        alt.Chart(frame, height=420)
        .mark_point(filled=True, size=80, opacity=0.8)
        .encode(
            x=alt.X(
                "parameters:Q",
                title="parameters of the base model",
                scale=alt.Scale(type="log", padding=20),
                axis=alt.Axis(format="~s"),
            ),
            y=alt.Y("score:Q", title=metric, scale=alt.Scale(padding=10)),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=list(kinds), range=COLOURS[: len(kinds)]),
                legend=_legend(columns=_columns(frame["kind"])),
            ),
            shape=alt.Shape(
                "items:N", title=None, legend=_legend(columns=_columns(frame["items"]))
            ),
            tooltip=[
                alt.Tooltip("base_model:N", title="base model"),
                alt.Tooltip("method:N"),
                alt.Tooltip("items:N"),
                alt.Tooltip("score:Q", title=metric, format=".2f"),
            ],
        )
    )
    return chart


def layers(frame: pd.DataFrame, marks: pd.DataFrame) -> alt.LayerChart:
    """A line for each `system` over `layer`, with a ring around its best layer.

    Args:
        frame: `system`, `layer` and `value`; with `low` and `high` there is a band.
        marks: Layers with a vertical line and its name: `layer` and `mark`.
    """
    names = list(dict.fromkeys(frame["system"]))
    # Colour and dash share one legend; without symbolOpacity it would be as faint as the bands.
    legend = _legend(columns=1, labelLimit=320, symbolType="stroke", symbolOpacity=1)
    colour = alt.Color(
        "system:N",
        title=None,
        scale=alt.Scale(domain=names, range=COLOURS[: len(names)]),
        legend=legend,
    )
    best = frame.groupby("system")["value"].transform("max") == frame["value"]
    base = alt.Chart(frame.assign(best=best)).encode(
        x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1))
    )
    y = alt.Y("value:Q", title="retrieval accuracy (%)", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("system:N"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("value:Q", title="accuracy", format=".2f"),
    ]
    dash = alt.StrokeDash(
        "system:N",
        title=None,
        scale=alt.Scale(domain=names, range=DASHES[: len(names)]),
        legend=legend,
    )
    lines = base.mark_line(strokeWidth=2.5).encode(y=y, color=colour, strokeDash=dash)
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=y, color=colour, tooltip=tooltip
    )
    drawn = [lines, points]
    if "low" in frame:
        band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q", color=colour)
        drawn.insert(0, band)
    rings = base.transform_filter("datum.best").mark_point(size=260, strokeWidth=2, opacity=1)
    drawn.append(rings.encode(y=y, color=colour, tooltip=tooltip))
    # Names on two lines in turn, so that neighbours do not overlap.
    named = alt.Chart(marks.assign(line=[place % 2 for place in range(len(marks))]))
    drawn.insert(0, named.mark_rule(color=GREY, strokeDash=[3, 3]).encode(x="layer:Q"))
    for line, offset in ((0, 10), (1, 24)):
        some = named.transform_filter(f"datum.line === {line}")
        text = some.mark_text(align="left", dx=4, dy=offset, color=GREY)
        drawn.append(text.encode(x="layer:Q", y=alt.value(0), text="mark:N"))
    return alt.LayerChart(layer=drawn, height=400 + 20 * len(names))


def pairs(frame: pd.DataFrame, order: Sequence[str]) -> alt.Chart:
    """The matrix of retrieval accuracies: a row for each `source`, a column for each `target`."""
    chart: alt.Chart = (
        alt.Chart(frame, height=alt.Step(16))
        .mark_rect()
        .encode(
            x=alt.X(
                "target:N", sort=list(order), title="candidates in", axis=alt.Axis(labelAngle=-90)
            ),
            y=alt.Y(
                "source:N",
                sort=list(order),
                title="query in",
                axis=alt.Axis(labelOverlap=False, labelFlush=False, ticks=False),
            ),
            # The domain is fixed, so that a colour means the same at every layer.
            color=alt.Color(
                "accuracy:Q",
                title="accuracy (%)",
                scale=alt.Scale(scheme="viridis", domain=[0, 100]),
                legend=_legend(),
            ),
            tooltip=["source:N", "target:N", alt.Tooltip("accuracy:Q", format=".1f")],
        )
    )
    return chart


def correlation(
    frame: pd.DataFrame, line: tuple[float, float] | None, metric: str
) -> alt.LayerChart:
    """Score over retrieval accuracy, a point for each unit.

    Args:
        frame: `unit`, `label`, `group`, `retrieval` and `value`.
        line: Slope and intercept of the fitted line; None for no line.
        metric: The title of the y axis.
    """
    base = alt.Chart(frame).encode(
        x=alt.X(
            "retrieval:Q",
            title="retrieval accuracy (%)",
            scale=alt.Scale(zero=False, padding=20),
            axis=alt.Axis(tickCount=8),
        ),
        y=alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False, padding=20)),
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        color=alt.Color(
            "group:N",
            title=None,
            scale=colour_scale(frame["group"]),
            legend=_legend(columns=_columns(frame["group"])),
        ),
        tooltip=[
            alt.Tooltip("label:N", title="language"),
            alt.Tooltip("retrieval:Q", format=".1f"),
            alt.Tooltip("value:Q", title=metric, format=".2f"),
        ],
    )
    names = base.mark_text(dy=-9, fontSize=11, color=GREY).encode(text="unit:N")
    drawn = [points, names]
    if line:
        ends = [float(frame["retrieval"].min()), float(frame["retrieval"].max())]
        fitted = pd.DataFrame({"retrieval": ends, "value": [line[0] * x + line[1] for x in ends]})
        straight = alt.Chart(fitted).mark_line(color=GREY, strokeDash=[6, 4])
        drawn.insert(0, straight.encode(x="retrieval:Q", y="value:Q"))
    return alt.LayerChart(layer=drawn, height=420)
