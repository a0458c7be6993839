"""Builds the charts of layers, of pairs of languages, of correlation, and of sizes of models."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd
from charts import COLOURS, GREY, colour_scale, legend, legend_columns
from specs import made_once

DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 2]]


@made_once
def predictors(frame: pd.DataFrame) -> alt.Chart:
    """A line for each `line` over `layer`: `spearman`, `n`."""
    names = sorted(set(frame["line"]))
    # Colour and dash share one legend.
    key = legend(columns=legend_columns(frame["line"]), symbolType="stroke")
    chart: alt.Chart = (
        alt.Chart(frame, height=320)
        .mark_line(point=True)
        .encode(
            x=alt.X("layer:Q", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("spearman:Q", title="Spearman's rho", scale=alt.Scale(domain=[-1, 1])),
            color=alt.Color(
                "line:N",
                scale=alt.Scale(domain=names, range=(COLOURS * 2)[: len(names)]),
                legend=key,
                sort=names,
                title=None,
            ),
            strokeDash=alt.StrokeDash(
                "line:N",
                scale=alt.Scale(domain=names, range=(DASHES * 2)[: len(names)]),
                legend=key,
                sort=names,
                title=None,
            ),
            tooltip=[
                alt.Tooltip("line:N", title="measure"),
                alt.Tooltip("layer:Q"),
                alt.Tooltip("spearman:Q", title="rho", format=".2f"),
                alt.Tooltip("n:Q", title="languages"),
            ],
        )
    )
    return chart


@made_once
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
                legend=legend(columns=legend_columns(frame["kind"])),
            ),
            shape=alt.Shape(
                "items:N",
                title=None,
                # Beside the other one, it would not fit on a phone.
                legend=legend(columns=legend_columns(frame["items"]), orient="bottom"),
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


@made_once
def layers(*parts: tuple[pd.DataFrame, pd.DataFrame]) -> alt.LayerChart | alt.VConcatChart:
    """A line for each `system` over `layer`, with a ring around its best layer.

    Args:
        parts: For each chart, of which one stands below the other, `system`, `layer` and `value`,
            with `low` and `high` if there is a band; and the layers that have a vertical line and a
            name: `layer` and `mark`.
    """
    drawn = [_layers(frame, marks) for frame, marks in parts]
    return drawn[0] if len(drawn) == 1 else alt.vconcat(*drawn)


def _layers(frame: pd.DataFrame, marks: pd.DataFrame) -> alt.LayerChart:
    names = list(dict.fromkeys(frame["system"]))
    # Colour and dash share one legend; without symbolOpacity it would be as faint as the bands.
    key = legend(columns=1, symbolType="stroke", symbolOpacity=1)
    colour = alt.Color(
        "system:N",
        title=None,
        scale=alt.Scale(domain=names, range=COLOURS[: len(names)]),
        legend=key,
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
        legend=key,
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


@made_once
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
                legend=legend(),
            ),
            tooltip=["source:N", "target:N", alt.Tooltip("accuracy:Q", format=".1f")],
        )
    )
    return chart


@made_once
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
            legend=legend(columns=legend_columns(frame["group"])),
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
