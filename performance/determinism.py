"""Counts the greedy answers that depend on batch size, number of threads and number format.

    python performance/determinism.py --model MODEL --adapter ADAPTER [--limit 100]

Greedy decoding takes the largest logit; if two are nearly equal, the order of a summation decides.
Runs MASSIVE items through our decoder in one process, with the adapter merged whenever `evaluate`
would merge it. For each setting it prints slot F1 and how many answers differ from those of the
first setting (by default a batch of one and one thread) in the same number format; the first
setting runs twice. Nothing is timed against a peer, so there is no ratio.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext

import torch
from side_by_side import run

from xlt_bench.data.root import data_root
from xlt_bench.models.adapter_fit import check_adapter
from xlt_bench.models.adapter_switch import AdapterSwitch
from xlt_bench.models.adapters import find_adapter
from xlt_bench.models.chat import encode_prompt
from xlt_bench.models.lm import XltLM
from xlt_bench.models.load import choose_device, load_base, meta_model
from xlt_bench.models.merged import merged
from xlt_bench.tasks import massive


def answers_of(lm: XltLM, prompts: list[str], batch: int, threads: int) -> list[str]:
    """The answers with a batch size and a number of threads."""
    torch.set_num_threads(threads)
    lm.batch_size_per_gpu = batch
    return [one.text for one in lm.generate(prompts, massive.TASK.max_new_tokens)]


def main() -> int:
    """Answer with every setting, and count the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--adapter")
    parser.add_argument("--data-dir")
    parser.add_argument("--languages", default="de,sw")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--threads", default="1,2")
    options = parser.parse_args()
    root, device = data_root(options.data_dir), choose_device(None)
    codes = options.languages.split(",")
    items = {code: massive.TASK.load(root, code)[: options.limit] for code in codes}
    batches, threads = (
        [int(n) for n in text.split(",")] for text in (options.batches, options.threads)
    )
    for dtype in options.dtypes.split(","):
        base = load_base(options.model, dtype, device)
        found = find_adapter(options.adapter) if options.adapter else None
        skeleton = meta_model(options.model)
        fits = {found.name: check_adapter(found, skeleton, base.name)} if found else {}
        model = AdapterSwitch(base.model, base.name, fits).use(found)
        lm = XltLM(pretrained=model, tokenizer=base.tokenizer, batch_size=1)
        every = [item for rows in items.values() for item in rows]
        prompts = [lm.apply_chat_template(item.messages) for item in every]
        sample = [encode_prompt(lm.tokenizer, prompt) for prompt in prompts[:4]]
        settings = [(batches[0], threads[0]), *((b, t) for t in threads for b in batches)]
        with merged(model, sample) if options.adapter else nullcontext(False) as in_weights:
            print(f"{dtype} on {device}, {len(every)} items, merged: {in_weights}", flush=True)
            first: list[str] = []
            for batch, n in settings:
                started = time.perf_counter()
                given = answers_of(lm, prompts, batch, n)
                first = first or given
                odd = sum(a != b for a, b in zip(given, first, strict=True))
                score = massive.TASK.metrics["slot_f1"](
                    massive.TASK.count(every, given, massive.TASK.test_set())["slot_f1"]
                )
                seconds = time.perf_counter() - started
                told = f"{odd} differ, slot F1 {score:.2f} ({seconds:.0f} s)"
                print(f"batch {batch}, {n} threads: {told}", flush=True)
    return 0


if __name__ == "__main__":
    run(main)
