"""The rows that no submission changes: languages, tasks, units, metrics, published scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyarrow import csv

from xlt_bench.languages import LANGUAGES
from xlt_bench.store.rows import EVIDENCE
from xlt_bench.tasks.base import Task, TextTask
from xlt_bench.tasks.registry import tasks

_PUBLISHED = Path(__file__).with_name("published.csv")


def reference_rows() -> dict[str, Any]:
    """The rows by table; those of `published` are a pyarrow table."""
    known = tasks()
    return {
        "evidence": [
            {"field": field, "kind": kind}
            for kind, fields in EVIDENCE.items()
            for field in fields.split()
        ],
        "languages": [
            {
                "code": row.code,
                "name": row.name,
                "flores": row.flores,
                "script": row.script,
                "family": row.family,
                "resource": row.resource,
            }
            for row in LANGUAGES.values()
        ],
        "tasks": [_task_row(place, task) for place, task in enumerate(known.values())],
        "units": [
            unit_row(task, version, unit)
            for task in known.values()
            for version in task.versions
            for unit in task.test_set(version).units
        ],
        "metrics": [
            {
                "task": task.name,
                "metric": name,
                "is_primary": name == task.primary,
                "higher_is_better": metric.higher_is_better,
            }
            for task in known.values()
            for name, metric in task.metrics.items()
        ],
        "published": csv.read_csv(
            _PUBLISHED,
            convert_options=csv.ConvertOptions(
                strings_can_be_null=True,
                null_values=[""],
                true_values=["yes"],
                false_values=["no"],
            ),
        ),
    }


def _task_row(place: int, task: Task) -> dict[str, Any]:
    return {
        "task": task.name,
        "title": task.title,
        "place": place,
        "answers": task.answers,
        "item_metric": task.item_metric if isinstance(task, TextTask) else None,
        "ranked_by": task.ranked_by,
        "on_flores_dev": task.on_flores_dev,
        "current_version": task.version,
    }


def unit_row(task: Task, version: int, unit: str) -> dict[str, Any]:
    """A row of the table `units`.

    Args:
        task: The task.
        version: Its version.
        unit: The unit; one beyond the version's ranked set, too.
    """
    test_set = task.test_set(version)
    return {
        "task": task.name,
        "version": version,
        "unit": unit,
        "language": task.language_of(unit),
        "setting": test_set.setting(unit),
        "ranked": unit in test_set.units,
    }
