"""Turns the gains of methods into the rows and groups of the table on Overview.

A row is a method in one task version on one set of items. Rows stand in one group if their gains
can be compared: they have the same base model and items, and are counted from the same kind of
baseline. Gains that the paper prints are rows of their own, which nobody here computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import queries
import streamlit as st
from names import SHORT, Base, bases, distinct, method_parts
from paper_rows import published
from queries import NEIGHBOURS, Stamp, TaskVersion, ask, records, stamp, tasks
from rows import Gain, Group, Place, Row

OVER = {
    "sft": "over the SFT of the same training",
    "bare": "over the bare model",
    "none": "without a baseline here",
}
_MEANS = """
SELECT g.method, g.item_limit, g.split, g.value, g.baseline_value, g.gain, g.low, g.high, g.p,
    g.baseline_kind, g.covers_seeds, g.seeds, g.submissions, g.resolvable
FROM method_gain_means g
WHERE g.task = $task AND g.version = $version
"""
_UNITS = """
SELECT method, item_limit, unit, language_name, script, family, setting, aligned, gain, low, high,
    p_holm, significant, n
FROM method_gains WHERE task = $task AND version = $version AND ranked
ORDER BY unit
"""
# The current systems of every method in a task version, with their mean in the ranking split.
_METHODS = """
SELECT y.method, y.item_limit, m.* EXCLUDE (method, settings), max(s.name) AS name,
    list(s.id ORDER BY s.seed, s.created) AS ids, bool_and(y.complete) AS complete,
    bool_or(s.trained_on_flores) AS flores,
    count(DISTINCT s.id) FILTER (WHERE s.rank_class = 'verified') AS verified,
    count(DISTINCT s.seed) AS seeds,
    avg(k.value) AS score, max(s.created) AS created
FROM method_systems y
JOIN methods m USING (method)
JOIN submissions s ON s.id = y.submission
LEFT JOIN split_means k ON k.submission = s.id AND k.task = y.task AND k.split = $by
    AND k.metric = $metric
WHERE y.task = $task AND y.version = $version AND y.current
GROUP BY ALL
"""
_RETRIEVAL = """
SELECT s.method, m.submission, m.value, len(m.units) AS languages,
    (SELECT list(DISTINCT layer ORDER BY layer) FROM layer_scores y
     WHERE y.number = s.number AND layer % 2 = 0) AS layers
