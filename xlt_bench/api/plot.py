"""Draws scores, gains and layer curves with altair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

# Okabe and Ito's palette, which readers with colour blindness can tell apart.
_COLOURS = {"supervised": "#0072B2", "transfer": "#E69F00", "no setting": "#009E73"}
_HEIGHT = 160


def drawn(rows: pd.DataFrame, y: str, layers: pd.DataFrame | None = None) -> alt.VConcatChart:
    """Draw a bar for each unit of each task, and retrieval by layer.

    Args:
        rows: task, metric, unit, setting, value, low and high, of units.
        y: What the values are: `score` or `gain`.
        layers: layer, value, low and high; None or empty for no curve.
    """
    import altair as alt

    charts = [
        _bars(part, y, f"{task}, {metric}")
        for (task, metric), part in rows.groupby(["task", "metric"], sort=False)
    ]
    if layers is not None and len(layers):
        charts.append(_curve(layers))
    chart: alt.VConcatChart = alt.vconcat(*charts).resolve_scale(color="shared")
    return chart


def _bars(rows: pd.DataFrame, y: str, title: str) -> Any:
    import altair as alt

    rows = rows[["unit", "setting", "value", "low", "high"]]
    rows = rows.assign(setting=rows.setting.fillna("no setting"))
    order = rows.sort_values("value", ascending=False).unit.tolist()
    colours = alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values()))
    tooltip: list[Any] = ["unit", "setting"]
    tooltip += [alt.Tooltip(name, format=".1f") for name in ("value", "low", "high")]
    base = alt.Chart(rows).encode(x=alt.X("unit:N", sort=order, title=None), tooltip=tooltip)
    bar = base.mark_bar().encode(
        y=alt.Y("value:Q", title=y), color=alt.Color("setting:N", scale=colours, title=None)
    )
    rule = base.mark_rule().encode(y="low:Q", y2="high:Q")
    return alt.layer(bar, rule).properties(title=title, height=_HEIGHT)


def _curve(layers: pd.DataFrame) -> Any:
    import altair as alt

    base = alt.Chart(layers).encode(x=alt.X("layer:Q", axis=alt.Axis(tickMinStep=1)))
    band = base.mark_area(opacity=0.25).encode(y="low:Q", y2="high:Q")
    y = alt.Y("value:Q", title="retrieval accuracy")
    line = base.mark_line(point=True).encode(y=y)
    return alt.layer(band, line).properties(title="retrieval by layer", height=_HEIGHT)
