"""Builds the record of a run: scores and metadata (data, versions, hardware, command line)."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from xlt_bench.data.root import MissingFileError, content_digest
from xlt_bench.data.wmt23 import FROM_ALMA
from xlt_bench.distributed import world_size
from xlt_bench.errors import InputError
from xlt_bench.evaluation.comet.stored import comet_signatures, read_comet
from xlt_bench.evaluation.config import Request
from xlt_bench.evaluation.costs import of_parts
from xlt_bench.evaluation.predict import Job, unanswered
from xlt_bench.evaluation.score import score_run
from xlt_bench.evaluation.sharding import Items
from xlt_bench.metrics.fertility import fertility
from xlt_bench.metrics.translation import language_signature, metrics_of, signature
from xlt_bench.models.load import Base
from xlt_bench.results.record import (
    AdapterRecord,
    Fertility,
    ModelRecord,
    Plan,
    Record,
    Scores,
    ShotPrompt,
)
from xlt_bench.results.redact import command_line, without_home
from xlt_bench.results.run_folder import read_record, write_bytes
from xlt_bench.tasks import retrieval, wmt23
from xlt_bench.tasks.registry import RETRIEVAL, get_task, retrieval_in

_PACKAGES = (
    "xlt-bench torch transformers peft tokenizers lm_eval sacrebleu mecab-python3 py3langid numpy "
    "safetensors"
).split()


@dataclass(frozen=True)
class AnsweringModel:
    """The model that answered, as the record states it, with its device and tokenizer.

    `tokenizer` is None and `device` empty if a server answered.
    """

    model: ModelRecord
    device: str = ""
    tokenizer: Any = None


def answering_model(base: Base) -> AnsweringModel:
    """The system of a base model that transformers has loaded, without adapters."""
    config = base.model.config
    record = ModelRecord(
        name=base.name,
        revision=base.revision,
        sha256=base.sha256,
        architecture=type(base.model).__name__,
        parameters=sum(p.numel() for p in base.model.parameters()),
        layers=config.get_text_config().num_hidden_layers,
        dtype=str(base.model.dtype).removeprefix("torch."),
    )
    return AnsweringModel(record, str(base.model.device), base.tokenizer)


def finished_record(job: Job) -> Record | None:
    """The record of a run that is finished; None if there is anything left to do."""
    path = job.run / "record.json"
    if unanswered(job) or not path.exists():
        return None
    try:
        return read_record(job.run)
    except InputError:
        return None  # unknown schema or damaged: it is written again


def finish(job: Job, system: AnsweringModel, adapter: AdapterRecord | None) -> Record:
    """Score a run whose units are all answered, and write its record."""
    results = score_run(job.run, job.root, adapter.alignment_languages if adapter else [])
    record = _record(job, system, adapter, results)
    write_record(job.run, record)
    return record


def write_record(run: Path, record: Record) -> None:
    """Write RUN/record.json, which marks the run as finished."""
    text = without_home(record.model_dump_json(indent=1))
    write_bytes(run / "record.json", text.encode() + b"\n")


def _record(
    job: Job, system: AnsweringModel, adapter: AdapterRecord | None, results: Scores
) -> Record:
    plan, progress = job.plan, read_progress(job.run)
    truncated = [row["truncated_prompts"] for row in progress.values()]
    return Record(
        created=now(),
        command=command_line(),
        model=system.model,
        adapter=adapter,
        template=plan.template,
        template_sha256=plan.template_sha256,
        bos_per_prompt=sorted({count for row in progress.values() for count in row["bos"]}),
        truncated_prompts=None if None in truncated else sum(truncated),
        plan=plan,
        data_digests=dict(job.digests),
        notes=[*job.notes, *_notes(plan, adapter)],
        signatures=_signatures(plan) | comet_signatures(read_comet(plan, job.run)),
        versions=_versions(plan),
        hardware=_hardware(system.device),
        seconds={name: row["seconds"] for name, row in progress.items()},
        batch_sizes={name: row["batch_size"] for name, row in progress.items()},
        fertility=_fertility(system.tokenizer, plan, job.root) if system.tokenizer else {},
        costs=None
        if plan.backend == "openai"
        else of_parts(row | {"device_seconds": row["seconds"]} for row in progress.values()),
        alignment=[one for row in progress.values() for one in row.get("alignment", [])],
        results=results,
    )


def _versions(plan: Plan) -> dict[str, str]:
    names = [*_PACKAGES, "vllm"] if plan.backend == "vllm" else _PACKAGES
    return {name: importlib.metadata.version(name) for name in names}


def now() -> str:
    """The time of a record: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_progress(run: Path) -> dict[str, Any]:
    """Read the statistics of each finished part of a run from RUN/progress, by the part's name.

    Raises:
        InputError: A file is damaged.
    """
    found = {}
    for path in sorted((run / "progress").glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{path} is damaged ({error}); delete it and the answers of that part, then run "
                "the same evaluate command again"
            ) from None
    return found


