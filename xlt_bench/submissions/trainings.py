"""Says how the adapter of a submission was trained: its method, its seed, and which SFT it extends.

A method is a recipe with its changed keys on a base model, evaluated with one template and number
format; its systems differ in their seed alone. The record has the settings, as the adapter's card
states them. For adapters that were evaluated before records had them, trainings.json has the recipe
and its changed keys, by the hash of the adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from xlt_bench.results.record import MAX_LAYERS, Plan, Record, Training
from xlt_bench.submissions.schema import system
from xlt_bench.training.recipe import Training as Optimisation
from xlt_bench.training.recipe import load_recipe, names
from xlt_bench.training.recipe_data import Alignment, block_number

Kind = Literal["bare", "sft", "aligned", "alignment", "merged", "steered", "unknown"]
"""What was trained: nothing; the task; the task and another objective; another objective alone; two
adapters that were merged; any of these, and vectors steer it; not known."""

_TABLE = Path(__file__).with_name("trainings.json")
# What keys begin with that are no objective's.
_OTHERS = {"lora", "training", "merged", "steering", "reference_source", "reference_target"}
_TASK_KEYS = ("task.", "lora.", "training.")
# How objectives share the updates, and which checkpoint of a training is kept.
_OF_OBJECTIVES = {
    "training.alternation", "training.schedule_by", "training.select_on", "training.eval_steps",
    "training.patience",
}  # fmt: skip
# These may differ between an adapter and its SFT baseline, which then says so.
_TOLERATED = {"training.precision", "training.micro_batch_size", "task.dev_items"}


@dataclass(frozen=True)
class Trained:
    """How the system of a submission was trained; `training` is None if nothing says so."""

    kind: Kind
    method: str
    recipe: str | None
    training: Training | None

    @property
    def seed(self) -> int | None:
        """The seed; None if it is unknown, and of a bare model."""
        return self.training.seed if self.training else None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that are not the defaults; empty if they are unknown."""
        return self.training.settings if self.training else {}


def trained(record: Record) -> Trained:
    """Find out how the system of a record was trained.

    Args:
        record: The record of a run or submission.
    """
    plan, adapter = record.plan, record.adapter
    if adapter is None:
        return Trained("bare", system(plan), None, None)
    # The table is reviewed; a record is the submitter's.
    known = _reviewed(adapter.sha256)
    recipe, training = known or (adapter.recipe, adapter.training)
    if training is None or not _readable(training.settings):
        return Trained("unknown", system(plan), recipe, None)
    kind = _kind(training.settings)
    if kind == "sft" and record.alignment_languages:
        kind = "unknown"  # its record contradicts itself
    return Trained(kind, _method(plan, training), recipe, training)


def changes(one: Trained) -> list[str]:
    """List how the settings of a training differ from its recipe, as for `--set`.

    Returns:
        Such as `training.max_steps=1000`; empty if the recipe does not ship with xlt-bench.
    """
    if one.recipe is None or one.recipe not in names():
        return []
    plain = _plain(one.recipe)
    keys = dict.fromkeys([*one.settings, *plain])
    return [
        f"{key}={_text(one.settings.get(key, 'default'))}"
        for key in keys
        if one.settings.get(key) != plain.get(key)
    ]


def aligned_layers(one: Trained, n_layers: int | None) -> list[int]:
    """List the blocks that were aligned, from 1; empty if there are none or they are unknown.

    Of a steered system it is the block at which it is steered.
    """
    if one.kind == "steered":
        layer = one.settings.get("steering.layer")
        return [layer] if type(layer) is int and 1 <= layer <= MAX_LAYERS else []
    prefix = "merged." if one.kind == "merged" else ""
    loss = one.settings.get(f"{prefix}alignment.loss")
    aligned = any(key.startswith(f"{prefix}alignment.data") for key in one.settings)
    if n_layers is None or not aligned or loss == "translation":
        return []
    default = Alignment.model_fields["layers"].default
    layers = one.settings.get(f"{prefix}alignment.layers", default)
    seed = one.settings.get(f"{prefix}training.seed", one.seed) if prefix else one.seed
    return sorted({block_number(layer, n_layers, seed or 0) for layer in layers})


def sft_key(one: Trained) -> str | None:
    """Say which SFT a training is, or adds other objectives to.

    Returns:
        A text that is equal for trainings of one seed on the same task data, languages and number
        of updates, with one LoRA and learning rate; None if the training has no task or is unknown.
    """
    if not _learns_task(one):
        return None
    strict = {k: v for k, v in _task_settings(one.settings).items() if k not in _TOLERATED}
    return json.dumps([one.seed, strict], sort_keys=True)


