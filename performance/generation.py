"""Compares our generation in answers per second with stock `lm_eval --model hf`.

    python performance/generation.py --model SmolLM2-135M-Instruct [--adapter FOLDER]
    python performance/generation.py --family gpt2 --prompts 64

Both get the same requests (MASSIVE test utterances of one language), model, adapter, dtype and
batch size, in turns in one process; the answers must be equal. Without --model, a random model of
SmolLM2-135M's shape is used or, with --family, a smaller one, for which the goal is 1: not slower.
Without --adapter, the end-of-text logit is raised so that the mean and maximum length of answers
are those of the gold ones, which simulates an adapter whose answers end, without its cost. The last
line is `generation ratio=X goal=Y met|missed`. The exit code is 1 if the goal is missed or, in
float32, an answer differs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from side_by_side import parser, random_model, run, verdict
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from xlt_bench.data.root import data_root
from xlt_bench.models.chat import encode_prompt, render_chat, set_chat_template
from xlt_bench.models.generation import ordinary
from xlt_bench.models.lm import XltLM
from xlt_bench.models.load import DTYPES, choose_device, load_base
from xlt_bench.models.merged import merged
from xlt_bench.models.prepacked import prepacked
from xlt_bench.tasks import massive
from xlt_bench.tasks.base import Item

GOAL = 3.0
_WIDE = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8}
_HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _WIDE | _HEADS,
    "qwen2": _WIDE | _HEADS,
    "mistral": _WIDE | _HEADS | {"sliding_window": None},
    "gemma3_text": _WIDE | _HEADS | {"head_dim": 32},
    "phi3": _WIDE | _HEADS,
    "gpt_neox": _WIDE | {"num_attention_heads": 8},
    "gpt2": {"n_embd": 256, "n_layer": 8, "n_head": 8},
    # Left to transformers: a window shorter than a prompt, no position ids, a recurrent state.
    "mistral, narrow window": _WIDE | _HEADS | {"sliding_window": 64},
    "bloom": {"hidden_size": 256, "n_layer": 8, "n_head": 8},
    "falcon_mamba": {"hidden_size": 256, "num_hidden_layers": 4},
}
"""Small configurations of model families, by transformers' model type."""


def main() -> int:
    """Measure in turns, compare, print. Returns the exit code."""
    options = _options()
    items = _items(options.data_dir, options.language, options.prompts)
    device = choose_device(options.device)
    model, tokenizer = _model(options, items, device)
    set_chat_template(tokenizer, None)
    prompts = [render_chat(tokenizer, i.messages, add_generation_prompt=True) for i in items]
    if options.adapter:
        model, limit = (
            PeftModel.from_pretrained(model, options.adapter).eval(),
            massive.TASK.max_new_tokens,
        )
    else:
        limit = end_answers(model, tokenizer, items, prompts)
    lms = {
        "ours": XltLM(pretrained=model, tokenizer=tokenizer, batch_size=options.batch_size),
        "stock": HFLM(pretrained=model, tokenizer=tokenizer, batch_size=options.batch_size),
    }
    ratios, differing = [], 0
    for turn in range(options.turns):
        order = ["stock", "ours"] if turn % 2 else ["ours", "stock"]
        results = {}
        for name in order:  # `evaluate` merges a single adapter
            sample = [encode_prompt(tokenizer, prompt) for prompt in prompts[:4]]
            mine = name == "ours"
            with (
                merged(model, sample) if mine and options.adapter else nullcontext(),
                prepacked(model) if mine else nullcontext(),
            ):
                results[name] = timed(lms[name], prompts, limit)
        (ours, our_texts), (stock, stock_texts) = results["ours"], results["stock"]
        differing += sum(a != b for a, b in zip(our_texts, stock_texts, strict=True))
        ratios.append(stock / ours)
        print(
            f"turn {turn + 1}: ours {len(items) / ours:.2f}, stock {len(items) / stock:.2f} items/s"
        )
    lengths = sorted(len(tokenizer(text)["input_ids"]) for text in our_texts)
    print(
        f"{len(items)} prompts, batch size {options.batch_size}, {options.dtype} on {device}, "
        f"{torch.get_num_threads()} threads; answers of {statistics.mean(lengths):.1f} tokens on "
        f"average, {lengths[len(lengths) // 2]} at the median, {lengths[-1]} at most; "
        f"{len(set(our_texts))} distinct; {differing} of {len(items) * options.turns} differ"
    )
    ratio, goal = statistics.median(ratios), 1.0 if options.family else GOAL
    met = ratio >= goal and not (differing and options.dtype == "float32")
    return verdict("generation", ratio, goal, met)


