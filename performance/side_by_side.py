"""Shared by the scripts here: loads a model, times functions in turns, prints the last line.

    from side_by_side import by_turns, median_ratio, model_and_tokenizer, verdict

Times are wall-clock seconds: other work on the machine makes them longer and the ratios unsteady.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from xlt_bench.errors import InputError
from xlt_bench.models.embedded import shipped
from xlt_bench.models.load import DTYPES, choose_device, load_base

INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")
"""Those that change the speed of matrix products, as Linux names them."""

Seconds = dict[str, list[float]]
"""The seconds of each turn, by name."""


def parser(doc: str | None, turns: int) -> argparse.ArgumentParser:
    """A parser with the options common to all scripts that run a model."""
    made = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    made.add_argument("--model", help="model folder or hub name (default: a random model)")
    made.add_argument("--data-dir", help="data folder, as in xlt-bench")
    made.add_argument("--turns", type=int, default=turns)
    made.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    made.add_argument("--device")
    return made


def model_and_tokenizer(options: argparse.Namespace, vocabulary: int = 49152) -> tuple[Any, Any]:
    """The model of --model, or a random one of SmolLM2-135M's shape with our small tokenizer."""
    device = choose_device(options.device)
    if options.model:
        base = load_base(options.model, options.dtype, device)
        return base.model, base.tokenizer
    tokenizer = AutoTokenizer.from_pretrained(shipped("embedded"))
    model = random_model(tokenizer, vocabulary, tied=True)
    return model.to(DTYPES[options.dtype]).to(device), tokenizer


def random_model(tokenizer: Any, vocabulary: int = 49152, *, tied: bool) -> Any:
    """An untrained float32 model of SmolLM2-135M's shape, with tied embeddings or not."""
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
    """The model with a random LoRA of rank 8 on all linear layers."""
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
    """A step without an optimizer: the loss, and the gradient of each parameter by name."""
    model.zero_grad()
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    named = model.named_parameters()
    return value.item(), {name: p.grad for name, p in named if p.grad is not None}


def by_turns(ways: Mapping[str, Callable[[], Any]], turns: int) -> tuple[Seconds, dict[str, Any]]:
    """Time functions in turns, in reverse order every other turn.

    Returns:
        The seconds of each turn and the last result, both by name.
    """
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
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_ratio(seconds: Seconds, over: str, under: str) -> float:
    """The median over turns of the time of `over` divided by that of `under`."""
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def machine() -> str:
    """Describe what a measurement depends on: processor, instructions, cores, threads, torch."""
    processor = platform.processor() or platform.machine()
    flags: set[str] = set()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        named = dict(reversed([line.split("\t: ", 1) for line in lines if "\t: " in line]))
        named = {key.strip(): value for key, value in named.items()}
        processor = named.get("model name", processor)
        flags = set(named.get("flags", "").split())
    known = [name for name in INSTRUCTIONS if name in flags]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor} ({', '.join(known) or 'instructions unknown'}), {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}{gpu}"
    )


def run(main: Callable[[], int]) -> NoReturn:
    """Print the machine and exit with what `main` returns; an InputError is one line."""
    print(machine(), flush=True)
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")


def verdict(name: str, ratio: float, goal: float, met: bool) -> int:
    """Print the last line. Returns the exit code."""
    print(f"{name} ratio={ratio:.2f} goal={goal} {'met' if met else 'missed'}")
    return 0 if met else 1