def oracle_key(one: Trained) -> str | None:
    """Say which trainings of a task differ only in its languages, and so in data and updates.

    Returns:
        A text that is equal for trainings of one seed with one LoRA and learning rate; None if the
        training has no task or is unknown.
    """
    if not _learns_task(one):
        return None
    free = {*_TOLERATED, "task.units", "task.sources", "training.max_steps", "training.epochs"}
    kept = {k: v for k, v in _task_settings(one.settings).items() if k not in free}
    return json.dumps([one.seed, kept], sort_keys=True)


def differences_from_sft(ours: Trained, sft: Trained) -> list[str] | None:
    """Compare a training with the SFT of an equal `sft_key`.

    Returns:
        The settings that differ without changing what is learned; None if the data are known to
        differ.
    """
    digests = {one.training.data_digests.get("task") for one in (ours, sft) if one.training}
    if len(digests - {None}) > 1:
        return None
    mine, theirs = _task_settings(ours.settings), _task_settings(sft.settings)
    return sorted(key for key in _TOLERATED if mine.get(key) != theirs.get(key))


def _learns_task(one: Trained) -> bool:
    steered = one.kind == "steered" and "task" in _objectives(one.settings)
    return steered or one.kind in ("sft", "aligned", "merged")


def _kind(settings: Mapping[str, Any]) -> Kind:
    if any(key.startswith("steering.") for key in settings):
        return "steered"
    if "merged.combination" in settings:
        return "merged"
    sections = _objectives(settings)
    if "task" in sections:
        return "aligned" if len(sections) > 1 else "sft"
    return "alignment" if sections else "unknown"


def _readable(settings: Mapping[str, Any]) -> bool:
    """Whether the settings that are computed with have the types of a recipe's."""
    numbers = [settings.get(f"training.{key}", 1) for key in ("max_steps", "batch_size")]
    lists = [settings.get(f"{part}alignment.layers", [1]) for part in ("", "merged.")]
    layers = [one for layers in lists for one in (layers if isinstance(layers, list) else [None])]
    units = settings.get("task.units", [])
    texts = [settings.get("task.name", ""), *(units if isinstance(units, list) else [None])]
    seeds = [settings.get("merged.training.seed", 0)]
    return (
        all(isinstance(one, int | float) for one in numbers)
        and all(one == "random" or _is_layer(one) for one in layers)
        and all(isinstance(one, int) and one >= 0 for one in seeds)
        and all(isinstance(one, str) for one in texts)
    )


def _is_layer(value: object) -> bool:
    """Whether a value is a block or a share of all blocks; the store has no room for any number."""
    if isinstance(value, float):
        return 0 <= value <= 1
    return type(value) is int and -MAX_LAYERS <= value <= MAX_LAYERS


def _objectives(settings: Mapping[str, Any]) -> set[str]:
    return {key.partition(".")[0] for key in settings} - _OTHERS


def _method(plan: Plan, training: Training) -> str:
    """Hash what the systems of a method share: the system with the settings for the weights."""
    text = json.dumps(training.settings, sort_keys=True, ensure_ascii=False)
    settings = hashlib.sha256(text.encode()).hexdigest()
    return system(plan.model_copy(update={"adapter_sha256": settings}))


def _task_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the task's part of a training, with the updates and batches of the task."""
    found = {
        key: value
        for key, value in settings.items()
        if key.startswith(_TASK_KEYS) and key not in _OF_OBJECTIVES
    }
    share = 1 if "merged.combination" in settings else max(1, len(_objectives(settings)))
    steps, default = "training.max_steps", Optimisation.model_fields["batch_size"].default
    batch = settings.get("training.batch_size", default)
    if settings.get("training.alternation") == "microbatch":
        batch /= share
    elif steps in found:
        found[steps] /= share
    if steps in found:
        found[steps] = float(found[steps])
    return {**found, "training.batch_size": float(batch)}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _plain(recipe: str) -> dict[str, Any]:
    return load_recipe(recipe).settings


@cache
def _table() -> dict[str, tuple[list[str], dict[str, Any]]]:
    """The rows of trainings.json by the sha256 of the adapter, with the changes of their group."""
    groups = json.loads(_TABLE.read_text(encoding="utf-8"))
    return {
        sha256: (group["set"], row)
        for group in groups
        for sha256, row in group["trainings"].items()
    }


@cache
def _reviewed(sha256: str) -> tuple[str | None, Training] | None:
    """Recipe and training of an adapter in trainings.json; None if it is not there."""
    if sha256 not in _table():
        return None
    shared, row = _table()[sha256]
    if "weight" in row:
        parts = [_reviewed(row[part]) for part in ("task", "alignment")]
        (_, task), (_, other) = (part for part in parts if part)
        how = {"merged.weight": row["weight"], "merged.combination": "cat"}
        return None, task.merged_with({"merged": other}, how)
    recipe = load_recipe(row["recipe"], [*shared, *row.get("set", [])])
    return row["recipe"], Training(settings=recipe.settings, seed=row["seed"])
