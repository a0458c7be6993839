"""Controls that keep their value in the URL, and the captions and downloads of a view.

Each run of a page sets the controls from the URL, and a control writes its new value to it. A URL
therefore restores a view.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import NoReturn, ParamSpec
from urllib.parse import urlencode

import figures as figures_
import pandas as pd
import streamlit as st
from queries import TURNS
from specs import Spec

from xlt_bench.errors import one_line
from xlt_bench.results.tables import csv_cell

ROWS = 25  # rows of a page
PINNED = 4  # methods that can be pinned
CARRIED = ("task", "version", "base", "places", "pin")  # choices that a change of page keeps
_CHOSEN, _CARRIED, _PAGE, _ADDRESS = "chosen", "carried", "page seen", "address"
# What a key of the URL names, where it is not the thing itself.
_WORDS = {
    "base": "base model", "pin": "method", "open": "row", "systems": "system", "from": "language",
    "to": "language", "unit": "language", "baseline": "system",
}  # fmt: skip
SUBMIT = "xlt-bench evaluate --model MODEL --output RUN\nxlt-bench submit RUN"


# Choices that do not change which rows there are to page through.
_BESIDE = ("page", "open", "colour", "places")
_P = ParamSpec("_P")


class PageEndsError(Exception):
    """Ends a page early, or a part of it. `st.stop` would end what comes after it, too."""


def part(shown: Callable[_P, None]) -> Callable[_P, None]:
    """Make a function a part of a page: it runs alone when one of its own controls changes.

    It keeps its arguments until the page runs again. If it ends early, the page goes on after it.
    """

    @st.fragment
    @wraps(shown)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        with suppress(PageEndsError), TURNS:
            shown(*args, **kwargs)
        keep_address()

    return run


def keep_address() -> None:
    """Note the choices in the URL, at the end of a run that may have changed them."""
    st.session_state[_ADDRESS] = {key: st.query_params.get_all(key) for key in st.query_params}


def restore_address() -> None:
    """Give a run that a timer began the choices of the last run that the user began.

    The browser sends its URL with a timer's request, and may not have seen by then what the run
    before it has written there: a choice made at that moment would be lost.
    """
    if _ADDRESS in st.session_state:
        st.query_params.from_dict(st.session_state[_ADDRESS])


def start(page: str) -> None:
    """Forget the choices of the last run, and keep those that a change of page keeps.

    Args:
        page: The name of the page that will run. Call this before it does.
    """
    kept: dict[str, list[str]] = st.session_state.setdefault(_CARRIED, {})
    if st.session_state.get(_PAGE) not in (None, page):
        for key, values in kept.items():
            if key not in st.query_params:
                st.query_params[key] = values
    st.session_state[_PAGE] = page
    st.session_state[_CHOSEN] = {}
    for key in CARRIED:
        if key in st.query_params:
            kept[key] = st.query_params.get_all(key)
        else:
            kept.pop(key, None)


def carry(key: str, value: str | list[str]) -> None:
    """Write a choice to the URL that a change of page keeps."""
    st.query_params[key] = value
    st.session_state.setdefault(_CARRIED, {})[key] = st.query_params.get_all(key)


def wrong(key: str, value: str) -> None:
    """Say that the URL asks for something that is not here."""
    st.warning(f"The address asks for a {_WORDS.get(key, key)} that is not here:")
    st.text(short(value))


def short(text: str | None, most: int = 80) -> str:
    """A submitter's text as a label: one line of at most `most` characters, empty for None."""
    return one_line(text or "", most)


def remember(key: str, value: object) -> None:
    """Have the link to this view hold a choice that no control shows."""
    st.session_state.setdefault(_CHOSEN, {})[key] = value


def _set(key: str, value: object) -> None:
    st.session_state[key] = value
    remember(key, value)


