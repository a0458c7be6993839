"""Turns charts into SVG and PDF files, and frames into LaTeX tables, for a paper."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from specs import Spec

from xlt_bench.results.tables import Cell, Table, render

WIDTH = 640  # pixels of a figure


def figure(chart: Spec, title: str, lines: list[str], form: str) -> bytes:
    """A chart as a file.

    Args:
        chart: The specification of the chart, as a page shows it.
        title: Its title.
        lines: Below the title: systems, metric. The date is added.
        form: svg or pdf.
    """
    import vl_convert

    # A figure has the page's width, never that of a phone.
    spec = _fixed({**chart, "datasets": {}})
    for part in spec.get("vconcat", [spec]):
        part["width"] = WIDTH
    spec["datasets"] = {
        name: json.loads(frame.to_json(orient="records"))
        for name, frame in chart["datasets"].items()
    }
    spec["title"] = {
        "text": title,
        "subtitle": [*lines, f"xlt-bench, {datetime.now(UTC):%Y-%m-%d}"],
        "anchor": "start",
        "offset": 12,
    }
    spec["background"] = "white"
    convert = vl_convert.vegalite_to_svg if form == "svg" else vl_convert.vegalite_to_pdf
    done: str | bytes = convert(spec)
    return done.encode() if isinstance(done, str) else done


def latex(frame: pd.DataFrame, caption: str) -> bytes:
    """A frame as a LaTeX table; every text is escaped, numbers have two decimals."""
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    table = Table("", [str(name) for name in frame.columns], rows, [caption])
    return render([table], "latex").encode()


def _fixed(part: Any) -> Any:
    """A specification without what depends on the size of the window."""
    if isinstance(part, dict):
        return {key: _fixed(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_fixed(value) for value in part]
    if isinstance(part, str):
        return part.replace("containerSize()[0]", str(WIDTH))
    return part


def _cell(value: Any) -> Cell:
    if value is None or value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, (bool, int)):
        return value
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return tuple(map(str, value))
    return str(value)
