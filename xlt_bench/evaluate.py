"""The main job: a model and its adapters on every unit of every task, resumable unit by unit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save

from xlt_bench.benchmarks import TEXT, flores
from xlt_bench.benchmarks.base import Item
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
from xlt_bench.models.lm import Progress, XltLM
from xlt_bench.models.load import Base, choose_device, load_base, meta_model
from xlt_bench.models.merged import merged
from xlt_bench.options import Options, Request, run_folder
from xlt_bench.provenance import build_record, item_digests, read_progress, remarks
from xlt_bench.record import AdapterRecord, Plan, Record
from xlt_bench.runs import (
    Prediction,
    layer_path,
    open_run,
    predictions_path,
    write_bytes,
    write_json,
    write_layer,
    write_predictions,
)
from xlt_bench.scoring import score_run, task_version, text_units

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


@contextmanager
def _untracked(_name: str, _total: int) -> Iterator[Progress]:
    yield lambda _done: None


@dataclass
class Evaluation:
    """A loaded model on its way through one run."""

    base: Base
    lm: XltLM
    run: Path
    plan: Plan
    items: dict[tuple[Family, str], list[Item]]
    digests: dict[str, str]
    root: Path
    track: Any = _untracked
    adapter: AdapterFiles | None = None
    merged: bool = False
    notes: list[str] = field(default_factory=list)


def evaluate(request: Request, track: Any = _untracked) -> Iterator[tuple[Path, Record]]:
    """Run everything; yields each run's folder and record as it is finished.

    `track(name, total)` is a context manager that yields a function to report progress to. Raises
    InputError before any work where adapter and model do not fit.
    """
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
    codes = request.units.get("flores", [])
    digests = item_digests(request.items, codes, options.limit, request.root)
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
    )
    jobs = []
    systems: list[AdapterFiles | None] = [*adapters] or [None]
    for adapter in systems:
        run = run_folder(options, adapter.name if adapter else None)
        its = {"adapter": adapter.name, "adapter_sha256": adapter.sha256} if adapter else {}
        plan = common.model_copy(update=its)
        open_run(run, plan, digests)  # all of them before any work
        job = Evaluation(base, lm, run, plan, request.items, digests, request.root, track, adapter)
        job.notes += remarks(options, plan, digests)
        jobs.append(job)
    for job in jobs:
        if job.adapter:
            model.set_adapter(names[job.adapter.name])
        yield job.run, _run(job, model, names)


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


def _run(job: Evaluation, model: Any, names: Mapping[str, str]) -> Record:
    if (found := _finished_record(job)) is not None:
        return found
    proof = _prove(job, model, names[job.adapter.name]) if job.adapter else None
    # Weights that are merged and unmerged in turns would drift: only for an adapter on its own.
    sample = [encode_prompt(job.lm.tokenizer, prompt) for prompt in _probe(job)]
    with merged(model, sample) if len(names) == 1 else nullcontext(False) as job.merged:
        _answer(job)
    if proof:
        proof = proof.model_copy(update={"merged": _merged_throughout(job.run)})
    aligned = proof.alignment_languages if proof else []
    results = score_run(job.run, job.root, aligned)
    record = build_record(
        job.run, job.plan, job.base, job.digests, job.root, proof, job.notes, results
    )
    write_bytes(job.run / "record.json", record.model_dump_json(indent=1).encode() + b"\n")
    return record


def _finished_record(job: Evaluation) -> Record | None:
    """The record of a run that has all its answers: it says what made them, so it stays."""
    path = job.run / "record.json"
    files = [predictions_path(job.run, task, unit) for task, unit in text_units(job.plan)]
    files += [layer_path(job.run, layer) for layer in job.plan.layers]
    if not all(file.exists() for file in (path, *files)):
        return None
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError:
        return None  # of another version of the schema, or damaged: it is made again


def _answer(job: Evaluation) -> None:
    """Everything of the plan that is not on disk yet."""
    for task, names in job.plan.units.items():
        if task == "flores":
            _retrieve(job, names)
            continue
        for unit in names:
            if not predictions_path(job.run, task, unit).exists():
                _predict(job, task, unit)


def _predict(job: Evaluation, task: Family, unit: str) -> None:
    items = job.items[task, unit]
    prompts = [job.lm.apply_chat_template(item.messages) for item in items]
    started = time.perf_counter()
    with job.track(f"{task} {unit}", len(items)) as progress:
        answers = job.lm.generate(prompts, TEXT[task].MAX_NEW_TOKENS, progress)
    _finished(job, f"{task}_{unit}", started)
    predictions = [
        Prediction(item.id, answer.text, answer.cut_off)
        for item, answer in zip(items, answers, strict=True)
    ]
    write_predictions(predictions_path(job.run, task, unit), predictions)


def _finished(job: Evaluation, name: str, started: float) -> None:
    lm = job.lm
    write_json(
        job.run / "progress" / f"{name}.json",
        {
            "seconds": round(time.perf_counter() - started, 3),
            "batch_size": str(lm.batch_size_per_gpu),
            "bos": sorted(lm.bos_counts),
            "truncated_prompts": lm.truncated_prompts,
            "merged": job.merged,
        },
    )
    lm.bos_counts, lm.truncated_prompts = set(), 0


def _retrieve(job: Evaluation, codes: Sequence[str]) -> None:
    """States a language on disk, then neighbours a layer on disk; the states go at the end.

    Memory holds one layer of all languages at a time.
    """
    todo = [layer for layer in job.plan.layers if not layer_path(job.run, layer).exists()]
    folder = job.run / "retrieval" / "states"
    if todo:
        for code in codes:
            if not (folder / f"{code}.safetensors").exists():
                _states(job, code, folder)
        for layer in todo:
            started = time.perf_counter()
            states = {code: _layer_states(folder, code, layer) for code in codes}
            table = flores.layer_table(states)
            write_layer(layer_path(job.run, layer), {k: v.tolist() for k, v in table.items()})
            _finished(job, f"retrieval_layer_{layer}", started)
    shutil.rmtree(folder, ignore_errors=True)


def _states(job: Evaluation, code: str, folder: Path) -> None:
    sentences = flores.sentences(job.root, code)[: job.plan.limit]
    started = time.perf_counter()
    with job.track(f"retrieval {code}", len(sentences)) as progress:
        states = job.lm.sentence_states(sentences, job.plan.layers, progress)
    if not torch.isfinite(states).all():
        raise InputError(
            f"hidden states of {code} are not finite in {job.plan.dtype}; choose --dtype bfloat16 "
            "or float32, and another --output"
        )
    layers = {str(layer): states[:, i].contiguous() for i, layer in enumerate(job.plan.layers)}
    # Not save_file, whose error on a full disk is no OSError.
    write_bytes(folder / f"{code}.safetensors", save(layers))
    _finished(job, f"retrieval_{code}", started)


def _layer_states(folder: Path, code: str, layer: int) -> torch.Tensor:
    with safe_open(folder / f"{code}.safetensors", framework="pt") as file:
        return file.get_tensor(str(layer))  # type: ignore[no-any-return]


def _merged_throughout(run: Path) -> bool | None:
    """Whether the adapter was in the weights for all that the run has; None: for some of it."""
    rows = read_progress(run).values()
    states = {row.get("merged", False) for row in rows}  # runs begun before merging have no key
    return states.pop() if len(states) == 1 else None


def _probe(job: Evaluation) -> list[str]:
    return [job.lm.apply_chat_template([{"role": "user", "content": text}]) for text in PROBE]


def _prove(job: Evaluation, model: Any, adapter_name: str) -> AdapterRecord:
    """Compare the adapter's answers to the bare model's on the probe, and measure its change."""
    assert job.adapter is not None
    prompts = _probe(job)
    with_adapter = job.lm.generate(prompts, _PROBE_TOKENS)
    with model.disable_adapter():
        bare = job.lm.generate(prompts, _PROBE_TOKENS)
    job.lm.bos_counts, job.lm.truncated_prompts = set(), 0
    differing = sum(a.text != b.text for a, b in zip(with_adapter, bare, strict=True))
    norms = change_norms(model, adapter_name)
    if not any(norms.values()):
        job.notes.append(f"WARNING: adapter {job.adapter.name} changes no weight")
    if not differing:
        job.notes.append(
            f"WARNING: adapter {job.adapter.name} gives the bare model's answer to all "
            f"{len(PROBE)} probe prompts"
        )
    return AdapterRecord(
        name=job.adapter.name,
        sha256=job.adapter.sha256,
        peft_type=job.adapter.config["peft_type"],
        base_model=job.adapter.config.get("base_model_name_or_path"),
        alignment_languages=alignment_languages(job.adapter),
        recipe=recipe_name(job.adapter),
        change_norms=norms,
        probe_prompts=len(PROBE),
        probe_differing=differing,
    )
