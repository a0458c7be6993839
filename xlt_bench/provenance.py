"""What a record says besides scores: data, versions, hardware, timings, the command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from xlt_bench.benchmarks import flores
from xlt_bench.benchmarks.base import Item
from xlt_bench.comet.stored import comet_signatures, read_comet
from xlt_bench.data.root import MissingFileError, content_digest
from xlt_bench.data.wmt23 import FROM_ALMA
from xlt_bench.languages import Family
from xlt_bench.metrics.fertility import fertility
from xlt_bench.metrics.translation import language_signature, metrics_of, signature
from xlt_bench.models.load import Base
from xlt_bench.options import TASK_NAMES, Options
from xlt_bench.record import AdapterRecord, Fertility, ModelRecord, Plan, Record, Scores
from xlt_bench.submit.test_sets import pinned

_PACKAGES = (
    "xlt-bench torch transformers peft tokenizers lm_eval sacrebleu mecab-python3 py3langid numpy "
    "safetensors"
).split()


def build_record(
    run: Path,
    plan: Plan,
    base: Base,
    digests: Mapping[str, str],
    root: Path,
    adapter: AdapterRecord | None,
    notes: Sequence[str],
    results: Scores,
) -> Record:
    """The record of a finished run."""
    progress = read_progress(run)
    config = base.model.config
    return Record(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=_command(),
        model=ModelRecord(
            name=base.name,
            revision=base.revision,
            sha256=base.sha256,
            architecture=(config.architectures or [type(base.model).__name__])[0],
            parameters=sum(
                p.numel() for name, p in base.model.named_parameters() if ".lora_" not in name
            ),
            layers=config.get_text_config().num_hidden_layers,
            dtype=plan.dtype,
        ),
        adapter=adapter,
        template=plan.template,
        template_sha256=plan.template_sha256,
        bos_per_prompt=sorted({count for row in progress.values() for count in row["bos"]}),
        truncated_prompts=sum(row["truncated_prompts"] for row in progress.values()),
        plan=plan,
        data_digests=dict(digests),
        notes=[*notes, *_notes(plan)],
        signatures=_signatures(plan) | comet_signatures(read_comet(plan, run)),
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
        hardware=_hardware(base),
        seconds={name: row["seconds"] for name, row in progress.items()},
        batch_sizes={name: row["batch_size"] for name, row in progress.items()},
        fertility=_fertility(base.tokenizer, plan, root),
        results=results,
    )


def read_progress(run: Path) -> dict[str, Any]:
    """What is noted of each finished part of a run, by its name."""
    paths = sorted((run / "progress").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def _command() -> str:
    """The command line, the program by its bare name and the home folder as `~`."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(words).replace(str(Path.home()), "~")


def item_digests(
    items: Mapping[tuple[Family, str], Sequence[Item]],
    languages: Sequence[str],
    limit: int | None,
    root: Path,
) -> dict[str, str]:
    """Content digests of what is asked, in full: prompts, targets and gold of each unit.

    `items` are those of the text tasks, `languages` those of retrieval.
    """
    digests = {f"{task}/{unit}": content_digest(rows) for (task, unit), rows in items.items()}
    for code in languages:
        digests[f"flores/{code}"] = content_digest(flores.sentences(root, code)[:limit])
    return digests


def remarks(options: Options, plan: Plan, digests: Mapping[str, str]) -> list[str]:
    """What the reader of the scores should know: tasks that fell away, items that are not ours."""
    notes = [
        f"{name}: evaluated in none of the chosen languages"
        for name in options.tasks
        if TASK_NAMES[name] not in plan.units
    ]
    for task, names in plan.units.items() if plan.limit is None else ():
        sets = pinned(task, plan.task_versions[task])
        odd = [
            unit for unit in names if unit in sets and digests[f"{task}/{unit}"] != sets[unit][1]
        ]
        if odd:
            notes.append(f"{task}: not the pinned test set in {' '.join(odd)}; no ranking")
    return notes


def _notes(plan: Plan) -> list[str]:
    borrowed = [unit for unit in plan.units.get("wmt23", []) if unit in FROM_ALMA]
    if not borrowed:
        return []
    return [f"{', '.join(borrowed)}: not in WMT23; ALMA's test sets (WMT22 cs-en, WMT21 is)"]


def _signatures(plan: Plan) -> dict[str, str]:
    found: dict[str, str] = {}
    for unit in plan.units.get("wmt23", []):
        target = unit.split("-")[1]
        for metric in metrics_of(target):
            found[f"{unit}/{metric}"] = signature(metric, target)
    if found:
        found["wrong_language"] = language_signature()
    return found


def _hardware(base: Base) -> dict[str, str]:
    device = str(base.model.device)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return {
        "device": device,
        "gpu": name,
        "cpu": platform.machine(),
        "cores": str(os.cpu_count()),
        "platform": platform.system(),
        "python": platform.python_version(),
    }


def _fertility(tokenizer: Any, plan: Plan, root: Path) -> dict[str, Fertility]:
    """Of every language of the run, on its FLORES sentences; empty where FLORES is not at hand."""
    codes = {
        code
        for task, names in plan.units.items()
        for unit in names
        for code in (unit.split("-") if task == "wmt23" else [unit])
    }

    def count(sentences: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(sentences, add_special_tokens=False)["input_ids"]]

    found: dict[str, Fertility] = {}
    for code in sorted(codes):
        try:
            sentences = flores.sentences(root, code)
        except MissingFileError:
            return {}
        one = fertility(count, sentences, code)
        found[code] = Fertility(
            tokens_per_character=one.tokens_per_character, tokens_per_word=one.tokens_per_word
        )
    return found
