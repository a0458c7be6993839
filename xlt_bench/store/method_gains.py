"""Computes the gains of methods over the methods of their baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xlt_bench.metrics.paired import Gain, Replicates
from xlt_bench.store.baselines import Baseline
from xlt_bench.store.rows import Entry
from xlt_bench.submissions.gains import Gains, MeanGain, UnitGain, compare, covers_seeds
from xlt_bench.tasks.registry import get_task

Compared = dict[tuple[int, int, str], Gains]
"""The gains of a submission over a baseline in a task, by the numbers of both."""


def method_rows(
    entries: Mapping[int, Entry],
    chosen: Sequence[Baseline],
    drawn: Mapping[int, Mapping[str, Mapping[str, Replicates]]],
    compared: Compared,
) -> dict[str, list[dict[str, Any]]]:
    """Compute the rows of the tables `method_unit_gains` and `method_mean_gains`.

    Args:
        entries: The submissions and their baselines, by number.
        chosen: The default baselines of all systems of some methods.
        drawn: Replicates by submission, task and unit.
        compared: The gains of these systems, which are those of a method of one system.
    """
    groups: dict[tuple[str, str, int, int | None], list[Baseline]] = {}
    for one in chosen:
        entry = entries[one.number]
        if any(r["task"] == one.task and r["superseded_by"] is not None for r in entry.runs):
            continue
        version = entry.plan.task_versions[one.task]
        key = (entry.trained.method, one.task, version, entry.plan.limit)
        groups.setdefault(key, []).append(one)
    rows: dict[str, list[dict[str, Any]]] = {"method_unit_gains": [], "method_mean_gains": []}
    for group in groups.values():
        _add(rows, entries, _one_a_seed(entries, group), drawn, compared)
    return rows


def _one_a_seed(entries: Mapping[int, Entry], group: Sequence[Baseline]) -> list[Baseline]:
    """The systems to average over: one of each seed, with baselines of one method.

    Of several, a verified one is taken first, then the one with the most units, then the oldest.
    """

    def against(one: Baseline) -> tuple[str, str]:
        return one.kind, entries[one.baseline].trained.method

    def is_verified(one: Baseline) -> bool:
        return entries[one.number].is_verified

    counted = Counter(map(against, group))
    # Those of verified systems, lest another seed and its forged SFT take their place.
    trusted = {against(one) for one in group if is_verified(one)} or set(counted)
    # Systems whose SFT is missing would be compared with the bare model.
    _, _, kind, method = max((k == "sft", counted[k, m], k, m) for k, m in trusted)
    found: dict[int | None, Baseline] = {}
    for one in sorted(
        group, key=lambda one: (not is_verified(one), -len(one.units), entries[one.number].age)
    ):
        if against(one) == (kind, method):
            found.setdefault(entries[one.number].trained.seed, one)
    return sorted(found.values(), key=lambda one: entries[one.number].trained.seed or 0)


def _add(
    rows: dict[str, list[dict[str, Any]]],
    entries: Mapping[int, Entry],
    group: Sequence[Baseline],
    drawn: Mapping[int, Mapping[str, Mapping[str, Replicates]]],
    compared: Compared,
) -> None:
    first = entries[group[0].number]
    name = group[0].task
    task, version = get_task(name), first.plan.task_versions[name]
    units = {
        unit
        for unit in group[0].units
        if all(
            unit in one.units and entries[one.number].items[name, unit] == first.items[name, unit]
            for one in group
        )
    }
    ours, theirs = (
        [{u: r for u, r in drawn[n].get(name, {}).items() if u in units} for n in numbers]
        for numbers in ([one.number for one in group], [one.baseline for one in group])
    )
    head = {
        "method": first.trained.method,
        "baseline_method": entries[group[0].baseline].trained.method,
        "kind": group[0].kind,
        "task": name,
        "version": version,
        "item_limit": first.plan.limit,
        "metric": task.primary,
        "systems": [one.number for one in group],
        "baselines": [one.baseline for one in group],
        "covers_seeds": covers_seeds(ours, theirs),
    }
    if len(group) == 1:
        found = compared[group[0].number, group[0].baseline, name]
    else:
        found = compare(task, version, ours, theirs, first.alignment_languages)
    for unit in found.units:
        more = {"unit": unit.unit, "aligned": unit.aligned, "p_holm": unit.p_holm, "n": unit.n}
        rows["method_unit_gains"].append({**head, **_columns(unit), **more})
    for mean in found.means:
        more = {"split": mean.split, "units": list(mean.units)}
        rows["method_mean_gains"].append({**head, **_columns(mean), **more})


def _columns(row: UnitGain | MeanGain) -> dict[str, Any]:
    means = {"value": row.value, "baseline_value": row.baseline}
    return {**means, **gain_columns(row.gain), "spread": row.spread}


def gain_columns(found: Gain) -> dict[str, float | None]:
    """The columns of a gain."""
    return {
        "gain": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "resolvable": found.resolvable,
    }
