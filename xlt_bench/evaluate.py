"""The main job: a model and its adapters on every unit of every task, resumable unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xlt_bench.answering import Job, answer, unanswered, untracked
from xlt_bench.benchmarks import TEXT
from xlt_bench.errors import InputError
from xlt_bench.languages import Family
from xlt_bench.metrics.retrieval import even_layers
from xlt_bench.models.adapters import (
    AdapterFiles,
    alignment_languages,
    attach,
    change_norms,
    check_adapter,
    find_adapter,
    recipe_name,
)
from xlt_bench.models.blocks import count_layers
from xlt_bench.models.chat import encode_prompt, set_chat_template
from xlt_bench.models.lm import XltLM
from xlt_bench.models.load import Base, choose_device, load_base, meta_model
from xlt_bench.models.merged import merged
from xlt_bench.options import Options, Request, run_folder
from xlt_bench.processes import from_first, rank, together, wait, world_size
from xlt_bench.provenance import (
    finish,
    finished_record,
    hf_system,
    item_digests,
    read_progress,
    remarks,
)
from xlt_bench.record import AdapterRecord, Plan, Record
from xlt_bench.runs import open_run
from xlt_bench.scoring import task_version
from xlt_bench.shares import divide, unit_costs

# What the bare model and the adapter both answer, to see that the adapter does something.
PROBE = (
    "wake me up at five am this week",
    "play some jazz in the kitchen",
    "¿qué tiempo hace mañana en madrid?",
    "stelle den wecker auf sieben uhr",
    "Translate to French: The library opens at nine.",
    "Who wrote the report about Lagos?",
    "今週は午前五時に起こして",
    "Niambie habari za leo",
)
_PROBE_TOKENS = 16


@dataclass
class Evaluation:
    """A loaded model with its adapters, of which a job takes one or none."""

    base: Base
    model: Any
    lm: XltLM
    names: Mapping[str, str]


def evaluate(request: Request, track: Any = untracked) -> Iterator[tuple[Path, Record]]:
    """Run everything; yields each run's folder and record as it is finished.

    `track(name, total)` is a context manager that yields a function to report progress to. Started
    by torchrun, each process answers its share of the units and the first one yields. Raises
    InputError before any work where adapter and model do not fit.
    """
    with together():
        yield from _evaluate(request, track)


def _evaluate(request: Request, track: Any) -> Iterator[tuple[Path, Record]]:
    options = request.options
    adapters = [find_adapter(name) for name in options.adapters]
    skeleton = meta_model(options.model)
    for found in adapters:
        check_adapter(found, skeleton, options.model)
        alignment_languages(found)  # a broken card must not wait until the answers are scored
    _check_context(skeleton, request.units)
    layers = _layers(options.layers, count_layers(skeleton)) if "flores" in request.units else []
    device = choose_device(options.device)
    base = load_base(options.model, options.dtype, device)
    template, template_sha = set_chat_template(base.tokenizer, options.chat_template)
    model, names = attach(base.model, base.name, adapters)
    lm = XltLM(pretrained=model, tokenizer=base.tokenizer, batch_size=_batch(options))
    digests = item_digests(
        request.items, request.units.get("flores", []), options.limit, request.root
    )
    common = Plan(
        model=base.name,
        model_revision=base.revision,
        model_sha256=base.sha256,
        adapter=None,
        adapter_sha256=None,
        dtype=str(base.model.dtype).removeprefix("torch."),
        template=template,
        template_sha256=template_sha,
        limit=options.limit,
        layers=layers,
        units=request.units,
        task_versions={task: task_version(task) for task in request.units},
        shard=options.shard,
    )
    jobs = []
    systems: list[AdapterFiles | None] = [*adapters] or [None]
    for adapter in systems:
        run = run_folder(options, adapter.name if adapter else None)
        its = {"adapter": adapter.name, "adapter_sha256": adapter.sha256} if adapter else {}
        plan = common.model_copy(update=its)
        from_first(partial(open_run, run, plan, digests))  # all of them before any work
        job = Job(run, plan, request.items, digests, request.root, lm, lm, track)
        job.notes += remarks(options, plan, digests)
        jobs.append((job, adapter))
    evaluation = Evaluation(base, model, lm, names)
    for job, adapter in jobs:
        if adapter:
            model.set_adapter(names[adapter.name])
        record = _run(evaluation, job, adapter)
        if record:
            yield job.run, record


def _batch(options: Options) -> int | str:
    return "auto" if options.batch_size == "auto" else int(options.batch_size)


def _layers(asked: Sequence[int], n_layers: int) -> list[int]:
    for layer in asked:
        if not 1 <= layer <= n_layers:
            raise InputError(f"layer {layer} does not exist: the model has layers 1 to {n_layers}")
    return sorted(set(asked)) or even_layers(n_layers)


def _check_context(skeleton: Any, chosen: Mapping[Family, Sequence[str]]) -> None:
    """Raise InputError for a task whose answers alone fill the model's context."""
    room = getattr(skeleton.config.get_text_config(), "max_position_embeddings", None)
    for task in chosen:
        if room and task != "flores" and room <= TEXT[task].MAX_NEW_TOKENS:
            raise InputError(
                f"the model's context of {room} tokens leaves no room for a prompt beside the "
                f"{TEXT[task].MAX_NEW_TOKENS} new tokens of {task}; leave {task} out of --tasks"
            )


