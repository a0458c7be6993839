"""Systems: every submission of a task with its means by split; each row opens its languages."""

from __future__ import annotations

from typing import Any

import charts
import choices
import pandas as pd
import streamlit as st
from names import bases, system_names
from queries import NEIGHBOURS, TaskVersion, ask, describe, like, metrics, tasks
from specs import show
from widgets import ROWS, SUBMIT, advise, choose, footer, page_number, paged, part, short, words

SORTS = {
    "score": "the ranking score",
    "supervised": "supervised",
    "aligned": "aligned",
    "gap": "transfer gap",
    "retrieval": "retrieval",
    "newest": "newest first",
}
SHOWN = {
    "all": "complete and partial",
    "complete": "complete",
    "partial": "partial",
    "superseded": "superseded by a newer run",
}
ADAPTERS = {
    "any": "any or none",
    "bare": "none: the bare model",
    "tuned": "not aligned",
    "aligned": "aligned",
}
NOT_IN_MEANS = "Languages beyond the ranked set are in no mean."
# The user chooses an order by its name, so that no SQL comes from the URL.
_ORDERS = {
    **{name: f"{name} * $sign DESC NULLS LAST" for name in ("score", "supervised", "aligned")},
    "gap": "gap",
    "retrieval": "retrieval DESC NULLS LAST",
    "newest": "created DESC",
}
_TABLE = """
WITH retrieval AS (
    SELECT m.submission, m.value
    FROM split_means m
    JOIN tasks t ON t.task = m.task AND t.ranked_by = m.split
    JOIN metrics k ON k.task = m.task AND k.metric = m.metric AND k.is_primary
    WHERE m.task = $retrieval AND m.version = $retrieval_version
), systems AS (
    SELECT s.id AS submission, s.name, s.model, s.base_model, s.adapter, r.complete, r.lacks,
        r.superseded_by IS NULL AS current, s.recipe, s.trained_on_flores, s.created,
        s.alignment_languages, s.rank_class,
        max(m.place) FILTER (WHERE split = $by) AS place,
        max(m.place_all) FILTER (WHERE split = $by) AS place_all,
        max(m.outcome) FILTER (WHERE split = $by) AS outcome,
        max(m.value) FILTER (WHERE split = $by) AS score,
        max(m.value) FILTER (WHERE split = 'supervised') AS supervised,
        any_value([m.low, m.high]) FILTER (WHERE split = 'supervised') AS supervised_interval,
        max(m.value) FILTER (WHERE split = 'aligned') AS aligned,
        any_value([m.low, m.high]) FILTER (WHERE split = 'aligned') AS aligned_interval,
        any_value([m.low, m.high]) FILTER (WHERE split = $by) AS score_interval,
        supervised - max(m.value) FILTER (WHERE split = 'transfer') AS gap
    FROM runs r
    JOIN submissions s USING (number)
    -- A submission with nothing but units beyond the ranked set has scores, and no means.
    LEFT JOIN split_means m ON m.submission = s.id AND m.task = r.task AND m.metric = $metric
    WHERE r.task = $task AND r.version = $version AND r.number IN
        (SELECT number FROM unit_scores WHERE task = $task AND metric = $metric)
    GROUP BY ALL
)
SELECT t.* EXCLUDE (alignment_languages), r.value AS retrieval, count(*) OVER () AS total,
    count(t.place) OVER () AS placed, count(t.place_all) OVER () AS placed_all
FROM systems t
LEFT JOIN retrieval r USING (submission)
WHERE ($base = '' OR t.base_model = $base)
    AND ($recipe = 'any' OR t.recipe = $recipe)
    AND CASE $adapter WHEN 'bare' THEN t.adapter IS NULL
        WHEN 'tuned' THEN t.adapter IS NOT NULL AND len(t.alignment_languages) = 0
        WHEN 'aligned' THEN len(t.alignment_languages) > 0 ELSE true END
    AND CASE $shown WHEN 'superseded' THEN NOT t.current
        WHEN 'complete' THEN t.current AND t.complete
        WHEN 'partial' THEN t.current AND NOT t.complete ELSE t.current END
    AND ($words = '%%' OR t.name ILIKE $words ESCAPE '!' OR t.model ILIKE $words ESCAPE '!'
        OR t.submission ILIKE $words ESCAPE '!')
ORDER BY {order}, t.submission
LIMIT $most OFFSET $skip
"""
_PUBLISHED = """
SELECT paper_table AS "table", model, row AS system, split, metric, value,
    CASE WHEN usable THEN '' ELSE 'do not rely on it' END AS caution, note
FROM published WHERE task = $task AND unit IS NULL ORDER BY ALL
"""


