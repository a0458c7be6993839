"""Writes the model card of a merged adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from xlt_bench.models.adapter_card import alignment_languages, trained_on_flores, training
from xlt_bench.models.adapters import AdapterFiles
from xlt_bench.results.record import Training
from xlt_bench.training.mixture import ALIGNMENT, SOURCE, TARGET, TASK, Mixture

if TYPE_CHECKING:
    from xlt_bench.models.load import Base
    from xlt_bench.training.merge import MergeOptions


def merge_card(
    options: MergeOptions,
    adapters: Mapping[str, AdapterFiles],
    base: Base,
    mixture: Mixture,
    scores: Mapping[str, float],
) -> str:
    """Write README.md of a merged adapter, whose metadata `xlt-bench evaluate` reads.

    Args:
        options: What was merged.
        adapters: Its adapters by part.
        base: The base model.
        mixture: The way that was chosen.
        scores: The dev score of each way that was tried.

    Returns:
        The card as Markdown.
    """
    told = [trained_on_flores(adapter) for adapter in adapters.values()]
    # The other adapters' languages come first.
    order = [*list(adapters.values())[1:], adapters[TASK]]
    languages = dict.fromkeys(code for adapter in order for code in alignment_languages(adapter))
    merged = _trained(adapters, mixture, options.combination)
    head = {
        "base_model": base.repository,
        "library_name": "peft",
        "alignment_languages": list(languages),
        "xlt_bench": {
            "merged": {**options.adapters, **mixture.stated},
            "combination": options.combination,
            "selected_on": options.select_on and Path(options.select_on).name,
            "trained_on_flores": True if True in told else None if None in told else False,
            **(merged.model_dump() if merged else {}),
            "base_sha256": base.sha256,
            "base_revision": base.revision,
            "trust_remote_code": options.trust_remote_code,
            "dev_scores": dict(scores),
        },
    }
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# A merged adapter\n\n"
        f"{_described(options, mixture)}, by peft's `{options.combination}`.\n"
    )


def _described(options: MergeOptions, mixture: Mixture) -> str:
    names = {part: f"`{name}`" for part, name in options.adapters.items()}
    if mixture.blocks and mixture.inner:
        (outer,) = names.keys() - {mixture.inner}
        return (
            f"Blocks {mixture.label} of {names[mixture.inner]} and the others of {names[outer]}, "
            f"with {mixture.blocks.transition} blocks of transition"
        )
    weight = mixture.stated["weight"]
    if options.alignment is None:
        return f"{names[TASK]}, and {weight:g} of {names[TARGET]} without {names[SOURCE]}"
    return f"{weight:g} of {names[TASK]} and {mixture.weights[ALIGNMENT]:g} of {names[ALIGNMENT]}"


def _trained(
    adapters: Mapping[str, AdapterFiles], mixture: Mixture, combination: str
) -> Training | None:
    """How the parts were trained and merged; None if a card does not say."""
    task, *others = (training(adapter) for adapter in adapters.values())
    known = [other for other in others if other]
    if not task or len(known) < len(others):
        return None
    # A single other part is `merged`, as in cards of older releases.
    prefixes = ["merged"] if len(known) == 1 else list(adapters)[1:]
    how = {f"merged.{key}": value for key, value in mixture.stated.items()}
    how["merged.combination"] = combination
    return task.merged_with(dict(zip(prefixes, known, strict=True)), how)
