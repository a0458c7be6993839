"""What the scripts of this folder share: a model, runs by turns, the last line.

    from side_by_side import by_turns, median_ratio, model_and_tokenizer, verdict

Times are wall-clock seconds: other work on the machine makes them longer and ratios unsteady.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from xlt_bench.errors import InputError
from xlt_bench.models.embedded import shipped
from xlt_bench.models.load import DTYPES, choose_device, load_base

Seconds = dict[str, list[float]]
"""Of each way, its seconds by turn."""


def parser(doc: str | None, turns: int) -> argparse.ArgumentParser:
    """A parser with the options that every script on a model has."""
    made = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    made.add_argument("--model", help="model folder or hub name; else a random model")
    made.add_argument("--data-dir", help="folder of the data sets, as of xlt-bench")
    made.add_argument("--turns", type=int, default=turns)
    made.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    made.add_argument("--device")
    return made


def model_and_tokenizer(options: argparse.Namespace, vocabulary: int = 49152) -> tuple[Any, Any]:
    """The model asked for; else a random one of SmolLM2-135M's shape with our small tokenizer."""
    device = choose_device(options.device)
    if options.model:
        base = load_base(options.model, options.dtype, device)
        return base.model, base.tokenizer
    tokenizer = AutoTokenizer.from_pretrained(shipped("embedded"))
    model = random_model(tokenizer, vocabulary, tied=True)
    return model.to(DTYPES[options.dtype]).to(device), tokenizer


def random_model(tokenizer: Any, vocabulary: int = 49152, *, tied: bool) -> Any:
    """An untrained model of SmolLM2-135M's shape, float32; `tied`: one matrix embeds and scores."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


def with_lora(base: Any) -> Any:
    """The model with a LoRA of rank 8 on all linear layers, whose factors are random."""
    torch.manual_seed(1)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    return model


def loss_and_gradients(
    model: Any, loss: Callable[[], torch.Tensor]
) -> tuple[float, dict[str, torch.Tensor]]:
    """One step without an optimizer: the loss, and the gradients that its backward leaves."""
    model.zero_grad()
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    named = model.named_parameters()
    return value.item(), {name: p.grad for name, p in named if p.grad is not None}


def by_turns(ways: Mapping[str, Callable[[], Any]], turns: int) -> tuple[Seconds, dict[str, Any]]:
    """Each way's seconds a turn, and its last result; the order is reversed at each turn."""
    seconds: Seconds = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for turn in range(turns):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            synchronize()
            start = time.perf_counter()
            results[name] = ways[name]()
            synchronize()
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times):.3f} s (median of {turns})")
    return seconds, results


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_ratio(seconds: Seconds, over: str, under: str) -> float:
    """The median over turns of how many times as long `over` took as `under`."""
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with what `main` returns; what the user got wrong is one line."""
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")


def verdict(name: str, ratio: float, goal: float, met: bool) -> int:
    """Print the last line; returns the exit code."""
    print(f"{name} ratio={ratio:.2f} goal={goal} {'met' if met else 'missed'}")
    return 0 if met else 1
