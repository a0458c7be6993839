"""The gains that the paper prints, as rows of the table on Overview; nobody here computed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from queries import TaskVersion, records
from rows import Group, Row

_PUBLISHED = """
SELECT model, row, paper_table, split, unit, value, usable FROM published
WHERE task = $task AND metric = $metric AND usable
"""
_LANGUAGES = """
SELECT u.unit, l.name AS language_name, l.script, l.family, u.setting
FROM units u JOIN languages l ON l.code = u.language
WHERE u.task = $task AND u.version = $version AND u.ranked ORDER BY u.unit
"""


def published(task: TaskVersion, metric: str) -> list[Group]:
    """The paper's gains, one group a model: each row against the SFT row of the same table."""
    languages = {row["unit"]: row for row in records(_LANGUAGES, task.bound)}
    by_model: dict[str, dict[tuple[int, str], list[dict[str, Any]]]] = {}
    for row in records(_PUBLISHED, {"task": task.name, "metric": metric}):
        parts = by_model.setdefault(row["model"], {})
        parts.setdefault((row["paper_table"], row["row"]), []).append(row)
    made = []
    for model, parts in by_model.items():
        rows = [
            (_published_row(name, part, parts.get((table, "SFT"), []), languages), table)
            for (table, name), part in parts.items()
            if name not in ("SFT", "base")
        ]
        if kept := _each_once(rows):
            note = "printed in arXiv 2502.14830, over its SFT; not computed here, without intervals"
            made.append(Group(model, note, sorted(kept, key=lambda row: -_transfer(row))))
    return made


def _each_once(rows: Sequence[tuple[Row, int]]) -> list[Row]:
    """The rows, with one for each result that the paper prints in several tables."""
    kept: list[tuple[Row, set[int]]] = []
    for row, table in sorted(rows, key=lambda one: (-len(one[0].cells), one[1])):
        same = [(other, tables) for other, tables in kept if _repeats(row, other)]
        if same:
            other, tables = same[0]
            # A printed mean is exact, one over printed languages is not.
            other.gains = {**other.gains, **row.gains}
            tables.add(table)
        elif row.gains:
            kept.append((row, {table}))
    for row, tables in kept:
        numbers = ", ".join(map(str, sorted(tables)))
        row.name += f" (Table {numbers})" if len(tables) == 1 else f" (Tables {numbers})"
    return [row for row, _ in kept]


def _transfer(row: Row) -> float:
    return float(row.gains["transfer"]["gain"]) if "transfer" in row.gains else -99.0


def _repeats(row: Row, other: Row) -> bool:
    """Whether two rows of the paper are one result, in different tables and roundings."""
    shared = [split for split in ("transfer", "supervised") if split in row.gains]
    return bool(shared) and all(
        split in other.gains and abs(row.gains[split]["gain"] - other.gains[split]["gain"]) < 0.12
        for split in shared
    )


def _published_row(
    name: str,
    part: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]],
    languages: Mapping[str, Mapping[str, Any]],
) -> Row:
    row = Row(id="", name=name, items="all")
    start = {(one["split"], one["unit"]): one["value"] for one in base}
    by_split: dict[str, list[tuple[float, float]]] = {}
    of_units: dict[str, list[tuple[float, float]]] = {}
    for one in part:
        known = start.get((one["split"], one["unit"]))
        if known is None:
            continue
        # "transfer into English" and "transfer from English" have equally many directions.
        split = str(one["split"]).partition(" ")[0]
        if one["unit"] is None:
            by_split.setdefault(split, []).append((one["value"], known))
        elif one["unit"] in languages:
            of_units.setdefault(split, []).append((one["value"], known))
            row.cells.append(_published_cell(one, known, languages[one["unit"]], split))
    for split, pairs in {**of_units, **by_split}.items():
        value, known = (sum(one[i] for one in pairs) / len(pairs) for i in (0, 1))
        gain = {"gain": value - known, "low": None, "high": None, "sure": False}
        row.gains[split] = {**gain, "value": value, "from": known, "resolvable": None}
    return row


def _published_cell(
    one: Mapping[str, Any], known: float, language: Mapping[str, Any], split: str
) -> dict[str, Any]:
    return {
        "unit": one["unit"],
        "language": language["language_name"],
        "family": language["family"],
        "script": language["script"],
        "setting": split,
        "aligned": False,
        "gain": one["value"] - known,
        "low": None,
        "high": None,
        "sure": False,
    }
