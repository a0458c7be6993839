"""A submission's form: names, files, types, and that the record agrees with itself.

Nothing here reads an answer or a test set: this is what building the store asks of every folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError
from xlt_bench.languages import FAMILIES, language, units
from xlt_bench.results.record import SCHEMA_VERSION, Plan, Record
from xlt_bench.submissions.safe_read import read_model
from xlt_bench.submissions.schema import (
    COUNTS,
    ID,
    IDENTITY,
    MAX_ID,
    RECORD,
    SUBMISSION,
    Submission,
    age,
    answer_files,
    covers,
    identity,
    printable,
)
from xlt_bench.tasks import task_version
from xlt_bench.tasks.pinned import pinned

MAX_TEXT = 4_000
MAX_LAYERS = 1_000  # all that a plan lacks are listed
MAX_LIMIT = 1_000_000
_PREDICTIONS = [f"predictions/{task}" for task in FAMILIES]


@dataclass(frozen=True)
class Package:
    """A submission whose form is right."""

    folder: Path
    submission: Submission
    record: Record


def open_package(folder: Path) -> Package:
    """The submission in a folder, its form checked and its answers unread. Raises InputError."""
    if len(folder.name) > MAX_ID or not ID.fullmatch(folder.name):
        raise InputError(f"the folder's name {folder.name[:MAX_ID]!r} is no id")
    if folder.is_symlink() or not folder.is_dir():
        raise InputError("is no folder")
    submission = read_model(folder / SUBMISSION, Submission)
    record = read_model(folder / RECORD, Record)
    check_record(record)
    files = answer_files(record.plan)
    _check_files(folder, {SUBMISSION, RECORD, COUNTS, *(p.as_posix() for p in files.values())})
    if odd := sorted(set(files) ^ set(submission.contents)):
        raise InputError(f"{SUBMISSION}: contents: {odd[0]} is missing or was not planned")
    if submission.id != folder.name:
        raise InputError(f"{SUBMISSION}: id is not the folder's name")
    if not folder.name.endswith("-" + identity(record.plan, submission.contents)):
        raise InputError(f"{SUBMISSION}: id does not belong to the record's plan and the contents")
    return Package(folder, submission, record)


def superseded(folder: Path, record: Record) -> list[str]:
    """Older submissions beside `folder`, of the same system, that its record covers.

    Broken ones are passed over: they say nothing against this one.
    """
    key = folder.name[-IDENTITY:].split("-")[0]
    found = []
    for path in sorted(folder.parent.iterdir()):
        if path != folder and ID.fullmatch(path.name) and path.name.split("-")[-2] == key:
            try:
                older = open_package(path).record
            except InputError:
                continue
            newer = age(record, folder.name) > age(older, path.name)
            if newer and covers(record.plan, older.plan):
                found.append(path.name)
    return found


def _check_files(folder: Path, wanted: set[str]) -> None:
    there = set()
    for name in _walk(folder, ""):
        if name not in wanted:
            raise InputError(f"{name[:120]!r} does not belong here")
        there.add(name)
    if lacking := sorted(wanted - there):
        raise InputError(f"{lacking[0]} is missing")


def _walk(folder: Path, above: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        name = above + entry.name
        if entry.is_symlink():
            raise InputError(f"{name[:120]!r} is a link")
        if entry.is_dir() and name in ("predictions", "retrieval", *_PREDICTIONS):
            yield from _walk(folder / entry.name, name + "/")
        else:
            yield name


def check_record(record: Record) -> None:
    """That a record agrees with itself and with the table of languages."""
    plan = record.plan
    if {record.schema_version, plan.schema_version} != {SCHEMA_VERSION}:
        raise InputError(f"{RECORD}: schema_version is not known; this is {SCHEMA_VERSION}")
    _check_plan(plan, record.model.layers)
    adapter = record.adapter
    pairs = {
        "model.name": (record.model.name, plan.model),
        "model.revision": (record.model.revision, plan.model_revision),
        "model.sha256": (record.model.sha256, plan.model_sha256),
        "model.dtype": (record.model.dtype, plan.dtype),
        "adapter.name": (adapter and adapter.name, plan.adapter),
        "adapter.sha256": (adapter and adapter.sha256, plan.adapter_sha256),
        "template": (record.template, plan.template),
        "template_sha256": (record.template_sha256, plan.template_sha256),
    }
    for name, (stated, planned) in pairs.items():
        if stated != planned:
            raise InputError(f"{RECORD}: {name} is not what the plan says")
    for name, value in {"model": plan.model_sha256, "adapter": plan.adapter_sha256}.items():
        if value is not None and not re.fullmatch("[0-9a-f]{64}", value):
            raise InputError(f"{RECORD}: plan.{name}_sha256 is no sha256")
    if adapter:
        for code in adapter.alignment_languages:
            language(code)
    wanted = {f"{task}/{unit}" for task, names in plan.units.items() for unit in names}
    if odd := sorted(wanted ^ set(record.data_digests)):
        raise InputError(f"{RECORD}: data_digests: {odd[0][:80]} is missing or was not planned")
    _check_sizes(record)
    _check_created(record.created)
    # Of the results every name is held against the plan's, by whoever reads them.
    _check_texts(record.model_dump(exclude={"results"}), RECORD)


def _check_plan(plan: Plan, n_layers: int | None) -> None:
    if plan.corpus is not None:
        raise InputError(
            f"{RECORD}: retrieval is over {_shown(plan.corpus)}, not FLORES dev; submit a run "
            "without --corpus"
        )
    if set(plan.units) != set(plan.task_versions):
        raise InputError(f"{RECORD}: plan.task_versions are not of the plan's tasks")
    for task, names in plan.units.items():
        odd = next((name for name in names if name not in units(task)), None)
        if odd is not None or not names or len(set(names)) < len(names):
            raise InputError(f"{RECORD}: plan.units.{task}: {_shown(odd)} unknown, twice or none")
        version = plan.task_versions[task]
        if not 1 <= version <= task_version(task):
            raise InputError(
                f"{RECORD}: plan.task_versions.{task}: version {version} is not known; this is "
                f"version {task_version(task)}"
            )
    if plan.limit is not None and not 1 <= plan.limit <= MAX_LIMIT:
        raise InputError(f"{RECORD}: plan.limit is below 1 or above {MAX_LIMIT:,}")
    layers, most = plan.layers, n_layers or 0
    if most > MAX_LAYERS:
        raise InputError(f"{RECORD}: model.layers is above {MAX_LAYERS:,}")
    if layers != sorted(set(layers)) or (layers and not 1 <= layers[0] <= layers[-1] <= most):
        raise InputError(f"{RECORD}: plan.layers are no layers of the model, in order")
    if bool(layers) != ("flores" in plan.units) or len(plan.units.get("flores", "en")) < 2:
        raise InputError(
            f"{RECORD}: retrieval needs layers and two languages, and no other has any"
        )


def _shown(name: str | None) -> str:
    return "a unit" if name is None else repr(name[:60])


def _check_sizes(record: Record) -> None:
    plan = record.plan
    for row in record.results.scores if plan.limit is None else []:
        n, digest = pinned(row.task, plan.task_versions.get(row.task, 0)).get(row.unit, (0, ""))
        if record.data_digests.get(f"{row.task}/{row.unit}") == digest and row.n != n:
            raise InputError(
                f"{RECORD}: {row.task} {row.unit} {row.metric}: n is {row.n}, its test set has {n}"
            )


def _check_created(created: str) -> None:
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        raise InputError(f"{RECORD}: created is no date") from None
    if when.year < 2000:
        raise InputError(f"{RECORD}: created lies before the year 2000")
    if when.tzinfo is None or when > datetime.now(UTC) + timedelta(days=1):
        raise InputError(f"{RECORD}: created has no time zone or lies in the future")


def _check_texts(value: Any, where: str) -> None:
    """No text of a record is huge or holds characters that hide or turn others."""
    if isinstance(value, str):
        try:
            printable(value.replace("\n", "").replace("\t", ""))
        except ValueError as error:
            raise InputError(f"{where[:120]} {error}") from None
        if len(value) > MAX_TEXT:
            raise InputError(f"{where[:120]} has {len(value):,} characters; {MAX_TEXT:,} are taken")
    elif isinstance(value, dict):
        for key, part in value.items():
            _check_texts(str(key), f"{where}: a key")
            _check_texts(part, f"{where}: {key}")
    elif isinstance(value, list | tuple):
        for part in value:
            _check_texts(part, where)
