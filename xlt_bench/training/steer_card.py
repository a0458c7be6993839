"""Writes the card of a steering folder."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from xlt_bench.models.adapters import AdapterFiles
from xlt_bench.models.steering_config import STEERING_CORPORA, UNDER, SteeringConfig

if TYPE_CHECKING:
    from xlt_bench.models.load import Base

_PACKAGES = ("xlt-bench", "torch", "transformers", "peft")


def steer_card(
    config: SteeringConfig,
    base: Base,
    adapter: AdapterFiles | None,
    codes: Sequence[str],
    lacking: Sequence[str],
) -> str:
    """Write README.md of a steering folder, whose metadata the hub reads.

    Args:
        config: What was computed.
        base: The base model.
        adapter: The adapter that the model has.
        codes: The languages that have a vector.
        lacking: Languages that the corpus lacks.

    Returns:
        The card as Markdown.
    """
    head = {
        "base_model": base.repository,
        "tags": ["steering", "xlt-bench", "cross-lingual-transfer"],
        "alignment_languages": list(codes),
        "xlt_bench": {
            "steering": config.model_dump(),
            "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
        },
    }
    corpus = STEERING_CORPORA[config.corpus].corpus
    on = f" with the adapter in `{UNDER}/` (`{adapter.name}`)" if adapter else ""
    without = f"{corpus} has no {', '.join(lacking)}: not steered.\n\n" if lacking else ""
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n"
        f"# Language vectors at layer {config.layer}\n\n"
        f"For each of {len(codes)} languages, the mean hidden state of {config.sentences:,} "
        f"English sentences of {corpus} minus that of their translations, at the output of block "
        f"{config.layer} of `{base.name}`{on}. Times {config.scale:g}, a vector is added to that "
        "output, at every token of prompt and answer, where the model answers in its language, and "
        "subtracted where it translates from English into it. Nothing was trained.\n\n"
        f"{without}"
        f"```sh\nxlt-bench evaluate --model {base.name} --adapter . --output RUN\n```\n"
    )
