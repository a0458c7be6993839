"""Computes the gains of submissions and methods over their baselines, by paired bootstrap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from xlt_bench.evaluation.score import ByUnit
from xlt_bench.metrics.paired import replicates
from xlt_bench.metrics.significance import Counts
from xlt_bench.store.baselines import Baseline
from xlt_bench.store.measures import Drawn, measure_rows
from xlt_bench.store.method_gains import Compared, gain_columns, method_rows
from xlt_bench.store.rows import Entry
from xlt_bench.submissions.counts import Tasks, read_counts
from xlt_bench.submissions.gains import Gains, compare
from xlt_bench.submissions.schema import COUNTS
from xlt_bench.submissions.transfer import Marked, marks
from xlt_bench.tasks.registry import get_task, tasks

_TOGETHER = 16  # pairs of submissions that are resampled together, with the same draws


def gain_rows(
    entries: Mapping[int, Entry], some: Sequence[Baseline]
) -> tuple[dict[str, list[dict[str, Any]]], dict[int, Drawn]]:
    """Compute the rows of the tables of gains and measures.

    Args:
        entries: The submissions and their baselines, by number.
        some: The baselines: a chunk of `chunks`.

    Returns:
        The rows by table, and the replicates of each submission.
    """
    drawn, marked = resampled(entries)
    rows: dict[str, list[dict[str, Any]]] = {"unit_gains": [], "mean_gains": []}
    compared: Compared = {}
    for one in some:
        key = (one.number, one.baseline, one.task)
        compared[key] = _compared(entries[one.number], one, drawn)
        unit_rows, mean_rows = _pair_rows(one, compared[key])
        rows["unit_gains"] += unit_rows
        rows["mean_gains"] += mean_rows
    rows |= measure_rows(entries, some, drawn, marked)
    rows |= method_rows(entries, [one for one in some if one.is_default], drawn, compared)
    return rows, drawn


def chunks(entries: Sequence[Entry], chosen: Sequence[Baseline]) -> Iterator[list[Baseline]]:
    """Divide baselines into those that are resampled together: a method's are never divided.

    Args:
        entries: All submissions, by number.
        chosen: Their baselines.
    """

    def method(one: Baseline) -> str:
        return entries[one.number].trained.method

    # Methods with the same baselines are neighbours, so that these are resampled less often.
    first: dict[str, int] = {}
    for one in chosen:
        first[method(one)] = min(one.baseline, first.get(method(one), one.baseline))
    ordered = sorted(chosen, key=lambda one: (first[method(one)], method(one), one.number))
    chunk: list[Baseline] = []
    for _, found in groupby(ordered, method):
        same = list(found)
        if len({(one.number, one.baseline) for one in [*chunk, *same]}) > _TOGETHER and chunk:
            yield chunk
            chunk = []
        chunk += same
    if chunk:
        yield chunk


def resampled(
    entries: Mapping[int, Entry],
) -> tuple[dict[int, Drawn], dict[int, dict[str, Marked]]]:
    """Resample the primary metric of every task for each submission, and flag its answers."""
    counts: dict[int, dict[str, ByUnit]] = {}
    marked: dict[int, dict[str, Marked]] = {}
    for number, entry in entries.items():
        counted = read_counts(entry.folder / COUNTS, entry.plan)
        counts[number] = _primary(counted)
        marked[number] = {task: marks(get_task(task), one) for task, one in counted.items()}
    drawn: dict[int, Drawn] = {number: {} for number in entries}
    for task in tasks().values():
        names: list[tuple[int, str]] = []
        matrices: list[Counts] = []
        for number, found in counts.items():
            for unit, matrix in found.pop(task.name, {}).items():
                names.append((number, unit))
                matrices.append(matrix)
        resamples = replicates(matrices, task.metric(task.primary).score)
        for (number, unit), one in zip(names, resamples, strict=True):
            drawn[number].setdefault(task.name, {})[unit] = one
    return drawn, marked


def tested(entry: Entry) -> dict[str, ByUnit]:
    """Read the counts of the primary metrics."""
    return _primary(read_counts(entry.folder / COUNTS, entry.plan))


def _primary(counted: Tasks) -> dict[str, ByUnit]:
    """The counts of the primary metrics, copied so that the rest of the file is freed."""
    chosen = ((name, counted.get(name, {}).get(one.primary, {})) for name, one in tasks().items())
    return {task: {unit: m.copy() for unit, m in by_unit.items()} for task, by_unit in chosen}


def _compared(entry: Entry, one: Baseline, drawn: Mapping[int, Drawn]) -> Gains:
    """The gains of a submission over a baseline, on the units that can be compared."""
    task, version = get_task(one.task), entry.plan.task_versions[one.task]
    ours = drawn[one.number].get(one.task, {})
    theirs = drawn[one.baseline].get(one.task, {})
    theirs = {unit: found for unit, found in theirs.items() if unit in one.units}
    return compare(task, version, [ours], [theirs], entry.alignment_languages)


def _pair_rows(one: Baseline, found: Gains) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    head = {
        "number": one.number,
        "baseline": one.baseline,
        "task": one.task,
        "metric": get_task(one.task).primary,
    }
    unit_rows = [
        {
            **head,
            "unit": row.unit,
            "aligned": row.aligned,
            **gain_columns(row.gain),
            "p_holm": row.p_holm,
            "n": row.n,
        }
        for row in found.units
    ]
    mean_rows = [
        {**head, "split": row.split, **gain_columns(row.gain), "units": list(row.units)}
        for row in found.means
    ]
    return unit_rows, mean_rows
