"""Times an alignment step at the middle layer against a step through all blocks and the head.

    python performance/alignment_step.py [--model MODEL]

Forward and backward on one batch of FLORES pairs, with a LoRA of rank 8 on all linear layers. The
peer is the same model's causal-LM step on the same tokens. Two more alignment steps are timed, and
their gradients must equal ours: the plain one (all hidden states of a full forward, of which one is
pooled), and ours with a forward for each side. The last line is
`alignment_step ratio=X goal=0.55 met|missed`. The exit code is 1 if the goal is missed or, in
float32, a gradient differs.
"""

from __future__ import annotations

from typing import Any

import torch
from side_by_side import (
    by_turns,
    loss_and_gradients,
    median_ratio,
    model_and_tokenizer,
    parser,
    run,
    verdict,
    with_lora,
)
from torch import Tensor

from xlt_bench.data.root import data_root
from xlt_bench.models.hidden_states import count_layers, mean_pool, pooled_layers, without_head
from xlt_bench.tasks import retrieval
from xlt_bench.training.objectives.contrastive import contrastive_loss
from xlt_bench.training.objectives.states import alignment_batch, alignment_loss
from xlt_bench.training.pairs import Pair
from xlt_bench.training.recipe_data import Alignment

GOAL = 0.55


def main() -> int:
    """Measure in turns, compare, print. Returns the exit code."""
    made = parser(__doc__, turns=5)
    made.add_argument("--pairs", type=int, default=16)
    options = made.parse_args()
    base, tokenizer = model_and_tokenizer(options)
    model = with_lora(base).train()
    root = data_root(options.data_dir)
    sides = zip(retrieval.TASK.load(root, "sw"), retrieval.TASK.load(root, "en"), strict=True)
    pairs = [Pair("sw-en", a, b) for a, b in sides][: options.pairs]
    made_up = alignment_batch(pairs, tokenizer)
    batch = {name: tensor.to(base.device) for name, tensor in made_up.items()}
    middle = count_layers(base) // 2
    alignment = Alignment(data="flores", pairs=["sw-en"])
    ways = {
        "ours": lambda: loss_and_gradients(
            model, lambda: alignment_loss(model, batch, alignment, [middle])
        ),
        "whole": lambda: loss_and_gradients(model, lambda: _causal(model, batch)),
        "plain": lambda: loss_and_gradients(model, lambda: _plain(model, batch, middle)),
        "two forwards": lambda: loss_and_gradients(
            model, lambda: _two_forwards(model, batch, middle)
        ),
    }
    seconds, results = by_turns(ways, options.turns)
    off = max(_distance(results["ours"][1], results[way][1]) for way in ("plain", "two forwards"))
    print(
        f"{options.pairs} pairs, {batch['input_ids'].shape[1]} tokens padded, layer {middle}, "
        f"{options.dtype}, {torch.get_num_threads()} threads; loss {results['ours'][0]:.5f}, plain "
        f"{results['plain'][0]:.5f}; largest difference {off:.1e} of the largest gradient"
    )
    print(f"against the plain step: {median_ratio(seconds, 'ours', 'plain'):.2f}")
    print(f"against two forwards: {median_ratio(seconds, 'ours', 'two forwards'):.2f}")
    ratio = median_ratio(seconds, "ours", "whole")
    equal = off < 1e-3 or options.dtype != "float32"
    return verdict("alignment_step", ratio, GOAL, ratio <= GOAL and equal)


def _causal(model: Any, batch: dict[str, Tensor]) -> Tensor:
    ids, mask = batch["input_ids"], batch["attention_mask"]
    loss: Tensor = model(
        input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)
    ).loss
    return loss


def _plain(model: Any, batch: dict[str, Tensor], layer: int) -> Tensor:
    states = model(**batch, output_hidden_states=True, use_cache=False).hidden_states
    anchors, candidates = mean_pool(states[layer], batch["attention_mask"]).chunk(2)
    return contrastive_loss(anchors, candidates, temperature=0.1)


def _two_forwards(model: Any, batch: dict[str, Tensor], layer: int) -> Tensor:
    """Each side padded to its own width, through the same blocks as ours."""
    pooled = []
    for ids, mask in zip(*(batch[key].chunk(2) for key in batch), strict=True):
        width = int(mask.sum(1).max())
        ids, mask = ids[:, :width], mask[:, :width]
        with without_head(model), pooled_layers(model, mask, [layer]) as states:
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        pooled.append(states[layer])
    return contrastive_loss(*pooled, temperature=0.1)


def _distance(ours: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """The largest difference between gradients, relative to the largest gradient."""
    largest = max(grad.abs().max().item() for grad in others.values())
    # Layers above the aligned one have no gradient in ours, and none or zero in the others.
    none = torch.zeros(())
    return max(
        (ours.get(name, none.to(grad.device)) - grad).abs().max().item() / largest
        for name, grad in others.items()
    )


if __name__ == "__main__":
    run(main)
