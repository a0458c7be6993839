"""All scores of a run, from its stored predictions and the references alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError
from xlt_bench.evaluation.comet.stored import COMET, read_comet
from xlt_bench.languages import Family, language, other_side, units
from xlt_bench.metrics.significance import Counts, Interval, Score, interval, mean_interval, percent
from xlt_bench.results.record import LayerAccuracy, Mean, Plan, Scores
from xlt_bench.results.record import Score as ScoreRow
from xlt_bench.results.run_folder import (
    Prediction,
    Table,
    layer_path,
    predictions_path,
    read_digests,
    read_layer,
    read_plan,
    read_predictions,
)
from xlt_bench.tasks import TEXT
from xlt_bench.tasks.base import RETRIEVAL, Item, flags

CUT_OFF = "cut_off"
"""Percent of answers that the length limit cut off; only our own LM knows."""
Split = Literal["all", "supervised", "transfer", "aligned"]
ByUnit = dict[str, Counts]
"""The counts of one metric, by unit."""


@dataclass(frozen=True)
class Counted:
    """What scores are made of: counts of each task, metric and unit, and of each layer."""

    tasks: dict[Family, dict[str, ByUnit]]
    layers: dict[int, Counts]


def score_run(run: Path, root: Path, alignment_languages: Sequence[str] = ()) -> Scores:
    """Scores with intervals, split means, and retrieval by layer, of what the run has on disk.

    Raises InputError where predictions do not belong to the test sets, item by item.
    """
    return scores_of(count_run(read_plan(run), run, root), alignment_languages)


def scores_of(counted: Counted, alignment_languages: Sequence[str] = ()) -> Scores:
    """The scores of counts; `alignment_languages` marks the units of the split `aligned`."""
    aligned = {language(code).code for code in alignment_languages}
    scores: list[ScoreRow] = []
    means: list[Mean] = []
    for task, by_metric in counted.tasks.items():
        for metric, by_unit in by_metric.items():
            score = score_function(task, metric)
            scores += _rows(task, metric, by_unit, score, aligned)
            means += _means(task, metric, by_unit, score, aligned)
    layers = [
        LayerAccuracy(layer=layer, **_fields(interval(counts, percent)))
        for layer, counts in counted.layers.items()
    ]
    return Scores(scores=scores, means=means, layers=layers)


def score_function(task: Family, metric: str) -> Score:
    """From summed counts to the score."""
    if task == "flores" or metric in (CUT_OFF, COMET):
        return percent
    return TEXT[task].METRICS[metric].score  # type: ignore[no-any-return]


def question(plan: Plan, digests: Mapping[str, str], task: Family, unit: str) -> str:
    """What a unit's score is over; scores over anything else are not compared with it.

    The digest of its items; for retrieval also the languages and even layers of the mean.
    """
    digest = digests.get(f"{task}/{unit}", "")
    if task != "flores":
        return digest
    even = [layer for layer in plan.layers if layer % 2 == 0]
    return content_digest([digest, sorted(plan.units["flores"]), even])


def count_run(plan: Plan, run: Path, root: Path) -> Counted:
    """The counts of the predictions and retrieval answers that are there."""
    there = [(task, unit, predictions_path(run, task, unit)) for task, unit in text_units(plan)]
    digests = read_digests(run)
    comet = read_comet(plan, run)

    def count(task: Family, unit: str, path: Path) -> dict[str, Counts]:
        answers, digest = read_predictions(path), digests.get(f"{task}/{unit}")
        counts = count_answers(root, task, unit, plan.limit, answers, digest)
        scored = {COMET: comet[unit].counts} if task == "wmt23" and unit in comet else {}
        return counts | scored

    answered = (
        (task, unit, count(task, unit, path)) for task, unit, path in there if path.exists()
    )
    paths = {layer: layer_path(run, layer) for layer in plan.layers}
    tables = ((layer, read_layer(path)) for layer, path in paths.items() if path.exists())
    return gather(plan, answered, tables)


def text_units(plan: Plan) -> list[tuple[Family, str]]:
    """The planned units that are answered with text, in order: all but retrieval's."""
    return [(task, u) for task, names in plan.units.items() if task != "flores" for u in names]


def gather(
    plan: Plan,
    answered: Iterable[tuple[Family, str, Mapping[str, Counts]]],
    tables: Iterable[tuple[int, Table]],
) -> Counted:
    """Counts by metric of each text unit, and retrieval's by layer, as they come, put together."""
    tasks: dict[Family, dict[str, ByUnit]] = {}
    for task, unit, by_metric in answered:
        for metric, counts in by_metric.items():
            tasks.setdefault(task, {}).setdefault(metric, {})[unit] = counts
    layers, by_unit = count_retrieval(plan.units.get("flores", []), tables)
    if by_unit:
        tasks["flores"] = {RETRIEVAL: by_unit}
    return Counted(tasks, layers)


