"""The main job: a model and its adapters on every unit of every task, resumable unit by unit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from xlt_bench.benchmarks import TEXT, flores
from xlt_bench.benchmarks.base import Item
from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError, unknown
from xlt_bench.languages import Family, units, units_of
from xlt_bench.metrics.retrieval import even_layers
from xlt_bench.models.adapters import (
    AdapterFiles,
    alignment_languages,
    change_norms,
    check_adapter,
    find_adapter,
    recipe_name,
)
from xlt_bench.models.chat import set_chat_template
from xlt_bench.models.lm import Progress, XltLM
from xlt_bench.models.load import Base, choose_device, load_base, meta_model
from xlt_bench.provenance import build_record
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
from xlt_bench.scoring import score_run, task_version

TASK_NAMES: dict[str, Family] = {
    "massive": "massive",
    "wmt23": "wmt23",
    "uner": "uner",
    "retrieval": "flores",
}

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


@dataclass(frozen=True)
class Options:
    """What `xlt-bench evaluate` was asked for."""

    model: str
    output: Path
    adapters: Sequence[str] = ()
    tasks: Sequence[str] = tuple(TASK_NAMES)
    languages: Sequence[str] = ()
    limit: int | None = None
    layers: Sequence[int] = ()
    dtype: str = "auto"
    device: str | None = None
    batch_size: str = "auto"
    chat_template: str | None = None
    data_dir: str | None = None


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
    root: Path
    track: Any = _untracked
    adapter: AdapterFiles | None = None
    notes: list[str] = field(default_factory=list)


def plan_units(options: Options) -> dict[Family, list[str]]:
    """The units of each task asked for. Raises InputError for unknown names or an empty choice."""
    chosen: dict[Family, list[str]] = {}
    for name in options.tasks:
        if name not in TASK_NAMES:
            raise unknown("task", name, TASK_NAMES)
        task = TASK_NAMES[name]
        names = units_of(task, options.languages) if options.languages else list(units(task))
        if names and not (task == "flores" and len(names) < 2):
            chosen[task] = names
    if not chosen:
        raise InputError(
            f"none of {', '.join(options.tasks)} covers {', '.join(options.languages)}; "
            "see the languages with: xlt-bench languages"
        )
    return chosen


def evaluate(options: Options, track: Any = _untracked) -> Iterator[tuple[Path, Record]]:
    """Run everything; yields each run's folder and record as it is finished.

    One run folder for one system: OUTPUT itself, or OUTPUT/<adapter name> where there are several.
    `track(name, total)` is a context manager that yields a function to report progress to. Raises
    InputError before any work where something given is wrong.
    """
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit must be at least 1, not {options.limit}")
    if options.batch_size != "auto" and not _positive(options.batch_size):
        raise InputError(f"--batch-size must be 'auto' or at least 1, not {options.batch_size!r}")
    chosen = plan_units(options)
    root = data_root(options.data_dir)
    items = load_items(root, chosen, options.limit)
    adapters = [find_adapter(name) for name in options.adapters]
    skeleton = meta_model(options.model)
    for found in adapters:
        check_adapter(found, skeleton, options.model)
        alignment_languages(found)  # a broken card must not wait until the answers are scored
    device = choose_device(options.device)
    base = load_base(options.model, options.dtype, device)
    template, template_sha = set_chat_template(base.tokenizer, options.chat_template)
    model, names = _with_adapters(base, adapters)
    lm = XltLM(pretrained=model, tokenizer=base.tokenizer, batch_size=_batch(options))
    layers = _layers(options.layers, lm.n_layers) if "flores" in chosen else []
    systems: list[AdapterFiles | None] = [*adapters] or [None]
    for adapter in systems:
        run = _run_folder(options, adapter, len(adapters))
        plan = Plan(
            model=base.name,
            model_revision=base.revision,
            model_sha256=base.sha256,
            adapter=adapter.name if adapter else None,
            adapter_sha256=adapter.sha256 if adapter else None,
            dtype=str(base.model.dtype).removeprefix("torch."),
            template=template,
            template_sha256=template_sha,
            limit=options.limit,
            layers=layers,
            units=chosen,
            task_versions={task: task_version(task) for task in chosen},
        )
        open_run(run, plan)
        if adapter:
            model.set_adapter(names[adapter.name])
        job = Evaluation(base, lm, run, plan, items, root, track, adapter)
        yield run, _run(job, model, names.get(adapter.name) if adapter else None)


def _positive(text: str) -> bool:
    return text.isdigit() and int(text) > 0


def _batch(options: Options) -> int | str:
    return "auto" if options.batch_size == "auto" else int(options.batch_size)


def _layers(asked: Sequence[int], n_layers: int) -> list[int]:
    for layer in asked:
        if not 1 <= layer <= n_layers:
            raise InputError(f"layer {layer} does not exist: the model has layers 1 to {n_layers}")
    return sorted(set(asked)) or even_layers(n_layers)


def load_items(
    root: Path, chosen: dict[Family, list[str]], limit: int | None
) -> dict[tuple[Family, str], list[Item]]:
    """All items of the run: a missing or broken file stops it before the model is loaded."""
    items: dict[tuple[Family, str], list[Item]] = {}
    for task, names in chosen.items():
        for name in names:
            if task == "flores":
                flores.sentences(root, name)
            else:
                items[task, name] = TEXT[task].load(root, name)[:limit]
    return items


def _run_folder(options: Options, adapter: AdapterFiles | None, n_adapters: int) -> Path:
    if adapter is None or n_adapters == 1:
        return options.output
    return options.output / Path(adapter.name).name.replace(":", "-")


def _with_adapters(base: Base, adapters: Sequence[AdapterFiles]) -> tuple[Any, dict[str, str]]:
    """The base with all adapters loaded beside each other, and peft's name of each."""
    if not adapters:
        return base.model, {}
    if len({Path(adapter.name).name for adapter in adapters}) < len(adapters):
        raise InputError("two adapters have one folder name; rename one, since runs are named so")
    from peft import PeftModel

    names = {adapter.name: f"adapter_{i}" for i, adapter in enumerate(adapters)}
    model = base.model
    for adapter in adapters:
        folder, name = str(adapter.folder), names[adapter.name]
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(folder, adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, folder, adapter_name=name)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            line = str(error).strip().split("\n")[0]
            raise InputError(f"adapter {adapter.name} does not fit {base.name}: {line}") from None
    return model.eval(), names