def timed(lm: Any, prompts: Sequence[str], limit: int) -> tuple[float, list[str]]:
    """Seconds of `generate_until` for all prompts, and the answers, of at most `limit` tokens."""
    settings = {"until": [], "max_gen_toks": limit, "do_sample": False}
    requests = [
        Instance("generate_until", {}, (prompt, dict(settings)), i)
        for i, prompt in enumerate(prompts)
    ]
    start = time.perf_counter()
    texts = lm.generate_until(requests, disable_tqdm=True)
    return time.perf_counter() - start, [text.strip() for text in texts]


def end_answers(model: Any, tokenizer: Any, items: Sequence[Item], prompts: Sequence[str]) -> int:
    """Raise the end-of-text logit until answers are as long as the gold ones on average.

    A run without an end tells where each answer would end for each possible raise: at the first
    token whose logit exceeds that of the end-of-text token by less than the raise.

    Returns:
        The number of tokens of the longest gold answer.
    """
    targets = [len(tokenizer(item.target)["input_ids"]) + 1 for item in items]
    gold, longest, end = statistics.mean(targets), max(targets), tokenizer.eos_token_id
    leads: list[Tensor] = []

    def record(_module: Any, _inputs: Any, logits: Tensor) -> None:
        ends = logits[:, -1, end].clone()
        logits[..., end] = -torch.inf
        leads.append(logits[:, -1].amax(-1).float() - ends)

    head = model.get_output_embeddings()
    hook = head.register_forward_hook(record)
    sample = [encode_prompt(tokenizer, prompt) for prompt in prompts[:16]]
    ordinary(model, sample, longest, [end])
    hook.remove()
    lowest = torch.stack(leads, dim=1).cummin(dim=1).values  # (rows, steps)
    raises = lowest.unique()  # in ascending order
    lengths = torch.stack([(lowest >= value).sum(1) + 1 for value in raises]).float()
    nearest = int((lengths.clamp(max=longest).mean(1) - gold).abs()[:-1].argmin())
    # Between two leads: a raise equal to a lead would be a tie, which rounding decides.
    chosen = raises[nearest : nearest + 2].mean().item()

    def lift(_module: Any, _inputs: Any, logits: Tensor) -> None:
        logits[..., end] += chosen

    head.register_forward_hook(lift)
    print(
        f"end-of-text raised by {chosen:.2f}; gold answers have {gold:.1f} tokens on average, "
        f"{longest} at most"
    )
    return longest


def _model(options: argparse.Namespace, items: Sequence[Item], device: str) -> tuple[Any, Any]:
    """The model of --model, or a random one with a tokenizer trained on `items`."""
    if options.model:
        base = load_base(options.model, options.dtype, device)
        return base.model, base.tokenizer
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts = [text for item in items for text in (item.system, item.user, item.target)]
    bpe.train_from_iterator(texts, 4096, show_progress=False, special_tokens=["<|end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )
    made = (
        _family(options.family, tokenizer)
        if options.family
        else random_model(tokenizer, tied=False)
    )
    model = made.to(device, DTYPES[options.dtype])
    known = len(tokenizer)  # the rest of the vocabulary has no text to compare

    def silence(_module: Any, _inputs: Any, logits: Tensor) -> None:
        logits[..., known:] = -torch.inf

    model.get_output_embeddings().register_forward_hook(silence)
    return model, tokenizer


def _family(name: str, tokenizer: Any) -> Any:
    """An untrained model of a family, with weights large enough for its answers to vary."""
    torch.manual_seed(0)
    ids = {f"{kind}_token_id": tokenizer.eos_token_id for kind in ("bos", "eos", "pad")}
    shape = FAMILIES[name] | ids | {"vocab_size": 8192, "tie_word_embeddings": False}
    config = AutoConfig.for_model(name.partition(",")[0], **shape)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.1)
    return model


def _items(data_dir: str | None, language: str, count: int) -> list[Item]:
    """Some test utterances, evenly spaced in MASSIVE's file."""
    items = massive.TASK.load(data_root(data_dir), language)
    return items[:: max(1, len(items) // count)][:count]


def _options() -> argparse.Namespace:
    made = parser(__doc__, turns=3)
    made.add_argument("--adapter", help="PEFT adapter that ends its answers")
    made.add_argument("--family", choices=FAMILIES)
    made.add_argument("--language", default="es")
    made.add_argument("--prompts", type=int, default=256)
    made.add_argument("--batch-size", type=int, default=32)
    return made.parse_args()


if __name__ == "__main__":
    run(main)