def _write(key: str) -> None:
    """Write a control's new value to the URL, and take back the choices that depend on it."""
    value = st.session_state[key]
    if key not in _BESIDE:
        st.query_params.pop("page", None)
    if key == "task":
        st.query_params.pop("version", None)
    # An empty value records that the user emptied the control.
    written = "" if value in (None, "", []) else value
    if key in CARRIED:
        carry(key, written)
    else:
        st.query_params[key] = written


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
        options: At least one option. The page says so if the URL has another one.
        key: Its key in the URL.
        default: The option that is chosen at first; else the first one.
        name: Gives the text of an option.
    """
    _set(key, _wanted(options, key, default))
    return str(
        st.selectbox(label, options, key=key, format_func=name, on_change=_write, args=(key,))
    )


def _wanted(options: Sequence[str], key: str, default: str | None) -> str:
    """The option that the URL has, else the default one."""
    wanted = st.query_params.get(key, "")
    if wanted in options:
        return wanted
    if wanted:
        wrong(key, wanted)
    return default if default is not None and default in options else options[0]


def tabs(label: str, options: Sequence[str], key: str, *, name: Callable[[str], str] = str) -> str:
    """Options side by side, of which one is chosen. See `choose` for the arguments."""
    _set(key, _wanted(options, key, None))
    return str(
        st.segmented_control(
            label,
            options,
            key=key,
            format_func=name,
            required=True,
            wrap=True,
            label_visibility="collapsed",
            on_change=_write,
            args=(key,),
        )
    )


def chips(
    label: str, options: Sequence[str], key: str, *, name: Callable[[str], str] = str
) -> list[str]:
    """Options side by side, of which any number is chosen; none stands for all."""
    _set(key, _known(options, key))
    return st.pills(
        label,
        options,
        selection_mode="multi",
        key=key,
        format_func=name,
        wrap=True,
        label_visibility="collapsed",
        on_change=_write,
        args=(key,),
    )


def _known(options: Sequence[str], key: str) -> list[str]:
    """The options that the URL has. The page says so if it has another one."""
    asked = dict.fromkeys(st.query_params.get_all(key))
    for one in asked:
        if one and one not in options:
            wrong(key, one)
    return [one for one in asked if one in options]


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
    asked, wanted = st.query_params.get_all(key), _known(options, key)
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


def paged(query: Callable[[int], pd.DataFrame]) -> pd.DataFrame:
    """The rows of the page that `page_number` will show, without a query for their number.

    Args:
        query: Gives the rows of a page, from 1, each with the number of all rows in `total`.
    """
    text = st.query_params.get("page", "1")
    asked = int(text) if re.fullmatch("[1-9][0-9]{0,5}", text) else 1
    found = query(asked)
    return found if len(found) or asked == 1 else query(1)


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
    raise PageEndsError


def unreadable(what: str, error: Exception, remedy: str) -> NoReturn:
    """Say that the files of submissions cannot be read, why, and what to do; end the page."""
    st.info(f"{what} here:")
    st.text(short(str(error), 400))
    nothing(
        f"{remedy}, or give the folder of submissions:",
        "xlt-bench leaderboard serve --submissions DIR",
    )


def footer(
    name: str,
    caption: str,
    data: pd.DataFrame | Callable[[], pd.DataFrame],
    chart: Spec | None = None,
    title: str = "",
) -> None:
    """The caption of a view, and downloads of its data and, for a paper, of its table and figure.

    Args:
        name: The name of the files, without a suffix.
        caption: What the view shows.
        data: The data, or a function that is called when a button is clicked.
        chart: The chart of the view, if it has one.
        title: The title of the figure, such as the systems; the first sentence of the caption is
            below it.
    """
    st.caption(caption)

    def frame() -> pd.DataFrame:
        return data() if callable(data) else data

    with st.container(horizontal=True, gap="small"):
        _download("CSV", f"{name}.csv", "text/csv", lambda: csv(frame()))
        kind = "application/vnd.apache.parquet"
        _download("Parquet", f"{name}.parquet", kind, lambda: parquet(frame()))
        tex = "application/x-tex"
        _download("LaTeX", f"{name}.tex", tex, lambda: figures_.latex(frame(), caption))
        if chart is None:
            return
        lines = [caption.partition(". ")[0].rstrip(".")]
        for form, kind in (("svg", "image/svg+xml"), ("pdf", "application/pdf")):

            def drawn(form: str = form) -> bytes:
                return figures_.figure(chart, title or name, lines, form)

            _download(form.upper(), f"{name}.{form}", kind, drawn)


@st.fragment
def link_box() -> None:
    """Show the URL of this view once the box is opened; parts of the page may have run by then."""
    with (
        st.container(horizontal=True, horizontal_alignment="right"),
        st.popover("Link to this view", on_change="rerun", key="link") as box,
    ):
        if box.open:
            st.code(link(), language=None, wrap_lines=True)


def link() -> str:
    """The URL of this view, with every choice that the page and its parts have read."""
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
