"""Computes all scores of a run from its stored predictions and the references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError
from xlt_bench.evaluation.comet.stored import read_comet
from xlt_bench.languages import language
from xlt_bench.metrics.accuracy import accuracy_interval, never_certain
from xlt_bench.metrics.significance import (
    Counts,
    Interval,
    Score,
    mean_interval,
    percent,
    resample_together,
    total,
)
from xlt_bench.results.record import (
    AccuracyIntervals,
    LayerAccuracy,
    Mean,
    Plan,
    Record,
    Scores,
    ShotPrompt,
)
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
from xlt_bench.tasks import wmt23
from xlt_bench.tasks.base import CUT_OFF, Item, Task, flags
from xlt_bench.tasks.registry import get_task, get_text_task, retrieval_in, retrieval_units
from xlt_bench.tasks.wmt23 import COMET

ByUnit = dict[str, Counts]
"""The counts of one metric, by unit."""


@dataclass(frozen=True)
class Counted:
    """The counts that scores are computed from, by task, metric and unit, and by layer."""

    tasks: dict[str, dict[str, ByUnit]]
    layers: dict[int, Counts]


def score_run(
    run: Path,
    root: Path,
    alignment_languages: Sequence[str] = (),
    accuracies: AccuracyIntervals = "jeffreys",
) -> Scores:
    """Score what a run has on disk: scores with intervals, split means, and retrieval by layer.

    `accuracies` says how to compute intervals of accuracies; the record of an older release states
    the bootstrap.

    Raises:
        InputError: Predictions are damaged, or do not match the items of the test sets.
    """
    plan = read_plan(run)
    counted = count_run(plan, run, root)
    return scores_of(plan, counted, alignment_languages, accuracies=accuracies)


def rescore_run(run: Path, root: Path, record: Record | None) -> Scores:
    """Score a run again as its record says: its alignment languages, its kind of intervals.

    Args:
        run: The run folder.
        root: The data folder.
        record: The record; None if the run has none yet.

    Raises:
        InputError: Predictions are damaged, or do not match the items of the test sets.
    """
    if record is None:
        return score_run(run, root)
    return score_run(run, root, record.alignment_languages, record.results.accuracy_intervals)


def scores_of(
    plan: Plan,
    counted: Counted,
    alignment_languages: Sequence[str] = (),
    *,
    intervals: bool = True,
    accuracies: AccuracyIntervals = "jeffreys",
) -> Scores:
    """Compute scores from counts, with the task versions of the plan.

    Args:
        plan: What was evaluated.
        counted: Counts of each task, metric and unit, and of each layer.
        alignment_languages: The languages whose units form the split `aligned`.
        intervals: Whether to compute intervals; otherwise both ends are the score.
        accuracies: The intervals of accuracies, as a record states them. Scores that are not
            accuracies are bootstrapped, and so are means over several units, unless all of these
            are wholly wrong or right.
    """
    draw = _bootstrap(counted) if intervals else _points(counted)
    of_accuracies = draw
    if intervals and accuracies == "jeffreys":
        of_accuracies = partial(_jeffreys, bootstrap=draw)
    aligned = {language(code).code for code in alignment_languages}
    scores: list[ScoreRow] = []
    means: list[Mean] = []
    for task, by_metric in counted.tasks.items():
        version = plan.task_versions[task]
        for metric, by_unit in by_metric.items():
            chosen = of_accuracies if get_task(task).is_accuracy(metric) else draw
            scores += _rows(get_task(task), version, metric, by_unit, aligned, chosen)
            means += _means(get_task(task), version, metric, by_unit, aligned, chosen)
    layers = [
        LayerAccuracy(layer=layer, **_fields(of_accuracies({"": counts}, percent)))
        for layer, counts in counted.layers.items()
    ]
    return Scores(accuracy_intervals=accuracies, scores=scores, means=means, layers=layers)


def question(plan: Plan, digests: Mapping[str, str], task: str, unit: str) -> str:
    """A digest of what a score was computed on: only scores with equal digests are compared.

    It covers the items, a prompt that is not the benchmark's and, for retrieval, also the languages
    and even layers of the mean.
    """
    digest = digests.get(f"{task}/{unit}", "")
    if own := plan.prompts.get(task):
        examples = [own.examples[unit]] if isinstance(own, ShotPrompt) else []
        return content_digest([digest, own.sha256, *examples])
    if get_task(task).answers == "text":
        return digest
    even = [layer for layer in plan.layers if layer % 2 == 0]
    return content_digest([digest, sorted(partners(plan)), even])


def partners(plan: Plan) -> list[str]:
    """The languages whose pairs count in retrieval accuracies; none without retrieval."""
    task = retrieval_in(plan.units)
    return task.partners(plan.task_versions[task.name], plan.units[task.name]) if task else []


def count_run(plan: Plan, run: Path, root: Path) -> Counted:
    """Count the predictions and retrieval answers that a run has on disk."""
    digests = read_digests(run)
    comet = read_comet(plan, run)

    def count(task: str, unit: str, path: Path) -> dict[str, Counts]:
        answers, digest = read_predictions(path), digests.get(f"{task}/{unit}")
        counts = count_answers(root, plan, task, unit, answers, digest)
        scored = {COMET: comet[unit].counts} if task == wmt23.TASK.name and unit in comet else {}
        return counts | scored

    there = [(task, unit, predictions_path(run, task, unit)) for task, unit in text_units(plan)]
    answered = (
        (task, unit, count(task, unit, path)) for task, unit, path in there if path.exists()
    )
    paths = {layer: layer_path(run, layer) for layer in plan.layers}
    tables = ((layer, read_layer(path)) for layer, path in paths.items() if path.exists())
    return gather(plan, answered, tables)


def text_units(plan: Plan) -> list[tuple[str, str]]:
    """The planned (task, unit) pairs that are answered with text, in order."""
    return [
        (task, unit)
        for task, names in plan.units.items()
        if get_task(task).answers == "text"
        for unit in names
    ]


def gather(
    plan: Plan,
    answered: Iterable[tuple[str, str, Mapping[str, Counts]]],
    tables: Iterable[tuple[int, Table]],
) -> Counted:
    """Collect the counts of text units and of retrieval.

    Args:
        plan: What was evaluated.
        answered: (task, unit, counts by metric) of each text unit.
        tables: (layer, answers of every ordered pair) of each layer of retrieval.
    """
    tasks: dict[str, dict[str, ByUnit]] = {}
    for task, unit, by_metric in answered:
        for metric, counts in by_metric.items():
            tasks.setdefault(task, {}).setdefault(metric, {})[unit] = counts
    layers, by_unit = count_retrieval(retrieval_units(plan.units), partners(plan), tables)
    pairing = retrieval_in(plan.units)
    if pairing and by_unit:
        tasks[pairing.name] = {pairing.primary: by_unit}
    return Counted(tasks, layers)


def count_answers(
    root: Path,
    plan: Plan,
    task: str,
    unit: str,
    answers: Sequence[Prediction],
    digest: str | None = None,
) -> dict[str, Counts]:
    """Counts (n, width) by metric of the n answers to a unit.

    `digest` is the digest of the items that were asked, or None if it is unknown.

    Raises:
        InputError: The answers are to other items, or to a version of the task that this code
            cannot score.
    """
    items = items_answered(root, plan, task, unit, answers, digest)
    return count_items(plan, task, items, answers)


def count_items(
    plan: Plan, task: str, items: Sequence[Item], answers: Sequence[Prediction]
) -> dict[str, Counts]:
    """Counts (n, width) by metric of the answers to n items of a unit, in their order."""
    test_set = get_task(task).test_set(plan.task_versions[task])
    hypotheses = [answer.hypothesis for answer in answers]
    counts = get_text_task(task).count(items, hypotheses, test_set)
    if not any(answer.cut_off is None for answer in answers):
        counts[CUT_OFF] = flags([bool(answer.cut_off) for answer in answers])
    return counts


def items_answered(
    root: Path,
    plan: Plan,
    task: str,
    unit: str,
    answers: Sequence[Prediction],
    digest: str | None = None,
) -> list[Item]:
    """The items of a unit's answers, in order; `digest` and errors as for `count_answers`."""
    version, oldest = plan.task_versions[task], get_task(task).rescored_from
    if version < oldest:
        raise InputError(
            f"the answers are to version {version} of {task}; this release scores versions from "
            f"{oldest} on; install the xlt-bench release that made them"
        )
    items = get_text_task(task).load(root, unit)[: plan.limit]
    if digest not in (None, content_digest(items)):
        raise InputError(
            f"the answers to {task} {unit} are to other items than those in {root}; give the "
            "--data-dir of that evaluation"
        )
    fault = _other_items([item.id for item in items], [answer.id for answer in answers])
    if fault:
        raise InputError(f"the predictions of {task} {unit} do not match its test set: {fault}")
    return items


