"""Ranks the complete systems and methods of a task version; those that do not differ are tied.

They are ordered by their mean. The best has place 1, and so has every next one whose mean a test
cannot tell from the best one's (p >= 0.05). The first that differs opens a group of its own, with
the place that its position gives, and the next are tested against it. The test is that of
`compare`: of items between two systems, of seeds and items between two methods with several seeds
each. One metric, that which ranks the task, has places.

There are two rankings: of what is verified alone, which a forged submission cannot change, and of
all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from xlt_bench.metrics.methods import difference, gains
from xlt_bench.metrics.paired import ALPHA, FEW, Replicates, exact_p, mean_p
from xlt_bench.metrics.significance import Counts
from xlt_bench.store.gains import resampled, tested
from xlt_bench.store.measures import Drawn
from xlt_bench.store.rows import Entry
from xlt_bench.submissions.gains import covers_seeds, mean
from xlt_bench.submissions.seeds import pair_seeds
from xlt_bench.tasks.registry import get_task

AMONG = ("verified", "all")
Test = tuple[tuple[int, ...], tuple[int, ...]]
"""The numbers of the tested submissions, and of those they are held against."""

_BINS = 64


@dataclass(frozen=True)
class _Mean:
    """The replicates of a mean, and sums of the counts of its items in bins.

    Systems whose sums differ in many bins differ in as many items: then their counts need not be
    read for an exact test, of which few items are the condition.
    """

    replicates: Replicates
    bins: npt.NDArray[np.int64]


Means = Mapping[tuple[str, str], _Mean]
"""The means of a submission by task and split."""


class MeanReplicates:
    """The replicates of the means by which submissions are ranked, kept in a file.

    Those of 10,000 submissions take half a GB, of which a test needs 9 kB.

    Args:
        entries: All submissions, by number, with `superseded_by` filled in.
        file: An empty file, open for writing and reading.
    """

    def __init__(self, entries: Sequence[Entry], file: IO[bytes]) -> None:
        self._entries, self._file = entries, file
        self._found: dict[int, dict[tuple[str, str], tuple[float, int]]] = {}

    def keep(self, found: Mapping[int, Means]) -> None:
        """Keep the means of submissions whose units have been resampled."""
        for number, means in found.items():
            if number not in self._found:
                self._found[number] = {key: self._written(mean) for key, mean in means.items()}

    def _written(self, mean: _Mean) -> tuple[float, int]:
        """Write a mean; returns its value, and where the rest is."""
        start = self._file.seek(0, os.SEEK_END)
        for array in (mean.replicates.drawn, mean.bins):
            np.save(self._file, array, allow_pickle=False)
        return mean.replicates.value, start

    def of(self, number: int, task: str, split: str) -> _Mean:
        """The replicates of one mean of a submission, resampled if they are not yet known."""
        if number not in self._found:
            entry = self._entries[number]
            self.keep({number: means_of(entry, resampled({number: entry})[0][number])})
        value, start = self._found[number][task, split]
        self._file.seek(start)
        drawn, bins = (np.load(self._file, allow_pickle=False) for _ in range(2))
        return _Mean(Replicates(value, drawn, 0), bins)


def means_of(entry: Entry, drawn: Drawn) -> Means:
    """The means by which a submission is ranked.

    Args:
        entry: The submission, with `superseded_by` filled in.
        drawn: Its replicates by task and unit.
    """
    found = {}
    for task, split, units in _rankings(entry):
        parts = [drawn[task][unit] for unit in units]
        value = float(np.mean([one.value for one in parts]))
        drawn_mean = np.mean([one.drawn for one in parts], axis=0).astype(np.float32)
        both = bins([one.counts for one in parts])
        found[task, split] = _Mean(Replicates(value, drawn_mean, 0), both)
    return found


def bins(matrices: Sequence[Counts | None]) -> npt.NDArray[np.int64]:
    """Sum what items count, those of one index in one bin: an index is an item of all languages."""
    bins = np.zeros(_BINS, dtype=np.int64)
    for place, counts in enumerate(matrices):
        if counts is not None:
            whole = len(counts) // _BINS * _BINS
            folded = counts[:whole].reshape(-1, _BINS, counts.shape[1]).sum(axis=0, dtype=np.int64)
            folded[: len(counts) - whole] += counts[whole:]
            # Odd factors, lest differences in two columns or languages cancel out.
            bins += folded @ (2654435761 * np.arange(counts.shape[1]) + 1) * (2 * place + 1)
    return bins


def _rankings(entry: Entry) -> Iterator[tuple[str, str, list[str]]]:
    """The tasks and splits in which a submission is ranked, with their units."""
    for run in entry.runs:
        if run["complete"] and run["superseded_by"] is None:
            task = get_task(run["task"])
            there = set(entry.plan.units[task.name])
            for split, members in task.members(run["version"], task.primary).items():
                if units := [unit for unit in members if unit in there]:
                    yield task.name, split, units


@dataclass(frozen=True)
class _Candidate:
    """A system, or those of a method, one of each seed; `value` is the mean of their means."""

    systems: tuple[Entry, ...]
    value: float

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(one.number for one in self.systems)


def places(
    entries: Sequence[Entry],
    means: MeanReplicates,
    known: Callable[[str, str], Mapping[Test, float]],
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Compute the rows of the tables `places` and `method_places`.

    Args:
        entries: All submissions, by number, with `superseded_by` filled in.
        means: Their replicates.
        known: Gives the p values of an earlier build in a task and split.

    Yields:
        The rows by table, ranking by ranking.
    """
    for (task, version, split), ranked in _by_ranking(entries).items():
        tests = _Tests(task, split, means, known(task, split))
        for among in AMONG:
            some = [one for one in ranked if among == "all" or one.is_verified]
            if some:
                yield _rows({"task": task, "split": split, "among": among}, version, some, tests)