def filters(task: TaskVersion) -> tuple[dict[str, Any], str]:
    """The controls above the table: the values that they bind in the query, and the order."""
    known = {"": "any"} | {base.id: base.name for base in bases().values()}
    recipes = ask(
        "SELECT recipe, count(*) AS n FROM submissions WHERE recipe IS NOT NULL "
        "GROUP BY recipe ORDER BY n DESC, recipe LIMIT 200"
    )
    top, bottom = st.columns(4), st.columns([2, 1, 1])
    with top[0]:
        metric = choose("Score", metrics(task), "metric")
    with top[1]:
        base = choose("Base model", list(known), "base", name=known.__getitem__)
    with top[2]:
        adapter = choose("Adapter", list(ADAPTERS), "adapter", name=ADAPTERS.__getitem__)
    with top[3]:
        recipe = choose("Recipe", ["any", *recipes["recipe"]], "recipe", name=short)
    with bottom[0]:
        text = words("Find", "find", "name, model or id")
    with bottom[1]:
        shown = choose("Show", list(SHOWN), "shown", name=SHOWN.__getitem__)
    with bottom[2]:
        sort = choose("Sort by", list(SORTS), "sort", name=SORTS.__getitem__)
    given = {**task.bound, "metric": metric, "base": base, "adapter": adapter, "recipe": recipe}
    given |= {"shown": shown, "words": like(text), "by": task.ranked_by}
    return given, sort


def retrieval_beside(task: TaskVersion) -> TaskVersion | None:
    """The retrieval task whose mean stands beside the task; None if the database has none."""
    found = [task] if task.answers == NEIGHBOURS else tasks(NEIGHBOURS)
    return found[0] if found else None


def query(given: dict[str, Any], sort: str, page: int, rows: int) -> pd.DataFrame:
    """The rows of one page of the table."""
    better = ask(
        "SELECT higher_is_better FROM metrics WHERE task = $task AND metric = $metric",
        {"task": given["task"], "metric": given["metric"]},
    )
    sign = 1 if better["higher_is_better"].iloc[0] else -1
    text = _TABLE.format(order=_ORDERS[sort])
    bound = {**given, "most": rows, "skip": (page - 1) * rows}
    return ask(text, {**bound, "sign": sign} if "$sign" in text else bound)


def table(frame: pd.DataFrame, by: str, place: str, beside: TaskVersion | None) -> pd.DataFrame:
    """The rows of the database as the page shows them.

    Args:
        frame: The rows.
        by: The split of the score.
        place: The column with the places.
        beside: The retrieval task whose mean stands beside.
    """
    shown = pd.DataFrame(
        {
            "place": frame[place].astype("Int64"),
            "rank": frame["rank_class"],
            "system": frame["name"].map(short),
            by: frame["score"],
            "95 %": frame["score_interval"].map(interval),
            "than its baseline": frame["outcome"],
        }
    )
    for split in ("supervised", "aligned"):
        if split != by and frame[split].notna().any():
            shown[split] = frame[split]
            shown[f"95 % {split}"] = frame[f"{split}_interval"].map(interval)
    shown["gap"] = frame["gap"]
    shown["retrieval"] = frame["retrieval"]
    if beside and beside.on_flores_dev:
        seen = frame["trained_on_flores"].map({True: "trained on FLORES dev"})
        shown["retrieval is inflated"] = seen.where(frame["retrieval"].notna(), None)
    shown["base model"] = frame["model"].map(lambda text: short(text, 40))
    shown["recipe"] = frame["recipe"].map(lambda text: short(text, 40), na_action="ignore")
    shown["lacks"] = frame["lacks"].map(lambda lacks: short(" ".join(lacks), 60) or None)
    return shown.dropna(axis="columns", how="all")


def interval(ends: Any) -> str:
    """`60.1 – 63.0`."""
    return "" if not hasattr(ends, "__len__") else f"{ends[0]:.1f} – {ends[1]:.1f}"