def _other_items(wanted: Sequence[str], got: Sequence[str]) -> str:
    """The first difference between two lists of item ids; empty if they are equal."""
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
        return f"item {odd} does not belong ({len(wanted)} items expected, {len(got)} found)"
    a, b = next((a, b) for a, b in zip(wanted, got, strict=True) if a != b)
    return f"item {a} expected, {b} found"


Draw = Callable[[Mapping[str, Counts], Score], Interval]
"""The mean of a score over units, with an interval."""


def _bootstrap(counted: Counted) -> Draw:
    """Intervals, for which each counts are resampled once: a unit is in several means."""
    by_unit = [u for by_metric in counted.tasks.values() for u in by_metric.values()]
    each = [*(counts for units in by_unit for counts in units.values()), *counted.layers.values()]
    return partial(mean_interval, resample=resample_together(each))


def _jeffreys(counts: Mapping[str, Counts], score: Score, bootstrap: Draw) -> Interval:
    if len(counts) == 1:
        return accuracy_interval(next(iter(counts.values())))
    return never_certain(bootstrap(counts, score), counts.values())


def _points(counted: Counted) -> Draw:
    """Scores without intervals, computed for all units of a metric at once."""
    values: dict[int, float] = {}
    groups = [
        (get_task(task).metric(metric).score, list(by_unit.values()))
        for task, by_metric in counted.tasks.items()
        for metric, by_unit in by_metric.items()
    ]
    for score, each in [*groups, (percent, list(counted.layers.values()))]:
        if each:
            found = score(np.stack([total(counts) for counts in each])).tolist()
            values |= zip(map(id, each), found, strict=True)

    def point(counts: Mapping[str, Counts], _: Score) -> Interval:
        value = float(np.mean([values[id(one)] for one in counts.values()]))
        return Interval(value, value, value)

    return point


