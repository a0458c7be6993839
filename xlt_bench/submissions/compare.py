"""Compares two systems, or two methods with several seeds each, on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xlt_bench.errors import InputError
from xlt_bench.evaluation.comet.stored import read_comet
from xlt_bench.evaluation.score import (
    ByUnit,
    count_run,
    question,
)
from xlt_bench.metrics.paired import Replicates, replicates
from xlt_bench.metrics.transfer import Share
from xlt_bench.results.record import Plan, Record, same_prompt
from xlt_bench.submissions.counts import Tasks, read_counts
from xlt_bench.submissions.gains import (
    MeanGain,
    UnitGain,
    compare,
    covers_seeds,
)
from xlt_bench.submissions.safe_read import read_model
from xlt_bench.submissions.schema import COUNTS, RECORD, SUBMISSION, base_model
from xlt_bench.submissions.seeds import check_seeds, pair_seeds
from xlt_bench.submissions.trainings import Trained, trained
from xlt_bench.submissions.transfer import Measure, gaps_closed, marks, measures
from xlt_bench.submissions.validate import open_package
from xlt_bench.tasks.registry import get_task, retrieval_in, tasks
from xlt_bench.tasks.wmt23 import COMET


@dataclass(frozen=True)
class ComparedSystem:
    """A run or submission to compare; `comet` is the sha256 of its COMET checkpoint."""

    name: str
    plan: Plan
    alignment_languages: Sequence[str]
    data_digests: Mapping[str, str]
    tasks: Tasks
    trained: Trained
    comet: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The gains in one metric of a task: its primary metric, or COMET.

    With `covers_seeds`, intervals and p values are of seeds and items, and say whether two methods
    differ. Without, they are of items alone, and say whether two systems differ.

    `measures` are those of `submissions.transfer`, of the primary metric; empty if seeds are not
    paired. `gaps` are the shares of the gap to an oracle, by unit and split; empty without one.
    """

    task: str
    version: int
    metric: str
    units: list[UnitGain]
    means: list[MeanGain]
    covers_seeds: bool = False
    measures: Mapping[str, Measure] = field(default_factory=dict)
    gaps: Mapping[str, Share] = field(default_factory=dict)


def load_system(name: str, submissions: Path, root: Path) -> ComparedSystem:
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
    return ComparedSystem(label, record.plan, aligned, digests, counted, trained(record), comet)


def compare_systems(
    system: ComparedSystem, baseline: ComparedSystem
) -> tuple[list[Comparison], list[str]]:
    """Compare two systems on every task that both have; see `compare_methods`."""
    return compare_methods([system], [baseline])


def compare_methods(
    systems: Sequence[ComparedSystem],
    baselines: Sequence[ComparedSystem],
    oracles: Sequence[ComparedSystem] = (),
) -> tuple[list[Comparison], list[str]]:
    """Compare two methods on every task that all their systems have.

    Args:
        systems: The systems of the method, which differ in their seed.
        baselines: Those of the other method.
        oracles: Those of a method that was trained in all languages, to compute the share of the
            gap between baseline and oracle that the method closes.

    Returns:
        The comparisons, and notes on what was left out or may mislead.

    Raises:
        InputError: Nothing can be compared, or the systems of a method differ in more than their
            seed.
    """
    notes = [*check_seeds(systems), *check_seeds(baselines)]
    notes += check_seeds(oracles) if oracles else []
    system, baseline = systems[0], baselines[0]
    if base_model(system.plan) != base_model(baseline.plan):
        notes.append("the base models differ, so a gain is not the effect of an adapter")
    else:
        notes += _conditions(system.plan, baseline.plan)
    systems, baselines, paired = pair_seeds(systems, baselines)
    several = len(systems) > 1 or len(baselines) > 1
    if several and covers_seeds(systems, baselines) and not paired:
        notes.append("the seeds are not the same in both methods, so the systems are not paired")
    elif several and not covers_seeds(systems, baselines):
        one = systems[0] if len(systems) == 1 else baselines[0]
        notes.append(f"{one.name} is one training: intervals cover test items alone")
    found = []
    for task in tasks():
        if any(task not in one.tasks for one in (*systems, *baselines)):
            continue
        pairs = [*((system, one) for one in baselines), *((one, baseline) for one in systems[1:])]
        best, note = _comparable_oracles(task, system, oracles)
        notes += note
        if why := next((why for pair in pairs if (why := _not_comparable(task, *pair))), ""):
            notes.append(f"{task} is left out: {why}")
            continue
        chosen = [get_task(task).primary]
        stored = list(get_task(task).stored_metrics)
        if stored and (why := next((w for pair in pairs if (w := _no_comet(*pair))), "")):
            notes.append(f"{task} {COMET} is left out: {why}")
        elif system.comet:
            chosen += stored
        for metric in chosen:
            if alone := _alone(task, metric, [*systems, *baselines]):
                label, names = f"{task} {metric}" if metric == COMET else task, " ".join(alone)
                who = "some of them have" if several else "one of the two has"
                notes.append(f"{label}: only {who} {names}; left out of the means")
            compared = compare_metric(task, metric, systems, baselines, best, paired=paired)
            if compared:
                found.append(compared)
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


