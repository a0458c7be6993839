"""Defines the files of a submission and its id.

submissions/<id>/submission.json   name and contact, the digests of the record and of every file of
                                   answers
                 record.json       the run's record
                 counts.parquet    the counts of each item for each metric, derived from the answers
                 accuracies.parquet  the accuracies of retrieval by pair and layer, likewise
                 verified.json     what a maintainer found who ran the model again, if one did
                 predictions/<task>/<unit>.jsonl.zst, as in a run
                 retrieval/layer-NNN.parquet   which sentences retrieved their translation

The last two may be in an artifact store instead (`artifacts`), which may be the folder artifacts/
beside the submissions. Submissions of older releases have
the retrieved sentences themselves in retrieval/, as in a run, and the accuracies beside them.

An id is <slug>-<system>-<run>. The system part is a hash of what answered: weights, adapter,
template, number format. The run part is a hash of what was asked (units, limit, layers, task
versions) and answered. Names, dates, paths and machines are not hashed, so that a repeat is
recognised.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from xlt_bench.models.hub import COMMIT
from xlt_bench.results.migrations import RENAMED
from xlt_bench.results.record import Layer, Percent, Plan, Record, same_prompt
from xlt_bench.results.run_folder import layer_path, predictions_path
from xlt_bench.submissions.safe_read import MAX_PACKED
from xlt_bench.tasks.registry import get_task, retrieval_in

IDENTITY = 21  # characters of the last two parts of an id
ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*-[0-9a-f]{10}-[0-9a-f]{10}")
MAX_ID = 80
SUBMISSION, RECORD, COUNTS = "submission.json", "record.json", "counts.parquet"
ACCURACIES = "accuracies.parquet"
VERIFIED = "verified.json"  # written by maintainers; see `verify`
# Files of the folder of submissions, also written by maintainers; see `accepted` and `artifacts`.
ACCEPTED, SUPERSESSIONS, STORES = "accepted.txt", "supersessions.json", "stores.txt"
REGISTER = (ACCEPTED, SUPERSESSIONS, STORES)
# A store of artifacts beside the submissions, which a clone can leave out.
ARTIFACTS = "artifacts"
# Some scripts need the joiners U+200C and U+200D. Other format characters can hide or reorder text.
_JOINERS = "‌‍"


def printable(text: str) -> str:
    """Return the text if it has no characters that control, hide or reorder others.

    Raises:
        ValueError: It has one.
    """
    for character in text:
        kind = unicodedata.category(character)
        if kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS:
            raise ValueError(f"contains the character U+{ord(character):04X}")
    return text


def _paragraphs(text: str) -> str:
    printable(text.replace("\n", "").replace("\t", ""))
    return text


def _no_formula(text: str) -> str:
    # A spreadsheet would run it as a formula.
    if text.startswith(("=", "+", "-", "@")):
        raise ValueError(f"must not start with {text[0]!r}")
    return printable(text)


def _a_date(text: str) -> str:
    date.fromisoformat(text)
    return text


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
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Artifact(BaseModel):
    """The sha256 and the size in bytes of a file in an artifact store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Sha256
    size: Annotated[int, Field(ge=1, le=MAX_PACKED)]


class Submission(BaseModel):
    """submission.json: what the submitter states, and the digests of record and answers.

    `record_sha256` is that of the bytes of record.json; None in older submissions, to which
    `submissions migrate` adds it. `retrieval` says what the files of retrieval hold. `artifacts`
    are the files of answers, by the names of `contents`, if they are in an artifact store; it never
    says in which.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    id: Id
    name: Line
    contact: Line | None
    url: Url | None
    notes: Text | None
    baseline: Id | None
    contents: dict[str, Digest]
    record_sha256: Sha256 | None = None
    retrieval: Literal["neighbours", "hits"] = "neighbours"
    artifacts: dict[str, Artifact] | None = None


class Agreement(BaseModel):
    """How far the answers of a submission agree with those of its model, in one task.

    `low` and `high` are Wilson's 95 % interval of the share of equal answers, in percent.
    `submitted` and `recomputed` are the scores of the sample, and `gain_low` and `gain_high` the
    interval of their difference. `judged_by` says which of the two decided. If the adapter was
    trained again, `bare` is the score of the base model without it, and `bare_low` and `bare_high`
    the interval of its difference from `submitted`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    items: Annotated[int, Field(ge=1, le=1_000_000)]
    equal: Annotated[int, Field(ge=0, le=1_000_000)]
    low: Percent
    high: Percent
    submitted: Percent
    recomputed: Percent
    gain_low: Annotated[float, Field(ge=-100.001, le=100.001)]
    gain_high: Annotated[float, Field(ge=-100.001, le=100.001)]
    judged_by: Literal["answers", "scores"]
    bare: Percent | None = None
    bare_low: Annotated[float, Field(ge=-100.001, le=100.001)] | None = None
    bare_high: Annotated[float, Field(ge=-100.001, le=100.001)] | None = None


