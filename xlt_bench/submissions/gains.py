"""Computes gains by unit and by split, of a system over another or of a method over another.

A method is given by its systems, which differ in their seed. With several systems of each method,
an interval covers another training as well as other items, and a significant gain says that the
methods differ. With one system of a method, it covers items alone, and says that two adapters
differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xlt_bench.languages import language
from xlt_bench.metrics.methods import difference, gains
from xlt_bench.metrics.paired import Gain, Replicates, Units, holm, mean_gains
from xlt_bench.tasks.base import Task

Method = Sequence[Units]
"""Those of each system of a method, all from the same draws."""


@dataclass(frozen=True)
class UnitGain:
    """The gain in one unit; `p_holm` is Holm-corrected over the compared units.

    `spread` is the standard deviation over seeds; None if one system of each method was compared.
    """

    unit: str
    aligned: bool
    value: float
    baseline: float
    gain: Gain
    p_holm: float
    n: int
    spread: float | None = None


@dataclass(frozen=True)
class MeanGain:
    """The gain in the mean over `units`, which all systems have; `spread` as in `UnitGain`."""

    split: str
    value: float
    baseline: float
    gain: Gain
    units: tuple[str, ...]
    spread: float | None = None


def covers_seeds(systems: Sequence[object], baselines: Sequence[object]) -> bool:
    """Whether there are enough systems of both methods for an interval that covers seeds."""
    return min(len(systems), len(baselines)) > 1


def compare_units(
    task: Task,
    version: int,
    systems: Method,
    baselines: Method,
    alignment_languages: Sequence[str],
    *,
    paired: bool = True,
) -> list[UnitGain]:
    """Compute the gain in each unit that all systems have with the same number of items.

    Holm's correction is over the ranked units of the version, and separately over the units beyond
    them: evaluating more languages changes no p of the ranked ones.

    Args:
        task: The task.
        version: The version that all systems were evaluated on.
        systems: The replicates of the method's systems.
        baselines: Those of the other method's.
        alignment_languages: The languages that the method was aligned on.
        paired: Whether each baseline has the seed of the system in the same place, or is the bare
            model, repeated.
    """
    aligned = {language(code).code for code in alignment_languages}
    units = shared(task, [*systems, *baselines])
    found, spreads = _gains([[unit] for unit in units], systems, baselines, paired)
    corrected = _correct(task, version, {u: one.p for u, one in zip(units, found, strict=True)})
    return [
        UnitGain(
            unit=unit,
            aligned=task.language_of(unit) in aligned,
            value=mean([one[unit] for one in systems]).value,
            baseline=mean([one[unit] for one in baselines]).value,
            gain=gain,
            p_holm=corrected[unit],
            n=systems[0][unit].n,
            spread=spread,
        )
        for unit, gain, spread in zip(units, found, spreads, strict=True)
    ]


def compare_means(
    task: Task,
    version: int,
    systems: Method,
    baselines: Method,
    alignment_languages: Sequence[str],
    *,
    paired: bool = True,
) -> list[MeanGain]:
    """Compute the gain in the mean of each split over the units that all systems have.

    Arguments are those of `compare_units`.

    Returns:
        One gain per split; splits without a shared unit are left out.
    """
    aligned = {language(code).code for code in alignment_languages}
    there = set(shared(task, [*systems, *baselines]))
    members = task.members(version, task.primary, aligned).items()
    splits = {split: [unit for unit in names if unit in there] for split, names in members}
    splits = {split: units for split, units in splits.items() if units}
    found, spreads = _gains(list(splits.values()), systems, baselines, paired)
    return [
        MeanGain(
            split=split,
            value=mean([one[unit] for one in systems for unit in units]).value,
            baseline=mean([one[unit] for one in baselines for unit in units]).value,
            gain=gain,
            units=tuple(units),
            spread=spread,
        )
        for (split, units), gain, spread in zip(splits.items(), found, spreads, strict=True)
    ]


def _gains(
    rows: Sequence[Sequence[str]], systems: Method, baselines: Method, paired: bool
) -> tuple[list[Gain], list[float | None]]:
    """The gains in the means of some units each, and their spreads over seeds."""
    if covers_seeds(systems, baselines):
        ours, theirs = (
            [[mean([one[unit] for unit in units]) for one in method] for units in rows]
            for method in (systems, baselines)
        )
        found = [difference(a, b, paired=paired) for a, b in zip(ours, theirs, strict=True)]
        return gains(found), [one.spread for one in found]
    ours_by_unit, theirs_by_unit = (
        [{unit: mean([one[unit] for one in method]) for unit in units} for units in rows]
        for method in (systems, baselines)
    )
    pairs = list(zip(ours_by_unit, theirs_by_unit, strict=True))
    return mean_gains(pairs), [None] * len(rows)


def mean(parts: Sequence[Replicates]) -> Replicates:
    """Average scores over systems or units; `n` is that of the first."""
    if len(parts) == 1:
        return parts[0]
    value = float(np.mean([one.value for one in parts]))
    return Replicates(value, np.mean([one.drawn for one in parts], axis=0), parts[0].n)


def shared(task: Task, systems: Method) -> list[str]:
    """List the units that all systems have with the same number of items, in the task's order."""
    first = systems[0].items()
    return task.order(
        unit
        for unit, one in first
        if all(unit in other and other[unit].n == one.n for other in systems)
    )


def _correct(task: Task, version: int, p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values by Holm's method over the ranked units, and separately over those beyond."""
    ranked = task.test_set(version).units
    groups = (
        {unit: p for unit, p in p_values.items() if (unit in ranked) == inside}
        for inside in (True, False)
    )
    return {
        unit: p
        for group in groups
        for unit, p in zip(group, holm(list(group.values())), strict=True)
    }
