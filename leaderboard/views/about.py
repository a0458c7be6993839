"""About: what the board measures, what its data are, how to cite it, when it was updated."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import queries
import streamlit as st

from xlt_bench.data.catalog import catalog

_COUNTS = """
SELECT count(*) AS submissions, count(DISTINCT base_model) AS bases, max(created) AS newest
FROM submissions
"""
_TASKS = """
SELECT t.title AS task, r.version, count(DISTINCT r.number) AS submissions,
    (SELECT count(*) FROM units u WHERE u.task = r.task AND u.version = r.version AND u.ranked)
    AS units
FROM runs r JOIN tasks t USING (task)
GROUP BY t.title, t.place, r.task, r.version ORDER BY t.place, r.version DESC
"""
CITE = """@inproceedings{liu-niehues-2025-middle,
  title = {Middle-Layer Representation Alignment for Cross-Lingual Transfer in Fine-Tuned {LLMs}},
  author = {Liu, Danni and Niehues, Jan},
  year = {2025},
  url = {https://arxiv.org/abs/2502.14830},
}"""

counted = queries.one(_COUNTS)
assert counted is not None  # an aggregate has a row
st.header("What this is")
st.markdown(
    "An LLM is fine-tuned on a task in a few languages. xlt-bench measures, language by language, "
    "how far the skill carries over to the others, and compares trainings that are meant to help. "
    "Every score was recomputed from the answers that a submission holds."
)
built = datetime.fromtimestamp(queries.database().stat().st_mtime, UTC)
if counted["submissions"]:
    st.markdown(
        f"**Last updated** {built:%Y-%m-%d}, with {counted['submissions']} submissions on "
        f"{counted['bases']} base models; the newest was evaluated on {counted['newest']:%Y-%m-%d}."
    )
st.header("What the data are")
data = pd.DataFrame(
    [(one.title, one.licence, one.citation) for one in catalog().values()],
    columns=["data set", "licence", "cite"],
)
st.dataframe(data, hide_index=True, height="content", alt="Data sets with licence and citation")
st.markdown(
    "The board holds answers and scores, not these texts. Adapters whose training text contains "
    "FLORES dev are marked: their retrieval in it is inflated. Versions of the tasks:"
)
tasks = queries.ask(_TASKS)
st.dataframe(tasks, hide_index=True, height="content", placeholder="", alt="Versions of the tasks")
st.header("How to cite")
st.markdown("The benchmark follows this paper. Cite it, and the data sets of the tasks you report:")
st.code(CITE, language=None, wrap_lines=True)
st.caption("Submissions belong to their submitters; the code is Apache-2.0.")