class Verified(BaseModel):
    """verified.json: a maintainer has run the model again, and what agreed.

    `basis` is `weights` if the hashes of the record were those of what was run, and `recipe` if the
    adapter was trained again. The two digests bind it to the record and the answers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    id: Id
    record_sha256: Sha256
    contents_sha256: Sha256
    by: Line
    on: Annotated[str, StringConstraints(pattern=r"^20\d\d-\d\d-\d\d$"), AfterValidator(_a_date)]
    version: Annotated[str, StringConstraints(max_length=60)]
    basis: Literal["weights", "recipe"]
    seed: Annotated[int, Field(ge=0, le=2**32)]
    layer: Layer | None
    languages: list[Annotated[str, StringConstraints(max_length=20)]]
    agreement: list[Agreement]


def contents_sha256(submission: Submission) -> str:
    """The sha256 of all digests of answers."""
    text = json.dumps(submission.contents, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def json_bytes(model: Record | Submission | Verified) -> bytes:
    """The contents of record.json, submission.json or verified.json."""
    return model.model_dump_json(indent=1).encode() + b"\n"


def answer_files(plan: Plan) -> dict[str, Path]:
    """List the files of answers of a plan, by their names in `Submission.contents`."""
    here = Path()
    files = {
        f"{task}/{unit}": predictions_path(here, task, unit)
        for task, names in plan.units.items()
        if get_task(task).answers == "text"
        for unit in names
    }
    return files | {name: layer_path(here, n) for n, name in layer_names(plan).items()}


def layer_names(plan: Plan) -> dict[int, str]:
    """The names of the files of retrieval in `Submission.contents`, by layer."""
    task = retrieval_in(plan.units)
    return {layer: f"{task.name}/{layer}" for layer in plan.layers} if task else {}


def has_accuracies(submission: Submission, plan: Plan) -> bool:
    """Whether a submission has accuracies.parquet: if its files of retrieval do not say them."""
    apart = submission.retrieval == "hits" or submission.artifacts is not None
    return bool(plan.layers) and apart


def base_model(plan: Plan) -> str:
    """Hash the base model: the sha256 of its weights if known, else its hub name and commit."""
    name, commit = plan.model, plan.model_revision
    # At one commit, `name@tag` is the same model. Ids of older records hash `name@X` and X.
    if commit and COMMIT.fullmatch(commit) and not name.endswith(f"@{commit}"):
        name = name.partition("@")[0]
    return _hash([plan.model_sha256 or [name, commit]])


def system(plan: Plan) -> str:
    """Hash what answered: base model, adapter, template, number format and tokenizer.

    Variables of the template, and a tokenizer other than the model's, count only if there are any:
    ids of submissions from before they were recorded never change.
    """
    answered = [base_model(plan), plan.adapter_sha256, plan.template_sha256, plan.dtype]
    own_tokenizer = plan.tokenizer in (None, "model")
    more = [plan.template_args or None, None if own_tokenizer else plan.tokenizer_sha256]
    return _hash([*answered, *(more if any(more) else [])])


def submission_id(plan: Plan, contents: Mapping[str, str]) -> str:
    """Build the id of a submission: <slug>-<system>-<run>.

    Args:
        plan: The plan of the run.
        contents: The digest of each file of answers.
    """
    names = [plan.model.split("@")[0], *([plan.adapter.split("@")[0]] if plan.adapter else [])]
    slug = "-".join(re.sub(r"[^a-z0-9]+", "-", Path(n).name.lower()).strip("-") for n in names)
    slug = slug.strip("-")[: MAX_ID - 22].strip("-") or "system"
    return f"{slug}-{identity(plan, contents)}"


def stated_system(name: str) -> str:
    """The system that an id states: the hash before the last one."""
    return name.split("-")[-2]


# Ids never change, so they use the names that tasks had in schema 1.
_ID_NAMES = {new: old for old, new in RENAMED.items()}


def identity(plan: Plan, contents: Mapping[str, str]) -> str:
    """Build the last two parts of an id, which are equal for equal answers of the same system."""
    asked = plan.model_dump(include={"limit", "layers", "task_versions"})
    units_asked = {_ID_NAMES.get(task, task): sorted(names) for task, names in plan.units.items()}
    asked["task_versions"] = {_ID_NAMES.get(t, t): v for t, v in plan.task_versions.items()}
    if plan.prompts:
        asked["prompts"] = {_ID_NAMES.get(t, t): one.sha256 for t, one in plan.prompts.items()}
    return f"{system(plan)}-{_hash([asked, units_asked, dict(contents)])}"


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def missing(record: Record, task: str) -> list[str]:
    """List what a run lacks to be complete for the version of a task that its record names.

    Returns:
        Units and layers that were not evaluated, units with other items, and the limit; empty if
        the run is complete.
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
    if task in plan.prompts:
        lacks.append("the benchmark's prompt")
    return lacks + ([f"limit {plan.limit}"] if plan.limit is not None else [])


def primary_means(record: Record) -> dict[tuple[str, str], float]:
    """The means of the metrics that rank the tasks, by task and split."""
    return {
        (mean.task, mean.split): mean.value
        for mean in record.results.means
        if mean.metric == get_task(mean.task).primary
    }


class Asked(Protocol):
    """What was evaluated, as a record says: the plan, and the digest of each unit's items."""

    @property
    def plan(self) -> Plan:
        """The plan."""

    @property
    def data_digests(self) -> Mapping[str, str]:
        """Digests by `<task>/<unit>`."""


def covered_tasks(newer: Asked, older: Asked) -> list[str]:
    """List the tasks in which a run replaces an older one on the leaderboard.

    Returns:
        The tasks of which both have the same version, as each version has its own ranking, and the
        same items. None, unless both have the same system and limit, and `newer` has all units and
        layers of `older`.
    """
    ours, theirs = newer.plan, older.plan
    if (
        system(ours) != system(theirs)
        or ours.limit != theirs.limit
        or not set(ours.layers) >= set(theirs.layers)
        or not all(set(ours.units.get(t, [])) >= set(names) for t, names in theirs.units.items())
    ):
        return []
    asked = {task: [f"{task}/{unit}" for unit in names] for task, names in theirs.units.items()}
    return [
        task
        for task, names in asked.items()
        if ours.task_versions.get(task) == theirs.task_versions[task]
        and same_prompt(ours.prompts.get(task), theirs.prompts.get(task))
        and all(newer.data_digests.get(name) == older.data_digests.get(name) for name in names)
    ]
