"""The table of methods: HTML that `method_table.js` draws from rows, in Streamlit's page.

Streamlit's own table draws on a canvas, has no bars with two ends and no headings between rows, and
its rows cannot be opened with the keyboard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import streamlit as st
from rows import Group, Row

_HERE = Path(__file__).parent
_KEY = "methods"
_show = st.components.v2.component(
    "xlt-bench.methods",
    html='<div class="methods"></div>',
    css=(_HERE / "method_table.css").read_text(encoding="utf-8"),
    js=(_HERE / "method_table.js").read_text(encoding="utf-8"),
)


def show(
    groups: Sequence[Group],
    columns: Sequence[dict[str, str]],
    *,
    main: str,
    by: str,
    ranks_all: bool,
    caption: str,
    opened: str,
    pinned: Sequence[str],
    on_open: Callable[[str], None],
    on_pin: Callable[[str], None],
) -> None:
    """Show the table.

    Args:
        groups: Its rows.
        columns: The cells of a strip in their order: `unit`, `language` and `group`.
        main: The split whose gain has a bar.
        by: What `group` is.
        ranks_all: Whether places are among all rows, not the verified ones alone.
        caption: What the table holds, for screen readers.
        opened: The id of the open row; empty for none.
        pinned: The ids of pinned rows.
        on_open: Called with the id of a row that the user opens, empty when it is closed.
        on_pin: Called with the id of a row that the user pins or unpins.
    """
    rows = [row for group in groups for row in group.rows]
    others = [
        split
        for split in ("transfer", "aligned", "supervised", "all")
        if split != main and (split != "all") and any(split in row.gains for row in rows)
    ]
    data = {
        "groups": [_group(group, main, ranks_all) for group in groups],
        "columns": list(columns),
        "main": main,
        "others": others,
        "by": by,
        "caption": caption,
        "open": opened,
        "pinned": list(pinned),
        "retrieval": any(row.retrieval for row in rows),
        "places": any(row.place_all for row in rows),
    }

    def called(name: str, then: Callable[[str], None]) -> Callable[[], None]:
        return lambda: then(str(st.session_state[_KEY][name]))

    _show(
        key=_KEY,
        data=data,
        on_open_change=called("open", on_open),
        on_pin_change=called("pin", on_pin),
    )


def _group(group: Group, main: str, ranks_all: bool) -> dict[str, Any]:
    ends = [
        abs(gain[end])
        for row in group.rows
        for gain in [row.gains.get(main)]
        if gain
        for end in ("gain", "low", "high")
        if gain[end] is not None
    ]
    scale = max(1, ceil(max(ends))) if ends else 0
    return {
        "title": group.title,
        "note": group.note,
        "scale": scale,
        "rows": [_row(row, ranks_all) for row in group.rows],
    }


def _row(row: Row, ranks_all: bool) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "gains": row.gains,
        "cells": row.cells,
        "up": row.up,
        "down": row.down,
        "items": row.items,
        "seeds": row.seeds,
        "score": row.score,
        "place": row.place_all if ranks_all else row.place,
        "retrieval": row.retrieval and {**row.retrieval, "note": _layers(row.retrieval)},
        "badges": row.badges,
    }


def _layers(retrieval: dict[str, Any]) -> str:
    layers = retrieval["layers"]
    span = f"layers {layers[0]}–{layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
    return f"{retrieval['languages']} lang., {span}"
