"""Recomputes submissions from their answers: `xlt-bench submissions check`, which CI runs.

Digests, counts, scores and intervals are compared. Units whose test sets are missing are reported
as not checked.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xlt_bench.data.root import MissingFileError, content_digest
from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import (
    Counted,
    count_items,
    gather,
    items_answered,
    text_units,
)
from xlt_bench.metrics.significance import Counts
from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import Prediction
from xlt_bench.submissions.accepted import held, read_register, superseded
from xlt_bench.submissions.answers import read_accuracies, read_retrieval, read_unit
from xlt_bench.submissions.artifacts import Stores
from xlt_bench.submissions.counts import Tasks, read_counts
from xlt_bench.submissions.hits import accuracies_of
from xlt_bench.submissions.report import Report, refused
from xlt_bench.submissions.safe_read import (
    MAX_TEXT,
    Answers,
    length,
    read_model,
)
from xlt_bench.submissions.schema import (
    COUNTS,
    ID,
    IDENTITY,
    RECORD,
    SUBMISSION,
    VERIFIED,
    base_model,
    layer_names,
    stated_system,
)
from xlt_bench.submissions.suspicions import suspicions
from xlt_bench.submissions.validate import (
    TOLERANCE,
    Package,
    difference,
    open_package,
    recomputed,
)
from xlt_bench.tasks.registry import get_task, retrieval_in
from xlt_bench.tasks.retrieval import Retrieval


def check(
    folder: Path,
    root: Path | None,
    among: Sequence[Package] | None = None,
    stores: Stores | None = None,
) -> Report:
    """Check a submission.

    Args:
        folder: The submission. Its parent folder has the others.
        root: The data folder; None to check without test sets.
        among: What `valid` found in its parent folder, if it was called before.
        stores: The artifact stores; those of its parent folder by default.
    """
    try:
        register = read_register(folder.parent)
        package = open_package(folder, stores)
        if package.verified and folder.name not in register.places:
            raise InputError(
                f"{VERIFIED} is written by maintainers, after the submission is accepted; delete it"
            )
        unchecked = check_package(package, root, folder.parent)
        every = valid(folder.parent, stores) if among is None else among
        others = [one for one in every if one.folder.name != folder.name]
        system = stated_system(folder.name)
        same = [one for one in others if stated_system(one.folder.name) == system]
        reason = held(package, same, register)
        found = suspicions(package, others)
        if worst := next((one for one in found if one.impossible), None):
            raise InputError(f"no honest run shows this: {worst.detail}")
    except InputError as error:
        return refused(folder, error)
    warnings = [one.detail for one in found]
    if reason:
        return Report(folder.name, "held", reason, warnings)
    if unchecked:
        detail = f"no test set, or an old task version, for {', '.join(unchecked)}"
        return Report(folder.name, "not fully checked", detail, warnings)
    older = "; ".join(f"supersedes {one}" for one in superseded(package, same, register))
    return Report(folder.name, "checked", older, warnings)


def valid(submissions: Path, stores: Stores | None = None) -> list[Package]:
    """Open the valid submissions of a folder; `stores` as in `check`."""
    found = []
    for path in sorted(submissions.iterdir()):
        if ID.fullmatch(path.name):
            with suppress(InputError, OSError):
                found.append(open_package(path, stores))
    return found


def check_package(package: Package, root: Path | None, submissions: Path) -> list[str]:
    """Recompute a submission from its answers, and compare.

    Args:
        package: The submission.
        root: The data folder; None to check without test sets.
        submissions: The folder with the other submissions.

    Returns:
        The units that could not be checked, because their test sets are missing or the version of
        their task is no longer scored.

    Raises:
        InputError: The first difference.
    """
    record, plan = package.record, package.record.plan
    _check_others(package, submissions)
    stored = read_counts(package.folder / COUNTS, plan)
    counted, unchecked = _count(package, stored, root)
    if differs := difference(record.results, recomputed(record, counted)):
        raise InputError(differs)
    return unchecked


def _check_others(package: Package, submissions: Path) -> None:
    """Check that a submission is not a repeat, and that its baseline exists."""
    own = package.folder.name
    if other := repeated(submissions, own):
        raise InputError(f"the same system and answers are already submitted as {other}")
    if baseline := package.submission.baseline:
        if baseline == own or not (submissions / baseline).is_dir():
            raise InputError(f"{SUBMISSION}: baseline {baseline} is not another submission")
        theirs = read_model(submissions / baseline / RECORD, Record).plan
        if base_model(theirs) != base_model(package.record.plan):
            raise InputError(f"{SUBMISSION}: baseline {baseline} has a different base model")


def repeated(submissions: Path, name: str) -> str | None:
    """Find a submission of the same system and answers under another name.

    Args:
        submissions: The folder of submissions.
        name: The id of a submission, in the folder or not.

    Returns:
        The id of the other submission; None if there is none.
    """
    names = sorted(entry.name for entry in os.scandir(submissions))
    same = (n for n in names if n != name and n[-IDENTITY:] == name[-IDENTITY:] and ID.fullmatch(n))
    return next(same, None)


def _count(package: Package, stored: Tasks, root: Path | None) -> tuple[Counted, list[str]]:
    """Count the answers against the references; take stored counts where a test set is missing."""
    record, plan, contents = package.record, package.record.plan, package.submission.contents
    unchecked = []

    def answered() -> Iterator[tuple[str, str, dict[str, Counts]]]:
        left = MAX_TEXT
        for task, unit in text_units(plan):
            answers = read_unit(package, task, unit)
            left -= sum(length(answer.hypothesis) for answer in answers)
            if left < 0:
                raise InputError(
                    f"{task}/{unit}: all answers so far have over {MAX_TEXT:,} characters (an "
                    "answer of n characters counts as n + n²/5,000)"
                )
            _check_digest(f"{task}/{unit}", answers_digest(answers), contents)
            there = {m: u[unit] for m, u in stored.get(task, {}).items() if unit in u}
            found = _from_references(record, task, unit, answers, root)
            if found is None:
                unchecked.append(f"{task} {unit}")
                _same_length(task, unit, there, answers)
            else:
                _same_counts(task, unit, there, found)
            yield task, unit, there if found is None else found

    counted = gather(plan, answered(), _layers(package))
    if pairing := retrieval_in(plan.units):
        ours, theirs = (
            tasks.get(pairing.name, {}).get(pairing.primary, {})
            for tasks in (counted.tasks, stored)
        )
        _same_counts(pairing.name, "", theirs, ours)
        n = len(next(iter(counted.layers.values())))
        unseen = _unseen_sentences(record, pairing, n, root)
        unchecked += [f"{pairing.name} {code}" for code in unseen]
    return counted, unchecked


def _from_references(
    record: Record, task: str, unit: str, answers: list[Prediction], root: Path | None
) -> Any:
    """Count the answers by metric.

    Returns:
        None if the test set is missing, or the version of the task is no longer scored.
    """
    plan = record.plan
    if root is None or plan.task_versions[task] < get_task(task).rescored_from:
        return None
    try:
        items = items_answered(root, plan, task, unit, answers)
    except MissingFileError:
        return None
    stated, ours = record.data_digests[f"{task}/{unit}"], content_digest(items)
    if stated != ours:
        raise InputError(
            f"{RECORD}: data_digests: {task}/{unit} is {stated[:20]}, but the test set has {ours}"
        )
    return count_items(plan, task, items, answers)


def _unseen_sentences(record: Record, task: Retrieval, n: int, root: Path | None) -> list[str]:
    """List the languages whose sentences are missing; check the digest and number of the others."""
    unseen = []
    for code in record.plan.units[task.name]:
        try:
            lines = task.load(root, code) if root else None
        except MissingFileError:
            lines = None
        if lines is None:
            unseen.append(code)
            continue
        lines = lines[: record.plan.limit]
        if content_digest(lines) != record.data_digests[f"{task.name}/{code}"]:
            raise InputError(
                f"{RECORD}: data_digests: {task.name}/{code} does not match the sentences"
            )
        if len(lines) != n:
            raise InputError(f"{task.name}: answers for {n} sentences, but {code} has {len(lines)}")
    return unseen


def _layers(package: Package) -> Iterator[tuple[int, dict[tuple[str, str], Any]]]:
    """The answers of each layer by pair, whose digests and accuracies are as stated."""
    contents, sizes = package.submission.contents, set()
    stated = read_accuracies(package)
    for layer, table in stated.items():
        pairs, answers = read_retrieval(package, layer)
        name = layer_names(package.record.plan)[layer]
        _check_digest(name, layer_digest(pairs, answers), contents)
        columns = (table.column(c).to_pylist() for c in ("source", "target", "accuracy"))
        claimed = {(a, b): accuracy for a, b, accuracy in zip(*columns, strict=True)}
        for pair, right in zip(pairs, accuracies_of(answers), strict=True):
            if abs(right - claimed[pair]) > TOLERANCE:
                raise InputError(
                    f"{name}: accuracy of {'-'.join(pair)} is {claimed[pair]:.3f}, but {right:.3f} "
                    f"by its {package.submission.retrieval}"
                )
        sizes.add(answers.shape[1])
        if len(sizes) > 1:
            raise InputError(f"{name}: the number of sentences differs from the layers before")
        yield layer, dict(zip(pairs, answers, strict=True))


def check_digests(package: Package) -> None:
    """Read all answers of a submission, and compare them with the digests that it states.

    Raises:
        InputError: A file is missing or damaged, or has another digest.
    """
    plan, contents = package.record.plan, package.submission.contents
    for task, unit in text_units(plan):
        found = answers_digest(read_unit(package, task, unit))
        _check_digest(f"{task}/{unit}", found, contents)
    for layer in plan.layers:
        found = layer_digest(*read_retrieval(package, layer))
        _check_digest(layer_names(plan)[layer], found, contents)


def answers_digest(answers: Sequence[Prediction]) -> str:
    """Digest the answers of a unit, independently of compression."""
    return content_digest(answers)


def layer_digest(pairs: Sequence[tuple[str, str]], answers: Answers) -> str:
    """Digest the answers at a layer, independently of the order of pairs."""
    digest = hashlib.sha256()
    for (source, target), row in sorted(zip(pairs, answers, strict=True), key=lambda pair: pair[0]):
        digest.update(f"{source} {target} ".encode() + row.astype("<i2").tobytes())
    return digest.hexdigest()[:16]


def _check_digest(name: str, found: str, contents: dict[str, str]) -> None:
    if contents[name] != found:
        raise InputError(f"{name} has digest {found}, but {SUBMISSION} says {contents[name]}")


def _same_length(task: str, unit: str, stored: dict[str, Any], answers: list[Any]) -> None:
    names = [answer.id for answer in answers]
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise InputError(f"predictions of {task} {unit}: item {twice} occurs twice")
    for metric, counts in stored.items():
        if len(counts) != len(answers):
            raise InputError(
                f"{COUNTS}: {task} {unit} {metric}: {len(counts)} items, but {len(answers)} answers"
            )


def _same_counts(task: str, unit: str, stored: dict[str, Any], found: dict[str, Any]) -> None:
    if odd := sorted(set(stored) ^ set(found)):
        raise InputError(f"{COUNTS}: {task} {unit} {odd[0]} is missing or unexpected")
    for metric, counts in found.items():
        if stored[metric].shape != counts.shape or (stored[metric] != counts).any():
            raise InputError(f"{COUNTS}: {task} {unit} {metric} does not match the answers")
