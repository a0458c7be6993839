"""Turns charts into Vega-Lite specifications, and shows them.

altair checks every specification against its schema, which takes longer than all else on a page.
Therefore a specification is made once for the same data, and kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import altair as alt
import pandas as pd
import streamlit as st

Spec = dict[str, Any]
"""A Vega-Lite specification, with its frames in `datasets` by name."""
Chart = alt.LayerChart | alt.Chart | alt.VConcatChart
_SETTINGS = threading.Lock()  # altair's settings are those of all threads
_P = ParamSpec("_P")


def made_once(build: Callable[_P, Chart]) -> Callable[_P, Spec]:
    """Make a function that builds a chart return its specification, from a cache if it can."""

    @st.cache_data(max_entries=200, show_spinner=False)
    @wraps(build)
    def made(*args: _P.args, **kwargs: _P.kwargs) -> Spec:
        return specified(build(*args, **kwargs))

    return made


def specified(chart: Chart) -> Spec:
    """The specification of a chart, without altair's own sizes and colours."""
    frames: dict[int, pd.DataFrame] = {}

    def named(frame: Any) -> dict[str, str]:
        frames[id(frame)] = frame
        return {"name": f"frame {list(frames).index(id(frame))}"}

    with _SETTINGS:
        alt.data_transformers.register("named", named)
        with alt.theme.enable("none"), alt.data_transformers.enable("named"):
            spec: Spec = chart.to_dict()
    return {**spec, "datasets": {f"frame {i}": one for i, one in enumerate(frames.values())}}


def show(spec: Spec, alt: str) -> None:
    """Show a chart, with a text for screen readers."""
    st.vega_lite_chart(spec=spec, alt=alt)
