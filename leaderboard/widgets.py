"""Controls that keep their value in the URL, and the captions and downloads of a view.

Each run of a page sets the controls from the URL, and a control writes its new value to it. A URL
therefore restores a view.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import NoReturn
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from xlt_bench.errors import one_line
from xlt_bench.results.tables import csv_cell

ROWS = 25  # rows of a page
_CHOSEN = "chosen"
SUBMIT = "xlt-bench evaluate --model MODEL --output RUN\nxlt-bench submit RUN"


def start() -> None:
    """Forget the choices of the last run. Call it before a page runs."""
    st.session_state[_CHOSEN] = {}


def short(text: str | None, most: int = 80) -> str:
    """A submitter's text as a label: one line of at most `most` characters, empty for None."""
    return one_line(text or "", most)


def _set(key: str, value: object) -> None:
    st.session_state[key] = value
    st.session_state.setdefault(_CHOSEN, {})[key] = value


def _write(key: str) -> None:
    """Write a control's new value to the URL, and take back the choices that depend on it."""
    value = st.session_state[key]
    if key != "page":
        st.query_params.pop("page", None)
    if key == "task":
        st.query_params.pop("version", None)
    if value in (None, "", []):
        # An empty value records that the user emptied the control.
        st.query_params[key] = ""
    else:
        st.query_params[key] = value


def choose(
    label: str,
    options: Sequence[str],
    key: str,
    *,
    default: str | None = None,
    name: Callable[[str], str] = str,
) -> str:
    """A select box; the chosen option.

    Args:
        label: Its label.
        options: At least one option. A value of the URL that is not among them is ignored.
        key: Its key in the URL.
        default: The option that is chosen at first; else the first one.
        name: Gives the text of an option.
    """
    wanted = st.query_params.get(key)
    fallback = default if default in options else options[0]
    _set(key, wanted if wanted in options else fallback)
    return str(
        st.selectbox(label, options, key=key, format_func=name, on_change=_write, args=(key,))
    )


def several(
    label: str,
    options: Sequence[str],
    key: str,
    *,
    default: Sequence[str] = (),
    name: Callable[[str], str] = str,
    most: int | None = None,
    placeholder: str | None = None,
) -> list[str]:
    """A select box for several options; the chosen ones. See `choose` for the arguments."""
    asked = st.query_params.get_all(key)
    wanted = [one for one in dict.fromkeys(asked) if one in options]
    # An empty value in the URL means that the user emptied the control.
    _set(key, (wanted if wanted or asked == [""] else list(default))[:most])
    return st.multiselect(
        label,
        options,
        key=key,
        format_func=name,
        max_selections=most,
        placeholder=placeholder,
        on_change=_write,
        args=(key,),
    )


def words(label: str, key: str, placeholder: str) -> str:
    """A text field for a search."""
    _set(key, st.query_params.get(key, "")[:100])
    return st.text_input(
        label,
        key=key,
        placeholder=placeholder,
        max_chars=100,
        on_change=_write,
        args=(key,),
    )


def page_number(total: int, rows: int = ROWS) -> int:
    """The chosen page of `total` rows, from 1. The select box is shown if there are several."""
    pages = [str(number) for number in range(1, max(1, -(-total // rows)) + 1)]
    if len(pages) == 1:
        return 1
    return int(choose("Page", pages, "page", name=lambda page: f"{page} of {len(pages)}"))


def figures(*shown: tuple[str, str | int, str | None]) -> None:
    """Large figures side by side, each with a label, a value and a remark."""
    with st.container(horizontal=True, gap="large"):
        for label, value, remark in shown:
            st.metric(label, value, remark, "off", delta_arrow="off", width="content")


def advise(message: str, command: str | None = None) -> None:
    """Say what to do where there is nothing to show, with a command to copy."""
    st.info(message)
    if command:
        st.code(command, language=None)


def nothing(message: str, command: str | None = None) -> NoReturn:
    """The same, and end the page."""
    advise(message, command)
    st.stop()


def unreadable(what: str, error: Exception, remedy: str) -> NoReturn:
    """Say that the files of submissions cannot be read, why, and what to do; end the page."""
    st.info(f"{what} here:")
    st.text(short(str(error), 400))
    nothing(
        f"{remedy}, or give the folder of submissions:",
        "xlt-bench leaderboard serve --submissions DIR",
    )


def footer(name: str, caption: str, data: pd.DataFrame | Callable[[], pd.DataFrame]) -> None:
    """The caption of a view, and downloads of its data as CSV and parquet.

    Args:
        name: The name of the files, without a suffix.
        caption: What the view shows.
        data: The data, or a function that is called when a button is clicked.
    """
    st.caption(caption)

    def frame() -> pd.DataFrame:
        return data() if callable(data) else data

    with st.container(horizontal=True):
        _download("CSV", f"{name}.csv", "text/csv", lambda: csv(frame()))
        kind = "application/vnd.apache.parquet"
        _download("Parquet", f"{name}.parquet", kind, lambda: parquet(frame()))


def link() -> str:
    """The URL of this view, with every choice of the last run, defaults included."""
    here = (st.context.url or "").split("?")[0]
    chosen: dict[str, object] = st.session_state.get(_CHOSEN, {})
    given = [
        (key, value)
        for key, values in chosen.items()
        for value in ((values or [""]) if isinstance(values, list) else [values])
    ]
    return f"{here}?{urlencode(given)}" if given else here


def _download(label: str, file: str, kind: str, data: Callable[[], bytes]) -> None:
    st.download_button(
        label,
        data,
        file,
        kind,
        key=f"download {file}",
        on_click="ignore",
        icon=":material/download:",
    )


def csv(frame: pd.DataFrame) -> bytes:
    """A frame as CSV, in which no text is a formula."""
    cells = frame.copy()
    for column in cells.select_dtypes(exclude=["number", "bool"]):
        cells[column] = cells[column].map(_cell)
    return cells.to_csv(index=False).encode()


def _cell(value: object) -> object:
    if isinstance(value, str):
        return csv_cell(value)
    return csv_cell(" ".join(map(str, value))) if hasattr(value, "__iter__") else value


def parquet(frame: pd.DataFrame) -> bytes:
    """A frame as parquet, with its texts unchanged."""
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()
