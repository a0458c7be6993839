"""Turns submissions into rows of the database, and finds their newer runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import partners, question
from xlt_bench.metrics.accuracy import accuracy_interval, never_certain
from xlt_bench.metrics.significance import Floats, Interval
from xlt_bench.results.record import Mean, Plan, Record
from xlt_bench.submissions.answers import read_accuracies
from xlt_bench.submissions.counts import Tasks, read_counts
from xlt_bench.submissions.schema import (
    COUNTS,
    base_model,
    covered_tasks,
    missing,
    primary_means,
    system,
)
from xlt_bench.submissions.trainings import Trained, trained
from xlt_bench.submissions.validate import Package, check_results, open_package
from xlt_bench.tasks.registry import get_task, retrieval_units

PAIR_SCHEMA = pa.schema(
    [
        ("layer", pa.int16()),
        ("source", pa.string()),
        ("target", pa.string()),
        ("accuracy", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """A submission to load, with its rows in the tables `submissions` and `runs`.

    `items` are digests of what was asked, by task and unit: only equal ones are compared.
    `means` are those of the metrics that rank, by task and split.
    """

    number: int
    folder: Path
    plan: Plan
    age: tuple[int, str]
    alignment_languages: Sequence[str]
    data_digests: Mapping[str, str]
    items: Mapping[tuple[str, str], str]
    trained: Trained
    means: Mapping[tuple[str, str], float]
    row: dict[str, Any]
    runs: list[dict[str, Any]]

    @property
    def is_verified(self) -> bool:
        """Whether a maintainer has run its model again."""
        return bool(self.row["rank_class"] == "verified")

    def numbered(self, number: int) -> Entry:
        """The same with its number in the database."""
        runs = [{"number": number, **run} for run in self.runs]
        return replace(self, number=number, row={"number": number, **self.row}, runs=runs)


class Alike:
    """Keeps one copy of what many submissions state alike: units, and digests of what was asked.

    Without it, the entries of 10,000 submissions take more than a GB.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, Any] = {}

    def shared(self, entry: Entry) -> Entry:
        """The same entry, with the copies that are kept."""
        plan = entry.plan.model_copy(update={"units": self._one(entry.plan.units)})
        items, digests = self._one(entry.items), self._one(entry.data_digests)
        return replace(entry, plan=plan, items=items, data_digests=digests)

    def _one(self, value: Any) -> Any:
        return self._kept.setdefault(hashlib.sha256(repr(value).encode()).digest(), value)


