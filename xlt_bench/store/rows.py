"""A submission as rows, its scores held against its counts; what supersedes it, its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import is_aligned, members, question, score_function
from xlt_bench.languages import language
from xlt_bench.results.record import LayerAccuracy, Mean, Plan, Record, Score
from xlt_bench.results.run_folder import layer_path
from xlt_bench.submissions.counts import Tasks, read_counts
from xlt_bench.submissions.rescore import TOLERANCE
from xlt_bench.submissions.safe_read import read_accuracies
from xlt_bench.submissions.schema import COUNTS, RECORD, age, base_model, covers, missing, system
from xlt_bench.submissions.validate import Package, open_package

PAIR_SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("layer", pa.int16()),
        ("source", pa.string()),
        ("target", pa.string()),
        ("accuracy", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """A submission in the store; `row` is its row of the table `submissions`."""

    number: int
    folder: Path
    plan: Plan
    age: tuple[datetime, str]
    alignment_languages: Sequence[str]
    data_digests: Mapping[str, str]
    row: dict[str, Any]


@dataclass
class Rows:
    """Rows by table, collected until they are loaded in bulk."""

    by_table: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pairs: list[pa.Table] = field(default_factory=list)

    def add(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """More rows of a table."""
        self.by_table.setdefault(table, []).extend(rows)

    def tables(self) -> dict[str, Any]:
        """Everything collected, by table."""
        pairs = {"pair_scores": pa.concat_tables(self.pairs)} if self.pairs else {}
        return {**self.by_table, **pairs}


def read_entry(folder: Path, number: int, rows: Rows) -> Entry:
    """A submission's rows, added to `rows` all or none.

    Raises InputError where its form is not right or a score is not that of its counts.
    """
    package = open_package(folder)
    record = package.record
    aligned = {language(code).code for code in record.alignment_languages}
    _check_scores(record.results.scores, read_counts(folder / COUNTS, record.plan), aligned)
    _check_means(record.results.means, record.results.scores, aligned)
    stated = {row.layer: row for row in record.results.layers}
    if list(stated) != record.plan.layers or len(stated) < len(record.results.layers):
        raise InputError(f"{RECORD}: the layers of its results are not those of its plan")
    layers = [_layer(package, number, row) for row in record.results.layers]
    _add(rows, number, record)
    rows.pairs += [pairs for pairs, _ in layers]
    for _, by_language in layers:
        rows.add("language_layers", by_language)
    return Entry(
        number=number,
        folder=folder,
        plan=record.plan,
        age=age(record, folder.name),
        alignment_languages=record.alignment_languages,
        data_digests=record.data_digests,
        row=_row(number, package),
    )


def _check_scores(stated: Sequence[Score], counts: Tasks, aligned: set[str]) -> None:
    unseen = {(t, m, u) for t, ms in counts.items() for m, us in ms.items() for u in us}
    for row in stated:
        name = (row.task, row.metric, row.unit)
        if name not in unseen:
            raise InputError(f"{RECORD}: {' '.join(name)} has no counts, or occurs twice")
        unseen.remove(name)
        matrix = counts[row.task][row.metric][row.unit]
        value = float(score_function(row.task, row.metric)(matrix.sum(axis=0, dtype=np.float64)))
        if row.aligned != is_aligned(row.task, row.unit, aligned):
            raise InputError(f"{RECORD}: {' '.join(name)}: aligned is not what its adapter says")
        if abs(value - row.value) > TOLERANCE or row.n != len(matrix):
            raise InputError(
                f"{RECORD}: {' '.join(name)}: value is {row.value} of {row.n} items, its counts "
                f"give {value} of {len(matrix)}"
            )
    if unseen:
        raise InputError(f"{RECORD}: {' '.join(min(unseen))} is missing")


def _check_means(stated: Sequence[Mean], scores: Sequence[Score], aligned: set[str]) -> None:
    values = {(row.task, row.metric, row.unit): row.value for row in scores}
    seen = set()
    for row in stated:
        name = f"{RECORD}: {row.task} {row.split} mean {row.metric}"
        wanted = members(row.task, row.metric, aligned)[row.split]
        there = {
            u: values[row.task, row.metric, u]
            for u in wanted
            if (row.task, row.metric, u) in values
        }
        lacking = [unit for unit in wanted if unit not in there]
        if name in seen or not there or (row.units, row.missing) != (list(there), lacking):
            raise InputError(f"{name} occurs twice, or its units are not those of the split")
        value = float(np.mean(list(there.values())))
        if abs(value - row.value) > TOLERANCE:
            raise InputError(f"{name} is {row.value}, its units give {value}")
        seen.add(name)


def _layer(
    package: Package, number: int, stated: LayerAccuracy
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The pairs of a layer, and the mean of each language over the pairs that it is in."""
    codes = package.record.plan.units["flores"]
    table = read_accuracies(layer_path(package.folder, stated.layer), codes)
    accuracy = table.column("accuracy").to_numpy()
    if abs(float(accuracy.mean()) - stated.value) > TOLERANCE:
        raise InputError(
            f"{RECORD}: retrieval layer {stated.layer}: value is {stated.value}, its pairs give "
            f"{accuracy.mean()}"
        )
    place = {code: i for i, code in enumerate(codes)}
    ends = [[place[c] for c in table.column(side).to_pylist()] for side in ("source", "target")]
    sides = [np.bincount(end, weights=accuracy, minlength=len(codes)) for end in ends]
    sums = sides[0] + sides[1]
    languages = [
        {
            "number": number,
            "layer": stated.layer,
            "language": code,
            "accuracy": float(sums[i] / (2 * (len(codes) - 1))),
        }
        for i, code in enumerate(codes)
    ]
    n = table.num_rows
    columns = [
        pa.array(np.full(n, number, dtype=np.int32)),
        pa.array(np.full(n, stated.layer, dtype=np.int16)),
        *(table.column(name) for name in ("source", "target", "accuracy")),
    ]
    return pa.table(columns, schema=PAIR_SCHEMA), languages