FROM split_means m JOIN submissions s ON s.id = m.submission
JOIN tasks t ON t.task = m.task AND t.ranked_by = m.split
WHERE m.task = $task AND m.version = $version
ORDER BY languages DESC, m.submission
"""
_PLACES = """
SELECT method, seeds, seeds_verified, place, tied, verdict, place_all, tied_all, verdict_all
FROM method_means WHERE task = $task AND version = $version AND split = $by
"""
_PRIMARY = "SELECT metric FROM metrics WHERE task = $task AND is_primary"


def row_id(method: str, item_limit: int | None) -> str:
    """The id of a row in addresses: the method, and the number of items if they are limited."""
    return method[:SHORT] if item_limit is None else f"{method[:SHORT]}-{item_limit}"


@st.cache_resource(max_entries=20, show_spinner=False)
def _groups(task: TaskVersion, metric: str, built: Stamp) -> list[Group]:
    found = _methods(task, metric)
    known = bases()
    grouped: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for method in found:
        limit = method["item_limit"]
        items = float("inf") if limit is None else float(limit)
        grouped.setdefault((method["base_model"], items, method["over"]), []).append(method)
    places = {base: place for place, base in enumerate(known)}
    kinds = list(OVER)
    order = sorted(grouped, key=lambda k: (places[k[0]], kinds.index(k[2]), -k[1]))
    made = [_group(known[key[0]], key[1], key[2], grouped[key], task) for key in order]
    llms = sum(not known[key[0]].teaching for key in order) or len(order)
    return [*made[:llms], *published(task, metric), *made[llms:]]


def groups(task: TaskVersion, metric: str) -> list[Group]:
    """The rows of a task version by group: LLMs, the paper's rows, teaching models.

    Pages share them, so they must not be changed.

    Args:
        task: The task version.
        metric: The metric that ranks the task.
    """
    return _groups(task, metric, stamp())


def _methods(task: TaskVersion, metric: str) -> list[dict[str, Any]]:
    given = {**task.bound, "by": task.ranked_by, "metric": metric}
    means = _by_row(records(_MEANS, task.bound))
    units = _by_row(records(_UNITS, task.bound))
    retrieval = _retrieval(task)
    placed = {one["method"]: one for one in records(_PLACES, {**task.bound, "by": task.ranked_by})}
    found = []
    for method in records(_METHODS, given):
        name = row_id(method["method"], method["item_limit"])
        gains = means.get(name, [])
        over = gains[0]["baseline_kind"] if gains else "none"
        found.append(
            {
                **method,
                "row": name,
                "means": gains,
                "units": units.get(name, []),
                "over": over,
                "placed": None if method["item_limit"] else placed.get(method["method"]),
                "retrieval": retrieval.get(method["method"]),
            }
        )
    return found


def _by_row(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row_id(row["method"], row["item_limit"]), []).append(row)
    return found


def _pairing(task: TaskVersion) -> TaskVersion | None:
    """The task of retrieval itself, or the one that stands beside a text task, if there is one."""
    return task if task.answers == NEIGHBOURS else next(iter(tasks(NEIGHBOURS)), None)


def _retrieval(task: TaskVersion) -> dict[str, dict[str, Any]]:
    """By method: the mean accuracy of its systems with the most languages, and over what it is."""
    beside = _pairing(task)
    if task.answers == NEIGHBOURS or not beside:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for method, rows in ask(_RETRIEVAL, beside.bound).groupby("method"):
        first = rows.iloc[0]
        layers = [int(layer) for layer in first["layers"]]
        alike = rows[rows["languages"] == first["languages"]]
        alike = alike[[[int(layer) for layer in one] == layers for one in alike["layers"]]]
        found[str(method)] = {
            "value": float(alike["value"].mean()),
            "languages": int(first["languages"]),
            "layers": layers,
        }
    return found


def _group(
    base: Base, items: float, over: str, methods: Sequence[dict[str, Any]], task: TaskVersion
) -> Group:
    names = distinct({one["row"]: method_parts(one) for one in methods})
    rows = [_row(one, names[one["row"]], task) for one in methods]
    headline = task.ranked_by

    def key(row: Row) -> tuple[float, str]:
        gain = row.gains.get(headline)
        return (-(gain["gain"] if gain else row.score or 0.0), row.name)

    limit = f"first {int(items)} items of a language" if items < float("inf") else "whole test sets"
    kind = ", a teaching model" if base.teaching else ""
    return Group(f"{base.name}{kind}", f"{limit}, {OVER[over]}", sorted(rows, key=key))


def _row(method: Mapping[str, Any], name: str, task: TaskVersion) -> Row:
    means, units = method["means"], method["units"]
    first = means[0] if means else {}
    limit = method["item_limit"]
    row = Row(
        id=method["row"],
        name=name,
        gains={one["split"]: _gain(one) for one in means},
        cells=[_cell(one) for one in units],
        items=_items(units) if limit is None else f"first {limit}",
        seeds=first.get("seeds") or method["seeds"],
        covers_seeds=bool(first.get("covers_seeds")),
        score=method["score"],
        retrieval=method["retrieval"],
        submissions=first.get("submissions", method["ids"]),
        kind=method["kind"],
        recipe=method["recipe"],
        base=method["base_model"],
        complete=bool(method["complete"]),
        parts={"base": bases()[method["base_model"]].name, **method_parts(method)},
    )
    if placed := method["placed"]:
        row.place = _place(placed, "", placed["seeds_verified"])
        row.place_all = _place(placed, "_all", placed["seeds"])
    row.badges = _badges(row, method, task)
    return row


_TESTED = {
    "methods": "tested over seeds and items",
    "systems": "tested over items alone, as one method has one seed",
    None: "the best mean",
}


def _place(placed: Mapping[str, Any], end: str, seeds: int) -> Place | None:
    """A place of a method, from the columns of `method_means` that end so."""
    if placed[f"place{end}"] is None:
        return None
    counted = f"mean of {seeds} seed{'s'[: seeds != 1]}"
    note = f"{counted}; {_TESTED[placed[f'verdict{end}']]}"
    return {"place": placed[f"place{end}"], "tied": placed[f"tied{end}"], "note": note}


def _gain(mean: Mapping[str, Any]) -> Gain:
    return {
        "gain": float(mean["gain"]),
        "low": float(mean["low"]),
        "high": float(mean["high"]),
        "sure": bool(mean["low"] > 0 or mean["high"] < 0),
        "value": float(mean["value"]),
        "from": float(mean["baseline_value"]),
        "resolvable": mean["resolvable"],
    }


def _cell(unit: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "unit": unit["unit"],
        "language": unit["language_name"],
        "family": unit["family"],
        "script": unit["script"],
        "setting": unit["setting"],
        "aligned": bool(unit["aligned"]),
        "gain": float(unit["gain"]),
        "low": float(unit["low"]),
        "high": float(unit["high"]),
        "sure": bool(unit["significant"]),
    }


def _items(units: Sequence[Mapping[str, Any]]) -> str:
    counted = [int(one["n"]) for one in units]
    if not counted:
        return "all"
    least, most = min(counted), max(counted)
    return f"{most:,}" if least == most else f"{least:,}–{most:,}"


def _badges(row: Row, method: Mapping[str, Any], task: TaskVersion) -> list[tuple[str, str]]:
    """Short marks, each with what it means."""
    found = []
    verified, all_ = method["verified"], len(method["ids"])
    if verified == all_:
        found.append(("verified", "a maintainer ran each of its systems again"))
    elif verified:
        found.append((f"{verified} of {all_} verified", "a maintainer ran these systems again"))
    else:
        found.append(("self-reported", "no maintainer has run it again"))
    if row.complete:
        found.append(("complete", "every language and item of the task"))
    elif method["item_limit"] is None:
        found.append(("partial", "some languages are missing; they are in no mean"))
    gain = row.gains.get(task.ranked_by)
    if gain and gain["low"] <= 0:
        found.append(("not better", "its interval does not lie above its baseline"))
    pairing = _pairing(task)
    if method["flores"] and pairing and pairing.on_flores_dev:
        found.append(("FLORES seen", "trained on FLORES dev, so its retrieval is inflated"))
    if row.gains and not row.covers_seeds:
        found.append(("one seed", "another seed may give another result: items alone are tested"))
    return found


def cut(made: Sequence[Group], page: int, rows: int) -> list[Group]:
    """The groups with the rows of one page, from 1."""
    kept: list[Group] = []
    before, first = 0, (page - 1) * rows
    for group in made:
        inside = group.rows[max(0, first - before) : max(0, first + rows - before)]
        before += len(group.rows)
        if inside:
            kept.append(Group(group.title, group.note, inside))
    return kept


def find(made: Sequence[Group], wanted: str) -> Row | None:
    """The row with an id; None if there is none."""
    return next((row for group in made for row in group.rows if row.id == wanted and wanted), None)


def primary(task: TaskVersion) -> str:
    """The metric that ranks a task."""
    found = queries.one(_PRIMARY, {"task": task.name})
    assert found is not None  # every task has one
    return str(found["metric"])
