"""Computes the measures of transfer of submissions against their baselines and oracles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlt_bench.metrics.paired import Gain, Replicates, replicates
from xlt_bench.store.baselines import Baseline
from xlt_bench.store.rows import Entry
from xlt_bench.submissions.counts import read_counts
from xlt_bench.submissions.schema import COUNTS
from xlt_bench.submissions.trainings import oracle_key
from xlt_bench.submissions.transfer import Marked, gaps_closed, measures
from xlt_bench.tasks.base import Task
from xlt_bench.tasks.registry import get_task

Drawn = dict[str, dict[str, Replicates]]
"""Replicates of the primary metrics of a submission by task and unit."""


def measure_rows(
    entries: Mapping[int, Entry],
    chosen: Sequence[Baseline],
    drawn: Mapping[int, Drawn],
    marked: Mapping[int, Mapping[str, Marked]],
) -> dict[str, list[dict[str, Any]]]:
    """Compute the rows of the tables `unit_measures` and `mean_measures`.

    Args:
        entries: The submissions and their baselines, by number.
        chosen: The baselines.
        drawn: Replicates by submission, task and unit.
        marked: Flags of the answers by submission, task and unit.
    """
    rows: dict[str, list[dict[str, Any]]] = {"unit_measures": [], "mean_measures": []}
    for one in chosen:
        entry, task = entries[one.number], get_task(one.task)
        if task.answers != "text":
            continue
        pair = (one.number, one.baseline)
        scores = [
            {u: r for u, r in drawn[n].get(one.task, {}).items() if u in one.units} for n in pair
        ]
        flags = [[marked[n].get(one.task, {})] for n in pair]
        found = measures(
            task,
            entry.plan.task_versions[one.task],
            scores[:1],
            scores[1:],
            (flags[0], flags[1]),
            entry.alignment_languages,
        )
        for name, measure in found.items():
            head = {"number": pair[0], "baseline": pair[1], "task": one.task, "measure": name}
            for unit in measure.units:
                more = {"unit": unit.unit, "aligned": unit.aligned, "p_holm": unit.p_holm}
                both = _columns(unit.value, unit.baseline, unit.gain)
                rows["unit_measures"].append({**head, **both, **more, "n": unit.n})
            for mean in measure.means:
                both = _columns(mean.value, mean.baseline, mean.gain)
                more = {"split": mean.split, "units": list(mean.units)}
                rows["mean_measures"].append({**head, **both, **more})
    return rows


def _columns(value: float, baseline: float, found: Gain) -> dict[str, float]:
    return {
        "value": value,
        "baseline_value": baseline,
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


def gap_rows(entries: Sequence[Entry], chosen: Sequence[Baseline]) -> list[dict[str, Any]]:
    """Compute the rows of the table `gaps`.

    The oracle of a submission is an SFT of the same base model, seed and settings whose training
    was in every ranked unit of the task, on the same items; of several, the oldest.

    Args:
        entries: All submissions, by number, with `superseded_by` filled in.
        chosen: Their baselines; those of the kind `sft` count.
    """
    oracles: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda one: one.age):
        key = oracle_key(entry.trained)
        for task in entry.plan.task_versions:
            if key and _is_oracle(entry, task):
                oracles.setdefault((entry.row["base_model"], task, key), []).append(entry)
    rows: list[dict[str, Any]] = []
    for one in chosen:
        entry, sft = entries[one.number], entries[one.baseline]
        key = oracle_key(sft.trained)
        if one.kind != "sft" or not key or _is_oracle(sft, one.task):
            continue
        found = oracles.get((sft.row["base_model"], one.task, key), [])
        best = next((other for other in found if _same_items(sft, other, one.task)), None)
        if best is not None and best is not entry:
            rows += _gap_rows(entry, sft, best, one)
    return rows


def _is_oracle(entry: Entry, task: str) -> bool:
    ranked = set(get_task(task).test_set(entry.plan.task_versions[task]).units)
    settings = entry.trained.settings
    learned = settings.get("task.units") or []
    same = settings.get("task.name") == task and isinstance(learned, list)
    superseded = any(run["task"] == task and run["superseded_by"] for run in entry.runs)
    return entry.trained.kind == "sft" and same and ranked <= set(learned) and not superseded


def _same_items(one: Entry, other: Entry, task: str) -> bool:
    version, limit = one.plan.task_versions[task], one.plan.limit
    if (version, limit) != (other.plan.task_versions[task], other.plan.limit):
        return False
    units = set(one.plan.units[task]) & set(other.plan.units[task])
    return bool(units) and all(one.items[task, unit] == other.items[task, unit] for unit in units)


def _gap_rows(entry: Entry, sft: Entry, best: Entry, one: Baseline) -> list[dict[str, Any]]:
    task, version = get_task(one.task), entry.plan.task_versions[one.task]
    mine, theirs, bests = ([_scores(system, task, one.units)] for system in (entry, sft, best))
    shares = gaps_closed(task, version, mine, theirs, bests, entry.alignment_languages)
    units = set(entry.plan.units[one.task])
    return [
        {
            "number": one.number,
            "baseline": one.baseline,
            "oracle": best.number,
            "task": one.task,
            "unit": row if row in units else None,
            "split": None if row in units else row,
            "value": share.value,
            "low": share.low,
            "high": share.high,
        }
        for row, share in shares.items()
    ]


def _scores(system: Entry, task: Task, units: Sequence[str]) -> dict[str, Replicates]:
    counted = read_counts(system.folder / COUNTS, system.plan)[task.name][task.primary]
    matrices = {unit: counted[unit] for unit in units if unit in counted}
    drawn = replicates(list(matrices.values()), task.metric(task.primary).score)
    return dict(zip(matrices, drawn, strict=True))
