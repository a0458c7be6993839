"""Compares two systems on the same items: gains by unit and split, by paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlt_bench.errors import InputError
from xlt_bench.evaluation.comet.stored import read_comet
from xlt_bench.evaluation.score import (
    ByUnit,
    count_run,
    question,
)
from xlt_bench.languages import language
from xlt_bench.metrics.paired import ALPHA, Gain, Replicates, gain, holm, mean_gain, replicates
from xlt_bench.results.record import Plan, Record
from xlt_bench.results.tables import DATA_FORMATS, Cell, Column, Table
from xlt_bench.submissions.counts import Tasks, read_counts
from xlt_bench.submissions.safe_read import read_model
from xlt_bench.submissions.schema import COUNTS, RECORD, SUBMISSION, base_model
from xlt_bench.submissions.validate import open_package
from xlt_bench.tasks.base import Task
from xlt_bench.tasks.registry import RETRIEVAL, get_task, tasks
from xlt_bench.tasks.wmt23 import COMET


@dataclass(frozen=True)
class UnitGain:
    """The gain in one unit; `p_holm` is Holm-corrected over the compared units.

    `spread` is the standard deviation over seeds, between methods with several systems each.
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
    """The gain in the mean over `units`, which both systems have; `spread` as in `UnitGain`."""

    split: str
    value: float
    baseline: float
    gain: Gain
    units: tuple[str, ...]
    spread: float | None = None


def compare_units(
    task: Task,
    version: int,
    system: Mapping[str, Replicates],
    baseline: Mapping[str, Replicates],
    alignment_languages: Sequence[str],
) -> list[UnitGain]:
    """Compute the gain in each unit that both systems have with the same number of items.

    Holm's correction is over the ranked units of the version, and separately over the units beyond
    them: evaluating more languages changes no p of the ranked ones.

    Args:
        task: The task.
        version: The version that both systems were evaluated on.
        system: The replicates of the system by unit.
        baseline: Those of the baseline, from the same draws.
        alignment_languages: The languages that the system was aligned on.
    """
    aligned = {language(code).code for code in alignment_languages}
    both = _shared(task, system, baseline)
    gains = {unit: gain(system[unit], baseline[unit]) for unit in both}
    corrected = correct(task, version, {unit: one.p for unit, one in gains.items()})
    return [
        UnitGain(
            unit=unit,
            aligned=task.language_of(unit) in aligned,
            value=system[unit].value,
            baseline=baseline[unit].value,
            gain=found,
            p_holm=corrected[unit],
            n=system[unit].n,
        )
        for unit, found in gains.items()
    ]


