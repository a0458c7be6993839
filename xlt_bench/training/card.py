"""Writes the model card of a trained adapter, with all that is needed to train it again."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from xlt_bench.models.hidden_states import count_layers
from xlt_bench.models.load import Base
from xlt_bench.training.overlap import holds_flores
from xlt_bench.training.recipe import Recipe

_PACKAGES = ("xlt-bench", "torch", "transformers", "peft", "accelerate")


def card(
    name: str,
    recipe: Recipe,
    base: Base,
    digests: Mapping[str, str],
    counts: Mapping[str, int],
    overlap: Mapping[str, int],
    history: Sequence[Mapping[str, float]],
) -> str:
    """Write README.md of an adapter, whose metadata the hub and `xlt-bench evaluate` read.

    Args:
        name: The recipe's name.
        recipe: The recipe.
        base: The base model.
        digests: Digests of the training data, by objective and split.
        counts: Numbers of training examples, and of what is odd in the data.
        overlap: Items of the test sets that the training text contains in part.
        history: What the Trainer logged.

    Returns:
        The card as Markdown.
    """
    alignment = recipe.alignment
    layers = (
        alignment.block_numbers(count_layers(base.model), recipe.training.seed) if alignment else []
    )
    head = {
        "base_model": base.repository,
        "library_name": "peft",
        "tags": ["lora", "xlt-bench", "cross-lingual-transfer"],
        "alignment_languages": alignment.languages if alignment else [],
        "xlt_bench": {
            "recipe": name,
            "alignment_layers": layers,
            "trained_on_flores": recipe.learns_flores or holds_flores(overlap),
            "seed": recipe.training.seed,
            "settings": recipe.settings,
            "base_sha256": base.sha256,
            "base_revision": base.revision,
            "trust_remote_code": base.trust_remote_code,
            "data_digests": dict(digests),
            "examples": dict(counts),
            "overlap": dict(overlap),
            "dev": _best(history),
            "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
        },
    }
    settings = recipe.model_dump(mode="json", exclude={"paper"}, exclude_none=True)
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"
        f"# {recipe.title}\n\n"
        f"A LoRA adapter of `{base.name}`, trained by xlt-bench's recipe `{name}`:\n\n"
        f"```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}```\n\n"
        f"{_dev_table(history)}"
        "To measure how far its skill carries over:\n\n"
        f"```sh\nxlt-bench evaluate --model {base.name} --adapter . --output RUN\n```\n"
    )


def _evaluations(history: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    return [row for row in history if "eval_loss" in row]


def _best(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The evaluation whose checkpoint was kept; empty if there was none."""
    rows = _evaluations(history)
    # Sorted, since a resumed training gets them sorted from its checkpoint.
    return dict(sorted(min(rows, key=lambda row: row["eval_loss"]).items())) if rows else {}


def _dev_table(history: Sequence[Mapping[str, Any]]) -> str:
    rows = _evaluations(history)
    if not rows:
        return "No dev loss was measured: training ended before its first evaluation.\n\n"
    names = sorted(key for key in rows[0] if key.startswith("eval_"))
    lines = [
        f"| {row['step']} | " + " | ".join(f"{row[n]:.4f}" for n in names) + " |" for row in rows
    ]
    head = "| update | " + " | ".join(n.removeprefix("eval_") for n in names) + " |"
    rule = "|---" * (len(names) + 1) + "|"
    return "\n".join(["Dev losses (nats):", "", head, rule, *lines]) + "\n\n"
