"""Layers: the retrieval accuracy of several systems by layer, and of the pairs at one layer.

It opens with the bare model, an SFT system and an aligned system of one base model. A chart holds
systems with the same pairs of languages; means over other pairs get a chart of their own.
"""

from __future__ import annotations

import choices
import curves
import pandas as pd
import pins
import streamlit as st
from queries import NEIGHBOURS, TaskVersion, ask, one
from specs import show
from widgets import SUBMIT, choose, footer, nothing, part, several

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
# Which pairs a mean is over: systems with equal `pairs` can be compared.
_SETS = """
SELECT submission, count(*) AS number, list_sort(list_distinct(list(source))) AS languages,
    md5(string_agg(source || ' ' || target, ',' ORDER BY source, target)) AS pairs
FROM (
    SELECT DISTINCT submission, source, target FROM pair_accuracies
    WHERE submission = ANY($ids)
        AND (source = ANY($from::VARCHAR[])
            OR (len($from) = 0 AND (source = ANY($ranked) OR submission = ANY($few::VARCHAR[]))))
        AND (target = ANY($to::VARCHAR[])
            OR (len($to) = 0 AND (target = ANY($ranked) OR submission = ANY($few::VARCHAR[]))))
)
GROUP BY submission
"""
# A current aligned system with its bare model and an SFT system, if these have curves over the same
# languages: of several SFT systems, the one that was evaluated next to it.
_OPENING = """
WITH curves AS (
    SELECT s.number, s.id, s.base_model, s.item_limit, s.dtype, s.adapter IS NOT NULL AS tuned,
        len(s.alignment_languages) > 0 AS aligned, s.created,
        count(DISTINCT y.layer) AS layers, list_sort(list(DISTINCT l.language)) AS languages
    FROM submissions s
    JOIN layer_scores y USING (number)
    JOIN runs r USING (number)
    JOIN language_layers l ON l.number = s.number AND l.layer = y.layer
    WHERE r.task = $task AND r.version = $version AND r.superseded_by IS NULL
    GROUP BY ALL
)
SELECT a.id, b.id AS baseline, n.id AS bare
FROM curves a
LEFT JOIN curves b ON b.tuned AND NOT b.aligned AND a.aligned
    AND (b.base_model, b.item_limit, b.dtype, b.languages)
    IS NOT DISTINCT FROM (a.base_model, a.item_limit, a.dtype, a.languages)
LEFT JOIN curves n ON NOT n.tuned AND a.tuned
    AND (n.base_model, n.item_limit, n.dtype, n.languages)
    IS NOT DISTINCT FROM (a.base_model, a.item_limit, a.dtype, a.languages)
ORDER BY (n.id IS NOT NULL)::INT + (b.id IS NOT NULL)::INT DESC, a.aligned DESC,
    len(a.languages) DESC, a.layers DESC, a.created DESC, a.id,
    abs(epoch(b.created) - epoch(a.created)), b.id, n.created DESC, n.id
LIMIT 1
"""
_MODELS = """
SELECT s.id, s.n_layers, m.layers FROM submissions s JOIN methods m USING (method)
WHERE s.id = ANY($ids)
"""
_PAIRS = """
SELECT source, target, accuracy FROM pair_accuracies
WHERE submission = $id AND layer = $layer AND (len($from) = 0 OR source = ANY($from::VARCHAR[]))
    AND (len($to) = 0 OR target = ANY($to::VARCHAR[]))
"""


_MEXA = """
SELECT submission, language, language_name, mean, max, layers FROM mexa_scores
WHERE submission = ANY($ids) AND pooling = $pooling ORDER BY language
"""
POOLINGS = {"weighted": "mean of tokens, weighted by position", "last": "last token"}


