"""Compares two methods, each with systems that differ in their seed.

With several systems of each method, an interval covers another training as well as other items, and
a significant gain says that the methods differ. With one system of a method it can only say that
two adapters differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlt_bench.languages import language
from xlt_bench.metrics.methods import Difference, difference, gains
from xlt_bench.metrics.paired import Gain, Replicates, gain
from xlt_bench.submissions.compare import MeanGain, UnitGain, correct
from xlt_bench.tasks.base import Task

Method = Sequence[Mapping[str, Replicates]]
"""The replicates of each system of a method by unit, all from the same draws."""


def compare_method_units(
    task: Task,
    version: int,
    systems: Method,
    baselines: Method,
    alignment_languages: Sequence[str],
    *,
    paired: bool,
) -> list[UnitGain]:
    """Compute the gain of a method over another in each unit that all systems have.

    Args:
        task: The task.
        version: The version that all systems were evaluated on.
        systems: The method's systems.
        baselines: The other method's.
        alignment_languages: The languages that the method was aligned on.
        paired: Whether each baseline has the seed of the system in the same place, or is the bare
            model.
    """
    aligned = {language(code).code for code in alignment_languages}
    units = _shared(task, [*systems, *baselines])
    ours, theirs = ([[one[u] for one in method] for u in units] for method in (systems, baselines))
    found, spreads = _gains(ours, theirs, paired)
    corrected = correct(task, version, {u: one.p for u, one in zip(units, found, strict=True)})
    return [
        UnitGain(
            unit=unit,
            aligned=task.language_of(unit) in aligned,
            value=_mean(ours[i]).value,
            baseline=_mean(theirs[i]).value,
            gain=found[i],
            p_holm=corrected[unit],
            n=ours[i][0].n,
            spread=spreads[i],
        )
        for i, unit in enumerate(units)
    ]


def compare_method_means(
    task: Task,
    version: int,
    systems: Method,
    baselines: Method,
    alignment_languages: Sequence[str],
    *,
    paired: bool,
) -> list[MeanGain]:
    """Compute the gain of a method over another in the mean of each split.

    Arguments are those of `compare_method_units`; a mean is over the units that all systems have.
    """
    aligned = {language(code).code for code in alignment_languages}
    both = set(_shared(task, [*systems, *baselines]))
    members = task.members(version, task.primary, aligned).items()
    splits = {
        split: shared for split, names in members if (shared := [u for u in names if u in both])
    }
    ours, theirs = (
        [[_mean([one[unit] for unit in units]) for one in method] for units in splits.values()]
        for method in (systems, baselines)
    )
    found, spreads = _gains(ours, theirs, paired)
    return [
        MeanGain(
            split=split,
            value=_mean(ours[i]).value,
            baseline=_mean(theirs[i]).value,
            gain=found[i],
            units=tuple(units),
            spread=spreads[i],
        )
        for i, (split, units) in enumerate(splits.items())
    ]


def _gains(
    ours: Sequence[Sequence[Replicates]], theirs: Sequence[Sequence[Replicates]], paired: bool
) -> tuple[list[Gain], list[float | None]]:
    """The gains, and spreads over seeds, of rows that each have the systems of both methods."""
    pairs = list(zip(ours, theirs, strict=True))
    if any(len(method) < 2 for pair in pairs for method in pair):
        return [gain(_mean(a), _mean(b)) for a, b in pairs], [None] * len(pairs)
    found: list[Difference] = [difference(a, b, paired=paired) for a, b in pairs]
    return gains(found), [one.spread for one in found]


def _mean(parts: Sequence[Replicates]) -> Replicates:
    """The mean over systems or units; `n` is that of the first."""
    if len(parts) == 1:
        return parts[0]
    value = float(np.mean([one.value for one in parts]))
    return Replicates(value, np.mean([one.drawn for one in parts], axis=0), parts[0].n)


def _shared(task: Task, systems: Method) -> list[str]:
    first = systems[0]
    return task.order(
        unit
        for unit, one in first.items()
        if all(unit in other and other[unit].n == one.n for other in systems)
    )
