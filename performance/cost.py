"""What the whole benchmark costs a model of a size: tokens counted, GPU hours computed from rates.

    python performance/cost.py --model SmolLM2-135M-Instruct --parameters 8 70

The tokens are counted with the model's tokenizer: what is read (each prompt without the system text
that all share, which is computed once a batch) and what gold answers would write. The hours are
not measured: they follow from the rates below, which are assumptions to be replaced by your own.
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
"""Rows computed for each token that is wanted: ended answers leave places empty for a while.

1.1 to 1.3 for MASSIVE, WMT23 and UNER at 64 rows with answers as long as the gold ones.
"""


def tokens(model: str, data_dir: str | None) -> dict[str, tuple[int, int, int]]:
    """Items, tokens read and tokens written, by task."""
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
    """On one GPU, or on several that work in turns (`device_map`): reading and writing.

    Reading takes 2 operations a parameter and token. A step of writing takes as long as reading
    all weights from memory, and at least `--overhead`, and gives a token to each row of a batch.
    """
    reading = 2 * parameters * read / (options.flops * options.utilisation)
    step = max(BYTES_A_WEIGHT * parameters / options.bandwidth, options.overhead)
    return reading + IDLE_ROWS * written / options.batch_size * step


def main() -> None:
    """Count, compute, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="whose tokenizer counts")
    parser.add_argument("--parameters", type=float, nargs="+", default=[8, 70], help="in billions")
    parser.add_argument("--data-dir")
    parser.add_argument("--flops", type=float, default=989e12, help="an H100's peak in bfloat16")
    parser.add_argument("--utilisation", type=float, default=0.4, help="of it, while reading")
    parser.add_argument("--bandwidth", type=float, default=1.7e12, help="bytes/s: half of the peak")
    parser.add_argument("--overhead", type=float, default=0.03, help="seconds of Python a step")
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
