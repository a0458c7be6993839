"""The leaderboard: `xlt-bench leaderboard serve`, or `streamlit run leaderboard/app.py`.

$XLT_BENCH_LEADERBOARD is the database, $XLT_BENCH_SUBMISSIONS the folder of submissions.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import bidi
import pins
import queries
import streamlit as st
import widgets
from pages import QUESTION, TITLES

CHECKED_EVERY = 10  # seconds
# Less empty space, smaller headings; captions and chosen options that have enough contrast.
# Streamlit does not escape this text: keep it constant.
_STYLE = f"""<style>
[data-testid=stMainBlockContainer] {{padding: 4rem 2rem 3rem; gap: .75rem}}
[data-testid=stMainBlockContainer] h1 {{font-size: 1.75rem; padding: 0 0 .25rem}}
[data-testid=stMainBlockContainer] h2 {{font-size: 1.35rem}}
[data-testid=stCaptionContainer] {{opacity: .85}}
[data-testid=stMultiSelect] [data-tag] {{background: #0072b2}}
{bidi.STYLE}</style>"""


@st.fragment(run_every=CHECKED_EVERY)
def watch() -> None:
    """Run the page again when the database has been rebuilt."""
    seen, now = st.session_state.get("stamp"), queries.stamp()
    st.session_state["stamp"] = now
    if seen not in (None, now):
        widgets.restore_address()
        st.rerun()


page = st.navigation(
    [
        st.Page(f"views/{name}.py", title=title, url_path=name, default=name == "overview")
        for name, title in TITLES.items()
    ],
    position="top",
)
icon = Path(__file__).with_name("icon.svg")
st.set_page_config(f"{page.title} · xlt-bench leaderboard", icon, layout="wide")
first = page.title == TITLES["overview"]
st.html(_STYLE)
with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.title(QUESTION if first else page.title)
    corner = st.empty()
queries.ensure()
widgets.start(page.title)
st.session_state["stamp"] = queries.stamp()
watch()
with suppress(widgets.PageEndsError), queries.TURNS:
    if not first:  # whose table begins with the pinned methods
        pins.bar()
    page.run()
with corner:
    widgets.link_box()
widgets.keep_address()
