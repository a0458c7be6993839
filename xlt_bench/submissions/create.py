"""Implements `xlt-bench submit`: recomputes a run and writes it to submissions/<id>/."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xlt_bench.errors import InputError, first_fault
from xlt_bench.evaluation.comet.stored import without_comet
from xlt_bench.evaluation.score import (
    Counted,
    count_answers,
    gather,
    text_units,
)
from xlt_bench.metrics.significance import Counts
from xlt_bench.models.adapters import looks_local
from xlt_bench.models.hub import COMMIT
from xlt_bench.results.atomic_write import part_folder
from xlt_bench.results.record import Plan, Record
from xlt_bench.results.redact import reduced_values
from xlt_bench.results.run_folder import Table, write_bytes
from xlt_bench.submissions import from_lm_eval
from xlt_bench.submissions.accepted import (
    Superseded,
    held,
    of_one_system,
    read_register,
    superseded,
)
from xlt_bench.submissions.artifacts import Stores, read_stores
from xlt_bench.submissions.counts import write_counts
from xlt_bench.submissions.hits import accuracies_of, as_hits, write_accuracies, write_hits
from xlt_bench.submissions.move import move
from xlt_bench.submissions.rescore import answers_digest, check_package, layer_digest, repeated
from xlt_bench.submissions.safe_read import (
    MAX_PACKED,
    parse_answers,
    read_bytes,
    read_layer,
    read_model,
)
from xlt_bench.submissions.schema import (
    ACCURACIES,
    COUNTS,
    RECORD,
    SUBMISSION,
    Submission,
    answer_files,
    json_bytes,
    layer_names,
    missing,
    submission_id,
)
from xlt_bench.submissions.validate import check_record, difference, open_package, recomputed
from xlt_bench.tasks.registry import retrieval_units


@dataclass(frozen=True)
class About:
    """What the submitter states about a run, by the options of `submit`."""

    name: str | None = None
    contact: str | None = None
    url: str | None = None
    notes: str | None = None
    baseline: str | None = None


@dataclass(frozen=True)
class Submitted:
    """The result of `submit`.

    Attributes:
        folder: The submission.
        repeat: Whether it was submitted before, so that nothing was written.
        partial: What each incomplete task lacks.
        supersedes: The older submissions whose places it takes, in all or some of their tasks.
        held: Why it is held for the maintainers; empty if it is not.
        comet: Whether the run's COMET scores were left out.
    """

    folder: Path
    repeat: bool
    partial: dict[str, list[str]]
    supersedes: list[Superseded]
    held: str
    comet: bool


def submit(
    run: Path, about: About, submissions: Path, root: Path, artifacts: str | None = None
) -> Submitted:
    """Write a run as a submission.

    The submission is written to a temporary folder and renamed, so several processes may submit at
    once.

    Args:
        run: A run folder, or the --output_path of lm_eval.
        about: What the submitter states.
        submissions: The folder of submissions; created if it is missing.
        root: The data folder.
        artifacts: The artifact store to write the answers to; None to keep them in the submission.

    Raises:
        InputError: The run is incomplete, its scores do not follow from its answers, or the store
            cannot be written to. Nothing is written to the folder of submissions.
    """
    with part_folder(submissions / "new") as staging:
        if from_lm_eval.is_output(run):
            run = from_lm_eval.convert(run, staging / "run", root)
        if not (run / RECORD).exists():
            raise InputError(
                f"{run} is neither a finished run (record.json is missing) nor output of lm_eval"
            )
        whole = public(read_model(run / RECORD, Record))
        # `submissions check` has no checkpoint to recompute COMET with.
        record = without_comet(whole)
        check_record(record)
        _check_commits(run, record.plan)
        counted, contents, as_before = _count(run, record, root, staging / "files")
        if differs := difference(record.results, recomputed(record, counted)):
            raise InputError(f"{run}: {differs}")
        folder = (staging / "files").rename(staging / submission_id(record.plan, contents))
        write_counts(folder / COUNTS, counted.tasks)
        write_bytes(folder / RECORD, json_bytes(record))
        submission = _described(folder.name, record, contents, about)
        write_bytes(folder / SUBMISSION, json_bytes(submission))
        stores = read_stores(submissions, [artifacts] if artifacts else [])
        # Submissions of older releases digest neighbours instead of hits.
        names = [folder.name, submission_id(record.plan, contents | as_before)]
        there = submissions / _known(submissions, names)
        if there.exists():
            _check_whole(there, stores)
        else:
            check_package(open_package(folder), None, submissions)
            if artifacts:
                move(folder, artifacts)
        repeat = there.exists() or not _moved(folder, there)
    partial = {task: lacks for task in record.plan.units if (lacks := missing(record, task))}
    register, package = read_register(submissions), open_package(there)
    others = [] if repeat else of_one_system(there)
    reason = "" if repeat else held(package, others, register)
    older = [] if repeat or reason else superseded(package, others, register)
    return Submitted(there, repeat, partial, older, reason, comet=record != whole)


def _known(submissions: Path, names: Sequence[str]) -> str:
    """The submission that has one of these ids or the same answers; the first id if none has."""
    for name in names:
        other = repeated(submissions, name)
        if other or (submissions / name).exists():
            return other or name
    return names[0]


def _check_whole(there: Path, stores: Stores) -> None:
    """Raise InputError if an existing submission is damaged."""
    try:
        check_package(open_package(there, stores), None, there.parent)
    except InputError as error:
        raise InputError(
            f"{there} already exists and is damaged ({error}); restore or delete it, then submit "
            "again"
        ) from None


def _check_commits(run: Path, plan: Plan) -> None:
    """Raise InputError for a model or adapter of the hub without its commit.

    Only here: submissions that older releases accepted stay valid. A server's model is not
    verified, and of an older record's adapter only `@` says that it is from the hub.
    """
    commits = {}
    if plan.model_sha256 is None and plan.backend != "openai":
        commits[plan.model] = plan.model_revision
    if plan.adapter and "@" in plan.adapter and not looks_local(plan.adapter):
        commits[plan.adapter] = plan.adapter_revision
    for name, commit in commits.items():
        if commit is None or not COMMIT.fullmatch(commit):
            raise InputError(
                f"{run} does not say which commit of {name} answered, and its branches and tags "
                "move; evaluate it again"
            )


def public(record: Record) -> Record:
    """Shorten paths in a record to their last part and hide inner addresses.

    Versions, signatures and what the plan asks for have none.
    """
    given = [record.model.name]
    if record.adapter:
        adapter = record.adapter
        given += [adapter.name, adapter.base_model or "", adapter.recipe or ""]
    local = [name for name in given if looks_local(name)]
    ends = {name: Path(name).expanduser().resolve().name for name in sorted(local, key=len)[::-1]}
    value = _renamed(record.model_dump(), ends)
    kept = {key: value[key] for key in ("versions", "signatures", "data_digests", "results")}
    return Record.model_validate(reduced_values(value) | kept)


def _renamed(value: Any, ends: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(part, ends) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, ends) for part in value]
    if not isinstance(value, str) or value in ends:
        return ends.get(value, value)
    for name, end in ends.items():  # within commands and notes
        value = value.replace(name, end) if len(name) > 3 else value
    return value


def _count(
    run: Path, record: Record, root: Path, folder: Path
) -> tuple[Counted, dict[str, str], dict[str, str]]:
    """Count the answers of a run against the test sets, and digest each file of answers.

    Each file is read once, and what a submission keeps of it is written to `folder`.

    Returns:
        The counts, the digests, and those of neighbours, which older releases submitted.
    """
    plan = record.plan
    files = answer_files(plan)
    contents: dict[str, str] = {}
    as_before: dict[str, str] = {}
    accuracies: dict[int, dict[tuple[str, str], float]] = {}

    def answered() -> Iterator[tuple[str, str, dict[str, Counts]]]:
        for task, unit in text_units(plan):
            path = files[f"{task}/{unit}"]
            data = read_bytes(run / path, MAX_PACKED)
            answers = parse_answers(data, path.name)
            contents[f"{task}/{unit}"] = answers_digest(answers)
            write_bytes(folder / path, data)
            yield task, unit, count_answers(root, plan, task, unit, answers)

    def tables() -> Iterator[tuple[int, Table]]:
        for layer, name in layer_names(plan).items():
            path = files[name]
            pairs, found, _ = read_layer(run / path, retrieval_units(plan.units))
            contents[name] = layer_digest(pairs, as_hits(found))
            as_before[name] = layer_digest(pairs, found)
            write_hits(folder / path, pairs, found)
            accuracies[layer] = dict(zip(pairs, accuracies_of(found).tolist(), strict=True))
            yield layer, dict(zip(pairs, found, strict=True))

    counted = gather(plan, answered(), tables())
    if accuracies:
        write_accuracies(folder / ACCURACIES, accuracies)
    return counted, contents, as_before


def _described(name: str, record: Record, contents: dict[str, str], about: About) -> Submission:
    systems = [record.model.name, *([record.adapter.name] if record.adapter else [])]
    try:
        return Submission(
            id=name,
            name=about.name or " + ".join(systems)[:200],
            contact=about.contact,
            url=about.url,
            notes=about.notes,
            baseline=about.baseline,
            contents=contents,
            retrieval="hits",
            record_sha256=hashlib.sha256(json_bytes(record)).hexdigest(),
        )
    except ValidationError as error:
        raise InputError(f"--{first_fault(error)}") from None


def _moved(folder: Path, there: Path) -> bool:
    """Rename a folder; False if another process created `there` first."""
    try:
        folder.rename(there)
    except OSError:
        if not there.exists():
            raise
        return False
    return True
