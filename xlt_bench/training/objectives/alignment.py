"""The alignment objective: hidden states of translations, drawn together; and its controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xlt_bench.data.root import content_digest
from xlt_bench.training.objectives.base import Examples, Objective
from xlt_bench.training.pairs import (
    Pair,
    batches,
    count_pairs,
    dev_batches,
    keep_pairs,
    read_rows,
    shuffled,
    split_dev,
)
from xlt_bench.training.recipe import Training
from xlt_bench.training.recipe_data import Alignment

if TYPE_CHECKING:
    from torch import Tensor


class PairTexts(NamedTuple):
    """Sentence pairs by language pair (`cy-en`), and what was counted in their corpora."""

    pairs: dict[str, list[Pair]]
    counts: dict[str, int]


class AlignmentObjective(Objective[PairTexts, Pair]):
    """The section's loss at its layers (section 3, "Alignment Objective")."""

    name = "alignment"
    reaches_every_weight = False  # blocks above the highest layer do not run

    def __init__(self, section: Alignment, training: Training) -> None:
        self._section, self._training = section, training

    def check(self, n_layers: int) -> None:
        """Raise InputError for a layer beyond the model's."""
        self._section.block_numbers(n_layers, self._training.seed)

    def read(self, root: Path) -> PairTexts:
        """Read the sentence pairs, and count what is odd in them."""
        rows = read_rows(root, self._section)
        return PairTexts(keep_pairs(rows, self._section), count_pairs(rows, self._section))

    def sentences(self, texts: PairTexts) -> Iterable[tuple[str, str]]:
        """List both sides of the pairs."""
        for name, rows in texts.pairs.items():
            first, second = name.split("-")
            for row in rows:
                yield first, row.anchor
                yield second, row.candidate

    def encode(self, texts: PairTexts, tokenizer: Any) -> Examples[Pair]:
        """Hold out dev pairs; the pairs are tokenized when their micro-batch is collated."""
        training = self._training
        pairs = shuffled(texts.pairs, training.seed) if self._section.shuffled else texts.pairs
        train, held_out = split_dev(pairs, training.seed)
        return Examples(
            count=sum(map(len, train.values())),
            micro_batches=batches(train, training.micro_batch_size, training.seed),
            dev=dev_batches(held_out, training.micro_batch_size, self._section.least_pairs),
            digests={
                "alignment": content_digest(row for rows in texts.pairs.values() for row in rows)
            },
            counts={
                **{f"alignment {name}": len(rows) for name, rows in train.items()},
                "alignment_dev": len(held_out),
                **texts.counts,
            },
        )

    def tensors(self, rows: Sequence[Pair], tokenizer: Any) -> dict[str, Tensor]:
        """Collate both sides: `input_ids` and `attention_mask`, anchors before candidates.

        For `loss: translation`, collate prompts and answers, with `labels`.
        """
        if self._section.loss == "translation":
            from xlt_bench.training.objectives.translation import translation_batch

            return translation_batch(rows, tokenizer, self._section.symmetric)
        from xlt_bench.training.objectives.states import alignment_batch

        return alignment_batch(rows, tokenizer)

    def loss(self, model: Any, tensors: dict[str, Tensor]) -> Tensor:
        """Compute the section's loss at each layer, summed."""
        if self._section.loss == "translation":
            from xlt_bench.training.objectives.causal import task_loss

            return task_loss(model, tensors)
        from xlt_bench.models.hidden_states import count_layers
        from xlt_bench.training.objectives.states import alignment_loss

        layers = self._section.block_numbers(count_layers(model), self._training.seed)
        return alignment_loss(model, tensors, self._section, layers)
