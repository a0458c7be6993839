"""Compares the answers of vLLM and of the hf backend with those of transformers, and times both.

    python performance/engines.py --model MODEL [--adapter ADAPTER] [--limit 8] [--batch-size 32]

Needs vLLM (docs/scaling.md). Both get the same MASSIVE prompts; the reference is transformers' own
`generate`, one prompt at a time. A first turn is not counted. The last line is
`engines ratio=X goal=1.00 met|missed`: vLLM's seconds divided by those of hf.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from side_by_side import by_turns, median_ratio, run, verdict

from xlt_bench.data.root import data_root
from xlt_bench.models.adapters import find_adapter
from xlt_bench.models.chat import encode_prompt
from xlt_bench.models.lm import XltLM, silent
from xlt_bench.models.load import choose_device, load_base
from xlt_bench.models.model_args import read_model_args
from xlt_bench.models.prepacked import prepacked
from xlt_bench.models.tokenizer import choose_chat
from xlt_bench.tasks import massive


@torch.inference_mode()
def one_by_one(model: Any, tokenizer: Any, prompts: list[str], limit: int) -> list[str]:
    """The answers of transformers' `generate`."""
    texts = []
    for prompt in prompts:
        ids = torch.tensor([encode_prompt(tokenizer, prompt)], device=model.device)
        row = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts.append(tokenizer.decode(row[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def main() -> int:
    """Answer with every engine, and count the equal answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--adapter")
    parser.add_argument("--data-dir", default="mini")
    parser.add_argument("--languages", default="de,sw,ja,ar")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=massive.TASK.max_new_tokens)
    parser.add_argument("--model-args", default="")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()

    from xlt_bench.models.vllm import VllmLM  # here, so that --help needs no vLLM

    root = data_root(options.data_dir)
    base = load_base(options.model, options.dtype, choose_device(None))
    adapter = find_adapter(options.adapter) if options.adapter else None
    chat = choose_chat(options.model, adapter, None, None, {}, False, None)
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=options.batch_size)
    lm.use_chat(chat)
    model = base.model
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter.folder)).eval()
        lm.use_model(model)
    chats = [
        item.messages
        for code in options.languages.split(",")
        for item in massive.TASK.load(root, code)[: options.limit]
    ]
    prompts = [lm.apply_chat_template(chat) for chat in chats]
    right = one_by_one(model, chat.tokenizer, prompts, options.new_tokens)
    arguments = read_model_args(options.model_args) | {"max_num_seqs": options.batch_size}
    engine = VllmLM(base, options.dtype, [adapter] if adapter else [], arguments)
    engine.use(adapter, chat)

    def answer_with(backend: Any) -> list[str]:
        engine.model.reset_prefix_cache()  # otherwise vLLM has read the prompts in the turn before
        return [one.text for one in backend.generate(prompts, options.new_tokens, silent)]

    with prepacked(model):  # as `evaluate` does
        ways = {"hf": partial(answer_with, lm), "vllm": partial(answer_with, engine)}
        by_turns(ways, 1)  # compiles kernels, and ours measures what padding does
        seconds, found = by_turns(ways, options.turns)
    for name, texts in found.items():
        equal = sum(a == b for a, b in zip(texts, right, strict=True))
        print(
            f"{options.dtype}, batch {options.batch_size}, {name}: {equal} of {len(right)} answers "
            f"equal ({len(set(right))} distinct)"
        )
    ratio = median_ratio(seconds, "vllm", "hf")
    return verdict("engines", ratio, 1.0, ratio >= 1)


if __name__ == "__main__":
    run(main)
