"""All scores of a run, from its stored predictions and the references alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from xlt_bench.benchmarks import TEXT
from xlt_bench.benchmarks.base import flags
from xlt_bench.errors import InputError
from xlt_bench.languages import Family, language, other_side, units
from xlt_bench.metrics.significance import Counts, Interval, Score, interval, mean_interval, percent
from xlt_bench.record import LayerAccuracy, Mean, Plan, Scores
from xlt_bench.record import Score as ScoreRow
from xlt_bench.runs import layer_path, predictions_path, read_layer, read_plan, read_predictions

RETRIEVAL = "retrieval_accuracy"
CUT_OFF = "cut_off"
"""Percent of answers that the length limit cut off; only our own LM knows."""
Split = Literal["all", "supervised", "transfer", "aligned"]
ByUnit = dict[str, Counts]
"""The counts of one metric, by unit."""


def score_run(run: Path, root: Path, alignment_languages: Sequence[str] = ()) -> Scores:
    """Scores with intervals, split means, and retrieval by layer, of what the run has on disk.

    Raises InputError where predictions do not belong to the test sets, item by item.
    """
    plan = read_plan(run)
    aligned = {language(code).code for code in alignment_languages}
    scores: list[ScoreRow] = []
    means: list[Mean] = []
    for task, planned in plan.units.items():
        if task == "flores":
            continue
        for metric, by_unit in _text_counts(run, root, task, planned, plan.limit).items():
            score = percent if metric == CUT_OFF else TEXT[task].METRICS[metric].score
            scores += _rows(task, metric, by_unit, score, aligned)
            means += _means(task, metric, by_unit, score, aligned)
    layers: list[LayerAccuracy] = []
    if "flores" in plan.units:
        layers, by_unit = _retrieval(run, plan)
        scores += _rows("flores", RETRIEVAL, by_unit, percent, aligned)
        means += _means("flores", RETRIEVAL, by_unit, percent, aligned)
    return Scores(scores=scores, means=means, layers=layers)


def _text_counts(
    run: Path, root: Path, task: Family, planned: Sequence[str], limit: int | None
) -> dict[str, ByUnit]:
    """Counts by metric and unit of the predictions that are there."""
    benchmark = TEXT[task]
    counts: dict[str, ByUnit] = {}
    for unit in planned:
        path = predictions_path(run, task, unit)
        if not path.exists():
            continue
        items = benchmark.load(root, unit)[:limit]
        answers = read_predictions(path)
        wanted, got = [item.id for item in items], [answer.id for answer in answers]
        if wanted != got:
            pairs = zip(wanted, got, strict=False)
            odd = next(
                (f"item {a} expected, {b} found" for a, b in pairs if a != b),
                f"{len(wanted)} items expected, {len(got)} found",
            )
            raise InputError(f"{path} does not belong to {task} {unit}: {odd}")
        matrices = benchmark.count(items, [answer.hypothesis for answer in answers])
        matrices[CUT_OFF] = flags([answer.cut_off for answer in answers])
        for metric, matrix in matrices.items():
            counts.setdefault(metric, {})[unit] = matrix
    return counts


def is_aligned(task: Family, unit: str, aligned: set[str]) -> bool:
    """Whether the adapter was aligned on the unit's language (a direction: its non-English one)."""
    return (other_side(unit) if task == "wmt23" else unit) in aligned


def _rows(
    task: Family, metric: str, by_unit: Mapping[str, Counts], score: Score, aligned: set[str]
) -> list[ScoreRow]:
    settings = units(task)
    return [
        ScoreRow(
            task=task,
            unit=unit,
            setting=settings[unit],
            aligned=is_aligned(task, unit, aligned),
            metric=metric,
            n=len(counts),
            **_fields(interval(counts, score)),
        )
        for unit, counts in by_unit.items()
    ]


def _means(
    task: Family, metric: str, by_unit: Mapping[str, Counts], score: Score, aligned: set[str]
) -> list[Mean]:
    settings = units(task)
    members: dict[Split, list[str]] = {
        "supervised": [unit for unit, setting in settings.items() if setting == "supervised"],
        "transfer": [unit for unit, setting in settings.items() if setting == "transfer"],
        "aligned": [unit for unit in settings if is_aligned(task, unit, aligned)],
        "all": list(settings),
    }
    # BLEU with 13a is a column of two directions only: the others do not miss it.
    applicable = {"en-ja", "en-zh"} if metric == "bleu_13a" else set(settings)
    rows = []
    for split, names in members.items():
        wanted = [name for name in names if name in applicable]
        there = {unit: by_unit[unit] for unit in wanted if unit in by_unit}
        if there:
            rows.append(
                Mean(
                    task=task,
                    split=split,
                    metric=metric,
                    units=list(there),
                    missing=[unit for unit in wanted if unit not in there],
                    **_fields(mean_interval(there, score)),
                )
            )
    return rows


def _fields(result: Interval) -> dict[str, float]:
    return {"value": result.value, "low": result.low, "high": result.high}


def _retrieval(run: Path, plan: Plan) -> tuple[list[LayerAccuracy], ByUnit]:
    """Accuracy by layer over all pairs, and counts by language over its pairs at even layers.

    An item is a sentence number: its counts are the right answers and the questions it took part
    in, so the bootstrap resamples sentences in all pairs at once.
    """
    rows: list[LayerAccuracy] = []
    right: dict[str, np.ndarray] = {}
    asked: dict[str, int] = {}
    for layer in plan.layers:
        path = layer_path(run, layer)
        if not path.exists():
            continue
        table = read_layer(path)
        n = len(next(iter(table.values())))
        total = np.zeros(n)
        for (source, target), found in table.items():
            hits = np.asarray(found) == np.arange(n)
            total += hits
            if layer % 2 == 0:
                for code in (source, target):
                    right[code] = right.get(code, np.zeros(n)) + hits
                    asked[code] = asked.get(code, 0) + 1
        counts = np.stack([total, np.full(n, len(table))], axis=1)
        rows.append(LayerAccuracy(layer=layer, **_fields(interval(counts, percent))))
    ordered = [code for code in plan.units["flores"] if code in right]
    by_unit = {
        code: np.stack([right[code], np.full(len(right[code]), asked[code])], axis=1)
        for code in ordered
    }
    return rows, by_unit
