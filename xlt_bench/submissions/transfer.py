"""Compares two systems, or two methods, by the measures of transfer beside the gain.

relative_transfer  the score in per cent of the mean over the supervised units
consistency        of the items with something to find that all of the compared systems have right
                   in English, the share that is right in the language; for parallel items
content, format,   the parts of the gain from items whose answers are well-formed in both systems,
neither            in one, and in neither; they add up to the gain
gap_closed         (system - SFT) / (oracle - SFT), if the baseline is an SFT and an oracle is given
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xlt_bench.evaluation.score import ByUnit
from xlt_bench.languages import language
from xlt_bench.metrics.paired import Replicates, Units, replicates
from xlt_bench.metrics.significance import percent
from xlt_bench.metrics.transfer import (
    PARTS,
    Bools,
    Share,
    consistency,
    gain_parts,
    gap_closed,
    relative,
)
from xlt_bench.submissions.gains import (
    MeanGain,
    Method,
    UnitGain,
    compare_all,
    mean,
    shared,
)
from xlt_bench.tasks.base import Task, TextTask

RELATIVE, CONSISTENCY = "relative_transfer", "consistency"
MEASURES = (RELATIVE, CONSISTENCY, *PARTS)
PIVOT = "en"
"""The unit that items must be right in to count for consistency."""


@dataclass(frozen=True)
class Marks:
    """Flags of a system's answers to a unit's n items, (n,).

    `right` and `empty`, for items with nothing to find, are None for tasks whose items are not
    parallel; `formed` is None for those without a format.
    """

    right: Bools | None
    empty: Bools | None
    formed: Bools | None


Marked = Mapping[str, Marks]
"""The flags of a system's answers by unit."""


@dataclass(frozen=True)
class Measure:
    """A measure of both systems and their difference; of a part of the gain, the part and zero."""

    units: list[UnitGain]
    means: list[MeanGain]

    def row(self, kind: Literal["unit", "mean"], name: str) -> UnitGain | MeanGain | None:
        """The row of a unit, or of the mean of a split; None if there is none."""
        if kind == "unit":
            return next((one for one in self.units if one.unit == name), None)
        return next((one for one in self.means if one.split == name), None)


def marks(task: Task, counted: Mapping[str, ByUnit]) -> dict[str, Marks]:
    """Flag answers as right and as well-formed.

    Args:
        task: The task.
        counted: The counts of its answers, by metric and unit.

    Returns:
        The flags by unit; empty for tasks that are not answered with text.
    """
    if not isinstance(task, TextTask):
        return {}
    units = {unit for by_unit in counted.values() for unit in by_unit}
    found = {}
    for unit in task.order(units):
        counts = {metric: by_unit[unit] for metric, by_unit in counted.items() if unit in by_unit}
        items = counts.get(task.item_metric) if task.parallel else None
        faults = counts.get(task.format_metric) if task.format_metric else None
        found[unit] = Marks(
            right=None if items is None else task.item_scores(items) >= 100,
            empty=None if items is None else task.nothing_to_find(counts),
            formed=None if faults is None else faults[:, 0] == 0,
        )
    return found


