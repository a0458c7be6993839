"""Turns the trainings of submissions into rows of the table `methods`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from xlt_bench.store.rows import Entry
from xlt_bench.submissions.trainings import aligned_layers, changes


def methods(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A row for each method, with what its oldest submission states.

    Args:
        entries: All submissions.
    """
    oldest: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.age):
        oldest.setdefault(entry.trained.method, entry)
    return [_row(entry) for entry in oldest.values()]


def _row(entry: Entry) -> dict[str, Any]:
    one, plan = entry.trained, entry.plan
    return {
        "method": one.method,
        "base_model": entry.row["base_model"],
        "model": plan.model,
        "dtype": plan.dtype,
        "template_sha256": plan.template_sha256,
        "kind": one.kind,
        "recipe": one.recipe,
        "changes": changes(one),
        "task": one.settings.get("task.name"),
        "task_units": one.settings.get("task.units") or [],
        "layers": aligned_layers(one, entry.row["n_layers"]),
        "alignment_languages": list(entry.alignment_languages),
        "settings": json.dumps(dict(one.settings), ensure_ascii=False),
    }
