"""Estimates what the whole benchmark costs a model: counts tokens, computes GPU hours from rates.

    python performance/cost.py --model SmolLM2-135M-Instruct --parameters 8 70

Tokens are counted with the model's tokenizer: those read (each prompt without the shared system
text, which is computed once per batch) and those that the gold answers would write. Hours are not
measured. They follow from rates that are assumptions: replace them with your own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import AutoTokenizer

from xlt_bench.data.flores import Corpus
from xlt_bench.data.root import data_root
from xlt_bench.evaluation.config import Options, load_items, plan_units

BYTES_A_WEIGHT = 2
"""bfloat16."""
IDLE_ROWS = 1.3
"""Rows computed per token of an answer: an answer that ends leaves its row empty for a while.

1.1 to 1.3 for MASSIVE, WMT23 and UNER with 64 rows and answers as long as the gold ones.
"""


def tokens(model: str, data_dir: str | None) -> dict[str, tuple[int, int, int]]:
    """The number of items, of tokens read and of tokens written, by task."""
    tokenizer, root = AutoTokenizer.from_pretrained(model), data_root(data_dir)
    chosen = plan_units(Options(model=model, output=Path()))

    def count(texts: list[str]) -> int:
        return sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))

    found: dict[str, tuple[int, int, int]] = {}
    for (task, _), items in load_items(Corpus(root), chosen, None).items():
        n, read, written = found.get(task, (0, 0, 0))
        sentences = [item for item in items if isinstance(item, str)]
        prompts = [item for item in items if not isinstance(item, str)]
        read += count(sentences + [item.user for item in prompts])
        written += count([item.target for item in prompts]) if prompts else 0
        found[task] = (n + len(items), read, written)
    return found


def seconds(parameters: float, read: int, written: int, options: argparse.Namespace) -> float:
    """Seconds on one GPU, or on several that work one after another (`device_map`).

    Reading takes 2 operations per parameter and token. A step of writing loads all weights from
    memory, takes at least `--overhead` seconds, and writes one token for each row of a batch.
    """
    reading = 2 * parameters * read / (options.flops * options.utilisation)
    step = max(BYTES_A_WEIGHT * parameters / options.bandwidth, options.overhead)
    return reading + IDLE_ROWS * written / options.batch_size * step


def main() -> None:
    """Count tokens, compute hours and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="model whose tokenizer counts the tokens")
    parser.add_argument("--parameters", type=float, nargs="+", default=[8, 70], help="in billions")
    parser.add_argument("--data-dir")
    parser.add_argument("--flops", type=float, default=989e12, help="an H100's peak in bfloat16")
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of it, while reading")
    parser.add_argument("--bandwidth", type=float, default=1.7e12, help="bytes/s: half of the peak")
    parser.add_argument("--overhead", type=float, default=0.03, help="seconds of Python per step")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    counted = tokens(options.model, options.data_dir)
    for task, (n, read, written) in counted.items():
        print(f"{task}: {n:,} items, {read:,} tokens read, {written:,} written")
    for billions in options.parameters:
        hours = {
            task: seconds(billions * 1e9, read, written, options) / 3600
            for task, (_, read, written) in counted.items()
        }
        parts = ", ".join(f"{task} {value:.2f}" for task, value in hours.items())
        print(f"{billions:g}B: {sum(hours.values()):.2f} hours ({parts})")


if __name__ == "__main__":
    main()
