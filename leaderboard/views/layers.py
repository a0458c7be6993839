"""Layers: the retrieval accuracy of several systems by layer, and of the pairs at one layer."""

from __future__ import annotations

import charts
import choices
import pandas as pd
import streamlit as st
from queries import NEIGHBOURS, TaskVersion, ask
from widgets import SUBMIT, choose, footer, nothing, several

_CURVES = (
    "SELECT submission, layer, value, low, high FROM layer_curves WHERE submission = ANY($ids)"
)
_FILTERED = """
SELECT submission, layer, avg(accuracy) AS value FROM pair_accuracies
WHERE submission = ANY($ids)
    AND (source = ANY($from::VARCHAR[])
        OR (len($from) = 0 AND (source = ANY($ranked) OR submission = ANY($few::VARCHAR[]))))
    AND (target = ANY($to::VARCHAR[])
        OR (len($to) = 0 AND (target = ANY($ranked) OR submission = ANY($few::VARCHAR[]))))
GROUP BY submission, layer
"""
_FEW_RANKED = """
SELECT y.submission FROM language_curves y
JOIN units u ON u.task = $task AND u.version = $version AND u.unit = y.language
WHERE y.submission = ANY($ids)
GROUP BY y.submission HAVING count(DISTINCT y.language) FILTER (u.ranked) < 2
"""
_PAIRS = """
SELECT source, target, accuracy FROM pair_accuracies
WHERE submission = $id AND layer = $layer AND (len($from) = 0 OR source = ANY($from::VARCHAR[]))
    AND (len($to) = 0 OR target = ANY($to::VARCHAR[]))
"""


def curves(
    names: dict[str, str], chosen: dict[str, list[str]], ranked: list[str], few: list[str]
) -> pd.DataFrame:
    """Accuracy by layer over the chosen pairs, with intervals only where no pair is chosen.

    Where one side is not chosen, it is the ranked languages; all languages for the systems `few`,
    which have fewer than two ranked ones.
    """
    ids = list(names)
    if any(chosen.values()):
        rows = ask(_FILTERED, {"ids": ids, "ranked": ranked, "few": few, **chosen})
    else:
        rows = ask(_CURVES, {"ids": ids})
    rows["system"] = rows["submission"].map(names)
    rows["place"] = rows["submission"].map(ids.index)
    return rows.sort_values(["place", "layer"]).drop(columns="place")


def matrix(
    task: TaskVersion, names: dict[str, str], chosen: dict[str, list[str]], order: list[str]
) -> None:
    """Show the pairs of one system at one layer."""
    st.subheader("Pairs at a layer")
    left, right = st.columns([3, 1])
    with left:
        system = choose("System", list(names), "pairs_of", name=names.__getitem__)
    found = ask(
        "SELECT layer, n_layers FROM layer_curves WHERE submission = $id ORDER BY layer",
        {"id": system},
    )
    layers = [str(layer) for layer in found["layer"]]
    middle = str(found["n_layers"].fillna(0).iloc[0] // 2)
    with right:
        layer = choose("Layer", layers, "layer", default=middle if middle in layers else layers[-1])
    rows = ask(_PAIRS, {"id": system, "layer": int(layer), **chosen})
    if rows.empty:
        nothing("This system has no pair of these languages. Remove a language.")
    there = {*rows["source"], *rows["target"]}
    caption = (
        f"{task}: accuracy at layer {layer}. A query is a sentence of the language on the left, "
        "its candidates are the sentences of the language below."
    )
    st.altair_chart(charts.pairs(rows, [code for code in order if code in there]), alt=caption)
    footer(f"pairs-{task.name}-v{task.version}-layer-{layer}", caption, rows)


task = choices.task(NEIGHBOURS)
languages = ask(
    "SELECT u.unit, l.name, u.ranked FROM units u JOIN languages l ON l.code = u.language "
    "WHERE u.task = $task AND u.version = $version ORDER BY u.rowid",
    task.bound,
)
titles = dict(zip(languages["unit"], languages["name"], strict=True))
names = choices.systems("Systems", "systems", len(charts.DASHES), **task.bound)
left, right = st.columns(2)
with left:
    source = several("Queries in", list(titles), "from", name=titles.__getitem__, placeholder="all")
with right:
    target = several(
        "Candidates in", list(titles), "to", name=titles.__getitem__, placeholder="all"
    )
if not names:
    nothing("Choose a system above. If there is none, submit one with retrieval:", SUBMIT)
chosen = {"from": source, "to": target}
ranked = languages["unit"][languages["ranked"]].tolist()
few = ask(_FEW_RANKED, {**task.bound, "ids": list(names)})["submission"].tolist()
rows = curves(names, chosen, ranked, few)
if rows.empty:
    nothing("The chosen systems have no pair of these languages. Remove a language.")
pairs = "the chosen pairs"
if not (source or target):
    more = " (of all languages for a system with fewer than two ranked ones)" if few else ""
    pairs = f"all ordered pairs of ranked languages{more}, with 95 % intervals"
caption = (
    f"{task}: accuracy of translation retrieval by layer, the mean over {pairs}. Layers are "
    "decoder blocks, counted from 1."
)
st.altair_chart(charts.layers(rows), alt=caption)
footer(f"layers-{task.name}-v{task.version}", caption, rows)
matrix(task, names, chosen, list(titles))