def measures(
    task: Task,
    version: int,
    systems: Method,
    baselines: Method,
    marked: tuple[Sequence[Marked], Sequence[Marked]],
    alignment_languages: Sequence[str],
) -> dict[str, Measure]:
    """Compare two methods, paired by seed, by each of `MEASURES` that the task and answers allow.

    Args:
        task: The task.
        version: The version that all systems were evaluated on.
        systems: The replicates of the primary metric of the method's systems.
        baselines: Those of the other method's, in the same order of seeds.
        marked: The flags of the systems' answers, and of the baselines'.
        alignment_languages: The languages that the method was aligned on.

    Returns:
        The measures by name; values and differences are in points.
    """
    ours, theirs = marked
    pairs = list(zip(systems, baselines, ours, theirs, strict=True))
    parts = [_parts(*pair) for pair in pairs]
    sources = _sources(task, version, [*systems, *baselines])
    condition = _right_in_pivot([*ours, *theirs])
    compared: dict[str, tuple[Method, Method]] = {
        RELATIVE: (
            [relative(one, sources) for one in systems],
            [relative(one, sources) for one in baselines],
        ),
        CONSISTENCY: (
            [_consistency(one, condition) for one in ours],
            [_consistency(one, condition) for one in theirs],
        ),
        **{
            part: ([one[part] for one in parts], [_zero(one[part]) for one in parts])
            for part in PARTS
        },
    }
    found = compare_all(task, version, list(compared.values()), alignment_languages)
    return {
        name: Measure(one.units, one.means)
        for name, one in zip(compared, found, strict=True)
        if one.units
    }


def _sources(task: Task, version: int, systems: Method) -> list[str]:
    """The supervised units that all systems have."""
    supervised = task.members(version, task.primary)["supervised"]
    return [unit for unit in supervised if all(unit in one for one in systems)]


def _right_in_pivot(systems: Sequence[Marked]) -> Bools | None:
    """Which items, of those with something to find, all systems have right in English; or None."""
    pivots = [one.get(PIVOT) for one in systems]
    there = [
        one.right & ~one.empty
        for one in pivots
        if one is not None and one.right is not None and one.empty is not None
    ]
    if len(there) < len(pivots) or len({len(one) for one in there}) != 1:
        return None
    condition: Bools = np.logical_and.reduce(there)
    return condition if condition.any() else None


def _consistency(marked: Marked, condition: Bools | None) -> dict[str, Replicates]:
    if condition is None:
        return {}
    counts = {
        unit: consistency(one.right, condition)
        for unit, one in marked.items()
        if unit != PIVOT and one.right is not None and one.right.shape == condition.shape
    }
    return dict(zip(counts, replicates(list(counts.values()), percent), strict=True))


def _parts(
    system: Units, baseline: Units, ours: Marked, theirs: Marked
) -> dict[str, dict[str, Replicates]]:
    """The parts of a gain: by part, the replicates by unit."""
    found: dict[str, dict[str, Replicates]] = {part: {} for part in PARTS}
    for unit, score in system.items():
        formed, other = (one[unit].formed if unit in one else None for one in (ours, theirs))
        if formed is None or other is None or unit not in baseline or len(formed) != len(other):
            continue
        for part, one in gain_parts(score, baseline[unit], formed, other).items():
            found[part][unit] = one
    return found


def _zero(part: Units) -> dict[str, Replicates]:
    return {unit: Replicates(0.0, np.zeros_like(one.drawn), one.n) for unit, one in part.items()}


def gaps_closed(
    task: Task,
    version: int,
    systems: Method,
    sfts: Method,
    oracles: Method,
    alignment_languages: Sequence[str],
) -> dict[str, Share]:
    """Compute the share of the gap between SFT and oracle that a method closes.

    Args:
        task: The task.
        version: The version that all systems were evaluated on.
        systems: The replicates of the method's systems; their mean counts, and so below. Intervals
            are of items alone.
        sfts: Those of the systems that were trained in the supervised units alone.
        oracles: Those of the systems that were trained in all units.
        alignment_languages: The languages that the method was aligned on.

    Returns:
        The share by unit and by split, over the units that all systems have.
    """
    methods = (systems, sfts, oracles)
    units = shared(task, [one for method in methods for one in method])
    aligned = {language(code).code for code in alignment_languages}
    splits = task.members(version, task.primary, aligned).items()
    rows = {unit: [unit] for unit in units}
    rows |= {split: [unit for unit in names if unit in rows] for split, names in splits}
    found = {
        row: gap_closed(
            *(mean([one[unit] for one in method for unit in names]) for method in methods)
        )
        for row, names in rows.items()
        if names
    }
    return {row: share for row, share in found.items() if share}
