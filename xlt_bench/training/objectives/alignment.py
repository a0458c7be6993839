"""The alignment objective: hidden states of translations, drawn together by a contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_bench.data.root import content_digest
from xlt_bench.training.objectives.base import Examples, Objective
from xlt_bench.training.pairs import Pair, batches, dev_batches, load_pairs, split_dev
from xlt_bench.training.recipe import Alignment, Training

if TYPE_CHECKING:
    from torch import Tensor

PairTexts = dict[str, list[Pair]]
"""Sentence pairs by language pair (`cy-en`)."""


class AlignmentObjective(Objective[PairTexts, Pair]):
    """A contrastive loss at the section's layers (section 3, "Alignment Objective")."""

    name = "alignment"
    reaches_every_weight = False  # blocks above the highest layer do not run

    def __init__(self, section: Alignment) -> None:
        self._section = section

    def check(self, n_layers: int) -> None:
        """Raise InputError for a layer beyond the model's."""
        self._section.block_numbers(n_layers)

    def read(self, root: Path) -> PairTexts:
        """Read the sentence pairs."""
        return load_pairs(root, self._section)

    def encode(self, texts: PairTexts, tokenizer: Any, training: Training) -> Examples[Pair]:
        """Hold out dev pairs; the pairs are tokenized when their micro-batch is collated."""
        train, held_out = split_dev(texts, training.seed)
        return Examples(
            count=sum(map(len, train.values())),
            micro_batches=batches(train, training.micro_batch_size, training.seed),
            dev=dev_batches(held_out, training.micro_batch_size),
            digests={"alignment": content_digest(row for rows in texts.values() for row in rows)},
            counts={
                **{f"alignment {name}": len(rows) for name, rows in train.items()},
                "alignment_dev": len(held_out),
            },
        )

    def tensors(self, rows: Sequence[Pair], tokenizer: Any) -> dict[str, Tensor]:
        """Collate both sides: `input_ids` and `attention_mask`, anchors before candidates."""
        from xlt_bench.training.objectives.contrastive import alignment_batch

        return alignment_batch(rows, tokenizer)

    def loss(self, model: Any, tensors: dict[str, Tensor]) -> Tensor:
        """Compute the contrastive loss at each layer, summed."""
        from xlt_bench.models.hidden_states import count_layers
        from xlt_bench.training.objectives.contrastive import alignment_loss

        layers = self._section.block_numbers(count_layers(model))
        return alignment_loss(model, tensors, self._section, layers)
