"""Evaluates a model and its adapters on every unit of every task, resumable unit by unit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xlt_bench.distributed import from_first, rank, together, wait, world_size
from xlt_bench.evaluation.adapter_probe import probe, prove
from xlt_bench.evaluation.build_record import (
    AnsweringModel,
    finish,
    finished_record,
    item_digests,
    read_progress,
)
from xlt_bench.evaluation.config import Request, run_folder
from xlt_bench.evaluation.predict import (
    Job,
    answer,
    is_retrieval,
    unanswered,
    untracked,
)
from xlt_bench.evaluation.sharding import divide, unit_costs
from xlt_bench.evaluation.systems import Evaluation, load_systems, open_job, plan_of
from xlt_bench.models.adapters import AdapterFiles
from xlt_bench.models.chat import encode_prompt
from xlt_bench.models.merged import merged
from xlt_bench.models.model_args import engine_args, server_args
from xlt_bench.models.prepacked import prepacked
from xlt_bench.results.atomic_write import in_use
from xlt_bench.results.record import AdapterRecord, ModelRecord, Record

_SERVED_AT_A_TIME = 16


def evaluate(request: Request, track: Any = untracked) -> Iterator[tuple[Path, Record]]:
    """Evaluate the model with each adapter.

    With torchrun, each process answers its share of the units, and only the first one yields.

    Args:
        request: The checked options with their items.
        track: `track(name, total)` is a context manager that yields a function, which is called
            with the progress.

    Yields:
        The folder and the record of each run, as soon as it is finished.

    Raises:
        InputError: Adapter and model do not fit, or a run folder belongs to another evaluation or
            is in use by another process.
    """
    by_backend = {"hf": _with_hf, "vllm": _with_vllm, "openai": _with_server}
    options = request.options
    runs = [run_folder(options, name) for name in options.adapters] or [options.output]
    with together(), ExitStack() as held:
        from_first(lambda: [held.enter_context(in_use(run)) for run in runs])
        yield from by_backend[options.backend](request, track)


def _with_hf(request: Request, track: Any) -> Iterator[tuple[Path, Record]]:
    evaluation, jobs = load_systems(request, track)
    for job, adapter in jobs:
        if record := _run(evaluation, job, adapter):
            yield job.run, record


def _with_vllm(request: Request, track: Any) -> Iterator[tuple[Path, Record]]:
    """Run the probe and retrieval with transformers, then free its memory and answer with vLLM."""
    from xlt_bench.models.vllm import VllmLM

    evaluation, jobs = load_systems(request, track)
    base, proofs = evaluation.base, {}
    for job, adapter in jobs:
        if finished_record(job) is None:
            proofs[job.run] = _proof(evaluation, job, adapter)
            evaluation.choose(adapter)
            answer(job, [unit for unit in unanswered(job) if is_retrieval(unit)])
    evaluation.switch.use(None)
    base.model.to("meta")
    torch.cuda.empty_cache()
    adapters = [adapter for _, adapter in jobs if adapter]
    todo = any(unanswered(job) for job, _ in jobs)
    arguments = engine_args(request.options.model_args)
    engine = VllmLM(base, job.plan.dtype, adapters, arguments) if todo else None
    for job, adapter in jobs:
        if (record := finished_record(job)) is None:
            if engine is not None:
                name = adapter.name if adapter else None
                engine.use(adapter, evaluation.chats[name])
                job.text_lm = engine
                answer(job, unanswered(job))
            proof = proofs[job.run]
            if proof:
                proof = proof.model_copy(update={"merged": _merged_throughout(job.run)})
            record = finish(job, evaluation.system(adapter), proof)
        yield job.run, record


def _with_server(request: Request, track: Any) -> Iterator[tuple[Path, Record]]:
    """Let a server answer the text tasks; all that is known of it is the name of its model."""
    from xlt_bench.models.openai_server import ServedLM

    options = request.options
    concurrent = _SERVED_AT_A_TIME if options.batch_size == "auto" else int(options.batch_size)
    lm = ServedLM(options.model, concurrent, server_args(options.model_args))
    plan = plan_of(
        request,
        model=options.model,
        model_revision=None,
        model_sha256=None,
        dtype="unknown",
        template="server",
        template_sha256="unknown",
        layers=[],
    )
    model = ModelRecord(
        name=options.model,
        revision=None,
        sha256=None,
        architecture=None,
        parameters=None,
        layers=None,
        dtype="unknown",
    )
    job = open_job(request, plan, item_digests(request.items), lm, track)
    if (record := from_first(partial(finished_record, job))) is None:
        first = next(iter(request.items.values()))[0]
        job.notes += lm.check_prompt(first.messages)
        _answer_share(job)
        record = finish(job, AnsweringModel(model), None) if rank() == 0 else None
    if record and rank() == 0:
        yield job.run, record


def _answer_share(job: Job) -> None:
    """Answer this process's share of the units that are left, and wait for the other processes."""
    todo = from_first(partial(unanswered, job))
    if world_size() > 1:
        costs = unit_costs(job.items)
        todo = divide({unit: costs[unit] for unit in todo}, world_size())[rank()]
    answer(job, todo)
    wait()


def _run(evaluation: Evaluation, job: Job, adapter: AdapterFiles | None) -> Record | None:
    """Answer and score a run; only the first process returns its record."""
    first = rank() == 0
    if (found := from_first(partial(finished_record, job))) is not None:
        return found if first else None
    proof = _proof(evaluation, job, adapter) if first else None
    answer_with(evaluation, job, adapter)
    if not first:
        return None
    if proof:
        proof = proof.model_copy(update={"merged": _merged_throughout(job.run)})
    return finish(job, evaluation.system(adapter), proof)


def answer_with(evaluation: Evaluation, job: Job, adapter: AdapterFiles | None) -> None:
    """Answer what is left of a run with transformers.

    Args:
        evaluation: The loaded model.
        job: The run.
        adapter: Its adapter, if it has one.
    """
    evaluation.choose(adapter)
    # Only for a single adapter: unmerging leaves rounding errors in the weights.
    lm = evaluation.lm
    sample = [encode_prompt(lm.tokenizer, prompt) for prompt in probe(lm)]
    merging = merged(lm.model, sample) if evaluation.alone else nullcontext(False)
    with merging as job.merged, prepacked(lm.model):
        _answer_share(job)


def _merged_throughout(run: Path) -> bool | None:
    """Whether the adapter was merged for all answers of the run; None if only for some."""
    rows = read_progress(run).values()
    # Releases without merging write no key.
    states = {row.get("merged", False) for row in rows}
    return states.pop() if len(states) == 1 else None


def _proof(evaluation: Evaluation, job: Job, adapter: AdapterFiles | None) -> AdapterRecord | None:
    if adapter is None:
        return None
    bare = evaluation.bare(adapter)
    evaluation.choose(adapter)
    proof, warnings = prove(evaluation.lm, bare, adapter)
    job.notes += warnings
    return proof