def accuracies(
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


def mexa(names: dict[str, str]) -> None:
    """Show MEXA with English of each language, over the layers of the chosen systems."""
    if ask(_MEXA, {"ids": list(names), "pooling": "weighted"}).empty:
        return
    st.header("MEXA with English")
    left, right = st.columns(2)
    with left:
        over = choose("Over layers", ["max", "mean"], "mexa")
    with right:
        pooling = choose("States", list(POOLINGS), "pooling", name=POOLINGS.__getitem__)
    rows = ask(_MEXA, {"ids": list(names), "pooling": pooling})
    rows["system"] = rows["submission"].map(names)
    shown = rows.pivot_table(over, ["language_name", "language"], "system", sort=False)
    shown = shown[[name for name in names.values() if name in shown]].reset_index()
    layers = "; ".join(
        f"{name}: {' '.join(map(str, rows.loc[rows['system'] == name, 'layers'].iloc[0]))}"
        for name in shown.columns[2:]
    )
    st.dataframe(
        shown,
        hide_index=True,
        placeholder="",
        column_config={
            name: st.column_config.NumberColumn(format="%.1f") for name in names.values()
        },
        alt="MEXA with English by language and system",
    )
    caption = (
        "MEXA: per cent of the first 100 sentences that are nearest to their English translation "
        f"in both directions; the {over} over the layers of a system, on which it depends "
        f"({layers})."
    )
    footer(f"mexa-{over}-{pooling}", caption, shown)


def opening(task: TaskVersion) -> list[str]:
    """The ids that the page opens with: bare, SFT and aligned, of one base model."""
    found = one(_OPENING, task.bound) or {}
    return [found[kind] for kind in ("bare", "baseline", "id") if found.get(kind)]


def marks(rows: pd.DataFrame) -> pd.DataFrame:
    """The layers to mark: the middle one, and those of the alignment loss."""
    found: dict[int, list[str]] = {}
    for model in ask(_MODELS, {"ids": list(rows["submission"].unique())}).to_dict("records"):
        if not pd.isna(model["n_layers"]):
            found.setdefault(int(model["n_layers"]) // 2, []).append("middle")
        for layer in model["layers"]:
            found.setdefault(int(layer), []).append("aligned")
    return pd.DataFrame(
        [
            {"layer": layer, "mark": f"{', '.join(dict.fromkeys(names))} ({layer})"}
            for layer, names in sorted(found.items())
        ],
        columns=["layer", "mark"],
    )


@part
def matrix(
    task: TaskVersion, names: dict[str, str], chosen: dict[str, list[str]], order: list[str]
) -> None:
    """Show the pairs of one system at one layer."""
    st.header("Pairs at a layer")
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
    chart = curves.pairs(rows, [code for code in order if code in there])
    show(chart, caption)
    file = f"pairs-{task.name}-v{task.version}-layer-{layer}"
    footer(file, caption, rows, chart, names[system])


task = choices.task(NEIGHBOURS)
languages = ask(
    "SELECT u.unit, l.name, u.ranked FROM units u JOIN languages l ON l.code = u.language "
    "WHERE u.task = $task AND u.version = $version ORDER BY u.rowid",
    task.bound,
)
titles = dict(zip(languages["unit"], languages["name"], strict=True))
names = choices.systems(
    "Systems",
    "systems",
    len(curves.DASHES),
    default=list(pins.systems(task)) or opening(task),
    **task.bound,
)
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
rows = accuracies(names, chosen, ranked, few)
if rows.empty:
    nothing("The chosen systems have no pair of these languages. Remove a language.")
pairs = "the chosen pairs"
if not (source or target):
    more = " (of all languages for a system with fewer than two ranked ones)" if few else ""
    pairs = f"all ordered pairs of ranked languages{more}, with 95 % intervals"
caption = (
    f"{task}: accuracy of translation retrieval by layer, the mean over {pairs}. Layers are "
    "decoder blocks, counted from 1. A ring marks the best layer of a system, vertical lines the "
    "middle layer and the layers of the alignment loss."
)
given = {"ids": list(names), "ranked": ranked, "few": few, **chosen}
sets = ask(_SETS, given).set_index("submission")
rows["pairs"] = rows["submission"].map(sets["pairs"])
parts: list[tuple[pd.DataFrame, pd.DataFrame]] = []
for _, alike in rows.groupby("pairs", sort=False):
    if rows["pairs"].nunique() > 1:
        over = sets.loc[alike["submission"].iloc[0]]
        st.text(f"{over['number']} pairs: {' '.join(over['languages'])}")
    parts.append((alike.drop(columns="pairs"), marks(alike)))
    show(curves.layers(parts[-1]), caption)
if rows["pairs"].nunique() > 1:
    caption += " Means over other pairs cannot be compared, and have a chart of their own."
table = rows.drop(columns="pairs")
footer(f"layers-{task.name}-v{task.version}", caption, table, curves.layers(*parts))
matrix(task, names, chosen, list(titles))
mexa(names)
