"""Chooses what the gains of a submission are counted from, task by task.

The default baseline of an adapter that was trained on the task and more is the SFT system: the same
training of the task alone, with the same base model, data, seed, number format, template and limit.
Without one, and for every other adapter, it is the bare model. Both must have answered the same
version of the task on the same items, and superseded and aligned systems are never chosen. Of
several, a verified one with at least half of the units is taken first, then the one with the most
units in common, then the oldest: a new submission of a few units moves no baseline. An SFT system
with less than half of the units is passed over. A verified submission is counted from a
self-reported one only if no verified one has half of its units, so that a forged SFT or bare model
changes no gain that can rest on verified answers.

A baseline that the submitter declares is a second one, and is marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from xlt_bench.results.record import Plan
from xlt_bench.store.rows import Entry
from xlt_bench.submissions.trainings import differences_from_sft, sft_key
from xlt_bench.tasks.registry import RETRIEVAL, retrieval_in

Kind = Literal["sft", "bare", "declared"]


@dataclass(frozen=True)
class Baseline:
    """A baseline of a submission in one task.

    Attributes:
        number: The submission.
        task: The task.
        baseline: The submission that its gains are counted from.
        kind: The rule that chose it.
        is_default: Whether it is the one that is shown first; no more than one in each task is.
        is_declared: Whether the submitter named it.
        differs: What differs beside the adapter or its other objectives, such as `dtype`.
        units: The units that both answered on the same items.
    """

    number: int
    task: str
    baseline: int
    kind: Kind
    is_default: bool
    is_declared: bool
    differs: list[str]
    units: list[str]


def baselines(entries: Sequence[Entry]) -> list[Baseline]:
    """Choose the baselines of all submissions.

    Args:
        entries: All submissions, with `superseded_by` filled in.

    Returns:
        The default baseline of each submission in each task, if there is one, and the declared one.
    """
    by_id = {entry.row["id"]: entry for entry in entries}
    bare: dict[str, list[Entry]] = {}
    sft: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        base, key = entry.row["base_model"], sft_key(entry.trained)
        if entry.trained.kind == "bare":
            bare.setdefault(base, []).append(entry)
        elif entry.trained.kind == "sft" and key:
            sft.setdefault((base, key), []).append(entry)
    found: list[Baseline] = []
    for entry in entries:
        base, key = entry.row["base_model"], sft_key(entry.trained)
        extended = sft.get((base, key), []) if key and entry.trained.kind != "sft" else []
        candidates = [] if entry.trained.kind == "bare" else [*extended, *bare.get(base, [])]
        declared = by_id.get(entry.row["declared_baseline"])
        for task in entry.plan.task_versions:
            found += _of_task(entry, task, candidates, declared)
    return found


def bare_retrieval(entry: Entry, bare: Sequence[Entry]) -> int | None:
    """The bare model whose retrieval is held against the scores of a submission, None without one.

    Its retrieval is in the same corpus or, if the submission has no retrieval, in FLORES dev. Of
    several, it is the one with the most languages, then the oldest.

    Args:
        entry: The submission.
        bare: The submissions of its base model without an adapter.
    """
    own = retrieval_in(entry.plan.units)
    task = own.name if own else RETRIEVAL
    there = [
        other
        for other in bare
        if entry.plan.adapter is not None
        and task in other.plan.units
        and not _superseded(other, task)
        and not _conditions(entry.plan, other.plan)
    ]
    if not there:
        return None
    return min(there, key=lambda other: (-len(other.plan.units[task]), other.age)).number


def _of_task(
    entry: Entry, task: str, candidates: Sequence[Entry], declared: Entry | None
) -> Iterator[Baseline]:
    found = _default(entry, task, candidates)
    if found:
        is_declared = declared is not None and found.baseline == declared.number
        yield replace(found, is_declared=is_declared)
    if declared is None or (found and found.baseline == declared.number):
        return
    units = _shared(entry, declared, task)
    same_base = declared.row["base_model"] == entry.row["base_model"]
    if same_base and units and declared is not entry and not _superseded(declared, task):
        differs = _conditions(entry.plan, declared.plan)
        yield Baseline(entry.number, task, declared.number, "declared", False, True, differs, units)


def _default(entry: Entry, task: str, candidates: Sequence[Entry]) -> Baseline | None:
    ranked = []
    for other in candidates:
        is_bare, differs = other.trained.kind == "bare", list[str]()
        if not is_bare:
            compared = differences_from_sft(entry.trained, other.trained)
            if compared is None:
                continue
            differs = compared
        if _superseded(other, task) or _conditions(entry.plan, other.plan):
            continue
        if units := _shared(entry, other, task):
            few = 2 * len(units) < len(entry.plan.units[task])
            unsure = few or not other.is_verified
            lesser = unsure and entry.is_verified
            size = -len(units)
            rank = (lesser, few and not is_bare, is_bare, unsure, size, len(differs), other.age)
            kind: Kind = "bare" if is_bare else "sft"
            chosen = (entry.number, task, other.number, kind, True, False, differs, units)
            ranked.append((rank, Baseline(*chosen)))
    return min(ranked, key=lambda one: one[0])[1] if ranked else None


def _superseded(entry: Entry, task: str) -> bool:
    return any(run["task"] == task and run["superseded_by"] is not None for run in entry.runs)


def _shared(entry: Entry, other: Entry, task: str) -> list[str]:
    """The units that both answered on the same items, in one version of the task, to one limit."""
    ours, theirs = entry.plan, other.plan
    if (
        ours.limit != theirs.limit
        or task not in theirs.task_versions
        or ours.task_versions[task] != theirs.task_versions[task]
    ):
        return []
    return [
        unit
        for unit in ours.units[task]
        if unit in theirs.units[task] and entry.items[task, unit] == other.items[task, unit]
    ]


def _conditions(ours: Plan, theirs: Plan) -> list[str]:
    """What differs in how two systems of one base model answered."""
    own = ("model", None)
    tokenizers = [one.tokenizer_sha256 for one in (ours, theirs) if one.tokenizer not in own]
    differs = {
        "limit": ours.limit != theirs.limit,
        "dtype": ours.dtype != theirs.dtype,
        "template": ours.template_sha256 != theirs.template_sha256,
        "template_args": ours.template_args != theirs.template_args,
        "tokenizer": tokenizers not in ([], tokenizers[:1] * 2),
    }
    return [name for name, differ in differs.items() if differ]
