"""Overview: one row a method, with its gain in the languages it was not trained in.

A row opens its languages beside the table.
"""

from __future__ import annotations

from collections.abc import Sequence

import charts
import choices
import method_rows
import method_table
import pandas as pd
import pins
import streamlit as st
from names import bases, distinct
from queries import TaskVersion, ask, group, unit_labels
from rows import Group, Row
from specs import show
from widgets import (
    SUBMIT,
    advise,
    chips,
    choose,
    footer,
    page_number,
    part,
    remember,
    words,
    wrong,
)

ROWS = 60  # of a page
BY = {"family": "family", "script": "script"}
KINDS = {
    "": "all",
    "aligned": "SFT + alignment",
    "sft": "SFT",
    "merged": "merged",
    "alignment": "alignment alone",
    "steered": "steered",
    "bare": "bare model",
    "unknown": "training not known",
}
ITEMS = {"": "all", "whole": "whole test sets", "limited": "limited items"}
SORTS = {
    "": "transfer gain",
    "aligned": "aligned gain",
    "supervised": "supervised gain",
    "retrieval": "retrieval",
}
FILTERS = ("by", "kind", "items", "sort", "recipe", "find")
_COLUMNS = """
SELECT u.unit, l.name AS language, l.family, l.script
FROM units u JOIN languages l ON l.code = u.language
WHERE u.task = $task AND u.version = $version AND u.ranked ORDER BY u.unit
"""
CAPTION = (
    "Gains are in {metric} points, means over the languages of a split, over the baseline that the "
    "heading of a group names, on the same items. Transfer: languages without training data of the "
    "task; aligned: languages of the alignment data; supervised: languages of the task's training "
    "data. A bar is the 95 % interval: of seeds and items where a row has several seeds, else of "
    "items alone. Blue lies above zero, vermilion below; a thick edge marks a language whose gain "
    "is significant after Holm's correction. Rows of other items or baselines are apart. Places "
    "are among the {among} complete methods of a base model, by their mean {metric}; those that a "
    "test cannot tell from the first of them share one."
)
_MARKDOWN = set("\\`*_{}[]()#+-.!:$<>~|")


def base_models() -> list[str]:
    """The chosen base models; none stands for all."""
    known = bases()
    titles = {
        one.id: f"{one.name} (teaching model)" if one.teaching else one.name
        for one in known.values()
    }
    if len(known) < 2:
        return []
    # Labels of chips are Markdown.
    plain = {
        base: "".join("\\" + c if c in _MARKDOWN else c for c in t) for base, t in titles.items()
    }
    return chips("Base models", list(known), "base", name=plain.__getitem__)


def filters(made: Sequence[Group]) -> list[Group]:
    """The rows that the controls leave; they are folded away, with how many are set."""
    active = sum(bool(st.query_params.get(key)) for key in FILTERS)
    recipes = sorted({row.recipe for one in made for row in one.rows if row.recipe})
    with st.popover(f"Filters ({active} active)" if active else "Filters", icon=":material/tune:"):
        choose("Languages by", ["", "script"], "by", name=lambda by: by or "family")
        kind = choose("Method", list(KINDS), "kind", name=KINDS.__getitem__)
        items = choose("Items", list(ITEMS), "items", name=ITEMS.__getitem__)
        recipe = choose("Recipe", ["", *recipes], "recipe", name=lambda one: one or "all")
        sort = choose("Sort by", list(SORTS), "sort", name=SORTS.__getitem__)
        text = words("Find", "find", "a part of a name").casefold()

    def fits(row: Row) -> bool:
        limited = row.items.startswith("first")
        return (
            (not kind or row.kind == kind)
            and (not items or (bool(row.id) and limited == (items == "limited")))
            and (not recipe or row.recipe == recipe)
            and text in f"{row.parts.get('base', '')} {row.name} {row.recipe}".casefold()
        )

    def place(row: Row) -> float:
        if sort == "retrieval":
            return -row.retrieval["value"] if row.retrieval else float("inf")
        return -row.gains[sort]["gain"] if sort in row.gains else float("inf")

    kept = [Group(one.title, one.note, [r for r in one.rows if fits(r)]) for one in made]
    if sort:
        kept = [Group(one.title, one.note, sorted(one.rows, key=place)) for one in kept]
    return [one for one in kept if one.rows]


def pinned_first(made: list[Group], pinned: Sequence[str]) -> list[Group]:
    """The groups, preceded by a group of the pinned rows."""
    rows = [row for one in made for row in one.rows if row.id and row.method in pinned]
    if not rows:
        return made
    parts = {row.id: {**row.parts, "items": f"{row.items} items"} for row in rows}
    names = distinct(parts)
    # A copy, because the rows are shared with other visitors.
    copies = [Row(**{**vars(row), "name": names[row.id]}) for row in rows]
    copies.sort(key=lambda row: list(pinned).index(row.method))
    return [Group("Pinned", "each over its own baseline, see its group below", copies), *made]


def languages(task: TaskVersion) -> tuple[list[dict[str, str]], str]:
    """The languages of the strips, grouped, and what they are grouped by."""
    by = "script" if st.query_params.get("by") == "script" else "family"
    frame = ask(_COLUMNS, task.bound)
    counted = frame[by].value_counts()
    frame["size"] = frame[by].map(counted)
    frame = frame.sort_values(["size", by, "unit"], ascending=[False, True, True])
    found = [
        {"unit": row["unit"], "language": row["language"], "group": row[by]}
        for row in frame.to_dict("records")
    ]
    return found, by


