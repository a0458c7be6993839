"""Writes the scores of a run into the card of its adapter, README.md.

The hub reads `model-index` in the metadata; people read a table. Everything else in the card, such
as the sections that peft writes, stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from xlt_bench.errors import InputError
from xlt_bench.models.steering_config import CONFIG as STEERING
from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.results.tables import Cell, Table, render
from xlt_bench.tasks.registry import get_task

_HEAD = re.compile(r"---\n(?P<yaml>.*?\n)?---\n", re.DOTALL)
# The key and the lines below it: further in, or list items, which YAML lets stand at its level.
_INDEX = re.compile(r"^model-index:.*\n(?:[ \t-].*\n|\n)*", re.MULTILINE)
_BEGIN, _END = "<!-- xlt-bench: begin -->", "<!-- xlt-bench: end -->"


def write_card(record: Record, adapter: Path) -> Path:
    """Write the scores into README.md of an adapter's folder; earlier ones are replaced.

    Args:
        record: The record of a finished run of the adapter.
        adapter: The folder of the adapter.

    Returns:
        The card.

    Raises:
        InputError: The folder holds no adapter, or its card's metadata is not YAML.
    """
    if record.adapter is None:
        raise InputError("the run is of a bare model: give the run of an adapter")
    if not any((adapter / name).is_file() for name in ("adapter_config.json", STEERING)):
        raise InputError(f"{adapter} is not the folder of an adapter (no adapter_config.json)")
    path = adapter / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    write_bytes(path, with_scores(text, record, adapter.resolve().name).encode())
    return path


def write_eval_results(record: Record, adapter: Path, benchmark: str) -> Path:
    """Write `.eval_results/xlt-bench.yaml`, by which the hub puts the scores on a leaderboard.

    The format is the hub's for community evaluations (github huggingface/hub-docs,
    eval_results.yaml). There is an entry for each mean of a primary metric that lacks no unit,
    unless its prompts are not the benchmark's.

    Args:
        record: The record of a finished run of the adapter.
        adapter: The folder of the adapter.
        benchmark: The data set on the hub that has the leaderboard, such as `owner/name`.

    Returns:
        The file.

    Raises:
        InputError: No mean is complete and of the benchmark's own prompt.
    """
    entries = [
        {
            "dataset": {"id": benchmark, "task_id": f"{row.task}_{row.split}"},
            "value": round(row.value, 2),
            "date": record.created,
            "notes": (
                f"{row.metric}, mean of {len(row.units)}; version "
                f"{record.plan.task_versions[row.task]}; base model {record.model.name}"
            ),
        }
        for row in record.results.means
        if row.metric == get_task(row.task).primary
        and not row.missing
        and row.task not in record.plan.prompts
    ]
    if not entries or record.plan.limit:
        raise InputError(
            "the run is of a part of the test sets or has other prompts, which a leaderboard on "
            "the hub cannot show; evaluate all languages of a task without --limit, --prompt and "
            "--num-fewshot"
        )
    path = adapter / ".eval_results" / "xlt-bench.yaml"
    path.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    write_bytes(path, text.encode())
    return path


def with_scores(text: str, record: Record, name: str) -> str:
    """A card with `model-index` and a section of scores.

    Args:
        text: The card; may be empty.
        record: The record of a run.
        name: The name of the adapter in `model-index`.

    Raises:
        InputError: The metadata of the card is not YAML.
    """
    found = _HEAD.match(text)
    head, body = (found["yaml"] or "", text[found.end() :]) if found else ("", text)
    try:
        stated = yaml.safe_load(head) or {}
        if not isinstance(stated, dict):
            raise yaml.YAMLError
    except yaml.YAMLError:
        raise InputError(
            "README.md: the metadata at its top is not valid YAML: correct it"
        ) from None
    index = {"model-index": [{"name": name, "results": _results(record)}]}
    head = _INDEX.sub("", head)
    head += yaml.safe_dump(index, sort_keys=False, allow_unicode=True)
    section = f"{_BEGIN}\n{_section(record)}{_END}"
    before, begin, rest = body.partition(_BEGIN)
    if begin and _END in rest:
        body = before + section + rest.partition(_END)[2]
    else:
        body = f"{body.rstrip()}\n\n{section}\n" if body.strip() else f"\n{section}\n"
    return f"---\n{head}---\n{body}"


def _results(record: Record) -> list[dict[str, Any]]:
    """The primary metric of each unit, as the hub's evaluation results."""
    found = []
    for row in record.results.scores:
        task = get_task(row.task)
        if row.metric == task.primary:
            version = record.plan.task_versions[row.task]
            prompt = record.plan.prompts.get(row.task)
            name = f"xlt-bench {row.task} v{version}{f', {prompt.name}' if prompt else ''}"
            title = f"{task.title} ({row.unit})"
            dataset = {"name": title, "type": row.task, "config": row.unit, "split": "test"}
            found.append(
                {
                    "task": {"type": "text-generation", "name": name},
                    "dataset": dataset,
                    "metrics": [{"type": row.metric, "value": round(row.value, 2)}],
                }
            )
    return found


def _section(record: Record) -> str:
    rows: list[list[Cell]] = []
    for row in record.results.means:
        if row.metric == get_task(row.task).primary:
            value = f"{row.value:.1f} ({row.low:.1f}–{row.high:.1f})"
            missing = " ".join(row.missing)
            prompt = record.plan.prompts.get(row.task)
            task = f"{row.task} ({prompt.name})" if prompt else row.task
            rows.append([task, row.metric, row.split, len(row.units), value, missing])
    columns = ["task", "metric", "mean of", "units", "score (95 %)", "missing"]
    limit = f", the first {record.plan.limit} items of each unit" if record.plan.limit else ""
    note = f"Base model {record.model.name}, {record.created[:10]}{limit}."
    return "## Cross-lingual transfer (xlt-bench)\n\n" + render(
        [Table("", columns, rows, [note])], "md"
    )
