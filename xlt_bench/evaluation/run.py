"""Evaluates a model and its adapters on every unit of every task, resumable unit by unit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xlt_bench.distributed import from_first, rank, together, wait, world_size
from xlt_bench.errors import InputError
from xlt_bench.evaluation.adapter_probe import bare_answers, probe, prove
from xlt_bench.evaluation.build_record import (
    System,
    finish,
    finished_record,
    hf_system,
    item_digests,
    read_progress,
    remarks,
)
from xlt_bench.evaluation.config import Chosen, Options, Request, run_folder
from xlt_bench.evaluation.predict import (
    RETRIEVAL_UNIT,
    Job,
    TextLM,
    answer,
    unanswered,
    untracked,
)
from xlt_bench.evaluation.sharding import divide, unit_costs
from xlt_bench.metrics.retrieval import even_layers
from xlt_bench.models import generation_config
from xlt_bench.models.adapter_card import alignment_languages
from xlt_bench.models.adapter_fit import MERGE, Fit, check_adapter
from xlt_bench.models.adapter_switch import AdapterSwitch
from xlt_bench.models.adapters import AdapterFiles, adapter_commit, find_adapter
from xlt_bench.models.chat import Template, encode_prompt, parse_args, render_chat
from xlt_bench.models.hidden_states import count_layers
from xlt_bench.models.lm import Generation, XltLM
from xlt_bench.models.load import Base, choose_device, commit_of, load_base, meta_model
from xlt_bench.models.merged import merged
from xlt_bench.models.model_args import answer_settings, engine_args, server_args
from xlt_bench.models.tokenizer import Chat, choose_chat
from xlt_bench.results.atomic_write import in_use
from xlt_bench.results.record import AdapterRecord, ModelRecord, Plan, Record
from xlt_bench.results.run_folder import open_run
from xlt_bench.tasks.base import TextTask
from xlt_bench.tasks.registry import RETRIEVAL, get_task

_SERVED_AT_A_TIME = 16


@dataclass
class Evaluation:
    """A loaded model; a job uses one of the adapters or none."""

    base: Base
    switch: AdapterSwitch
    lm: XltLM
    chats: Mapping[str | None, Chat]
    alone: bool
    """Whether there is a single adapter."""

    def choose(self, adapter: AdapterFiles | None) -> None:
        """Answer with this adapter from now on."""
        self.lm.use_model(self.switch.use(adapter))
        self.lm.use(self.chats[adapter.name if adapter else None])

    def bare(self, adapter: AdapterFiles) -> list[Generation]:
        """The bare model's answers to the probe prompts, as the adapter's template renders them."""
        self.lm.use_model(self.switch.bare(adapter))
        self.lm.use(self.chats[adapter.name])
        return bare_answers(self.lm)


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
    evaluation, jobs = _prepare(request, track)
    for job, adapter in jobs:
        if record := _run(evaluation, job, adapter):
            yield job.run, record


def _prepare(
    request: Request, track: Any
) -> tuple[Evaluation, list[tuple[Job, AdapterFiles | None]]]:
    """Load everything, and open every run folder."""
    options = request.options
    # Once, in one process: a branch may move between two loads.
    commits = from_first(lambda: [adapter_commit(name) for name in options.adapters])
    commit = from_first(partial(commit_of, options.model))
    adapters = list(map(find_adapter, options.adapters, commits))
    skeleton = meta_model(options.model, options.trust_remote_code, commit)
    fits = {found.name: check_adapter(found, skeleton, options.model) for found in adapters}
    for found in adapters:
        alignment_languages(found)  # a broken card fails now, not after inference
    if options.backend == "vllm":
        _check_vllm(request, adapters, fits, commit)
    _check_context(skeleton, request.units)
    layers = _layers(options.layers, count_layers(skeleton)) if RETRIEVAL in request.units else []
    device = choose_device(options.device)
    systems: list[AdapterFiles | None] = [*adapters] or [None]
    chats = {system.name if system else None: _chat(options, system, commit) for system in systems}
    for found in adapters:
        _check_tokens(found, chats[found.name], fits[found.name], skeleton)
    tokenizer = next(iter(chats.values())).tokenizer
    base = load_base(
        options.model, options.dtype, device, options.trust_remote_code, commit, tokenizer
    )
    if options.backend == "vllm":
        _check_followed(base.model)
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=_batch(options))
    lm.try_out(_has_text(request), layers)
    switch = AdapterSwitch(base.model, base.name, fits)
    for found in adapters:
        switch.use(found)  # what peft refuses fails now, not after the adapters before it
    common: dict[str, Any] = {
        "model": base.name,
        "model_revision": base.revision,
        "model_sha256": base.sha256,
        "dtype": str(base.model.dtype).removeprefix("torch."),
        "layers": layers,
    }
    jobs, digests = [], _digests(request)
    for adapter in systems:
        lm.use(chat := chats[adapter.name if adapter else None])
        its: dict[str, Any] = {}
        if adapter:
            its = {"adapter": adapter.name, "adapter_sha256": adapter.sha256}
            its["adapter_revision"] = adapter.revision
        plan = _plan(request, **common, **its, **_rendering(chat), stop_tokens=lm.stops().names)
        job = _open(request, plan, digests, lm, track)
        job.lm = lm
        if _has_text(request):
            job.notes += generation_config.notes(base.model)
        job.notes += _rendering_notes(chat.template)
        jobs.append((job, adapter))
    return Evaluation(base, switch, lm, chats, alone=len(adapters) == 1), jobs


def _check_vllm(
    request: Request, adapters: Sequence[AdapterFiles], fits: Mapping[str, Fit], commit: str | None
) -> None:
    """Raise InputError for what vLLM would refuse later, or would answer differently."""
    from xlt_bench.models.vllm import check_engine

    for adapter in adapters:
        if fits[adapter.name].replaced or fits[adapter.name].vocabulary is not None:
            raise InputError(
                f"adapter {adapter.name} changes the base model's own weights (embeddings in its "
                "file, or PiSSA and its like), which vLLM ignores; use --backend hf"
            )
    options = request.options
    text_tasks = [task for task in map(get_task, request.units) if isinstance(task, TextTask)]
    check_engine(
        options.model,
        commit,
        options.dtype,
        options.trust_remote_code,
        adapters,
        engine_args(options.model_args),
        max((task.max_new_tokens for task in text_tasks), default=0),
    )


def _check_tokens(adapter: AdapterFiles, chat: Chat, fit: Fit, skeleton: Any) -> None:
    """Raise InputError if prompts have tokens for which there are no embeddings."""
    rows = fit.vocabulary or len(skeleton.get_input_embeddings().weight)
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    options = {"add_generation_prompt": True, **chat.template.args}
    prompt = render_chat(chat.tokenizer, messages, **options)
    if (highest := max(encode_prompt(chat.tokenizer, prompt), default=0)) >= rows:
        token = chat.tokenizer.convert_ids_to_tokens(highest)
        raise InputError(
            f"adapter {adapter.name}: prompts contain {token}, token {highest:,}, and there are "
            f"embeddings for {rows:,} only; {MERGE}, or choose another --tokenizer"
        )


def _has_text(request: Request) -> bool:
    return any(task != RETRIEVAL for task in request.units)


def _check_followed(model: Any) -> None:
    """Raise InputError for a generation config that vLLM would not follow as transformers does."""
    if followed := {*generation_config.applied(model)} - {"repetition_penalty"}:
        raise InputError(
            f"vLLM does not apply {', '.join(sorted(followed))} of the model's generation config; "
            "use --backend hf"
        )


def _plan(request: Request, **system: Any) -> Plan:
    """The plan of a request, answered by `system`."""
    options = request.options
    return Plan(
        limit=options.limit,
        units=request.units,
        task_versions={task: get_task(task).version for task in request.units},
        shard=options.shard,
        backend=options.backend,  # type: ignore[arg-type]  # checked before
        corpus=request.corpus.name if RETRIEVAL in request.units else None,
        trust_remote_code=options.trust_remote_code,
        model_args=answer_settings(options.backend, options.model_args),
        **{"adapter": None, "adapter_sha256": None} | system,
    )


def _chat(options: Options, adapter: AdapterFiles | None, commit: str | None) -> Chat:
    """The tokenizer and chat template with which a system answers."""
    return choose_chat(
        options.model,
        adapter,
        options.tokenizer,
        options.chat_template,
        parse_args(options.chat_template_args),
        options.trust_remote_code,
        commit,
    )


def _rendering(chat: Chat) -> dict[str, Any]:
    """The fields of a plan that say how prompts are rendered and tokenized."""
    return {
        "tokenizer": chat.source,
        "tokenizer_sha256": chat.sha256,
        "template": chat.template.name,
        "template_sha256": chat.template.sha256,
        "template_args": chat.template.args,
        "template_date": chat.template.date,
    }


def _rendering_notes(template: Template) -> list[str]:
    """What a reader should know of the prompts."""
    notes = []
    if template.args:
        given = " ".join(f"{name}={json.dumps(value)}" for name, value in template.args.items())
        notes.append(f"the chat template is rendered with {given}")
    if template.date:
        notes.append(f"the chat template prints the date: it is always {template.date}")
    if template.thinks:
        notes.append(
            "WARNING: the chat template opens a block of thinking, which may use up the length "
            "limit; choose another with --chat-template"
        )
    return notes


def _digests(request: Request) -> dict[str, str]:
    """The digest of each unit's items, which all systems of a request share."""
    return item_digests(request.items)


