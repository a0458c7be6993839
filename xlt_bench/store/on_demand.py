"""Compares any two submissions on request, for the app.

The database has neither answers nor significance against other baselines than the default one, so
this reads the files of the two submissions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from xlt_bench.data.root import MissingFileError, content_digest, data_root
from xlt_bench.errors import InputError
from xlt_bench.results.record import Record
from xlt_bench.submissions.answers import read_unit
from xlt_bench.submissions.compare import Comparison, compare_systems, load_system
from xlt_bench.submissions.counts import read_counts
from xlt_bench.submissions.schema import COUNTS, ID
from xlt_bench.submissions.validate import Package, open_package
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_text_task


@dataclass(frozen=True)
class Answers:
    """One item and the answers of two systems.

    Attributes:
        id: The item's id.
        source: The sentence that the item is about; None without the items that were answered.
        reference: The gold answer; None without them.
        hypothesis: The answer of the system.
        baseline: The answer of the baseline.
        value: The score of the system's answer by the task's `item_metric`, 0 to 100.
        baseline_value: The score of the baseline's answer.
    """

    id: str
    source: str | None
    reference: str | None
    hypothesis: str
    baseline: str
    value: float
    baseline_value: float


def paired_gains(
    folder: Path, system: str, baseline: str, task: str
) -> tuple[Comparison, list[str]]:
    """Compute the gains of a submission over any other in one task.

    Args:
        folder: The folder of submissions.
        system: The id of the submission.
        baseline: The id of the other submission.
        task: The name of the task.

    Returns:
        The gains, and notes for the reader.

    Raises:
        InputError: The two cannot be compared, or a file is missing or broken.
    """
    loaded = [load_system(_known(folder, name).name, folder, folder) for name in (system, baseline)]
    for one, name in zip(loaded, (system, baseline), strict=True):
        if task not in one.tasks:
            raise InputError(f"{name} has no {task}")
    ours, theirs = (replace(one, tasks={task: one.tasks[task]}) for one in loaded)
    found, notes = compare_systems(ours, theirs)
    return found[0], notes


def answers(
    folder: Path, system: str, baseline: str, task: str, unit: str, data_dir: str | None = None
) -> list[Answers]:
    """Read the answers of two submissions to the items that both answered, in test set order.

    Args:
        folder: The folder of submissions.
        system: The id of the first submission.
        baseline: The id of the second.
        task: The name of a text task.
        unit: A unit of the task.
        data_dir: The data folder, as in `--data-dir`.

    Returns:
        One row per item.

    Raises:
        InputError: One of the two lacks the unit, or a file is missing or broken.
    """
    first, second = (open_package(_known(folder, name)) for name in (system, baseline))
    ours, values = _answered(first, task, unit)
    theirs, baseline_values = _answered(second, task, unit)
    text_task = get_text_task(task)
    items = {item.id: item for item in _items(first.record, task, unit, data_dir)}
    return [
        Answers(
            id=name,
            source=text_task.sentence(items[name]) if name in items else None,
            reference=items[name].target if name in items else None,
            hypothesis=hypothesis,
            baseline=theirs[name],
            value=values[name],
            baseline_value=baseline_values[name],
        )
        for name, hypothesis in ours.items()
        if name in theirs
    ]


def _known(folder: Path, name: str) -> Path:
    # The name may come from a URL.
    if not ID.fullmatch(name) or not (folder / name).is_dir():
        raise InputError(f"{folder} does not contain {name[:80]!r}; give the folder that does")
    return folder / name


def _items(record: Record, task: str, unit: str, data_dir: str | None) -> list[Item]:
    """The items that a submission answered; none without them. Other data may have the same ids."""
    try:
        items = get_text_task(task).load(data_root(data_dir), unit)[: record.plan.limit]
    except MissingFileError:
        return []
    return items if content_digest(items) == record.data_digests[f"{task}/{unit}"] else []


def _answered(package: Package, task: str, unit: str) -> tuple[dict[str, str], dict[str, float]]:
    """Hypotheses and item scores by item id."""
    name = package.folder.name
    if unit not in package.record.plan.units.get(task, []):
        raise InputError(f"{name} has no {task} {unit}")
    given = read_unit(package, task, unit)
    counts = read_counts(package.folder / COUNTS, package.record.plan)
    matrix = counts[task].get(get_text_task(task).item_metric, {}).get(unit)
    if matrix is None or len(matrix) != len(given):
        raise InputError(f"{name}: {COUNTS} does not have one row per answer of {task} {unit}")
    values = get_text_task(task).item_scores(matrix)
    return (
        {one.id: one.hypothesis for one in given},
        {one.id: float(value) for one, value in zip(given, values, strict=True)},
    )
