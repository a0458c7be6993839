"""The weights with which adapters are merged: of a whole adapter, or of each decoder block.

Layer swapping (Bandarkar et al., 2024; arXiv 2410.01335) takes some blocks from one adapter and the
rest from another. AdaMergeX (Zhao et al., 2024; arXiv 2402.18913) adds to a task adapter what sets
a reference task's adapter of a target language apart from that of the source language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xlt_bench.errors import InputError

TASK, ALIGNMENT, SOURCE, TARGET = "task", "alignment", "reference_source", "reference_target"
"""The parts that adapters play in a merge."""


@dataclass(frozen=True)
class Blocks:
    """Blocks `first` to `last`, from 1, and `transition` blocks on each side that mix."""

    first: int
    last: int
    transition: int = 0

    def share(self, block: int) -> float:
        """The weight of the adapter that gives these blocks, 0 to 1; linear in the transition."""
        outside = max(self.first - block, block - self.last, 0)
        return max(0.0, 1 - outside / (self.transition + 1))


def parse_blocks(text: str, transition: int) -> Blocks:
    """Read blocks such as `5-12`, or `5` for a single one.

    Args:
        text: The first and the last block.
        transition: Blocks on each side that mix.

    Raises:
        InputError: If it is not such a range.
    """
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise InputError(f"blocks must be a range from 1 such as 5-12, got {text!r}")
    return Blocks(first, last, transition)


@dataclass(frozen=True)
class Mixture:
    """A way to merge: the weight of each part, in all blocks or in some.

    `weights` hold in all blocks. If there are `blocks`, the part `inner` has its share of them and
    every other part the rest.
    """

    label: str
    """What tells it from the other ways to try: `0.9`, or `5-12`."""
    weights: Mapping[str, float]
    stated: Mapping[str, float | int | str]
    """What a card says of it."""
    blocks: Blocks | None = None
    inner: str | None = None

    def share(self, part: str, block: int | None) -> float:
        """What a part's weight is multiplied by in a block; None is a layer outside of all."""
        if self.blocks is None:
            return 1.0
        inside = 0.0 if block is None else self.blocks.share(block)
        return inside if part == self.inner else 1 - inside


def weighted(weight: float) -> Mixture:
    """The sum w T + (1 - w) A of a task and an alignment adapter.

    Args:
        weight: The task adapter's.
    """
    weights = {TASK: weight, ALIGNMENT: 1 - weight}
    return Mixture(f"{weight:g}", weights, {"weight": weight})


def swapped(blocks: Blocks, inner: str) -> Mixture:
    """Some blocks of one adapter, the rest of the other; what is in no block is the other's.

    Args:
        blocks: The blocks.
        inner: The part that gives them, `TASK` or `ALIGNMENT`.
    """
    label = f"{blocks.first}-{blocks.last}"
    stated: dict[str, int | str] = {f"{inner}_blocks": label, "transition": blocks.transition}
    return Mixture(label, {TASK: 1.0, ALIGNMENT: 1.0}, stated, blocks, inner)


def moved(weight: float) -> Mixture:
    """The sum T + w (reference in the target language - reference in the source language).

    Args:
        weight: Of the difference.
    """
    weights = {TASK: 1.0, TARGET: weight, SOURCE: -weight}
    return Mixture(f"{weight:g}", weights, {"weight": weight})


@contextmanager
def shares(model: Any, mixture: Mixture) -> Iterator[None]:
    """Multiply each layer's scale of each adapter with its block's share, while the body runs.

    Args:
        model: The PeftModel with the parts as adapters of their names.
        mixture: The shares.
    """
    from peft.tuners.lora import LoraLayer

    from xlt_bench.models.hidden_states import blocks_name

    inside = re.compile(rf"\.{re.escape(blocks_name(model))}\.(\d+)\.")
    before: list[tuple[dict[str, float], dict[str, float]]] = []
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            found = inside.search(f".{name}.")
            block = int(found[1]) + 1 if found else None
            before.append((module.scaling, dict(module.scaling)))
            for part in mixture.weights.keys() & module.scaling.keys():
                module.scaling[part] *= mixture.share(part, block)
    try:
        yield
    finally:
        for scaling, own in before:
            scaling.update(own)
