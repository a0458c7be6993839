"""The leaderboard: `xlt-bench leaderboard serve`, or `streamlit run leaderboard/app.py`.

$XLT_BENCH_LEADERBOARD is the database, $XLT_BENCH_SUBMISSIONS the folder of submissions.
"""

from __future__ import annotations

from pathlib import Path

import bidi
import queries
import streamlit as st
import widgets

PAGES = {
    "overview": "Overview",
    "gains": "Gains",
    "layers": "Layers",
    "correlation": "Correlation",
    "compare": "Compare",
    "submission": "Submission",
    "how_to_submit": "How to submit",
}
CHECKED_EVERY = 10  # seconds
# Less empty space, smaller headings, and captions that have enough contrast. Streamlit does not
# escape this text: keep it constant.
_STYLE = f"""<style>
[data-testid=stMainBlockContainer] {{padding-top: 4rem; padding-bottom: 3rem}}
[data-testid=stMainBlockContainer] h2 {{font-size: 1.5rem}}
[data-testid=stCaptionContainer] {{opacity: .85}}
{bidi.STYLE}</style>"""


@st.fragment(run_every=CHECKED_EVERY)
def watch() -> None:
    """Run the page again when the database has been rebuilt."""
    seen, now = st.session_state.get("stamp"), queries.stamp()
    st.session_state["stamp"] = now
    if seen not in (None, now):
        st.rerun()


st.set_page_config("xlt-bench leaderboard", Path(__file__).with_name("icon.svg"), layout="wide")
page = st.navigation(
    [
        st.Page(f"views/{name}.py", title=title, url_path=name, default=name == "overview")
        for name, title in PAGES.items()
    ],
    position="top",
)
st.html(_STYLE)
with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.title(page.title)
    corner = st.empty()
queries.ensure()
widgets.start()
st.session_state["stamp"] = queries.stamp()
watch()
try:
    with queries.TURNS:
        page.run()
finally:
    # A page that ends early has a link, too.
    with corner.popover("Link to this view"):
        st.code(widgets.link(), language=None, wrap_lines=True)
