"""The files of a submission, its id, and what the id is a hash of.

submissions/<id>/submission.json   who, and the digest of every answer file
                 record.json       the run's record
                 counts.parquet    each item's counts under each metric, derived from the answers
                 predictions/<task>/<unit>.jsonl.zst and retrieval/layer-NNN.parquet, as in a run

An id is <slug>-<system>-<run>: the system is a hash of what answered (weights, adapter, template,
number format), the run of what it was asked (units, limit, layers, task versions) and what it
answered. Names, dates, paths and machines enter neither, so that a repeat is known as one.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from xlt_bench.results.migrations import RENAMED
from xlt_bench.results.record import Plan, Record
from xlt_bench.results.run_folder import layer_path, predictions_path
from xlt_bench.tasks.registry import get_task

IDENTITY = 21  # characters of an id's last two parts
ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*-[0-9a-f]{10}-[0-9a-f]{10}")
MAX_ID = 80
SUBMISSION, RECORD, COUNTS = "submission.json", "record.json", "counts.parquet"
# Marks and joiners that scripts need (U+200C, U+200D) are kept; what turns or hides text is not.
_JOINERS = "‌‍"


def printable(text: str) -> str:
    """The text itself; ValueError for characters that control, hide or reorder others."""
    for character in text:
        kind = unicodedata.category(character)
        if kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS:
            raise ValueError(f"holds the character U+{ord(character):04X}")
    return text


def _paragraphs(text: str) -> str:
    printable(text.replace("\n", "").replace("\t", ""))
    return text


def _no_formula(text: str) -> str:
    # A spreadsheet that opens an export would run it.
    if text.startswith(("=", "+", "-", "@")):
        raise ValueError(f"starts with {text[0]!r}")
    return printable(text)


Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(_no_formula),
]
Text = Annotated[str, StringConstraints(max_length=4000), AfterValidator(_paragraphs)]
Url = Annotated[
    str,
    StringConstraints(max_length=300, pattern=r"^https?://[^\s<>\"'`]+$"),
    AfterValidator(printable),
]
Id = Annotated[str, StringConstraints(max_length=MAX_ID, pattern=f"^{ID.pattern}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class Submission(BaseModel):
    """submission.json: what the record does not say. `contents` is a digest by file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    id: Id
    name: Line
    contact: Line | None
    url: Url | None
    notes: Text | None
    baseline: Id | None
    contents: dict[str, Digest]


def answer_files(plan: Plan) -> dict[str, Path]:
    """Every file of answers that a plan asks for, by the name that `contents` gives it."""
    here = Path()
    files = {
        f"{task}/{unit}": predictions_path(here, task, unit)
        for task, names in plan.units.items()
        if get_task(task).answers == "text"
        for unit in names
    }
    return files | {f"retrieval/{layer}": layer_path(here, layer) for layer in plan.layers}


def base_model(plan: Plan) -> str:
    """The base model, the same for equal weights: their sha256, else hub name and commit."""
    return _hash([plan.model_sha256 or [plan.model, plan.model_revision]])


def system(plan: Plan) -> str:
    """What answered: base model, adapter, template and number format."""
    return _hash([base_model(plan), plan.adapter_sha256, plan.template_sha256, plan.dtype])


def submission_id(plan: Plan, contents: Mapping[str, str]) -> str:
    """The id: <slug>-<system>-<run>."""
    names = [plan.model.split("@")[0], *([plan.adapter.split("@")[0]] if plan.adapter else [])]
    slug = "-".join(re.sub(r"[^a-z0-9]+", "-", Path(n).name.lower()).strip("-") for n in names)
    slug = slug.strip("-")[: MAX_ID - 22].strip("-") or "system"
    return f"{slug}-{identity(plan, contents)}"


# Ids never change: they have the names that tasks had in the first schema.
_ID_NAMES = {new: old for old, new in RENAMED.items()}


def identity(plan: Plan, contents: Mapping[str, str]) -> str:
    """The last two parts of an id: equal for equal answers of an equal system."""
    asked = plan.model_dump(include={"limit", "layers", "task_versions"})
    units_asked = {_ID_NAMES.get(task, task): sorted(names) for task, names in plan.units.items()}
    asked["task_versions"] = {_ID_NAMES.get(t, t): v for t, v in plan.task_versions.items()}
    return f"{system(plan)}-{_hash([asked, units_asked, dict(contents)])}"


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def missing(record: Record, task: str) -> list[str]:
    """Why a task is not complete: what was not evaluated, a limit, other items; empty if it is.

    Complete means complete for the version of the task that the record names.
    """
    plan = record.plan
    there, ranked = (
        plan.units.get(task, []),
        get_task(task).test_set(plan.task_versions[task]).units,
    )
    lacks = [unit for unit in ranked if unit not in there]
    if plan.limit is None:
        digests = record.data_digests
        odd = [u for u in there if u in ranked and digests[f"{task}/{u}"] != ranked[u].digest]
        lacks += [f"{unit} on its items" for unit in odd]
    if get_task(task).answers == "neighbours":
        even = range(2, (record.model.layers or 0) + 1, 2)
        lacks += [f"layer {layer}" for layer in even if layer not in plan.layers]
        if record.model.layers is None:
            lacks.append("layers")
    return lacks + ([f"limit {plan.limit}"] if plan.limit is not None else [])


def age(record: Record, name: str) -> tuple[datetime, str]:
    """What tells the newer of two submissions; equal times are told apart by id."""
    return datetime.fromisoformat(record.created), name


def covers(newer: Plan, older: Plan) -> bool:
    """Whether a run of the same system answers everything that another answered.

    In the same versions: a run of a newer one has its own place, and leaves the older one its.
    """
    return (
        system(newer) == system(older)
        and newer.limit == older.limit
        and set(newer.layers) >= set(older.layers)
        and all(set(newer.units.get(task, [])) >= set(names) for task, names in older.units.items())
        and all(newer.task_versions.get(task) == v for task, v in older.task_versions.items())
    )
