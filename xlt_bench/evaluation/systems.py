"""Loads the model of a request with its tokenizers, and opens a run folder for each system.

A system is the base model alone or with one adapter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from xlt_bench.distributed import from_first
from xlt_bench.errors import InputError
from xlt_bench.evaluation.adapter_probe import bare_answers
from xlt_bench.evaluation.build_record import AnsweringModel, answering_model, item_digests, remarks
from xlt_bench.evaluation.config import Chosen, Options, Request, run_folder
from xlt_bench.evaluation.predict import Job, TextLM
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
from xlt_bench.models.model_args import answer_settings, engine_args
from xlt_bench.models.steering import steering_notes
from xlt_bench.models.tokenizer import Chat, choose_chat
from xlt_bench.models.validate_names import parse_batch_size
from xlt_bench.results.record import Plan
from xlt_bench.results.run_folder import open_run
from xlt_bench.tasks.base import TextTask
from xlt_bench.tasks.registry import RETRIEVAL, get_task, retrieval_in


@dataclass
class Evaluation:
    """A loaded model; a job uses one of the adapters or none."""

    base: Base
    bare_system: AnsweringModel
    """The record of the bare model."""
    switch: AdapterSwitch
    lm: XltLM
    chats: Mapping[str | None, Chat]
    alone: bool
    """Whether there is a single adapter, so that it may be merged into the weights."""

    def choose(self, adapter: AdapterFiles | None) -> None:
        """Answer with this adapter from now on."""
        self.lm.use_model(self.switch.use(adapter), self.switch.steering)
        self.lm.use_chat(self.chats[adapter.name if adapter else None])

    def system(self, adapter: AdapterFiles | None) -> AnsweringModel:
        """The record of what answers with this adapter."""
        chat = self.chats[adapter.name if adapter else None]
        return replace(self.bare_system, tokenizer=chat.tokenizer)

    def bare(self, adapter: AdapterFiles) -> list[Generation]:
        """The bare model's answers to the probe prompts, as the adapter's template renders them.

        Of a steered system, those without steering.
        """
        if adapter.steers:
            self.choose(adapter)
            return bare_answers(self.lm)
        self.lm.use_model(self.switch.bare(adapter))
        self.lm.use_chat(self.chats[adapter.name])
        return bare_answers(self.lm)


_NO_END = (
    "WARNING: nothing ends an answer but the length limit: the tokenizer has no EOS, and the chat "
    "template writes nothing after an assistant's message; choose others with --tokenizer and "
    "--chat-template"
)


def load_systems(
    request: Request, track: Any
) -> tuple[Evaluation, list[tuple[Job, AdapterFiles | None]]]:
    """Load the model, check everything against it, and open every run folder.

    Args:
        request: The checked options with their items.
        track: Reports progress; see `run.evaluate`.

    Returns:
        The model, and the job of each system with its adapter, if it has one.

    Raises:
        InputError: Adapter and model do not fit, or a run folder belongs to another evaluation.
    """
    options = request.options
    # Once, in one process: a branch may move between two loads.
    commits = from_first(lambda: [adapter_commit(name) for name in options.adapters])
    loaded = options.loaded
    adapters = list(map(find_adapter, options.adapters, commits))
    if loaded:
        commit, skeleton = loaded.base.revision, loaded.on_meta()
        adapters += [loaded.adapter] if loaded.adapter else []
    else:
        commit = from_first(partial(commit_of, options.model))
        skeleton = meta_model(options.model, options.trust_remote_code, commit)
    fits = {found.name: check_adapter(found, skeleton, options.model) for found in adapters}
    for found in adapters:
        alignment_languages(found)  # a broken card fails now, not after inference
    if options.backend == "vllm":
        _check_vllm(request, adapters, fits, commit)
    _check_context(skeleton, request.units)
    layers = _layers(options.layers, count_layers(skeleton)) if retrieval_in(request.units) else []
    systems: list[AdapterFiles | None] = [*adapters] or [None]
    chats = {system.name if system else None: _chat(options, system, commit) for system in systems}
    for found in adapters:
        _check_tokens(found, chats[found.name], fits[found.name], skeleton)
    tokenizer = next(iter(chats.values())).tokenizer
    base = _base(options, commit, tokenizer)
    if options.backend == "vllm":
        _check_followed(base.model)
    lm = XltLM(
        pretrained=base.model,
        tokenizer=base.tokenizer,
        batch_size=parse_batch_size(options.batch_size),
    )
    lm.try_out(_has_text(request), layers)
    system = answering_model(base)  # before there are parameters of adapters
    switch = AdapterSwitch(base.model, base.name, fits)
    for found in adapters:
        switch.use(found)  # what peft refuses fails now, not after the adapters before it
    # A model that is in memory is its owner's: unmerging would leave rounding errors in it.
    alone = len(adapters) == 1 and not loaded
    evaluation = Evaluation(base, system, switch, lm, chats, alone)
    digests = item_digests(request.items)
    jobs = [_open_for(evaluation, adapter, request, layers, digests, track) for adapter in systems]
    return evaluation, list(zip(jobs, systems, strict=True))


def _open_for(
    evaluation: Evaluation,
    adapter: AdapterFiles | None,
    request: Request,
    layers: list[int],
    digests: dict[str, str],
    track: Any,
) -> Job:
    """Open the run folder of one system."""
    base, lm = evaluation.base, evaluation.lm
    lm.use_chat(chat := evaluation.chats[adapter.name if adapter else None])
    its: dict[str, Any] = {}
    if adapter:
        its = {"adapter": adapter.name, "adapter_sha256": adapter.sha256}
        its["adapter_revision"] = adapter.revision
    plan = plan_of(
        request,
        model=base.name,
        model_revision=base.revision,
        model_sha256=base.sha256,
        dtype=str(base.model.dtype).removeprefix("torch."),
        layers=layers,
        stop_tokens=lm.stops().names,
        **its,
        **_rendering(chat),
    )
    job = open_job(request, plan, digests, lm, track)
    job.lm = lm
    if _has_text(request):
        job.notes += generation_config.notes(base.model)
        if not plan.stop_tokens:
            job.notes.append(_NO_END)
    job.notes += _rendering_notes(chat.template)
    if adapter and adapter.steers:
        job.notes += steering_notes(adapter, plan)
    return job


def _base(options: Options, commit: str | None, tokenizer: Any) -> Base:
    if options.loaded:
        return replace(options.loaded.base, tokenizer=tokenizer)
    device, trusted = choose_device(options.device), options.trust_remote_code
    return load_base(options.model, options.dtype, device, trusted, commit, tokenizer)


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
    """Raise InputError if prompts contain tokens without an embedding."""
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
    return any(get_task(task).answers == "text" for task in request.units)


def _check_followed(model: Any) -> None:
    """Raise InputError for a generation config that vLLM would not follow as transformers does."""
    if followed := {*generation_config.applied(model)} - {"repetition_penalty"}:
        raise InputError(
            f"vLLM does not apply {', '.join(sorted(followed))} of the model's generation config; "
            "use --backend hf"
        )


def plan_of(request: Request, **system: Any) -> Plan:
    """Build the plan of a request.

    Args:
        request: The checked options with their items.
        **system: The fields of the plan that describe what answers.

    Returns:
        The plan.
    """
    options = request.options
    return Plan(
        limit=options.limit,
        units=request.units,
        task_versions={task: get_task(task).version for task in request.units},
        shard=options.shard,
        backend=options.backend,  # type: ignore[arg-type]  # checked before
        corpus=request.corpus.name if RETRIEVAL in request.units else None,
        trust_remote_code=options.trust_remote_code,
        prompts={task: one.prompt for task, one in request.prompts.items()},
        model_args=answer_settings(options.backend, options.model_args),
        **{"adapter": None, "adapter_sha256": None} | system,
    )


def _chat(options: Options, adapter: AdapterFiles | None, commit: str | None) -> Chat:
    """The tokenizer and chat template with which a system answers."""
    return choose_chat(
        options.model,
        (adapter and adapter.under) or adapter,
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


def open_job(
    request: Request, plan: Plan, digests: dict[str, str], text_lm: TextLM, track: Any
) -> Job:
    """Open the run folder of a plan.

    Args:
        request: The checked options with their items.
        plan: What is evaluated.
        digests: The content digest of each unit's items.
        text_lm: The model that answers the text tasks.
        track: Reports progress; see `run.evaluate`.

    Returns:
        The job.

    Raises:
        InputError: The run folder belongs to another evaluation.
    """
    run = run_folder(request.options, plan.adapter)
    from_first(partial(open_run, run, plan, digests))
    job = Job(run, plan, request.items, digests, request.corpus.root, text_lm, track=track)
    job.prompts = request.prompts
    job.notes += remarks(request, plan, digests)
    return job


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