def item_digests(items: Items) -> dict[str, str]:
    """Content digests of each unit's items (prompts, targets and gold), by `task/unit`."""
    return {f"{task}/{unit}": content_digest(rows) for (task, unit), rows in items.items()}


def remarks(request: Request, plan: Plan, digests: Mapping[str, str]) -> list[str]:
    """Notes for readers of the scores: what was left out, units beyond the pin, changed items."""
    notes = [*request.left_out]
    if plan.backend == "openai":
        notes.append(
            "answered by a server: weights, adapter and chat template are not verified; "
            "no retrieval, since it needs hidden states"
        )
    if plan.model_args:
        notes.append(f"with --model-args {plan.model_args}")
    if plan.trust_remote_code:
        notes.append("the model's own code was allowed to run (--trust-remote-code)")
    for task, prompt in plan.prompts.items():
        how = "with" if isinstance(prompt, ShotPrompt) else "to the prompt of"
        notes.append(f"{task}: answered {how} {prompt.name}, so not ranked")
    if plan.corpus and RETRIEVAL in plan.units:
        notes.append(f"retrieval is over {plan.corpus}, not FLORES dev, and cannot be submitted")
    for task, names in plan.units.items():
        notes += _beyond(plan, digests, task, names)
    return notes


def _beyond(plan: Plan, digests: Mapping[str, str], task: str, names: Sequence[str]) -> list[str]:
    """Notes on units beyond the ranked set of the task's version, or with other items."""
    version = plan.task_versions[task]
    units, notes = get_task(task).test_set(version).units, []
    if beyond := [unit for unit in names if unit not in units]:
        pairs = retrieval_in([task])
        few = pairs is not None and pairs.counts_all(version, names)
        effect = f"; {retrieval.FEW_RANKED}" if few else ", so in no mean"
        notes.append(
            f"{task}: {' '.join(beyond)} beyond the ranked set of version {version}{effect}"
        )
    whole = plan.limit is None and not (task == RETRIEVAL and plan.corpus)
    odd = [u for u in names if u in units and digests[f"{task}/{u}"] != units[u].digest]
    if whole and odd:
        notes.append(f"{task}: {' '.join(odd)} not on the pinned test set, so not ranked")
    return notes


def _notes(plan: Plan, adapter: AdapterRecord | None) -> list[str]:
    notes = []
    borrowed = [unit for unit in plan.units.get("wmt23", []) if unit in FROM_ALMA]
    if borrowed:
        notes = [f"{', '.join(borrowed)}: not in WMT23; ALMA's test sets (WMT22 cs-en, WMT21 is)"]
    task = retrieval_in(plan.units)
    on_flores = task is not None and task.on_flores_dev and plan.corpus is None
    if on_flores and adapter and adapter.trained_on_flores:
        notes.append(
            "retrieval is inflated: the adapter was trained on the sentences of FLORES dev"
        )
    return notes


def _signatures(plan: Plan) -> dict[str, str]:
    found: dict[str, str] = {}
    units = plan.units.get(wmt23.TASK.name, [])
    for unit in units:
        target = unit.split("-")[1]
        for metric in metrics_of(target):
            found[f"{unit}/{metric}"] = signature(metric, target)
    if units:
        test_set = wmt23.TASK.test_set(plan.task_versions[wmt23.TASK.name])
        found["wrong_language"] = language_signature(tuple(test_set.identifier_languages))
    return found


def _hardware(device: str) -> dict[str, str]:
    """The machine, and settings that the last digits of a number depend on."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return {
        "device": device,
        "gpu": name,
        "cpu": platform.machine(),
        "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "float32_products": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": str(torch.are_deterministic_algorithms_enabled()).lower(),
        "processes": str(world_size()),
        "platform": platform.system(),
        "python": platform.python_version(),
    }


def _fertility(tokenizer: Any, plan: Plan, root: Path) -> dict[str, Fertility]:
    """The fertility of each language of the run that has FLORES sentences in `root`."""
    codes = {
        code
        for task, names in plan.units.items()
        for unit in names
        for code in get_task(task).languages_of(unit)
    }

    def count(sentences: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(sentences, add_special_tokens=False)["input_ids"]]

    found: dict[str, Fertility] = {}
    for code in sorted(codes):
        try:
            sentences = retrieval.TASK.load(root, code)
        except MissingFileError:
            if code in plan.units.get(RETRIEVAL, []) and plan.corpus is None:  # the run has read it
                raise
            continue
        one = fertility(count, sentences, code)
        found[code] = Fertility(
            tokens_per_character=one.tokens_per_character, tokens_per_word=one.tokens_per_word
        )
    return found
