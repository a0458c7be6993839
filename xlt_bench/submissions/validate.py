"""Validates a submission without its answers: files, record, id, and scores against counts.

A build of the leaderboard does this for every submission. `rescore` recomputes the rest from the
answers, for `submissions check`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xlt_bench.errors import InputError, first_fault
from xlt_bench.evaluation.score import Counted, scores_of
from xlt_bench.languages import language
from xlt_bench.models.hub import COMMIT
from xlt_bench.results.record import (
    SCHEMA_VERSION,
    LayerAccuracy,
    Plan,
    Record,
    Scores,
    ShotPrompt,
    shots_sha256,
    shots_text,
)
from xlt_bench.submissions.artifacts import Stores, read_stores
from xlt_bench.submissions.counts import Tasks
from xlt_bench.submissions.safe_read import (
    MAX_JSON,
    MAX_LANGUAGES,
    MB,
    parse_model,
    read_bytes,
    read_model,
)
from xlt_bench.submissions.schema import (
    ACCURACIES,
    COUNTS,
    ID,
    MAX_ID,
    RECORD,
    SUBMISSION,
    VERIFIED,
    Submission,
    Verified,
    answer_files,
    contents_sha256,
    has_accuracies,
    identity,
    printable,
)
from xlt_bench.tasks.registry import retrieval_in, retrieval_units, tasks

TOLERANCE = 1e-6
MAX_TEXT = 4_000
MAX_STORED = 512 * MB  # of all artifacts of a submission


@dataclass(frozen=True)
class Package:
    """A submission whose files, record and id are valid. `stores` may have its answers."""

    folder: Path
    submission: Submission
    record: Record
    record_sha256: str
    verified: Verified | None = None
    stores: Stores = dataclasses.field(default_factory=Stores)


def open_package(folder: Path, stores: Stores | None = None) -> Package:
    """Read and validate a submission, except its counts and answers.

    Args:
        folder: The submission.
        stores: The artifact stores; those of its parent folder by default.

    Raises:
        InputError: The submission is not valid.
    """
    if len(folder.name) > MAX_ID or not ID.fullmatch(folder.name):
        raise InputError(f"the folder name {folder.name[:MAX_ID]!r} is not a submission id")
    if folder.is_symlink() or not folder.is_dir():
        raise InputError("is not a folder")
    submission = read_model(folder / SUBMISSION, Submission)
    data = read_bytes(folder / RECORD, MAX_JSON)
    record = parse_model(data, RECORD, Record)
    check_record(record)
    _check_files(folder, files_of(submission, record.plan))
    there = os.path.lexists(folder / VERIFIED)
    verified = read_model(folder / VERIFIED, Verified) if there else None
    _check_names(submission, record.plan)
    if submission.id != folder.name:
        raise InputError(f"{SUBMISSION}: id differs from the folder name")
    if not folder.name.endswith("-" + identity(record.plan, submission.contents)):
        raise InputError(f"{SUBMISSION}: id does not match the plan and the contents")
    found = hashlib.sha256(data).hexdigest()
    if submission.record_sha256 not in (None, found):
        raise InputError(f"{RECORD} was changed: its sha256 is not the one in {SUBMISSION}")
    bound = (submission.id, found, contents_sha256(submission))
    if verified and bound != (verified.id, verified.record_sha256, verified.contents_sha256):
        raise InputError(f"{VERIFIED} is of another record or other answers; delete it")
    if stores is None and submission.artifacts is not None:
        stores = read_stores(folder.parent)
    return Package(folder, submission, record, found, verified, stores or Stores())


def files_of(submission: Submission, plan: Plan) -> set[str]:
    """The files that the folder of a submission must have."""
    files = {SUBMISSION, RECORD, COUNTS}
    if has_accuracies(submission, plan):
        files.add(ACCURACIES)
    if submission.artifacts is None:
        files |= {path.as_posix() for path in answer_files(plan).values()}
    return files


def _check_names(submission: Submission, plan: Plan) -> None:
    """Check that there is a digest of each file of answers, and an artifact if there are any."""
    artifacts, wanted = submission.artifacts, set(answer_files(plan))
    if odd := sorted(wanted ^ set(submission.contents)):
        raise InputError(f"{SUBMISSION}: contents: {odd[0]} is missing, or not in the plan")
    if artifacts is None:
        return
    if odd := sorted(wanted ^ set(artifacts)):
        raise InputError(f"{SUBMISSION}: artifacts: {odd[0]} is missing, or not in the plan")
    size = sum(one.size for one in artifacts.values())
    if size > MAX_STORED:
        raise InputError(
            f"{SUBMISSION}: artifacts have {size:,} bytes; the limit is {MAX_STORED:,}"
        )


def _check_files(folder: Path, wanted: set[str]) -> None:
    there = set()
    for name in _walk(folder, ""):
        if name not in wanted and name != VERIFIED:
            raise InputError(f"{name[:120]!r} is not part of this submission; delete it")
        there.add(name)
    if lacking := sorted(wanted - there):
        raise InputError(f"{lacking[0]} is missing")


def _walk(folder: Path, above: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        name = above + entry.name
        if entry.is_symlink():
            raise InputError(f"{name[:120]!r} is a symbolic link; replace it with the file")
        if entry.is_dir() and (
            name in ("predictions", "retrieval") or name.removeprefix("predictions/") in tasks()
        ):
            yield from _walk(folder / entry.name, name + "/")
        else:
            yield name


def check_record(record: Record) -> None:
    """Validate a record against itself, the tasks and the language table.

    Raises:
        InputError: The record is not valid.
    """
    plan = record.plan
    if {record.schema_version, plan.schema_version} != {SCHEMA_VERSION}:
        raise InputError(f"{RECORD}: unknown schema_version (the newest is {SCHEMA_VERSION})")
    _check_plan(plan, record.model.layers)
    adapter = record.adapter
    pairs = {
        "model.name": (record.model.name, plan.model),
        "model.revision": (record.model.revision, plan.model_revision),
        "model.sha256": (record.model.sha256, plan.model_sha256),
        "model.dtype": (record.model.dtype, plan.dtype),
        "adapter.name": (adapter and adapter.name, plan.adapter),
        "adapter.sha256": (adapter and adapter.sha256, plan.adapter_sha256),
        "adapter.revision": (adapter and adapter.revision, plan.adapter_revision),
        "template": (record.template, plan.template),
        "template_sha256": (record.template_sha256, plan.template_sha256),
    }
    for name, (stated, planned) in pairs.items():
        if stated != planned:
            raise InputError(f"{RECORD}: {name} differs from the plan")
    for name, value in {"model": plan.model_sha256, "adapter": plan.adapter_sha256}.items():
        if value is not None and not re.fullmatch("[0-9a-f]{64}", value):
            raise InputError(f"{RECORD}: plan.{name}_sha256 is not a sha256")
    if plan.adapter_revision is not None and not COMMIT.fullmatch(plan.adapter_revision):
        raise InputError(f"{RECORD}: plan.adapter_revision is not a commit")
    if adapter:
        for code in adapter.alignment_languages:
            language(code)
    wanted = {f"{task}/{unit}" for task, names in plan.units.items() for unit in names}
    if odd := sorted(wanted ^ set(record.data_digests)):
        raise InputError(f"{RECORD}: data_digests: {odd[0][:80]} is missing, or not in the plan")
    _check_sizes(record)
    _check_created(record.created)
    # Every text of the results is compared with the plan later.
    _check_texts(record.model_dump(exclude={"results"}), RECORD)


def _check_shots(where: str, prompt: ShotPrompt, units: Sequence[str]) -> None:
    """Raise InputError for examples of other units, or of another setting than is stated."""
    if set(prompt.examples) != set(units):
        raise InputError(f"{where}: examples are not those of its units")
    what = shots_text(prompt.shots, prompt.language)
    own = prompt.name.removesuffix(f" with {what}") != prompt.name
    if not own and prompt.name != what:
        raise InputError(f"{where}: name does not say {what!r}")
    if not own and prompt.sha256 != shots_sha256(None, prompt.shots, prompt.language):
        raise InputError(f"{where}: sha256 is not that of {what}")
    if prompt.language == "en" and len(set(prompt.examples.values())) > 1:
        raise InputError(f"{where}: examples in English differ between units")


def _check_plan(plan: Plan, n_layers: int | None) -> None:
    if plan.corpus is not None:
        raise InputError(
            f"{RECORD}: retrieval is over {plan.corpus[:60]!r}, not FLORES dev; submit a run "
            "without --corpus"
        )
    if set(plan.units) != set(plan.task_versions):
        raise InputError(f"{RECORD}: plan.task_versions and plan.units have different tasks")
    for name, units in plan.units.items():
        _check_units(name, plan.task_versions[name], units)
    pairing = [name for name in plan.units if retrieval_in([name])]
    if len(pairing) > 1:
        raise InputError(f"{RECORD}: plan.units: {' and '.join(pairing)} cannot be in one run")
    if odd := sorted(set(plan.prompts) - (set(plan.units) - set(pairing))):
        raise InputError(f"{RECORD}: plan.prompts: {odd[0][:60]!r} is not a text task of the plan")
    for task, prompt in plan.prompts.items():
        if isinstance(prompt, ShotPrompt):
            _check_shots(f"{RECORD}: plan.prompts.{task}", prompt, plan.units[task])
    layers, most = plan.layers, n_layers or 0
    if layers != sorted(set(layers)) or (layers and not 1 <= layers[0] <= layers[-1] <= most):
        raise InputError(f"{RECORD}: plan.layers must be layers of the model in ascending order")
    codes = retrieval_units(plan.units)
    if bool(layers) != bool(pairing) or (pairing and len(codes) < 2):
        raise InputError(
            f"{RECORD}: retrieval needs plan.layers and at least two languages; without retrieval, "
            "plan.layers must be empty"
        )
    if len(codes) > MAX_LANGUAGES:
        raise InputError(
            f"{RECORD}: retrieval has {len(codes)} languages; submit at most {MAX_LANGUAGES}"
        )


def _check_units(name: str, version: int, units: Sequence[str]) -> None:
    """Check that a task, its version and its units exist, and that no unit occurs twice."""
    if name not in tasks():
        raise InputError(
            f"{RECORD}: plan.units: unknown task {name[:60]!r}; install the package that has it"
        )
    task = tasks()[name]
    if version not in task.versions:
        known = ", ".join(map(str, task.versions))
        raise InputError(
            f"{RECORD}: plan.task_versions.{name}: unknown version {version} (known: {known})"
        )
    known_units = {*task.units(), *task.test_set(version).units}
    where = f"{RECORD}: plan.units.{name}"
    if not units:
        raise InputError(f"{where} is empty")
    for i, unit in enumerate(units):
        if unit not in known_units:
            raise InputError(f"{where}: unknown unit {unit[:60]!r}")
        if unit in units[:i]:
            raise InputError(f"{where}: {unit} occurs twice")


def _check_sizes(record: Record) -> None:
    plan = record.plan
    for row in record.results.scores if plan.limit is None else []:
        if row.task not in plan.units:
            raise InputError(f"{RECORD}: results: {row.task[:60]!r} is not in the plan")
        test_set = tasks()[row.task].test_set(plan.task_versions[row.task])
        pinned = test_set.units.get(row.unit)
        digest = record.data_digests.get(f"{row.task}/{row.unit}")
        if pinned and digest == pinned.digest and row.n != pinned.items:
            raise InputError(
                f"{RECORD}: {row.task} {row.unit} {row.metric}: n is {row.n}, but the test set has "
                f"{pinned.items} items"
            )


def _check_created(created: str) -> None:
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        raise InputError(f"{RECORD}: created is not a date") from None
    if when.year < 2000:
        raise InputError(f"{RECORD}: created is before the year 2000")
    if when.tzinfo is None or when > datetime.now(UTC) + timedelta(days=1):
        raise InputError(f"{RECORD}: created has no time zone or is in the future")


def _check_texts(value: Any, where: str) -> None:
    """Check that no text is too long or has characters that hide or reorder others."""
    if isinstance(value, str):
        try:
            printable(value.replace("\n", "").replace("\t", ""))
        except ValueError as error:
            raise InputError(f"{where[:120]} {error}") from None
        if len(value) > MAX_TEXT:
            raise InputError(f"{where[:120]} has {len(value):,} characters; limit: {MAX_TEXT:,}")
    elif isinstance(value, dict):
        for key, part in value.items():
            _check_texts(str(key), f"{where}: a key")
            _check_texts(part, f"{where}: {key}")
    elif isinstance(value, list | tuple):
        for part in value:
            _check_texts(part, where)


def check_results(record: Record, counts: Tasks, layers: Mapping[int, float]) -> None:
    """Check that the scores and means of a record follow from its counts, except intervals.

    Args:
        record: A record whose plan is valid.
        counts: The contents of `counts.parquet`.
        layers: The mean accuracy of the pairs at each layer.

    Raises:
        InputError: A score is missing, unexpected, or differs from its counts.
    """
    computed = recomputed(record, Counted(counts, {}), intervals=False)
    by_layer = [LayerAccuracy(layer=n, value=v, low=v, high=v) for n, v in layers.items()]
    computed = computed.model_copy(update={"layers": by_layer})
    if differs := difference(record.results, computed, intervals=False):
        raise InputError(differs)


def recomputed(record: Record, counted: Counted, *, intervals: bool = True) -> Scores:
    """Compute the scores of a record from counts that may be forged.

    Raises:
        InputError: A score is out of bounds.
    """
    try:
        return scores_of(
            record.plan,
            counted,
            record.alignment_languages,
            intervals=intervals,
            accuracies=record.results.accuracy_intervals,
        )
    except ValidationError as error:
        raise InputError(f"{COUNTS}: {first_fault(error)}") from None


def difference(claimed: Scores, computed: Scores, *, intervals: bool = True) -> str:
    """Describe the first difference between the scores of a record and the recomputed scores.

    Args:
        claimed: The scores of the record.
        computed: The recomputed scores.
        intervals: Whether to compare intervals too.

    Returns:
        One line; empty if all agree.
    """
    ours, theirs = _by_name(computed), _by_name(claimed)
    for name, row in theirs.items():
        if name not in ours:
            return f"{RECORD}: {name} is not a score of this run"
        for field, value in ours[name].items():
            compared = intervals or field not in ("low", "high")
            if compared and not _equal(row[field], value):
                return f"{RECORD}: {name}: {field} is {row[field]}, but {value} when recomputed"
    lacking = next((name for name in ours if name not in theirs), None)
    rows = len(claimed.scores) + len(claimed.means) + len(claimed.layers)
    if lacking is None and len(theirs) < rows:
        return f"{RECORD}: a score occurs twice"
    return "" if lacking is None else f"{RECORD}: {lacking} is missing"


def _by_name(scores: Scores) -> dict[str, dict[str, Any]]:
    rows = {f"{r.task} {r.unit} {r.metric}": dict(r) for r in scores.scores}
    rows |= {f"{r.task} {r.split} mean {r.metric}": dict(r) for r in scores.means}
    return rows | {f"retrieval layer {r.layer}": dict(r) for r in scores.layers}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return sorted(one) == sorted(other)
    if isinstance(other, float) and one is not None:
        return bool(abs(one - other) <= TOLERANCE)
    return bool(one == other)
