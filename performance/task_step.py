"""Times a task step, forward and backward, against `model(**batch).loss`.

    python performance/task_step.py [--model MODEL]

Both run on a micro-batch of MASSIVE training examples, with a LoRA of rank 8 on all linear layers.
Ours computes the shared beginning of the prompts once and the LM head only for the answers; the
peer is transformers' own loss. There is no dropout, so loss and gradients must be equal. The last
line is `task_step ratio=X goal=1.5 met|missed`. The exit code is 1 if the goal is missed or, in
float32, the loss or a gradient differs.
"""

from __future__ import annotations

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

from xlt_bench.data.root import data_root
from xlt_bench.models.chat import set_chat_template
from xlt_bench.tasks import massive
from xlt_bench.training.dataset import encode_items
from xlt_bench.training.objectives.causal import task_batch, task_loss

GOAL = 1.5
MAX_TOKENS = 1024


def main() -> int:
    """Measure in turns, compare, print. Returns the exit code."""
    made = parser(__doc__, turns=5)
    made.add_argument("--examples", type=int, default=16)
    options = made.parse_args()
    base, tokenizer = model_and_tokenizer(options)
    set_chat_template(tokenizer, None)
    model = with_lora(base).train()
    items = massive.TASK.load(data_root(options.data_dir), "en", "train")[: options.examples]
    examples, _ = encode_items(tokenizer, items, MAX_TOKENS)
    packed = task_batch(examples)
    batch = {name: tensor.to(base.device) for name, tensor in packed.items()}
    ways = {
        "ours": lambda: loss_and_gradients(model, lambda: task_loss(model, batch)),
        "peer": lambda: loss_and_gradients(model, lambda: model(**batch, use_cache=False).loss),
    }
    seconds, results = by_turns(ways, options.turns)
    (ours, grads), (theirs, their_grads) = results["ours"], results["peer"]
    largest = max(grad.abs().max().item() for grad in their_grads.values())
    off = max((grads[n] - g).abs().max().item() for n, g in their_grads.items()) / largest
    ids = batch["input_ids"]
    same = int((ids == ids[0]).all(0).long().cumprod(0).sum())
    print(
        f"{len(ids)} rows of {ids.shape[1]} tokens, {same} of them shared; {options.dtype}, "
        f"{torch.get_num_threads()} threads; loss {ours:.5f} and {theirs:.5f}; "
        f"largest difference {off:.1e} of the largest gradient"
    )
    ratio = median_ratio(seconds, "peer", "ours")
    equal = (off < 1e-3 and abs(ours - theirs) < 1e-4) or options.dtype != "float32"
    return verdict("task_step", ratio, GOAL, ratio >= GOAL and equal)


if __name__ == "__main__":
    run(main)
