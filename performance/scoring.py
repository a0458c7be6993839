"""Times scores with bootstrap intervals against scoring each resample with seqeval and sacreBLEU.

    python performance/scoring.py

Slot F1 goes from text to score for the 20 ranked test sets of MASSIVE, with 1,000 resamples per
language; a third of the answers are wrong, the others gold. The peer runs seqeval on the BIO labels
of a few of the same resamples, and its time is extrapolated to all of them. For translation, BLEU
and chrF++ of one WMT23 direction are compared with sacreBLEU's `corpus_score` on a few of the same
resamples. Every score of a resample must agree. The last line, for slot F1, is
`scoring ratio=X goal=10.0 met|missed`. The exit code is 1 if the goal is missed or a score differs.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from seqeval.metrics import f1_score
from side_by_side import run, verdict

from xlt_bench.data.root import data_root
from xlt_bench.metrics.significance import N_RESAMPLES, SEED, interval, resample_sums
from xlt_bench.metrics.slots import bio, gold_labels, parse, place
from xlt_bench.metrics.translation import SCORES, segment_counts
from xlt_bench.tasks import massive, wmt23
from xlt_bench.tasks.base import Item

GOAL = 10.0


def main() -> int:
    """Measure, compare, print. Returns the exit code."""
    options = _options()
    root = data_root(options.data_dir)
    ratio, equal = _slots(root, options.resamples)
    equal &= _translation(root, "de-en", options.resamples)
    return verdict("scoring", ratio, GOAL, ratio >= GOAL and equal)


def _slots(root: Path, few: int) -> tuple[float, bool]:
    """The time of seqeval divided by ours, and whether all scores agree."""
    languages = {code: massive.TASK.load(root, code) for code in massive.TASK.test_set().units}
    answers = {code: _answers(items) for code, items in languages.items()}
    start = time.perf_counter()
    counts = {
        c: massive.TASK.count(items, answers[c], massive.TASK.test_set())["slot_f1"]
        for c, items in languages.items()
    }
    for matrix in counts.values():
        interval(matrix, massive.slot_f1.score)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    labelled = {code: _labels(items, answers[code]) for code, items in languages.items()}
    prepared = time.perf_counter() - start
    spent, off = 0.0, 0.0
    first = next(iter(languages))  # one stands for all: their test sets have the same size
    scores = massive.slot_f1.score(resample_sums(counts[first], few))
    for drawn, score in zip(_draws(len(counts[first]), few), scores, strict=True):
        start = time.perf_counter()
        gold, predicted = ([side[i] for i in drawn] for side in labelled[first])
        theirs = 100 * f1_score(gold, predicted)
        spent += time.perf_counter() - start
        off = max(off, abs(theirs - score))
    peer = prepared + spent / few * N_RESAMPLES * len(languages)
    n = sum(map(len, languages.values()))
    print(
        f"slot F1: {n} predictions in {len(languages)} languages, {N_RESAMPLES} resamples each: "
        f"ours {ours:.2f} s, for two scorers and all failures; seqeval {peer:.0f} s, "
        f"extrapolated from {few} resamples of one language; largest difference {off:.1e} points"
    )
    return peer / ours, off < 1e-9


def _translation(root: Path, direction: str, few: int) -> bool:
    """Compare BLEU and chrF++ with sacreBLEU and print. Returns whether all scores agree."""
    items = wmt23.TASK.load(root, direction)
    target = direction.split("-")[1]
    references = [item.gold for item in items]
    hypotheses = [_shuffled(text, seed) for seed, text in enumerate(references)]
    equal = True
    for metric, corpus in (("bleu", BLEU()), ("chrf", CHRF(word_order=2))):
        start = time.perf_counter()
        counts = segment_counts(metric, target, hypotheses, references)
        interval(counts, SCORES[metric])
        ours = time.perf_counter() - start
        scores = SCORES[metric](resample_sums(counts, few))
        start = time.perf_counter()
        theirs = [
            _on(drawn, hypotheses, references, corpus.corpus_score)
            for drawn in _draws(len(items), few)
        ]
        peer = (time.perf_counter() - start) / few * N_RESAMPLES
        off = float(np.abs(scores - theirs).max())
        equal &= off < 1e-9
        print(
            f"{metric}: {len(items)} segments of {direction}, {N_RESAMPLES} resamples: ours "
            f"{ours:.2f} s, corpus_score {peer:.0f} s, extrapolated from {few}: "
            f"{peer / ours:.0f} times; largest difference {off:.1e}"
        )
    return equal


def _on(
    drawn: np.ndarray, hypotheses: Sequence[str], references: Sequence[str], score: Callable
) -> float:
    return float(score([hypotheses[i] for i in drawn], [[references[i] for i in drawn]]).score)


def _draws(n: int, few: int) -> list[np.ndarray]:
    """The item numbers of the first resamples that `resample_sums` draws."""
    generator = np.random.default_rng([SEED, n])
    return list(generator.integers(0, n, size=(few, n)))


def _answers(items: Sequence[Item]) -> list[str]:
    """Gold answers, a third of them replaced by that of the item before."""
    rng = random.Random(0)
    return [items[i - (rng.random() < 1 / 3)].target for i in range(len(items))]


def _labels(items: Sequence[Item], answers: Sequence[str]) -> tuple[list[list[str]], ...]:
    """BIO labels of gold and predictions."""
    gold, predicted = [], []
    for item, answer in zip(items, answers, strict=True):
        by_character = massive.by_character(item.unit)
        tokens, labels = gold_labels(item.gold, by_character)
        gold.append(bio(labels))
        predicted.append(bio(place(tokens, parse(answer)[0], by_character)[0]))
    return gold, predicted


def _shuffled(text: str, seed: int) -> str:
    """The text with two adjacent words swapped."""
    words = text.split()
    at = random.Random(seed).randrange(max(1, len(words) - 1))
    words[at : at + 2] = words[at : at + 2][::-1]
    return " ".join(words)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("--data-dir", help="data folder, as in xlt-bench")
    made.add_argument("--resamples", type=int, default=10, help="resamples of the peer")
    return made.parse_args()


if __name__ == "__main__":
    run(main)