def _run(evaluation: Evaluation, job: Job, adapter: AdapterFiles | None) -> Record | None:
    """Answer and score; the record, in the first process alone."""
    first = rank() == 0
    if (found := from_first(partial(finished_record, job))) is not None:
        return found if first else None
    proof = _prove(evaluation, job, adapter) if adapter and first else None
    costs = unit_costs(job.items, job.plan.units.get("flores", []), job.plan.limit, job.root)
    todo = from_first(partial(unanswered, job))
    mine = divide({unit: costs[unit] for unit in todo}, world_size())[rank()]
    # Weights that are merged and unmerged in turns would drift: only for an adapter on its own.
    alone = len(evaluation.names) == 1
    sample = [encode_prompt(evaluation.lm.tokenizer, prompt) for prompt in _probe(evaluation.lm)]
    with merged(evaluation.model, sample) if alone else nullcontext(False) as job.merged:
        answer(job, mine)
    wait()
    if not first:
        return None
    if proof:
        proof = proof.model_copy(update={"merged": _merged_throughout(job.run)})
    return finish(job, hf_system(evaluation.base), proof)


def _merged_throughout(run: Path) -> bool | None:
    """Whether the adapter was in the weights for all that the run has; None: for some of it."""
    rows = read_progress(run).values()
    states = {row.get("merged", False) for row in rows}  # runs begun before merging have no key
    return states.pop() if len(states) == 1 else None


def _probe(lm: XltLM) -> list[str]:
    return [lm.apply_chat_template([{"role": "user", "content": text}]) for text in PROBE]


def _prove(evaluation: Evaluation, job: Job, adapter: AdapterFiles) -> AdapterRecord:
    """Compare the adapter's answers to the bare model's on the probe, and measure its change."""
    lm, model = evaluation.lm, evaluation.model
    prompts = _probe(lm)
    with_adapter = lm.generate(prompts, _PROBE_TOKENS)
    with model.disable_adapter():
        bare = lm.generate(prompts, _PROBE_TOKENS)
    lm.noted()  # the probe is no part of the run
    differing = sum(a.text != b.text for a, b in zip(with_adapter, bare, strict=True))
    norms = change_norms(model, evaluation.names[adapter.name])
    if not any(norms.values()):
        job.notes.append(f"WARNING: adapter {adapter.name} changes no weight")
    if not differing:
        job.notes.append(
            f"WARNING: adapter {adapter.name} gives the bare model's answer to all "
            f"{len(PROBE)} probe prompts"
        )
    return AdapterRecord(
        name=adapter.name,
        sha256=adapter.sha256,
        peft_type=adapter.config["peft_type"],
        base_model=adapter.config.get("base_model_name_or_path"),
        alignment_languages=alignment_languages(adapter),
        recipe=recipe_name(adapter),
        change_norms=norms,
        probe_prompts=len(PROBE),
        probe_differing=differing,
    )