def _alone(task: str, metric: str, systems: Sequence[ComparedSystem]) -> list[str]:
    """The units that only some systems have."""
    there: list[set[str]] = [set(one.tasks[task].get(metric, {})) for one in systems]
    return get_task(task).order(set[str]().union(*there) - there[0].intersection(*there))


def compare_metric(
    task: str,
    metric: str,
    systems: Sequence[ComparedSystem],
    baselines: Sequence[ComparedSystem],
    oracles: Sequence[ComparedSystem] = (),
    *,
    paired: bool = True,
) -> Comparison | None:
    """Compare two methods, evaluated on the same items of a task, in one of its metrics.

    Args:
        task: The task.
        metric: The metric.
        systems: The systems of the method.
        baselines: Those of the other method.
        oracles: Those of an oracle; may be none.
        paired: As in `gains.compare`.

    Returns:
        The gains; None if no unit has the metric in all systems.
    """
    ours, theirs, best = (
        [_drawn(one.tasks[task].get(metric, {}), task, metric) for one in method]
        for method in (systems, baselines, oracles)
    )
    one, version, aligned = (
        get_task(task),
        systems[0].plan.task_versions[task],
        systems[0].alignment_languages,
    )
    gains = compare(one, version, ours, theirs, aligned, paired=paired)
    if not gains.units:
        return None
    found: Mapping[str, Measure] = {}
    if metric == one.primary and paired and len(ours) == len(theirs):
        marked = (
            [marks(one, system.tasks[task]) for system in systems],
            [marks(one, system.tasks[task]) for system in baselines],
        )
        found = measures(one, version, ours, theirs, marked, aligned)
    return Comparison(
        task,
        version,
        metric,
        gains.units,
        gains.means,
        covers_seeds(ours, theirs),
        found,
        gaps_closed(one, version, ours, theirs, best, aligned) if best else {},
    )


def _comparable_oracles(
    task: str, system: ComparedSystem, oracles: Sequence[ComparedSystem]
) -> tuple[Sequence[ComparedSystem], list[str]]:
    """The oracles if all can be compared with a system in a task, else a note."""
    for one in oracles:
        missing = "it was not evaluated" if task not in one.tasks else ""
        if why := missing or _not_comparable(task, system, one):
            return [], [f"{task}: no gap to {one.name}: {why}"]
    return oracles, []


def _no_comet(system: ComparedSystem, baseline: ComparedSystem) -> str:
    """Why COMET cannot be compared; empty if it can, or if neither system has it."""
    if system.comet == baseline.comet:
        return ""
    if system.comet and baseline.comet:
        return f"the checkpoints differ ({system.comet[:12]} and {baseline.comet[:12]})"
    return f"only {(system if system.comet else baseline).name} has it"


def _not_comparable(task: str, system: ComparedSystem, baseline: ComparedSystem) -> str:
    versions = [one.plan.task_versions[task] for one in (system, baseline)]
    if versions[0] != versions[1]:
        return f"the versions differ ({versions[0]} and {versions[1]})"
    if system.plan.limit != baseline.plan.limit:
        return f"the limits differ ({system.plan.limit} and {baseline.plan.limit})"
    prompts = [one.plan.prompts.get(task) for one in (system, baseline)]
    if not same_prompt(*prompts):
        names = [one.name if one else "the benchmark's" for one in prompts]
        return f"the prompts differ ({names[0]} and {names[1]})"
    for unit in sorted(set(system.plan.units[task]) & set(baseline.plan.units[task])):
        a, b = (question(one.plan, one.data_digests, task, unit) for one in (system, baseline))
        if a != b:
            more = ", languages or even layers" if retrieval_in([task]) else ""
            return f"the items{more} of {task}/{unit} differ"
    return ""


def _drawn(by_unit: ByUnit, task: str, metric: str) -> dict[str, Replicates]:
    found = replicates(list(by_unit.values()), get_task(task).metric(metric).score)
    return dict(zip(by_unit, found, strict=True))