def _rows(
    task: Task,
    version: int,
    metric: str,
    by_unit: Mapping[str, Counts],
    aligned: set[str],
    draw: Draw,
) -> list[ScoreRow]:
    test_set, score = task.test_set(version), task.metric(metric).score
    return [
        ScoreRow(
            task=task.name,
            unit=unit,
            setting=test_set.setting(unit),
            aligned=task.language_of(unit) in aligned,
            metric=metric,
            n=len(counts),
            **_fields(draw({"": counts}, score)),
        )
        for unit, counts in by_unit.items()
    ]


def _means(
    task: Task,
    version: int,
    metric: str,
    by_unit: Mapping[str, Counts],
    aligned: set[str],
    draw: Draw,
) -> list[Mean]:
    rows = []
    for split, wanted in task.members(version, metric, aligned).items():
        there = {unit: by_unit[unit] for unit in wanted if unit in by_unit}
        if there:
            rows.append(
                Mean(
                    task=task.name,
                    split=split,
                    metric=metric,
                    units=list(there),
                    missing=[unit for unit in wanted if unit not in there],
                    **_fields(draw(there, task.metric(metric).score)),
                )
            )
    return rows


def _fields(result: Interval) -> dict[str, float]:
    return {"value": result.value, "low": result.low, "high": result.high}


def count_retrieval(
    codes: Sequence[str], partners: Sequence[str], tables: Iterable[tuple[int, Table]]
) -> tuple[dict[int, Counts], ByUnit]:
    """Counts by layer over the pairs of partners, and by language over its pairs with partners.

    A layer has the counts of all pairs of partners; a language has those of its pairs with partners
    at even layers. An item is a sentence number, and its counts are the right answers and the
    questions that it takes part in, so the bootstrap resamples sentences in all pairs at once.

    Args:
        codes: The languages of the run.
        partners: The result of `Retrieval.partners`: usually all of `codes`.
        tables: The answers of every ordered pair, by layer.

    Returns:
        Counts (sentences, 2) by layer, and by language.
    """
    inside = set(partners)
    layers: dict[int, Counts] = {}
    right: dict[str, np.ndarray] = {}
    asked: dict[str, int] = {}
    for layer, table in tables:
        n = len(next(iter(table.values())))
        total, pairs = np.zeros(n), 0
        for (source, target), found in table.items():
            hits = np.asarray(found) == np.arange(n)
            if source in inside and target in inside:
                total += hits
                pairs += 1
            for code, other in ((source, target), (target, source)):
                if layer % 2 == 0 and other in inside:
                    right[code] = right.get(code, np.zeros(n)) + hits
                    asked[code] = asked.get(code, 0) + 1
        layers[layer] = np.stack([total, np.full(n, pairs)], axis=1)
    by_unit = {
        code: np.stack([right[code], np.full(len(right[code]), asked[code])], axis=1)
        for code in codes
        if code in right
    }
    return layers, by_unit
