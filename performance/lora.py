"""Times generation with a single adapter, as `xlt-bench evaluate` runs it, against the bare base.

    python performance/lora.py --model SmolLM2-135M-Instruct [--adapter FOLDER]

All generate the same number of tokens from the same MASSIVE prompts, in turns: the base model
without peft, the adapter unmerged, and the adapter merged (only in float32, where that is safe).
Merged and unmerged answers must be equal. The last line is `lora ratio=X goal=1.03 met|missed`: the
time with the adapter divided by that of the base. The exit code is 1 if the goal is missed or an
answer differs.
"""

from __future__ import annotations

import copy
from typing import Any

from peft import PeftModel
from side_by_side import (
    by_turns,
    median_ratio,
    model_and_tokenizer,
    parser,
    run,
    verdict,
    with_lora,
)

from xlt_bench.data.root import data_root
from xlt_bench.models.chat import encode_prompt, render_chat, set_chat_template
from xlt_bench.models.generation import answers
from xlt_bench.models.merged import merged
from xlt_bench.tasks import massive

GOAL = 1.03


def main() -> int:
    """Measure in turns, compare, print. Returns the exit code."""
    made = parser(__doc__, turns=5)
    made.add_argument("--adapter", help="PEFT adapter (default: a random one of rank 8)")
    made.add_argument("--prompts", type=int, default=16)
    made.add_argument("--new-tokens", type=int, default=16)
    options = made.parse_args()
    base, tokenizer = model_and_tokenizer(options)
    set_chat_template(tokenizer, None)
    items = massive.TASK.load(data_root(options.data_dir), "es")[: options.prompts]
    rows = [
        encode_prompt(tokenizer, render_chat(tokenizer, i.messages, add_generation_prompt=True))
        for i in items
    ]
    adapted = _with_adapter(copy.deepcopy(base), options.adapter)

    def answered(model: Any) -> dict[int, list[int]]:
        return dict(answers(model, rows, len(rows), options.new_tokens, []))

    ways = {"base": lambda: answered(base), "adapter": lambda: answered(adapted)}
    seconds, unmerged = by_turns(ways, 2)
    print(f"unmerged: {median_ratio(seconds, 'adapter', 'base'):.2f} times the base")
    with merged(adapted, rows[:4]) as in_weights:
        print(f"{options.dtype}: {'merged' if in_weights else 'not merged'}")
        seconds, results = by_turns(ways, options.turns)
    pairs = zip(results["adapter"], unmerged["adapter"], strict=True)
    differing = sum(a != b for a, b in pairs)
    with adapted.disable_adapter():
        restored = answered(adapted) == results["base"]
    print(
        f"{len(rows)} prompts, {options.new_tokens} new tokens each; merged and unmerged answers "
        f"differ in {differing}; base {'restored' if restored else 'NOT restored'}; the adapter "
        f"changes {sum(a != b for a, b in zip(results['adapter'], results['base'], strict=True))}"
    )
    ratio = median_ratio(seconds, "adapter", "base")
    return verdict("lora", ratio, GOAL, ratio <= GOAL and not differing and restored)


def _with_adapter(base: Any, folder: str | None) -> Any:
    if folder:
        return PeftModel.from_pretrained(base, folder).eval()
    return with_lora(base).eval()


if __name__ == "__main__":
    run(main)
