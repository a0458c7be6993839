"""Compares the time and memory of sentence states with a full forward with all hidden states.

    python performance/states.py [--model MODEL]

Ours is `XltLM.sentence_states`, the pooled outputs of the even blocks. The peer is the causal LM's
forward with `output_hidden_states=True`, in batches of the same size in file order, pooled over the
tokens. The sentences are FLORES's, alternating between languages of four scripts. Without --model,
a random model of SmolLM2-135M's shape with Llama 3's vocabulary of 128,256 is used. Memory is the
peak of a separate process beyond the loaded model. The last line is
`states ratio=X goal=2.0 met|missed`. The exit code is 1 if the goal is missed, memory is more than
half of the peer's, or, in float32, a state differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from side_by_side import by_turns, median_ratio, model_and_tokenizer, parser, run, verdict
from torch import Tensor

from xlt_bench.data.root import data_root
from xlt_bench.metrics.retrieval import even_layers
from xlt_bench.models.chat import encode_sentence
from xlt_bench.models.hidden_states import lengths_mask, mean_pool, pad_right
from xlt_bench.models.lm import XltLM
from xlt_bench.models.prepacked import prepacked
from xlt_bench.tasks import retrieval

GOAL, MEMORY_GOAL = 2.0, 0.5
VOCABULARY = 128_256


def main() -> int:
    """Measure in turns, compare, print. Returns the exit code."""
    options = _options()
    model, tokenizer = model_and_tokenizer(options, VOCABULARY)
    lm = XltLM(pretrained=model, tokenizer=tokenizer, batch_size=options.batch_size)
    layers = even_layers(lm.n_layers)
    root = data_root(options.data_dir)
    languages = [retrieval.TASK.load(root, code) for code in ("en", "sw", "hi", "zh")]
    sentences = list(chain.from_iterable(zip(*languages, strict=True)))[: options.sentences]
    ways = {
        "ours": lambda: _ours(lm, sentences, layers),
        "peer": lambda: _full_forward(lm, sentences, layers, options.batch_size),
    }
    if options.memory_of:
        print(_peak(model.device.type, ways[options.memory_of]))
        return 0
    seconds, states = by_turns(ways, options.turns)
    peaks = {name: _peak_apart(name) for name in ways}
    below_norm = states["peer"][:, :-1]  # transformers normalises the output of the highest block
    off = ((states["ours"][:, :-1] - below_norm).abs().max() / below_norm.abs().max()).item()
    share = peaks["ours"] / peaks["peer"]
    print(
        f"{len(sentences)} sentences, batch size {options.batch_size}, {options.dtype}, "
        f"{torch.get_num_threads()} threads; largest difference {off:.1e} of the largest value"
    )
    print(
        f"peak memory beyond the model: ours {peaks['ours']} MB, peer {peaks['peer']} MB: "
        f"{share:.2f} (goal at most {MEMORY_GOAL})"
    )
    ratio = median_ratio(seconds, "peer", "ours")
    equal = off < 1e-4 or options.dtype != "float32"
    return verdict("states", ratio, GOAL, ratio >= GOAL and share <= MEMORY_GOAL and equal)


@torch.inference_mode()
def _ours(lm: XltLM, sentences: Sequence[str], layers: Sequence[int]) -> Tensor:
    """As `evaluate` computes them."""
    with prepacked(lm.model):
        return lm.sentence_states(sentences, layers)


@torch.inference_mode()
def _full_forward(lm: Any, sentences: Sequence[str], layers: Sequence[int], size: int) -> Tensor:
    """Pooled states (sentences, layers, d) from all outputs of the model."""
    pooled = []
    for start in range(0, len(sentences), size):
        rows = [encode_sentence(lm.tokenizer, text) for text in sentences[start : start + size]]
        mask = lengths_mask(rows).to(lm.device)
        ids = pad_right(rows).to(lm.device)
        states = lm.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True
        ).hidden_states
        pooled.append(torch.stack([mean_pool(states[i], mask) for i in layers], dim=1).cpu())
    return torch.cat(pooled)


def _peak(kind: str, way: Any) -> int:
    """The peak memory of `way` in MB, beyond what was in use before."""
    if kind == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        way()
        return int(torch.cuda.max_memory_allocated() - before) >> 20
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    before = _status("VmRSS")
    way()
    return (_status("VmHWM") - before) >> 10


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def _peak_apart(name: str) -> int:
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def _options() -> argparse.Namespace:
    made = parser(__doc__, turns=3)
    made.add_argument("--sentences", type=int, default=64)
    made.add_argument("--batch-size", type=int, default=16)
    made.add_argument("--memory-of", choices=["ours", "peer"], help=argparse.SUPPRESS)
    return made.parse_args()


if __name__ == "__main__":
    run(main)