def count_answers(
    root: Path,
    task: Family,
    unit: str,
    limit: int | None,
    answers: Sequence[Prediction],
    digest: str | None = None,
) -> dict[str, Counts]:
    """Counts by metric of a unit's answers. Raises InputError where they are to other items.

    `digest` is that of the items that were asked, where it is known.
    """
    return count_items(task, items_answered(root, task, unit, limit, answers, digest), answers)


def count_items(
    task: Family, items: Sequence[Item], answers: Sequence[Prediction]
) -> dict[str, Counts]:
    """Counts by metric of the answers to a unit's items, in their order."""
    counts: dict[str, Counts] = TEXT[task].count(items, [answer.hypothesis for answer in answers])
    if not any(answer.cut_off is None for answer in answers):
        counts[CUT_OFF] = flags([bool(answer.cut_off) for answer in answers])
    return counts


def items_answered(
    root: Path,
    task: Family,
    unit: str,
    limit: int | None,
    answers: Sequence[Prediction],
    digest: str | None = None,
) -> list[Item]:
    """The items of a unit's answers, in order; `digest` and errors as for `count_answers`."""
    items: list[Item] = TEXT[task].load(root, unit)[:limit]
    if digest not in (None, content_digest(items)):
        raise InputError(
            f"the answers to {task} {unit} are not to the items below {root}; give the --data-dir "
            "that they were made with"
        )
    fault = _other_items([item.id for item in items], [answer.id for answer in answers])
    if fault:
        raise InputError(f"the predictions of {task} {unit} are not of its test set: {fault}")
    return items


def _other_items(wanted: Sequence[str], got: Sequence[str]) -> str:
    """What is wrong with a list of item ids, the first item named; empty where nothing is."""
    if list(wanted) == list(got):
        return ""
    twice = next((name for name, times in Counter(got).items() if times > 1), None)
    if twice is not None:
        return f"item {twice} occurs twice"
    expected, found = set(wanted), set(got)
    missing = next((name for name in wanted if name not in found), None)
    odd = next((name for name in got if name not in expected), None)
    if missing is not None and odd is not None:
        return f"item {missing} expected, {odd} found"
    if missing is not None:
        return f"item {missing} is missing ({len(wanted)} items expected, {len(got)} found)"
    if odd is not None:
        return f"item {odd} is none of it ({len(wanted)} items expected, {len(got)} found)"
    a, b = next((a, b) for a, b in zip(wanted, got, strict=True) if a != b)
    return f"item {a} expected, {b} found"


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


def members(task: Family, metric: str, aligned: set[str]) -> dict[Split, list[str]]:
    """The units that a mean of a metric is over, by split."""
    # BLEU with 13a is a column of two directions only: the others do not miss it.
    applicable = {"en-ja", "en-zh"} if metric == "bleu_13a" else set(units(task))
    settings = {unit: s for unit, s in units(task).items() if unit in applicable}
    return {
        "supervised": [unit for unit, setting in settings.items() if setting == "supervised"],
        "transfer": [unit for unit, setting in settings.items() if setting == "transfer"],
        "aligned": [unit for unit in settings if is_aligned(task, unit, aligned)],
        "all": list(settings),
    }


def _means(
    task: Family, metric: str, by_unit: Mapping[str, Counts], score: Score, aligned: set[str]
) -> list[Mean]:
    rows = []
    for split, wanted in members(task, metric, aligned).items():
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


def count_retrieval(
    codes: Sequence[str], tables: Iterable[tuple[int, Table]]
) -> tuple[dict[int, Counts], ByUnit]:
    """Counts by layer over all pairs, and by language over its pairs at even layers.

    An item is a sentence number: its counts are the right answers and the questions it took part
    in, so the bootstrap resamples sentences in all pairs at once.
    """
    layers: dict[int, Counts] = {}
    right: dict[str, np.ndarray] = {}
    asked: dict[str, int] = {}
    for layer, table in tables:
        n = len(next(iter(table.values())))
        total = np.zeros(n)
        for (source, target), found in table.items():
            hits = np.asarray(found) == np.arange(n)
            total += hits
            if layer % 2 == 0:
                for code in (source, target):
                    right[code] = right.get(code, np.zeros(n)) + hits
                    asked[code] = asked.get(code, 0) + 1
        layers[layer] = np.stack([total, np.full(n, len(table))], axis=1)
    by_unit = {
        code: np.stack([right[code], np.full(len(right[code]), asked[code])], axis=1)
        for code in codes
        if code in right
    }
    return layers, by_unit