@part
def opened(frame: pd.DataFrame, task: TaskVersion, metric: str) -> None:
    """The languages of the row that the user opened."""
    asked = st.query_params.get("open", "")
    names = system_names([*frame["submission"], *([asked] if asked else [])])
    chosen = choose(
        "Open the languages of", ["", *names], "open", name=lambda o: names.get(o, "none")
    )
    if not chosen:
        return
    rows = ask(
        "SELECT unit, language_name, setting, aligned, ranked, value, low, high, n FROM scores "
        "WHERE submission = $id AND task = $task AND version = $version AND metric = $metric",
        {"id": chosen, **task.bound, "metric": metric},
    )
    describe(rows)
    caption = (
        f"{task}: {metric} by language, with 95 % intervals; best first within each group."
        + ("" if rows["ranked"].all() else f" {NOT_IN_MEANS}")
    )
    chart = charts.scores(rows, metric)
    show(chart, caption)
    with st.container(horizontal=True):
        for page, label in (("submission", "Its submission"), ("gains", "Its gains")):
            given = {"system": chosen, "task": task.name, "version": str(task.version)}
            icon = ":material/arrow_forward:"
            st.page_link(f"views/{page}.py", label=label, icon=icon, query_params=given)
    footer("languages", caption, rows.drop(columns="label"), chart, names[chosen])


@part
def systems(task: TaskVersion) -> None:
    """A page of the table of systems, and the languages of the row that the user opened."""
    given, sort = filters(task)
    ranks_all = choices.ranks_all()
    beside = retrieval_beside(task)
    given["retrieval"] = beside.name if beside else ""
    given["retrieval_version"] = beside.version if beside else 0
    frame = paged(lambda page: query(given, sort, page, ROWS))
    if frame.empty:
        advise(
            "No system matches. Remove a filter, or be the first: evaluate a model and submit the "
            "run.",
            SUBMIT,
        )
        return
    total = int(frame["total"].iloc[0])
    page_number(total)
    ids = frame["submission"].tolist()
    key = f"table {hash(tuple(ids))}"  # other rows are another table, with no row selected

    def open_row() -> None:
        # The open row is a choice in the URL like any other.
        rows = st.session_state[key].selection.rows
        st.query_params["open"] = ids[rows[0]] if rows else ""

    if not ranks_all and not frame["placed"].iloc[0] and frame["placed_all"].iloc[0]:
        choices.no_places()
    st.dataframe(
        table(frame, given["by"], "place_all" if ranks_all else "place", beside),
        hide_index=True,
        height="content",
        placeholder="",
        column_config={
            name: st.column_config.NumberColumn(format="%.1f")
            for name in ("transfer", "all", "supervised", "aligned", "gap", "retrieval")
        },
        on_select=open_row,
        selection_mode="single-row",
        key=key,
        alt="Systems of the task with their means",
    )
    inflated = ""
    if beside and beside.on_flores_dev:
        inflated = "; inflated if FLORES dev was in the training text, as it is in ALMA's"
    footer(
        f"systems-{task.name}-v{task.version}",
        f"{task}, {total} systems. Unweighted means of {given['metric']} over the languages of "
        "each split, with 95 % intervals. The aligned languages are those of each adapter. Gap: "
        f"supervised minus transfer. Retrieval: {beside or 'none'}, the mean over all pairs and "
        f"even layers{inflated}. Only "
        f"{'' if ranks_all else 'verified, '}complete, current systems have a place; those that a "
        "paired test cannot tell apart share one. Better or worse than its baseline: p < 0.05. "
        "Select a row to open its languages.",
        lambda: query(given, sort, 1, 10_000).drop(columns=["total", "placed", "placed_all"]),
    )
    opened(frame, task, given["metric"])


def published(task: TaskVersion) -> None:
    """The paper's figures for a task, if it has any."""
    figures = ask(_PUBLISHED, {"task": task.name})
    if figures.empty:
        return
    st.header("Published in the paper")
    st.dataframe(
        figures,
        hide_index=True,
        placeholder="",
        column_config={"value": st.column_config.NumberColumn(format="%.1f")},
        alt="Figures printed in the paper",
    )
    footer(
        f"published-{task.name}",
        f"{task.name}: figures that arXiv 2502.14830 prints, not computed here and not ranked.",
        figures,
    )


task = choices.task()
systems(task)
published(task)