def _add(rows: Rows, number: int, record: Record) -> None:
    results = record.results
    for task, version in record.plan.task_versions.items():
        lacks = missing(record, task)
        row = {"number": number, "task": task, "version": version}
        rows.add("runs", [{**row, "complete": not lacks, "lacks": lacks}])
    for score in results.scores:
        items = question(record.plan, record.data_digests, score.task, score.unit)
        scored = score.model_dump(exclude={"setting"})
        rows.add("unit_scores", [{"number": number, "items": items, **scored}])
    rows.add("mean_scores", [{"number": number, **row.model_dump()} for row in results.means])
    rows.add("layer_scores", [{"number": number, **row.model_dump()} for row in results.layers])


def _row(number: int, package: Package) -> dict[str, Any]:
    submission, record = package.submission, package.record
    plan = record.plan
    return {
        "number": number,
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
        "record": record.model_dump_json(exclude={"results"}),
    }


def relate(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with `superseded_by`, `bare` and `baseline` filled in.

    A run supersedes an older one of the same system that it covers. The bare model is the newest
    current submission of the base model without an adapter, on the same items with the same
    template and number format.
    """
    by_system: dict[str, list[Entry]] = {}
    by_base: dict[str, list[Entry]] = {}
    for entry in entries:
        by_system.setdefault(entry.row["system"], []).append(entry)
        if entry.plan.adapter is None:
            by_base.setdefault(entry.row["base_model"], []).append(entry)
    numbers = {entry.row["id"]: entry.number for entry in entries}
    newer = {entry.number: _newer(entry, by_system[entry.row["system"]]) for entry in entries}
    related = []
    for entry in entries:
        current = [e for e in by_base.get(entry.row["base_model"], []) if newer[e.number] is None]
        bare = _bare(entry, current)
        declared = numbers.get(entry.row["declared_baseline"])
        found = {
            "superseded_by": newer[entry.number],
            "bare": bare,
            "baseline": bare if declared is None else declared,
        }
        related.append(replace(entry, row={**entry.row, **found}))
    return related


def _newer(entry: Entry, runs: Sequence[Entry]) -> int | None:
    """The newest run of the system that covers an entry and is newer than it."""
    later = [e for e in runs if e.age > entry.age and covers(e.plan, entry.plan)]
    return max(later, key=lambda e: e.age).number if later else None


def _bare(entry: Entry, current: Sequence[Entry]) -> int | None:
    asked = ("item_limit", "template_sha256", "dtype")
    same = [
        other
        for other in current
        if other.number != entry.number and all(other.row[k] == entry.row[k] for k in asked)
    ]
    return (
        max(same, key=lambda e: e.age).number if same and entry.plan.adapter is not None else None
    )