def correct(task: Task, version: int, p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values by Holm's method over the ranked units, and separately over those beyond."""
    ranked = task.test_set(version).units
    inside = _corrected({unit: p for unit, p in p_values.items() if unit in ranked})
    return inside | _corrected({unit: p for unit, p in p_values.items() if unit not in ranked})


def _corrected(p_values: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def compare_means(
    task: Task,
    version: int,
    system: Mapping[str, Replicates],
    baseline: Mapping[str, Replicates],
    alignment_languages: Sequence[str],
) -> list[MeanGain]:
    """Compute the gain in the mean of each split over the units that both systems have.

    Args:
        task: The task.
        version: The version of the task, which defines the splits.
        system: The replicates of the system by unit.
        baseline: Those of the baseline, from the same draws.
        alignment_languages: The languages that the system was aligned on.

    Returns:
        One gain per split; splits without a shared unit are left out.
    """
    aligned = {language(code).code for code in alignment_languages}
    both = _shared(task, system, baseline)
    found = []
    for split, names in task.members(version, task.primary, aligned).items():
        shared = tuple(unit for unit in names if unit in both)
        if shared:
            ours = {unit: system[unit] for unit in shared}
            theirs = {unit: baseline[unit] for unit in shared}
            found.append(
                MeanGain(
                    split=split,
                    value=sum(one.value for one in ours.values()) / len(shared),
                    baseline=sum(one.value for one in theirs.values()) / len(shared),
                    gain=mean_gain(ours, theirs),
                    units=shared,
                )
            )
    return found


def _shared(
    task: Task, system: Mapping[str, Replicates], baseline: Mapping[str, Replicates]
) -> list[str]:
    return task.order(u for u, one in system.items() if u in baseline and one.n == baseline[u].n)


@dataclass(frozen=True)
class System:
    """A run or submission to compare; `comet` is the sha256 of its COMET checkpoint."""

    name: str
    plan: Plan
    alignment_languages: Sequence[str]
    data_digests: Mapping[str, str]
    tasks: Tasks
    comet: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The gains in one metric of a task: its primary metric, or COMET."""

    task: str
    version: int
    metric: str
    units: list[UnitGain]
    means: list[MeanGain]


def load_system(name: str, submissions: Path, root: Path) -> System:
    """Load a run or submission.

    Args:
        name: A run folder, a submission folder or a submission id.
        submissions: The folder of submissions.
        root: The data folder, to score the answers of a run. Submissions have counts.

    Raises:
        InputError: It does not exist, or it is not valid.
    """
    folder = Path(name) if Path(name).is_dir() else submissions / name
    comet = None
    if (folder / SUBMISSION).exists():
        package = open_package(folder.resolve())
        label, record = package.submission.name, package.record
        counted = read_counts(folder / COUNTS, record.plan)
    elif (folder / RECORD).exists():
        record = read_model(folder / RECORD, Record)
        label, counted = str(folder), count_run(record.plan, folder, root).tasks
        scored = read_comet(record.plan, folder).values()
        comet = next((segments.sha256 for segments in scored), None)
    else:
        raise InputError(f"{name} is neither a finished run nor a submission in {submissions}")
    aligned, digests = record.alignment_languages, record.data_digests
    return System(label, record.plan, aligned, digests, counted, comet)


def compare_systems(system: System, baseline: System) -> tuple[list[Comparison], list[str]]:
    """Compare two systems on every task that both have.

    Returns:
        The comparisons, and notes on what was left out or may mislead.

    Raises:
        InputError: Nothing can be compared.
    """
    notes = []
    if base_model(system.plan) != base_model(baseline.plan):
        notes.append("the base models differ, so a gain is not the effect of an adapter")
    else:
        notes += _conditions(system.plan, baseline.plan)
    found = []
    for task in tasks():
        if task not in system.tasks or task not in baseline.tasks:
            continue
        if why := _not_comparable(task, system, baseline):
            notes.append(f"{task} is left out: {why}")
            continue
        chosen = [get_task(task).primary]
        stored = list(get_task(task).stored_metrics)
        if stored and (why := _no_comet(system, baseline)):
            notes.append(f"{task} {COMET} is left out: {why}")
        elif system.comet:
            chosen += stored
        for metric in chosen:
            if alone := _alone(task, metric, system, baseline):
                label, names = f"{task} {metric}" if metric == COMET else task, " ".join(alone)
                notes.append(f"{label}: only one of the two has {names}; left out of the means")
            if one := compare_metric(task, metric, system, baseline):
                found.append(one)
    if not found:
        raise InputError("; ".join(["the two have no comparable unit", *notes]))
    return found, notes


def _conditions(ours: Plan, theirs: Plan) -> list[str]:
    """Describe differences other than the adapter that may change answers slightly."""
    kinds = {
        "dtype": "dtype",
        "chat template": "template_sha256",
        "variables of the chat template": "template_args",
        "backend": "backend",
    }
    return [
        f"the two also differ in {kind}: {_short(getattr(ours, key))} and "
        f"{_short(getattr(theirs, key))}"
        for kind, key in kinds.items()
        if getattr(ours, key) != getattr(theirs, key)
    ]


def _short(value: str | Mapping[str, object]) -> str:
    if isinstance(value, str):
        return value[:12]
    return " ".join(f"{name}={one}" for name, one in value.items()) or "none"


def _alone(task: str, metric: str, system: System, baseline: System) -> list[str]:
    ours, theirs = (one.tasks[task].get(metric, {}) for one in (system, baseline))
    return get_task(task).order(set(ours) ^ set(theirs))


def compare_metric(task: str, metric: str, system: System, baseline: System) -> Comparison | None:
    """Compare two systems, evaluated on the same items of a task, in one of its metrics.

    Returns:
        The gains; None if no unit has the metric on both sides.
    """
    ours, theirs = (_drawn(one.tasks[task][metric], task, metric) for one in (system, baseline))
    version = system.plan.task_versions[task]
    gains = compare_units(get_task(task), version, ours, theirs, system.alignment_languages)
    means = compare_means(get_task(task), version, ours, theirs, system.alignment_languages)
    return Comparison(task, version, metric, gains, means) if gains else None


def _no_comet(system: System, baseline: System) -> str:
    """Why COMET cannot be compared; empty if it can, or if neither system has it."""
    if system.comet == baseline.comet:
        return ""
    if system.comet and baseline.comet:
        return f"the checkpoints differ ({system.comet[:12]} and {baseline.comet[:12]})"
    return f"only {(system if system.comet else baseline).name} has it"


def _not_comparable(task: str, system: System, baseline: System) -> str:
    versions = [one.plan.task_versions[task] for one in (system, baseline)]
    if versions[0] != versions[1]:
        return f"the versions differ ({versions[0]} and {versions[1]})"
    if system.plan.limit != baseline.plan.limit:
        return f"the limits differ ({system.plan.limit} and {baseline.plan.limit})"
    for unit in sorted(set(system.plan.units[task]) & set(baseline.plan.units[task])):
        a, b = (question(one.plan, one.data_digests, task, unit) for one in (system, baseline))
        if a != b:
            more = ", languages or even layers" if task == RETRIEVAL else ""
            return f"the items{more} of {task}/{unit} differ"
    return ""


def _drawn(by_unit: ByUnit, task: str, metric: str) -> dict[str, Replicates]:
    found = replicates(list(by_unit.values()), get_task(task).metric(metric).score)
    return dict(zip(by_unit, found, strict=True))


def tables(found: Sequence[Comparison], notes: Sequence[str], form: str) -> list[Table]:
    """Lay comparisons out as tables.

    Args:
        found: The comparisons.
        notes: Shown below the last table.
        form: The output format. CSV and JSON get full numbers; the others rounded cells.
    """
    result = []
    for one in found:
        test_set = get_task(one.task).test_set(one.version)
        rows: list[list[Cell]] = []
        for row in one.units:
            beyond = "" if row.unit in test_set.units else "beyond"
            setting = test_set.setting(row.unit) or beyond
            group = " ".join(filter(None, [setting, "aligned" if row.aligned else ""]))
            mark = row.p_holm < ALPHA
            rows.append(_cells(row, row.unit, group, row.n, row.p_holm, mark, form))
        rows.append([])
        for mean in one.means:
            group = f"mean of {len(mean.units)}"
            mark = mean.gain.p < ALPHA
            rows.append(_cells(mean, mean.split, group, None, None, mark, form))
        columns = _NUMBERS if form in DATA_FORMATS else _READABLE
        below = [] if form in DATA_FORMATS else [_LEGEND, *(notes if one is found[-1] else [])]
        result.append(Table(f"{one.task} {one.metric}", columns, rows, below))
    return result


_NUMBERS: Sequence[str | Column] = (
    "unit group items system baseline gain low high p p_holm significant".split()
)
_READABLE: Sequence[str | Column] = [
    "unit",
    Column("group", wrap=True),
    Column("items", drop=2),
    *("system", "baseline", "gain", "95 %", "p", "p (Holm)", ""),
]
_LEGEND = (
    "* p < 0.05 by paired bootstrap; for units after Holm's correction over the ranked units of "
    "the table, and separately over those beyond the ranked set"
)


def _cells(
    row: UnitGain | MeanGain,
    name: str,
    group: str,
    n: int | None,
    p_holm: float | None,
    mark: bool,
    form: str,
) -> list[Cell]:
    found = row.gain
    if form in DATA_FORMATS:
        numbers = [row.value, row.baseline, found.value, found.low, found.high]
        rounded = (round(x, 6) for x in numbers)
        return [name, group, n, *rounded, round(found.p, 4), p_holm and round(p_holm, 4), mark]
    values = [f"{row.value:.1f}", f"{row.baseline:.1f}", f"{found.value:+.1f}"]
    interval = f"{found.low:+.1f} to {found.high:+.1f}"
    holm = "" if p_holm is None else f"{p_holm:.4f}"
    return [name, group, n, *values, interval, f"{found.p:.4f}", holm, "*" if mark else ""]