def _open(
    request: Request, plan: Plan, digests: dict[str, str], text_lm: TextLM, track: Any
) -> Job:
    """The job of a plan, its run folder opened."""
    options = request.options
    run = run_folder(options, plan.adapter)
    from_first(partial(open_run, run, plan, digests))
    job = Job(run, plan, request.items, digests, request.corpus.root, text_lm, track=track)
    job.notes += remarks(request, plan, digests)
    return job


def _with_vllm(request: Request, track: Any) -> Iterator[tuple[Path, Record]]:
    """Run the probe and retrieval with transformers, then free its memory and answer with vLLM."""
    from xlt_bench.models.vllm import VllmLM

    evaluation, jobs = _prepare(request, track)
    base, proofs = evaluation.base, {}
    for job, adapter in jobs:
        if finished_record(job) is None:
            proofs[job.run] = _proof(evaluation, job, adapter)
            evaluation.choose(adapter)
            answer(job, [unit for unit in unanswered(job) if unit == RETRIEVAL_UNIT])
    systems = {
        name: hf_system(base, chat.tokenizer)  # before the device is meta
        for name, chat in evaluation.chats.items()
    }
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
            record = finish(job, systems[adapter.name if adapter else None], proof)
        yield job.run, record


def _with_server(request: Request, track: Any) -> Iterator[tuple[Path, Record]]:
    """Let a server answer the text tasks; all that is known of it is the name of its model."""
    from xlt_bench.models.openai_server import ServedLM

    options = request.options
    concurrent = _SERVED_AT_A_TIME if options.batch_size == "auto" else int(options.batch_size)
    lm = ServedLM(options.model, concurrent, server_args(options.model_args))
    plan = _plan(
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
    job = _open(request, plan, _digests(request), lm, track)
    if (record := from_first(partial(finished_record, job))) is None:
        first = next(iter(request.items.values()))[0]
        job.notes += lm.check_prompt(first.messages)
        _answer_share(job)
        record = finish(job, System(model), None) if rank() == 0 else None
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


def _batch(options: Options) -> int | str:
    return "auto" if options.batch_size == "auto" else int(options.batch_size)


def _layers(asked: Sequence[int], n_layers: int) -> list[int]:
    for layer in asked:
        if not 1 <= layer <= n_layers:
            raise InputError(f"layer {layer} does not exist: the model has layers 1 to {n_layers}")
    return sorted(set(asked)) or even_layers(n_layers)


def _check_context(skeleton: Any, chosen: Chosen) -> None:
    """Raise InputError for a task whose answers alone fill the model's context."""
    room = getattr(skeleton.config.get_text_config(), "max_position_embeddings", None)
    for task in map(get_task, chosen):
        if room and isinstance(task, TextTask) and room <= task.max_new_tokens:
            raise InputError(
                f"the model's context of {room} tokens leaves no room for a prompt and the "
                f"{task.max_new_tokens} new tokens of {task.name}; leave {task.name} out of --tasks"
            )


def _run(evaluation: Evaluation, job: Job, adapter: AdapterFiles | None) -> Record | None:
    """Answer and score a run; only the first process returns its record."""
    first = rank() == 0
    if (found := from_first(partial(finished_record, job))) is not None:
        return found if first else None
    proof = _proof(evaluation, job, adapter) if first else None
    evaluation.choose(adapter)
    # Only for a single adapter: unmerging leaves rounding errors in the weights.
    lm = evaluation.lm
    sample = [encode_prompt(lm.tokenizer, prompt) for prompt in probe(lm)]
    with merged(lm.model, sample) if evaluation.alone else nullcontext(False) as job.merged:
        _answer_share(job)
    if not first:
        return None
    if proof:
        proof = proof.model_copy(update={"merged": _merged_throughout(job.run)})
    return finish(job, hf_system(evaluation.base, evaluation.lm.tokenizer), proof)


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
