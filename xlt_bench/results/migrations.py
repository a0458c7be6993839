"""Reads plans and records of every schema that was ever released.

Schema 1 (0.1.0) called the retrieval task `flores`. A record is upgraded when it is read; its
scores, names and task versions stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RENAMED = {"flores": "retrieval"}
"""Current task names, by the name in schema 1."""


def upgrade_plan(value: Any) -> Any:
    """A plan of any released schema as one of the current schema; anything else as it is."""
    return _upgrade(value, {1: _plan_1})


def upgrade_record(value: Any) -> Any:
    """A record of any released schema as one of the current schema; anything else as it is."""
    return _upgrade(value, {1: _record_1})


def upgrade_items(value: Any) -> Any:
    """The digests of RUN/items.json, whose keys name tasks."""
    return _keys(value, lambda key: _renamed_path(key))


def _upgrade(value: Any, steps: dict[int, Callable[[dict[str, Any]], dict[str, Any]]]) -> Any:
    while isinstance(value, dict):
        version = value.get("schema_version")
        # `True` equals 1 and would be taken for it; a list cannot be looked up.
        if type(version) is not int or version not in steps:
            break
        value = steps[version](value)
    return value


def _plan_1(plan: dict[str, Any]) -> dict[str, Any]:
    found = {**plan, "schema_version": 2}
    for key in ("units", "task_versions"):
        if key in plan:
            found[key] = _keys(plan[key], _renamed)
    return found


def _record_1(record: dict[str, Any]) -> dict[str, Any]:
    found = {**record, "schema_version": 2}
    if "plan" in record:
        found["plan"] = upgrade_plan(record["plan"])
    if "data_digests" in record:
        found["data_digests"] = upgrade_items(record["data_digests"])
    results = record.get("results")
    if isinstance(results, dict):
        named = {key: _rows(results[key]) for key in ("scores", "means") if key in results}
        found["results"] = {**results, **named}
    return found


def _rows(rows: Any) -> Any:
    if not isinstance(rows, list):
        return rows
    return [
        {**row, "task": _renamed(row["task"])}
        if isinstance(row, dict) and isinstance(row.get("task"), str)
        else row
        for row in rows
    ]


def _renamed(task: str) -> str:
    return RENAMED.get(task, task)


def _renamed_path(name: str) -> str:
    task, slash, unit = name.partition("/")
    return f"{_renamed(task)}{slash}{unit}"


def _keys(value: Any, rename: Callable[[str], str]) -> Any:
    """A dictionary with renamed keys; unchanged if two keys would get the same name."""
    if not isinstance(value, dict):
        return value
    found = {rename(key): part for key, part in value.items()}
    return found if len(found) == len(value) else value
