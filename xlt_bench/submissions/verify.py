"""Implements `xlt-bench submissions verify`: runs the model of a submission again on a sample.

The sample is drawn after a submission was accepted, so that nobody can prepare answers to it. The
hashes of what is run must be those of the record. Its answers are compared with the submitted ones:

float32     at least 95 % of the answers of each task must be equal
half        the difference in score on the sample must not lie beyond HALF points (95 % interval),
            since rounding may change many answers of a bare model (docs/reliability.md)
recipe      likewise with RETRAINED points, if the adapter was trained again by its recipe: other
            machines round otherwise, and a training amplifies it. In some task, the base model
            without the adapter must be shown to differ by more than that: otherwise any adapter
            would pass
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xlt_bench.data.flores import Corpus
from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError
from xlt_bench.evaluation.config import Options, Request
from xlt_bench.evaluation.predict import Job, untracked
from xlt_bench.evaluation.run import answer_with
from xlt_bench.evaluation.score import count_items, text_units
from xlt_bench.evaluation.sharding import Items
from xlt_bench.evaluation.systems import load_systems
from xlt_bench.metrics.paired import gain, replicates
from xlt_bench.metrics.significance import Counts
from xlt_bench.results.record import Plan
from xlt_bench.results.run_folder import (
    Prediction,
    layer_path,
    predictions_path,
    read_layer,
    read_predictions,
)
from xlt_bench.submissions.accepted import read_register
from xlt_bench.submissions.answers import read_retrieval, read_unit
from xlt_bench.submissions.hits import as_hits
from xlt_bench.submissions.schema import RECORD, Agreement, Verified, contents_sha256
from xlt_bench.submissions.validate import Package, open_package
from xlt_bench.tasks.registry import get_task, get_text_task, retrieval_in, retrieval_units

AGREE = 0.95  # share of equal answers in float32
HALF, RETRAINED = 1.0, 3.0  # points
_Z = 1.959964
# The rendering of prompts that is chosen by model and adapter, and not by an option.
Basis = Literal["weights", "recipe"]
_OWN_TEMPLATES = ("tokenizer", "adapter", "model")


@dataclass(frozen=True)
class Run:
    """What to run, if not what the record names, and how.

    Attributes:
        model: The base model: a folder or hub name.
        adapter: The adapter: a folder or hub name.
        retrained: Whether the adapter was trained again, so that its hash differs.
        chat_template: The file of a chat template that the record only names.
        tokenizer: A tokenizer that the record only names.
        device: As for `evaluate`.
        batch_size: As for `evaluate`.
        trust_remote_code: Whether the model's own code may run.
    """

    model: str | None = None
    adapter: str | None = None
    retrained: bool = False
    chat_template: str | None = None
    tokenizer: str | None = None
    device: str | None = None
    batch_size: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Sample:
    """The items that are answered again.

    Attributes:
        places: By task and unit of text, the places of the items in the unit, ascending.
        languages: The two languages of retrieval; empty without it.
        layer: The layer of retrieval.
    """

    places: dict[tuple[str, str], list[int]]
    languages: list[str]
    layer: int | None


def draw(plan: Plan, sizes: dict[tuple[str, str], int], items: int, seed: int) -> Sample:
    """Draw a sample: equally many items of each text task, two languages and a layer of retrieval.

    Args:
        plan: The plan of the submission.
        sizes: The number of items by task and unit of text.
        items: The number of items to draw, over all text tasks.
        seed: Of the random numbers.
    """
    numbers = random.Random(seed)
    tasks = list(dict.fromkeys(task for task, _ in sizes))
    places: dict[tuple[str, str], list[int]] = {}
    for task in tasks:
        every = [(unit, i) for unit, n in sizes.items() if unit[0] == task for i in range(n)]
        for unit, i in numbers.sample(every, min(len(every), math.ceil(items / len(tasks)))):
            places.setdefault(unit, []).append(i)
    codes = retrieval_units(plan.units)
    languages = numbers.sample(codes, 2) if codes else []
    layer = numbers.choice(plan.layers) if codes else None
    return Sample({unit: sorted(found) for unit, found in places.items()}, languages, layer)


def verify(
    folder: Path, run: Run, items: int, seed: int, by: str, root: Path, track: Any = untracked
) -> Verified:
    """Run the model of a submission on a sample of its items, and compare the answers.

    Args:
        folder: The submission. It must be accepted.
        run: What to run.
        items: The number of items, over all text tasks.
        seed: Of the sample.
        by: Who verifies it.
        root: The data folder.
        track: Reports progress; see `evaluation.run.evaluate`.

    Returns:
        What to write to verified.json if all of it passes (`passes`).

    Raises:
        InputError: The submission cannot be verified, or what was run is not what the record names.
    """
    package = open_package(folder)
    if folder.name not in read_register(folder.parent).places:
        raise InputError(f"{folder.name} is not accepted yet: xlt-bench submissions accept")
    _check_verifiable(package.record.plan)
    whole = _load(package, root)
    text = {task for task in package.record.plan.units if get_task(task).answers == "text"}
    sizes = {unit: len(found) for unit, found in whole.items() if unit[0] in text}
    sample = draw(package.record.plan, sizes, items, seed)
    with _answered(package, run, sample, whole, root, track) as (job, basis):
        agreement = _agreements(package, job, sample, whole, basis)
    if basis == "recipe":
        with _answered(package, run, sample, whole, root, track, bare=True) as (job, _):
            without = _agreements(package, job, sample, whole, basis)
        agreement = [_beside(one, bare) for one, bare in zip(agreement, without, strict=True)]
    return Verified(
        id=folder.name,
        record_sha256=package.record_sha256,
        contents_sha256=contents_sha256(package.submission),
        by=by,
        on=datetime.now(UTC).date().isoformat(),
        version=importlib.metadata.version("xlt-bench"),
        basis=basis,
        seed=seed,
        layer=sample.layer,
        languages=sample.languages,
        agreement=agreement,
    )


def passes(one: Agreement, basis: str) -> bool:
    """Whether the agreement in a task is that of an honest submission."""
    if one.judged_by == "answers":
        return one.equal >= AGREE * one.items
    most = RETRAINED if basis == "recipe" else HALF
    return one.gain_low <= most and one.gain_high >= -most


def is_telling(one: Agreement) -> bool:
    """Whether the base model is shown to differ from the submission by more than RETRAINED points.

    Only then does the agreement of an adapter that was trained again say something about it.
    """
    low, high = one.bare_low, one.bare_high
    return low is not None and high is not None and (low > RETRAINED or high < -RETRAINED)


def _check_verifiable(plan: Plan) -> None:
    if plan.backend == "openai":
        raise InputError("a server answered: there are no weights to run")
    if plan.prompts:
        raise InputError("only answers to the benchmark's own prompts are verified and ranked")
    for task, version in plan.task_versions.items():
        if version < get_task(task).rescored_from:
            raise InputError(f"this release cannot ask version {version} of {task}")


def _load(package: Package, root: Path) -> Items:
    """The items of a submission, whose digests must be those of the record."""
    plan, found = package.record.plan, {}
    for task, units in plan.units.items():
        for unit in units:
            rows = get_task(task).load(root, unit)[: plan.limit]
            if content_digest(rows) != package.record.data_digests[f"{task}/{unit}"]:
                raise InputError(f"{RECORD}: data_digests: {task}/{unit} is not that of {root}")
            found[task, unit] = rows
    return found


@contextmanager
def _answered(
    package: Package,
    run: Run,
    sample: Sample,
    whole: Items,
    root: Path,
    track: Any,
    bare: bool = False,
) -> Iterator[tuple[Job, Basis]]:
    """Answer the sample in a temporary run; yields it, and what the verification is based on.

    With `bare`, the base model answers without the adapter, which is compared with no hash.
    """
    plan = package.record.plan
    asked = {unit: [whole[unit][i] for i in places] for unit, places in sample.places.items()}
    if task := retrieval_in(plan.units):
        asked |= {(task.name, code): whole[task.name, code] for code in sample.languages}
    units: dict[str, list[str]] = {}
    for name, unit in asked:
        units.setdefault(name, []).append(unit)
    with tempfile.TemporaryDirectory(prefix="xlt-bench-") as folder:
        options = _options(plan, run, sample, Path(folder, "run"))
        options = replace(options, adapters=[]) if bare else options
        request = Request(options, units, Corpus(root), asked)
        evaluation, [(job, adapter)] = load_systems(request, track)
        basis: Basis = "recipe" if bare else _check_same(plan, job.plan, run)
        # Retrieval is ranked by all even layers: whoever says fewer could leave out the worst.
        stated, found = package.record.model.layers, evaluation.bare_system.model.layers
        if retrieval_in(plan.units) and stated != found:
            raise InputError(f"the model has {found} layers, but {stated} in {RECORD}")
        answer_with(evaluation, job, adapter)
        yield job, basis


def _options(plan: Plan, run: Run, sample: Sample, output: Path) -> Options:
    adapter = run.adapter or _named(plan.adapter, plan.adapter_revision)
    own = plan.template in _OWN_TEMPLATES
    named = None if plan.tokenizer in (None, "model", "adapter") else plan.tokenizer
    return Options(
        model=run.model or _named(plan.model, plan.model_revision) or "",
        output=output,
        adapters=[adapter] if adapter else [],
        limit=plan.limit,
        layers=[sample.layer] if sample.layer else [],
        dtype=plan.dtype,
        device=run.device,
        batch_size=run.batch_size,
        tokenizer=run.tokenizer or (named and named.removeprefix("--tokenizer ")),
        chat_template=run.chat_template or (None if own else plan.template),
        chat_template_args=json.dumps(plan.template_args) if plan.template_args else None,
        trust_remote_code=run.trust_remote_code,
    )


def _named(name: str | None, commit: str | None) -> str | None:
    return f"{name.partition('@')[0]}@{commit}" if name and commit else name


def _check_same(stated: Plan, ran: Plan, run: Run) -> Basis:
    """Compare what was run with the record.

    Returns:
        `weights`, or `recipe` for another adapter that was trained again.

    Raises:
        InputError: They differ.
    """
    keys = ["model_sha256", "dtype", "template_sha256", "template_args"]
    keys += ["tokenizer_sha256"] if stated.tokenizer_sha256 else []
    if stated.model_sha256 is None:
        keys.append("model_revision")
    for key in keys:
        if getattr(stated, key) != getattr(ran, key):
            raise InputError(
                f"{key} is {str(getattr(ran, key))[:60]}, but {str(getattr(stated, key))[:60]} in "
                f"{RECORD}"
            )
    if (stated.adapter is None) != (ran.adapter is None):
        raise InputError("the record names no adapter: leave --adapter out")
    same = stated.adapter_sha256 == ran.adapter_sha256
    if same != (not run.retrained):
        found = "are those" if same else "are not those"
        remedy = "leave --retrained out" if same else "--retrained is for one trained by its recipe"
        raise InputError(f"the adapter's weights {found} of {RECORD}; {remedy}")
    return "recipe" if run.retrained else "weights"


def _agreements(
    package: Package, job: Job, sample: Sample, whole: Items, basis: str
) -> list[Agreement]:
    return [
        *_text(package, job, sample, whole, basis),
        *_retrieval(package, job, sample, basis),
    ]


def _beside(one: Agreement, bare: Agreement) -> Agreement:
    """The agreement of a task, and how far the base model is from the submission."""
    return one.model_copy(
        update={
            "bare": bare.recomputed,
            "bare_low": bare.gain_low,
            "bare_high": bare.gain_high,
        }
    )


def _text(
    package: Package, job: Job, sample: Sample, whole: Items, basis: str
) -> Iterator[Agreement]:
    plan = package.record.plan
    by_task: dict[str, list[tuple[int, Counts, Counts]]] = {}
    for task, unit in text_units(job.plan):
        places = sample.places[task, unit]
        every = read_unit(package, task, unit)
        ours = [every[i] for i in places]
        theirs = read_predictions(predictions_path(job.run, task, unit))
        equal = sum(a.hypothesis == b.hypothesis for a, b in zip(ours, theirs, strict=True))
        rows = [whole[task, unit][i] for i in places]
        counts = [_counts(plan, task, rows, answers) for answers in (ours, theirs)]
        by_task.setdefault(task, []).append((equal, counts[0], counts[1]))
    for task, found in by_task.items():
        submitted, again = (np.concatenate([row[i] for row in found]) for i in (1, 2))
        yield _agreement(plan, task, sum(row[0] for row in found), submitted, again, basis)


def _counts(plan: Plan, task: str, rows: list[Any], answers: Sequence[Prediction]) -> Counts:
    return count_items(plan, task, rows, answers)[get_text_task(task).primary]


def _retrieval(package: Package, job: Job, sample: Sample, basis: str) -> Iterator[Agreement]:
    plan = package.record.plan
    task = retrieval_in(plan.units)
    if sample.layer is None or task is None:
        return
    pairs, answers = read_retrieval(package, sample.layer)
    stored = dict(zip(pairs, answers, strict=True))
    ran = read_layer(layer_path(job.run, sample.layer))
    rows = np.array(list(ran.values()))
    if package.submission.retrieval == "hits":
        rows = as_hits(rows)
    again = dict(zip(ran, rows, strict=True))
    equal = sum(int((stored[pair] == row).sum()) for pair, row in again.items())
    counts = [_hits([table[pair] for pair in again]) for table in (stored, again)]
    yield _agreement(plan, task.name, equal, counts[0], counts[1], basis, len(again))


def _hits(rows: Sequence[Any]) -> Counts:
    """Right answers and questions by sentence, (sentences, 2)."""
    right = sum((row == np.arange(len(row))).astype(np.int64) for row in rows)
    return np.stack([right, np.full(len(right), len(rows))], axis=1)


def _agreement(
    plan: Plan, task: str, equal: int, submitted: Counts, again: Counts, basis: str, each: int = 1
) -> Agreement:
    """Compare counts of the same items; each item has `each` answers."""
    one = get_task(task)
    ours, theirs = replicates([submitted, again], one.metric(one.primary).score)
    difference = gain(ours, theirs)
    items = len(submitted) * each
    low, high = wilson(equal, items)
    exact = plan.dtype == "float32" and basis == "weights"
    return Agreement(
        task=task,
        items=items,
        equal=equal,
        low=low,
        high=high,
        submitted=ours.value,
        recomputed=theirs.value,
        gain_low=difference.low,
        gain_high=difference.high,
        judged_by="answers" if exact else "scores",
    )


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in percent (Wilson, 1927).

    >>> tuple(round(end, 1) for end in wilson(190, 200))
    (91.0, 97.3)
    """
    share, z = hits / n, _Z**2
    middle = (share + z / (2 * n)) / (1 + z / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z / (4 * n**2)) / (1 + z / n)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)
