"""Ranks the complete submissions of a task version, with ties between those that do not differ.

Submissions are ordered by their mean. The best has place 1, and so has every next one whose mean a
paired test cannot tell from the best one's (p >= 0.05). The first that differs opens a group of its
own, with the place that its position gives, and the next are tested against it. One metric, that
which ranks the task, has places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xlt_bench.metrics.paired import ALPHA, Replicates, exact_p, mean_gain
from xlt_bench.store.gains import Drawn, resampled, tested
from xlt_bench.store.rows import Entry
from xlt_bench.tasks.registry import get_task

Test = tuple[str, str, int, int]
"""A task, a split, the number of a submission and that of the one it is tested against."""


class MeanReplicates:
    """The replicates of the means by which submissions are ranked, in half of the memory.

    Args:
        entries: All submissions, by number, with `superseded_by` filled in.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._found: dict[int, dict[tuple[str, str], Replicates]] = {}

    def keep(self, drawn: Mapping[int, Drawn]) -> None:
        """Keep the means of submissions whose units have been resampled."""
        for number, by_task in drawn.items():
            if number not in self._found:
                self._found[number] = dict(_means(self._entries[number], by_task))

    def of(self, number: int, task: str, split: str) -> Replicates:
        """The replicates of one mean of a submission, resampled if they are not yet known."""
        if number not in self._found:
            self.keep(resampled({number: self._entries[number]}))
        return self._found[number][task, split]


def _means(entry: Entry, drawn: Drawn) -> Iterator[tuple[tuple[str, str], Replicates]]:
    for task, split, units in _rankings(entry):
        parts = [drawn[task][unit] for unit in units]
        value = float(np.mean([one.value for one in parts]))
        mean = np.mean([one.drawn for one in parts], axis=0)
        yield (task, split), Replicates(value, mean.astype(np.float32), 0)


def _rankings(entry: Entry) -> Iterator[tuple[str, str, list[str]]]:
    """The tasks and splits in which a submission is ranked, with their units."""
    for run in entry.runs:
        if run["complete"] and run["superseded_by"] is None:
            task = get_task(run["task"])
            there = set(entry.plan.units[task.name])
            for split, members in task.members(run["version"], task.primary).items():
                if units := [unit for unit in members if unit in there]:
                    yield task.name, split, units


def places(
    entries: Sequence[Entry], means: MeanReplicates, known: Mapping[Test, float]
) -> list[dict[str, Any]]:
    """Compute the rows of the table `places`.

    Args:
        entries: All submissions, by number, with `superseded_by` filled in.
        means: Their replicates.
        known: p values of an earlier build.
    """
    rankings: dict[tuple[str, int, str], list[tuple[float, Entry]]] = {}
    for entry in entries:
        for task, split, _ in _rankings(entry):
            ranking = (task, entry.plan.task_versions[task], split)
            value = entry.means[task, split]
            better = get_task(task).metric(get_task(task).primary).higher_is_better
            rankings.setdefault(ranking, []).append((-value if better else value, entry))
    rows: list[dict[str, Any]] = []
    for (task, _, split), ranked in rankings.items():
        ordered = [entry for _, entry in sorted(ranked, key=lambda one: (one[0], one[1].age))]
        rows += _ranked(task, split, ordered, means, known)
    return rows


def _ranked(
    task: str,
    split: str,
    ordered: Sequence[Entry],
    means: MeanReplicates,
    known: Mapping[Test, float],
) -> Iterator[dict[str, Any]]:
    head, place = ordered[0], 1
    for position, entry in enumerate(ordered, 1):
        against, p = None, None
        if entry is not head:
            against = head.number
            p = known.get((task, split, entry.number, against))
            if p is None:
                p = _p(task, split, entry, head, means)
            if p < ALPHA:
                head, place = entry, position
        row = {"number": entry.number, "task": task, "split": split, "place": place}
        yield {**row, "tested_against": against, "p": p}


def _p(task: str, split: str, entry: Entry, head: Entry, means: MeanReplicates) -> float:
    ours, theirs = (means.of(one.number, task, split) for one in (entry, head))
    p = mean_gain({"": ours}, {"": theirs}).p
    if p >= ALPHA:
        return p
    # The means do not say in how many items two systems differ.
    units = next(units for *name, units in _rankings(entry) if name == [task, split])
    by_unit = [tested(one)[task] for one in (entry, head)]
    mine, other = ({unit: one[unit] for unit in units} for one in by_unit)
    exact = exact_p(mine, other, get_task(task).metric(get_task(task).primary).score)
    return p if exact is None else exact