def _run(job: Evaluation, model: Any, adapter_name: str | None) -> Record:
    proof = _prove(job, model, adapter_name) if job.adapter and adapter_name else None
    for task, names in job.plan.units.items():
        if task == "flores":
            _retrieve(job, names)
            continue
        for unit in names:
            if not predictions_path(job.run, task, unit).exists():
                _predict(job, task, unit)
    aligned = proof.alignment_languages if proof else []
    results = score_run(job.run, job.root, aligned)
    record = build_record(
        job.run, job.plan, job.base, job.items, job.root, proof, job.notes, results
    )
    write_bytes(job.run / "record.json", record.model_dump_json(indent=1).encode() + b"\n")
    return record


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
    layers = {str(layer): states[:, i].contiguous() for i, layer in enumerate(job.plan.layers)}
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{code}.part"
    save_file(layers, beside)
    beside.replace(folder / f"{code}.safetensors")
    _finished(job, f"retrieval_{code}", started)


def _layer_states(folder: Path, code: str, layer: int) -> torch.Tensor:
    with safe_open(folder / f"{code}.safetensors", framework="pt") as file:
        return file.get_tensor(str(layer))  # type: ignore[no-any-return]


def _prove(job: Evaluation, model: Any, adapter_name: str) -> AdapterRecord:
    """Compare the adapter's answers to the bare model's on the probe, and measure its change."""
    assert job.adapter is not None
    prompts = [job.lm.apply_chat_template([{"role": "user", "content": text}]) for text in PROBE]
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
