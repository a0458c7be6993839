"""Times answers with 0, 1 and 4 LoRA adapters on the hf backend and vLLM, and counts operations.

    python performance/throughput.py --model MODEL --device cuda [--adapter FOLDER ...]

Each adapter answers all prompts, one adapter after the other, unmerged, as `evaluate` does with
several; missing ones are random, of rank 8. The peak is the best rate of a large product of square
matrices in the same dtype. An answer's operations are two for each weight and token read or
written, so the share of the peak says how much of the machine is used for them. With
`--against-cpu N`, the CPU answers the first N prompts too, in the same dtype. The last line is
`throughput ratio=X goal=0.95 met|missed`: the lowest rate with adapters divided by the base
model's, over the backends that run here.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from side_by_side import parser, run, synchronize, verdict

from xlt_bench.data.root import data_root
from xlt_bench.models.adapter_fit import check_adapter
from xlt_bench.models.adapter_switch import AdapterSwitch
from xlt_bench.models.adapters import AdapterFiles, find_adapter
from xlt_bench.models.chat import encode_prompt
from xlt_bench.models.lm import XltLM, silent
from xlt_bench.models.load import Base, choose_device, load_base, meta_model
from xlt_bench.models.tokenizer import choose_chat
from xlt_bench.tasks import massive

GOAL = 0.95
Generate = Callable[[AdapterFiles | None, Sequence[str]], list[str]]


def main() -> int:
    """Measure, compare, print. Returns the exit code."""
    options = _options()
    device = choose_device(options.device)
    base = load_base(options.model, options.dtype, device)
    chat = choose_chat(options.model, None, None, None, {}, False, None)
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=options.batch_size)
    lm.use_chat(chat)
    root = data_root(options.data_dir)
    items = massive.TASK.load(root, "es")[: options.prompts]
    prompts = [lm.apply_chat_template(item.messages) for item in items]
    peak = _peak(base.model.dtype, device)
    print(f"peak of matrix products: {peak / 1e12:.2f} TFLOP/s in {options.dtype}")
    if options.against_cpu:
        _compare_with_cpu(lm, prompts[: options.against_cpu], options)
    with tempfile.TemporaryDirectory() as folder:
        adapters = [find_adapter(name) for name in options.adapter or _random(base, Path(folder))]
        backends: dict[str, Generate] = {"hf": _hf(lm, base, adapters, options)}
        if options.vllm and importlib.util.find_spec("vllm"):
            backends["vllm"] = _vllm(base, chat, adapters, options)
        elif options.vllm:
            print("vLLM is not installed: only hf is timed")
        lowest = min(
            _rates(name, generate, adapters, prompts, lm, peak)
            for name, generate in backends.items()
        )
    return verdict("throughput", lowest, GOAL, lowest >= GOAL)


def _rates(
    name: str,
    generate: Generate,
    adapters: Sequence[AdapterFiles],
    prompts: Sequence[str],
    lm: XltLM,
    peak: float,
) -> float:
    """Print the rates of a backend; the lowest with adapters, as a share of the base model's."""
    weights = sum(p.numel() for p in lm.model.parameters())
    read = sum(len(encode_prompt(lm.tokenizer, prompt)) for prompt in prompts)
    systems: dict[int, list[AdapterFiles | None]] = {0: [None], 1: [adapters[0]], 4: [*adapters]}
    rates = {}
    for count, chosen in systems.items():
        generate(chosen[0], prompts)  # not timed: kernels, and what an engine prepares
        synchronize()
        start, written = time.perf_counter(), 0
        for adapter in chosen:
            texts = generate(adapter, prompts)
            written += sum(map(len, lm.tokenizer(texts)["input_ids"]))
        synchronize()
        seconds = time.perf_counter() - start
        rates[count] = len(chosen) * len(prompts) / seconds
        used = 2 * weights * (len(chosen) * read + written) / seconds
        print(
            f"{name}, {count} adapters: {rates[count]:.2f} items/s, "
            f"{written / seconds:.0f} tokens/s written; share of peak {100 * used / peak:.1f} %",
            flush=True,
        )
    return min(rates[1], rates[4]) / rates[0]


def _hf(
    lm: XltLM, base: Base, adapters: Sequence[AdapterFiles], options: argparse.Namespace
) -> Generate:
    skeleton = meta_model(options.model)
    fits = {a.name: check_adapter(a, skeleton, options.model) for a in adapters}
    switch = AdapterSwitch(base.model, options.model, fits)

    def generate(adapter: AdapterFiles | None, prompts: Sequence[str]) -> list[str]:
        lm.use_model(switch.use(adapter))
        return [one.text for one in lm.generate(list(prompts), options.new_tokens, silent)]

    return generate


def _vllm(
    base: Base, chat: Any, adapters: Sequence[AdapterFiles], options: argparse.Namespace
) -> Generate:
    from xlt_bench.models.vllm import VllmLM

    engine = VllmLM(base, options.dtype, adapters, {"max_num_seqs": options.batch_size})

    def generate(adapter: AdapterFiles | None, prompts: Sequence[str]) -> list[str]:
        engine.use(adapter, chat)
        engine.model.reset_prefix_cache()
        return [one.text for one in engine.generate(list(prompts), options.new_tokens, silent)]

    return generate


def _random(base: Base, folder: Path) -> list[str]:
    """Four random adapters of rank 8 on all linear layers."""
    names = []
    for number in range(4):
        torch.manual_seed(number)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(base.model, config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=1e-3)
        model.save_pretrained(folder / f"adapter-{number}")
        model.unload()
        names.append(str(folder / f"adapter-{number}"))
    return names


def _peak(dtype: torch.dtype, device: str) -> float:
    """Operations a second of the best of several large products."""
    size = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        synchronize()
        start = time.perf_counter()
        a @ b
        synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def _compare_with_cpu(lm: XltLM, prompts: Sequence[str], options: argparse.Namespace) -> None:
    there = [one.text for one in lm.generate(list(prompts), options.new_tokens, silent)]
    base = load_base(options.model, options.dtype, "cpu")
    other = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=options.batch_size)
    other.use_chat(choose_chat(options.model, None, None, None, {}, False, None))
    here = [one.text for one in other.generate(list(prompts), options.new_tokens, silent)]
    equal = sum(a == b for a, b in zip(there, here, strict=True))
    mean = statistics.mean(map(len, here))
    print(f"{equal} of {len(here)} answers are the CPU's ({mean:.0f} characters on average)")


def _options() -> argparse.Namespace:
    made = parser(__doc__, turns=1)
    made.set_defaults(dtype="bfloat16")
    made.add_argument("--adapter", action="append", help="up to four times; others are random")
    made.add_argument("--prompts", type=int, default=256)
    made.add_argument("--new-tokens", type=int, default=32)
    made.add_argument("--batch-size", type=int, default=64)
    made.add_argument("--against-cpu", type=int, default=0, metavar="N")
    made.add_argument("--vllm", action=argparse.BooleanOptionalAction, default=True)
    return made.parse_args()


if __name__ == "__main__":
    run(main)
