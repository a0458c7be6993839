"""Computes gains by unit and by split, of a system over another or of a method over another.

A method is given by its systems, which differ in their seed. With several systems of each method,
an interval covers another training as well as other items, and a significant gain says that the
methods differ. With one system of a method, it covers items alone, and says that two adapters
differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xlt_bench.languages import language
from xlt_bench.metrics.methods import Difference, difference, gains
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


@dataclass(frozen=True)
class Gains:
    """The gains of a method over another, by unit and by split."""

    units: list[UnitGain]
    means: list[MeanGain]


def compare(
    task: Task,
    version: int,
    systems: Method,
    baselines: Method,
    alignment_languages: Sequence[str],
    *,
    paired: bool = True,
) -> Gains:
    """Compute the gain in each unit, and in the mean of each split, that all systems have.

    Units have the same number of items in all systems. Holm's correction is over the ranked units
    of the version, and separately over the units beyond them: evaluating more languages changes no
    p of the ranked ones.

    Args:
        task: The task.
        version: The version that all systems were evaluated on.
        systems: The replicates of the method's systems.
        baselines: Those of the other method's.
        alignment_languages: The languages that the method was aligned on.
        paired: Whether each baseline has the seed of the system in the same place, or is the bare
            model, repeated.

    Returns:
        The gains; splits without a shared unit are left out.
    """
    given = [(systems, baselines)]
    return compare_all(task, version, given, alignment_languages, paired=paired)[0]


def compare_all(
    task: Task,
    version: int,
    methods: Sequence[tuple[Method, Method]],
    alignment_languages: Sequence[str],
    *,
    paired: bool = True,
) -> list[Gains]:
    """Compare several pairs of methods as `compare` does, in less time than one by one."""
    aligned = {language(code).code for code in alignment_languages}
    splits = list(task.members(version, task.primary, aligned).items())
    rows = [_rows(task, splits, [*ours, *theirs]) for ours, theirs in methods]
    found = iter(_gains(rows, methods, paired))
    return [
        _named(task, version, aligned, of_pair, pair, [next(found) for _ in of_pair])
        for of_pair, pair in zip(rows, methods, strict=True)
    ]


_Row = tuple[str | None, list[str]]
"""A split, or None for a single unit, and its units."""


def _rows(task: Task, splits: Sequence[tuple[str, list[str]]], systems: Method) -> list[_Row]:
    units = shared(task, systems)
    there = set(units)
    means = [(split, [one for one in names if one in there]) for split, names in splits]
    return [*((None, [unit]) for unit in units), *(row for row in means if row[1])]


def _gains(
    rows: Sequence[Sequence[_Row]], methods: Sequence[tuple[Method, Method]], paired: bool
) -> list[tuple[Gain, float | None]]:
    """The gain in each row of each pair of methods, and its spread over seeds, one after another.

    Pairs with one system of a method are computed together.
    """
    single: list[tuple[Units, Units]] = []
    several: list[Difference] = []
    for of_pair, (systems, baselines) in zip(rows, methods, strict=True):
        for _, units in of_pair:
            if covers_seeds(systems, baselines):
                ours, theirs = (
                    [mean([one[unit] for unit in units]) for one in method]
                    for method in (systems, baselines)
                )
                several.append(difference(ours, theirs, paired=paired))
            else:
                ours_by_unit, theirs_by_unit = (
                    {unit: mean([one[unit] for one in method]) for unit in units}
                    for method in (systems, baselines)
                )
                single.append((ours_by_unit, theirs_by_unit))
    if single and several:
        raise ValueError("all pairs of methods need several systems, or none")
    if single:
        return [(one, None) for one in mean_gains(single)]
    return list(zip(gains(several), (one.spread for one in several), strict=True))


def _named(
    task: Task,
    version: int,
    aligned: set[str],
    rows: Sequence[_Row],
    methods: tuple[Method, Method],
    found: Sequence[tuple[Gain, float | None]],
) -> Gains:
    ps = {units[0]: g.p for (split, units), (g, _) in zip(rows, found, strict=True) if not split}
    corrected = _correct(task, version, ps)
    named = Gains([], [])
    for (split, units), (gain, spread) in zip(rows, found, strict=True):
        value, baseline = (
            _value(one[unit] for one in method for unit in units) for method in methods
        )
        if split:
            named.means.append(MeanGain(split, value, baseline, gain, tuple(units), spread))
            continue
        (unit,) = units
        is_aligned, n = task.language_of(unit) in aligned, methods[0][0][unit].n
        row = UnitGain(unit, is_aligned, value, baseline, gain, corrected[unit], n, spread)
        named.units.append(row)
    return named


def mean(parts: Sequence[Replicates]) -> Replicates:
    """Average scores over systems or units; `n` is that of the first."""
    if len(parts) == 1:
        return parts[0]
    value = float(np.mean([one.value for one in parts]))
    return Replicates(value, np.mean([one.drawn for one in parts], axis=0), parts[0].n)


def _value(parts: Iterable[Replicates]) -> float:
    """The value of `mean`."""
    values = [one.value for one in parts]
    return values[0] if len(values) == 1 else float(np.mean(values))


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