def _rows(
    given: dict[str, str], version: int, ranked: Sequence[Entry], tests: _Tests
) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {"places": [], "method_places": []}
    means = given["task"], given["split"]
    systems = [_Candidate((one,), one.means[means]) for one in ranked]
    for one, place, head, p in _placed(systems, tests):
        against = head.numbers[0] if head else None
        row = {"number": one.numbers[0], **given, "place": place}
        rows["places"].append({**row, "tested_against": against, "p": p})
    for methods in _methods(ranked, *means):
        for one, place, head, p in _placed(methods, tests):
            row = {"method": one.systems[0].trained.method, "version": version, **given}
            row |= {"value": one.value, "place": place, "systems": list(one.numbers)}
            row["tested_against"] = list(head.numbers) if head else None
            row["covers_seeds"] = bool(head and _covers_seeds(one, head))
            rows["method_places"].append({**row, "p": p})
    return rows


def _by_ranking(entries: Sequence[Entry]) -> dict[tuple[str, int, str], list[Entry]]:
    """The submissions that are ranked together, by task, version and split."""
    found: dict[tuple[str, int, str], list[Entry]] = {}
    for entry in entries:
        for task, split, _ in _rankings(entry):
            found.setdefault((task, entry.plan.task_versions[task], split), []).append(entry)
    return found


def _methods(ranked: Sequence[Entry], task: str, split: str) -> list[list[_Candidate]]:
    """The methods of each base model; of several systems of one seed, the oldest counts."""
    found: dict[str, dict[str, dict[int | None, Entry]]] = {}
    for entry in sorted(ranked, key=lambda entry: entry.age):
        of_base = found.setdefault(entry.row["base_model"], {})
        of_base.setdefault(entry.trained.method, {}).setdefault(entry.trained.seed, entry)
    return [
        [
            _Candidate(
                tuple(by_seed.values()),
                float(np.mean([one.means[task, split] for one in by_seed.values()])),
            )
            for by_seed in methods.values()
        ]
        for methods in found.values()
    ]


def _placed(
    candidates: Sequence[_Candidate], tests: _Tests
) -> Iterator[tuple[_Candidate, int, _Candidate | None, float | None]]:
    """Each candidate, best first, with its place, and the test that gave it; None for the best."""
    task = get_task(tests.task)
    sign = -1 if task.metric(task.primary).higher_is_better else 1
    ordered = sorted(
        candidates, key=lambda one: (sign * one.value, min(part.age for part in one.systems))
    )
    head, place = ordered[0], 1
    yield head, place, None, None
    for position, one in enumerate(ordered[1:], 2):
        against, p = head, tests.p(one, head)
        if p < ALPHA:
            head, place = one, position
        yield one, place, against, p


def _covers_seeds(one: _Candidate, head: _Candidate) -> bool:
    return covers_seeds(*pair_seeds(one.systems, head.systems)[:2])


class _Tests:
    """The tests of a mean of a task, each made once."""

    def __init__(
        self, task: str, split: str, means: MeanReplicates, known: Mapping[Test, float]
    ) -> None:
        self.task, self.split = task, split
        self._means, self._known = means, dict(known)

    def p(self, one: _Candidate, head: _Candidate) -> float:
        test = (one.numbers, head.numbers)
        if test not in self._known:
            self._known[test] = self._tested(one, head)
        return self._known[test]

    def _tested(self, one: _Candidate, head: _Candidate) -> float:
        ours, theirs, paired = pair_seeds(one.systems, head.systems)
        found = [
            [self._means.of(entry.number, self.task, self.split) for entry in method]
            for method in (ours, theirs)
        ]
        drawn = [[one.replicates for one in method] for method in found]
        if covers_seeds(ours, theirs):
            return gains([difference(*drawn, paired=paired)])[0].p
        p = mean_p(*({"": mean(method)} for method in drawn))
        if p >= ALPHA or len(ours) + len(theirs) > 2:
            return p
        if np.count_nonzero(found[0][0].bins != found[1][0].bins) > FEW:
            return p
        exact = _exact(self.task, self.split, ours[0], theirs[0])
        return p if exact is None else exact


def _exact(task: str, split: str, one: Entry, other: Entry) -> float | None:
    units = next(units for *name, units in _rankings(one) if name == [task, split])
    by_unit = [tested(entry)[task] for entry in (one, other)]
    ours, theirs = ({unit: found[unit] for unit in units} for found in by_unit)
    return exact_p(ours, theirs, get_task(task).metric(get_task(task).primary).score)
