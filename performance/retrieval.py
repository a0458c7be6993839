"""Times retrieval between all ordered pairs of languages against LASER's xSIM and bare products.

    python performance/retrieval.py

Ours is `metrics.retrieval.all_pairs`, normalisation included. The peer does what LASER's xSIM does
(Heffernan et al., 2022; source/xsim.py of facebookresearch/LASER): for each ordered pair, it builds
a FAISS flat inner-product index of either side, searches the k nearest neighbours both ways,
computes the ratio margin of each candidate in a loop, and takes the best one. It needs `pip install
faiss-cpu`; otherwise torch's product and topk replace FAISS, and the script says so. The bare
products are one matrix product for each unordered pair. States are made up: 997 sentences of 4,096
dimensions. The last line is `retrieval ratio=X goal=3.0 met|missed`. The exit code is 1 if the goal
is missed, an answer differs, or ours takes more than 1.3 times as long as the bare products.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping

import numpy as np
import torch
from side_by_side import by_turns, median_ratio, run, verdict
from torch import Tensor

from xlt_bench.metrics.retrieval import K, accuracy, all_pairs, normalise

try:
    import faiss
except ImportError:
    faiss = None

GOAL, BARE_GOAL = 3.0, 1.3
Answers = dict[tuple[str, str], Tensor]


def main() -> int:
    """Measure in turns, compare, print. Returns the exit code."""
    options = _options()
    states = _states(options.languages, options.sentences, options.dimensions, options.device)
    if faiss is None:
        print("FAISS is not installed (pip install faiss-cpu): torch's product and topk replace it")
    else:
        faiss.omp_set_num_threads(torch.get_num_threads())
    if options.layers > 1:
        layers, _ = by_turns(
            {"layers": lambda: [all_pairs(states) for _ in range(options.layers)]}, 1
        )
        print(f"{options.layers} layers of {len(states)} languages: {layers['layers'][0]:.1f} s")
        states = dict(list(states.items())[:4])
    arrays = {code: matrix.cpu().numpy().copy() for code, matrix in states.items()}
    unit = {code: normalise(matrix) for code, matrix in states.items()}
    ways = {
        "ours": lambda: all_pairs(states),
        "xsim": lambda: _xsim(arrays),
        "bare": lambda: [unit[a] @ unit[b].T for a, b in itertools.combinations(unit, 2)],
    }
    seconds, results = by_turns(ways, options.turns)
    ours, theirs = results["ours"], results["xsim"]
    differing = sum(int((ours[pair].cpu() != theirs[pair]).sum()) for pair in theirs)
    right = sum(accuracy(found) for found in ours.values()) / len(ours)
    bare = median_ratio(seconds, "ours", "bare")
    print(
        f"{len(states)} languages of {options.sentences} x {options.dimensions}, {len(ours)} "
        f"ordered pairs, {torch.get_num_threads()} threads; accuracy {right:.1f}; "
        f"{differing} of {sum(map(len, ours.values()))} answers differ"
    )
    print(f"against the bare products: {bare:.2f} times as long (goal at most {BARE_GOAL})")
    layer = 35 * 997 * options.dimensions * 4
    print(
        f"memory bound: one layer of 35 languages, raw and normalised: {2 * layer >> 20} MB; "
        f"a pair's cosines: {options.sentences**2 * 4 >> 20} MB"
    )
    ratio = median_ratio(seconds, "xsim", "ours")
    return verdict("retrieval", ratio, GOAL, ratio >= GOAL and bare <= BARE_GOAL and not differing)


def _states(languages: int, n: int, d: int, device: str) -> dict[str, Tensor]:
    """States by language: a part that translations share, an offset per language, and noise."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(n, d, generator=generator)
    return {
        f"l{i}": (
            shared
            + 2 * torch.randn(1, d, generator=generator)
            + (2 + i / 2) * torch.randn(n, d, generator=generator)
        ).to(device)
        for i in range(languages)
    }


def _xsim(arrays: Mapping[str, np.ndarray]) -> Answers:
    return {
        (a, b): torch.from_numpy(_one_pair(arrays[a], arrays[b]))
        for a, b in itertools.permutations(arrays, 2)
    }


def _one_pair(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The answer in y to each row of x: (n,). Normalises both in place, as xSIM does."""
    for side in (x, y):
        if faiss is None:
            side /= np.linalg.norm(side, axis=1, keepdims=True)
        else:
            faiss.normalize_L2(side)
    forward, index = _nearest(x, y)
    backward, _ = _nearest(y, x)
    mean_x, mean_y = forward.mean(axis=1), backward.mean(axis=1)
    found = np.empty(len(x), dtype=np.int64)
    for i, candidates in enumerate(index):  # one by one, as in xSIM
        scores = [forward[i, j] / ((mean_x[i] + mean_y[c]) / 2) for j, c in enumerate(candidates)]
        found[i] = candidates[int(np.argmax(scores))]
    return found


def _nearest(queries: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cosines and the indices of the K nearest candidates, each (n, K)."""
    if faiss is None:
        near = (torch.from_numpy(queries) @ torch.from_numpy(candidates).T).topk(K)
        return near.values.numpy(), near.indices.numpy()
    index = faiss.IndexFlatIP(candidates.shape[1])
    index.add(candidates)
    found: tuple[np.ndarray, np.ndarray] = index.search(queries, K)
    return found


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("--languages", type=int, default=8)
    made.add_argument("--sentences", type=int, default=997)
    made.add_argument("--dimensions", type=int, default=4096)
    made.add_argument(
        "--layers",
        type=int,
        default=1,
        help="time so many of all languages first, and compare one of four",
    )
    made.add_argument("--turns", type=int, default=5)
    made.add_argument("--device", default="cpu")
    return made.parse_args()


if __name__ == "__main__":
    run(main)