@dataclass
class Rows:
    """Rows by table, collected for a bulk insert."""

    by_table: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pairs: list[pa.Table] = field(default_factory=list)

    def add(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows to a table."""
        self.by_table.setdefault(table, []).extend(rows)

    def tables(self) -> dict[str, Any]:
        """The collected rows by table."""
        pairs = {"pair_scores": pa.concat_tables(self.pairs)} if self.pairs else {}
        return {**self.by_table, **pairs}

    def take(self, rows: Rows, number: int) -> None:
        """Add the rows of a submission, with its number in the database."""
        for table, found in rows.by_table.items():
            self.add(table, [{"number": number, **row} for row in found])
        for pairs in rows.pairs:
            numbers = pa.array(np.full(pairs.num_rows, number, dtype=np.int32))
            self.pairs.append(pairs.add_column(0, "number", numbers))


@dataclass(frozen=True)
class Source:
    """A submission to read.

    Attributes:
        folder: The submission.
        age: Its sort key from first to last accepted.
        accepted: Whether the maintainers have accepted it.
        before: The fingerprint of which an earlier build has the rows; None if it has none.
    """

    folder: Path
    age: tuple[int, str]
    accepted: bool
    before: str | None


@dataclass(frozen=True)
class Read:
    """A submission that was read. Its rows of all tables have no number yet.

    `rows` are those of all tables except `submissions` and `runs`; None if those of the earlier
    build are still right, which has compared the scores with the counts.
    """

    fingerprint: str
    entry: Entry
    rows: Rows | None


def read_entry(source: Source) -> Read | InputError | OSError:
    """Validate a submission and compute its rows.

    Args:
        source: The submission.

    Returns:
        What was read, or why the submission is not valid, or its scores do not follow from its
        counts.
    """
    try:
        found = fingerprint(source.folder)
        package = open_package(source.folder)
        rows = None if found == source.before else _rows(package)
    except (InputError, OSError) as error:
        return error
    return Read(found, _entry(package, source), rows)


def fingerprint(folder: Path) -> str:
    """Digest the names, sizes and times of change of a submission's files, but not the contents.

    Args:
        folder: The submission.

    Raises:
        OSError: A file disappeared meanwhile.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        found = (str(path.relative_to(folder)), stat.st_mode, stat.st_size, stat.st_mtime_ns)
        digest.update(repr(found).encode())
    return digest.hexdigest()


def _items(record: Record) -> dict[tuple[str, str], str]:
    """Digests of what was asked, by task and unit."""
    return {
        (task, unit): question(record.plan, record.data_digests, task, unit)
        for task, units in record.plan.units.items()
        for unit in units
    }


def _entry(package: Package, source: Source) -> Entry:
    record = package.record
    how = trained(record)
    return Entry(
        number=-1,
        folder=source.folder,
        plan=record.plan,
        age=source.age,
        alignment_languages=record.alignment_languages,
        data_digests=record.data_digests,
        items=_items(record),
        trained=how,
        means=primary_means(record),
        row={**_row(package, source), "method": how.method, "seed": how.seed},
        runs=[_run(record, task) for task in record.plan.task_versions],
    )


class _Layers:
    """Computes the rows of layers, most of which have the same pairs in the same order.

    Means are over the pairs with the languages of `evaluation.score.partners`.
    """

    def __init__(self, plan: Plan) -> None:
        self._codes, self._inside = retrieval_units(plan.units), set(partners(plan))
        self._sides: list[list[str]] = []

    def pairs(self, layer: int, table: pa.Table) -> pa.Table:
        """Rows of the table `pair_scores`."""
        sides = [table.column(name) for name in PAIR_SCHEMA.names[1:]]
        return pa.table([pa.array(np.full(len(table), layer, np.int16)), *sides], PAIR_SCHEMA)

    def means(self, table: pa.Table) -> tuple[float, Floats]:
        """The mean accuracy over all pairs, and that of each language, (codes,)."""
        self._place([table.column(side).to_pylist() for side in ("source", "target")])
        accuracy = table.column("accuracy").to_numpy()
        sums = np.zeros(len(self._codes))
        for counted, ends in self._ends:
            sums += np.bincount(ends, weights=accuracy[counted], minlength=len(sums))
        return float(accuracy[self._in_mean].mean()), sums / self._n

    def _place(self, sides: list[list[str]]) -> None:
        """Find the places of languages in the pairs, unless they are those of the last layer."""
        if sides == self._sides:
            return
        self._sides = sides
        place = {code: i for i, code in enumerate(self._codes)}
        inside = [np.array([code in self._inside for code in side]) for side in sides]
        places = [np.array([place[code] for code in side]) for side in sides]
        self._in_mean = inside[0] & inside[1]
        self._ends = [(inside[1], places[0][inside[1]]), (inside[0], places[1][inside[0]])]
        counts = [np.bincount(ends, minlength=len(place)) for _, ends in self._ends]
        self._n = counts[0] + counts[1]


def _rows(package: Package) -> Rows:
    """Compare the scores with the counts; returns the rows of scores and layers."""
    rows = Rows()
    record, results = package.record, package.record.results
    layers, means = _Layers(record.plan), {}
    for layer, table in read_accuracies(package).items():
        means[layer], by_language = layers.means(table)
        rows.pairs.append(layers.pairs(layer, table))
        rows.add("language_layers", _language_rows(record.plan, layer, by_language))
    counts = read_counts(package.folder / COUNTS, record.plan)
    check_results(record, counts, means)
    items = _items(record)
    for score in results.scores:
        scored = {name: value for name, value in score if name != "setting"}
        if get_task(score.task).is_accuracy(score.metric):
            # Records of older releases have bootstrap intervals, empty where no answer is right.
            ends = accuracy_interval(counts[score.task][score.metric][score.unit])
            scored |= {"low": ends.low, "high": ends.high}
        rows.add("unit_scores", [{"items": items[score.task, score.unit], **scored}])
    rows.add("records", [{"record": record.model_dump_json(exclude={"results"})}])
    rows.add("alignments", _alignments(record))
    rows.add("mean_scores", [_mean(row, counts) for row in results.means])
    rows.add("layer_scores", [dict(row) for row in results.layers])
    return rows


def _language_rows(plan: Plan, layer: int, means: Floats) -> list[dict[str, Any]]:
    codes = retrieval_units(plan.units)
    return [
        {"layer": layer, "language": code, "accuracy": mean}
        for code, mean in zip(codes, means.tolist(), strict=True)
    ]


def _mean(row: Mean, counts: Tasks) -> dict[str, Any]:
    fields = dict(row)
    if get_task(row.task).is_accuracy(row.metric):
        stated = Interval(row.value, row.low, row.high)
        by_unit = counts[row.task][row.metric]
        shown = never_certain(stated, [by_unit[unit] for unit in row.units])
        fields |= {"low": shown.low, "high": shown.high}
    return fields


def _alignments(record: Record) -> list[dict[str, Any]]:
    """Rows of the planned layers and languages; the record may state others."""
    known = set(retrieval_units(record.plan.units))
    return [
        {
            "layer": one.layer,
            "language": one.language,
            "measure": name,
            "value": x,
        }
        for one in record.alignment
        if one.layer in record.plan.layers and one.language in known
        for name, x in one.model_dump(exclude={"layer", "language"}).items()
    ]


def _run(record: Record, task: str) -> dict[str, Any]:
    lacks = missing(record, task)
    version = record.plan.task_versions[task]
    row = {"task": task, "version": version}
    return {**row, "complete": not lacks, "lacks": lacks}


EVIDENCE = {
    "derived": "number id base_model system method item_limit bare superseded_by",
    "run": "model_revision model_sha256 adapter_sha256 dtype template_sha256 n_layers",
    "maintainer": "rank_class verified_by verified_on verified_basis",
    "declared": "name contact url notes model adapter alignment_languages recipe trained_on_flores "
    "seed template harness created command declared_baseline",
}
"""What the columns of the table `submissions` rest on; see the table `evidence`."""


def _row(package: Package, source: Source) -> dict[str, Any]:
    submission, record = package.submission, package.record
    plan = record.plan
    # Anybody can submit a verified.json; only accepted ones are the maintainers'.
    verified = package.verified if source.accepted else None
    return {
        **submission.model_dump(include={"id", "name", "contact", "url", "notes"}),
        "base_model": base_model(plan),
        "system": system(plan),
        **plan.model_dump(include={"model", "model_revision", "model_sha256"}),
        **plan.model_dump(include={"adapter", "adapter_sha256", "dtype"}),
        **plan.model_dump(include={"template", "template_sha256"}),
        "alignment_languages": record.alignment_languages,
        "recipe": record.adapter.recipe if record.adapter else None,
        "trained_on_flores": record.adapter.trained_on_flores if record.adapter else None,
        "harness": record.harness,
        "created": datetime.fromisoformat(record.created).astimezone(UTC),
        "command": record.command,
        "item_limit": plan.limit,
        "n_layers": record.model.layers,
        "declared_baseline": submission.baseline,
        "rank_class": "verified" if verified else "self-reported",
        "verified_by": verified and verified.by,
        "verified_on": verified and date.fromisoformat(verified.on),
        "verified_basis": verified and verified.basis,
    }


def relate(entries: Sequence[Entry]) -> list[Entry]:
    """Fill in `superseded_by` in the rows of all submissions and runs.

    A run supersedes an older one of the same system that it covers: as a whole, or, if it has other
    versions or items of some tasks, in the others.
    """
    by_system: dict[str, list[Entry]] = {}
    for entry in entries:
        by_system.setdefault(entry.row["system"], []).append(entry)
    related = []
    for entry in entries:
        by_task = _newer(entry, by_system[entry.row["system"]])
        runs = [{**run, "superseded_by": by_task[run["task"]]} for run in entry.runs]
        row = {**entry.row, "superseded_by": by_task[None]}
        related.append(replace(entry, row=row, runs=runs))
    return related


def _newer(entry: Entry, others: Sequence[Entry]) -> dict[str | None, int | None]:
    """The newest later run of the same system that covers each task; under None, all tasks."""
    found: dict[str | None, int | None] = dict.fromkeys([None, *entry.plan.task_versions])
    for other in sorted((e for e in others if e.age > entry.age), key=lambda e: e.age):
        covered = covered_tasks(other, entry)
        found |= dict.fromkeys(covered, other.number)
        if len(covered) == len(entry.plan.units):
            found[None] = other.number
    return found