def opened(row: Row, task: TaskVersion, metric: str) -> None:
    """Show the gains of an open row by language, and where to go on."""
    st.header("Gains by language", anchor=False)
    st.text(f"{row.parts.get('base', '')}: {row.name}")
    gain = row.gains.get(task.ranked_by)
    if gain is None:
        st.text("There is no baseline with the same items here: no gain can be counted.")
    else:
        st.text(verdict(row, gain["sure"]))
        if gain["resolvable"]:
            st.text(f"The smallest gain that these items would show: {gain['resolvable']:.1f}.")
    if row.cells:
        frame = pd.DataFrame(row.cells).rename(
            columns={"gain": "value", "language": "language_name", "sure": "significant"}
        )
        frame["label"] = unit_labels(frame)
        settings = zip(frame["setting"], frame["aligned"], strict=True)
        frame["group"] = [group(setting, aligned, True) for setting, aligned in settings]
        frame["mark"] = frame["significant"].map({True: "*", False: ""})
        frame["shown"] = frame["group"]
        caption = f"{task}: gain in {metric} by language, with 95 % intervals; * significant."
        show(charts.gains(frame, f"gain in {metric}", "setting"), caption)
    with st.container(horizontal=True):
        for page, label in (
            ("gains", "All of its gains"),
            ("submission", "Its submission"),
            ("compare", "Its answers"),
        ):
            given = {"system": row.submissions[0], "task": task.name}
            given["version"] = str(task.version)
            icon = ":material/arrow_forward:"
            st.page_link(f"views/{page}.py", label=label, icon=icon, query_params=given)


def verdict(row: Row, sure: bool) -> str:
    """What the interval of a row says: about two methods, or about two systems alone."""
    if row.covers_seeds:
        said = "differ" if sure else "cannot be told apart"
        return f"The two methods {said}: the interval covers {row.seeds} seeds and the items."
    said = "differ" if sure else "cannot be told apart"
    return (
        f"The two systems {said} on these items. There is one seed, so nothing is said about the "
        "methods: another seed may give another result."
    )


def board(task: TaskVersion, made: list[Group], metric: str, ranks_all: bool) -> None:
    """Show the table, and beside it the gains of the open row."""
    pinned = list(pins.pinned())
    wanted = st.query_params.get("open", "")
    row = method_rows.find(made, wanted)
    if wanted and row is None:
        wrong("open", wanted)
    remember("open", row.id if row else "")
    columns, by = languages(task)
    total = sum(len(one.rows) for one in made)
    page = page_number(total, ROWS)
    shown = method_rows.cut(made, page, ROWS)
    if row and method_rows.find(shown, wanted) is None:
        # A link opens its row wherever it is sorted.
        place = [one.id for group_ in made for one in group_.rows].index(wanted)
        shown = method_rows.cut(made, place // ROWS + 1, ROWS)
    left, right = st.columns([11, 9]) if row else (st.container(), None)
    ids = {one.method: one.id for group_ in made for one in group_.rows if one.id}
    with left:
        method_table.show(
            pinned_first(shown, pinned),
            columns,
            main=task.ranked_by,
            by=by,
            ranks_all=ranks_all,
            caption=f"Methods of {task} with their gains",
            opened=row.id if row else "",
            pinned=[ids[pin] for pin in pinned if pin in ids]
            + [r.id for g in made for r in g.rows if r.id and r.method in pinned],
            on_open=lambda one: st.query_params.update({"open": one}),
            on_pin=lambda one: pins.toggle(one.partition("-")[0]),
        )
    if right and row:
        with right:
            opened(row, task, metric)
    rows = [row for group_ in made for row in group_.rows]
    if not ranks_all and any(r.place_all for r in rows) and not any(r.place for r in rows):
        choices.no_places()
    among = "all" if ranks_all else "verified"
    caption = f"{task}, {total} rows. {CAPTION.format(metric=metric, among=among)}"
    footer(f"methods-{task.name}-v{task.version}", caption, lambda: exported(made, task))


def exported(made: Sequence[Group], task: TaskVersion) -> pd.DataFrame:
    """The rows as a file has them."""
    return pd.DataFrame(
        [
            {
                "group": one.title,
                "over": one.note,
                "method": row.name,
                "id": row.id,
                **{
                    f"{split}_{what}": gain[what]
                    for split, gain in row.gains.items()
                    for what in ("gain", "low", "high")
                },
                "score": row.score,
                "place": row.place and row.place["place"],
                "place_all": row.place_all and row.place_all["place"],
                "languages_up": row.up[0],
                "languages_down": row.down[0],
                "items": row.items,
                "seeds": row.seeds,
                "retrieval": row.retrieval["value"] if row.retrieval else None,
                "submissions": " ".join(row.submissions),
            }
            for one in made
            for row in one.rows
        ]
    )


@part
def methods(task: TaskVersion) -> None:
    """Show the controls, and the rows that they leave."""
    metric = method_rows.primary(task)
    everything = method_rows.groups(task, metric)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        wanted_bases = base_models()
        if wanted_bases:
            everything = [
                one for one in everything if not one.rows[0].id or one.rows[0].base in wanted_bases
            ]
        left_over = filters(everything)
        ranks_all = choices.ranks_all()
    if not any(row.id for one in left_over for row in one.rows):
        advise(
            "No method matches. Remove a filter, or be the first: evaluate a model and submit the "
            "run.",
            SUBMIT,
        )
    if left_over:
        board(task, left_over, metric, ranks_all)


methods(choices.task())
