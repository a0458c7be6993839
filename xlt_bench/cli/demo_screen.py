"""Draws the page that `xlt-bench demo` prints: at most 40 lines of 80 characters.

The tables by language and the programs to run next are the command's own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xlt_bench.results.record import LayerAccuracy
from xlt_bench.tasks.registry import RETRIEVAL

if TYPE_CHECKING:
    from xlt_bench.submissions.compare import Comparison
    from xlt_bench.submissions.gains import MeanGain, UnitGain

WIDTH = 80
METRICS = {
    "massive": ("slot_f1", "slot F1"),
    "wmt23": ("chrf", "chrF++"),
    "uner": ("entity_f1_text", "entity text F1"),
    RETRIEVAL: ("retrieval_accuracy", "accuracy"),
}
"""The metric that the demo shows of each task, and how the field writes it.

For translations chrF++, as BLEU is near 0 where hardly four words in a row are right."""
_SPLITS = ("supervised", "aligned", "transfer", "all")
_NAMED = 3  # languages that gain or lose most, of each task,
_HALF = 34  # in this many characters
_LEGEND = "largest gains and losses (* more than chance: p < 0.05, Holm's correction)"
_HEIGHT = 5  # lines of the plot


@dataclass(frozen=True)
class Curves:
    """Retrieval accuracy by layer of the two systems; `chance` is that of a guess, in per cent."""

    baseline: Sequence[LayerAccuracy]
    aligned: Sequence[LayerAccuracy]
    chance: float


@dataclass(frozen=True)
class Next:
    """A command to run next, in one line or several, and what it does."""

    does: str
    command: str


def screen(
    said: str, found: Sequence[Comparison], curves: Curves | None, commands: Sequence[Next]
) -> str:
    """Draw the page.

    Args:
        said: What was run.
        found: The comparison of each task in its metric of `METRICS`.
        curves: Retrieval by layer; None to leave the plot out.
        commands: What to run next.

    Returns:
        The page. Only a command that is itself too long makes a line longer than `WIDTH`.
    """
    sure = {_key(one, mean) for one, mean in _significant(found)}
    parts = [
        textwrap.wrap(said, WIDTH),
        _means(found, sure),
        _plot(curves) if curves else [],
        [_LEGEND, *map(_extremes, found)],
        textwrap.wrap(_meaning(found, sure), WIDTH),
        [
            *textwrap.wrap(f"Next: {'; '.join(one.does for one in commands)}.", WIDTH),
            *(one.command for one in commands),
        ],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _key(one: Comparison, mean: MeanGain) -> tuple[str, str]:
    return one.task, mean.split


def _shown(one: Comparison) -> list[MeanGain]:
    """The means of a task in the table: all languages only where the task has no settings."""
    by_split = {mean.split: mean for mean in one.means}
    if "transfer" in by_split:
        by_split.pop("all", None)
    return [by_split[split] for split in _SPLITS if split in by_split]


def _significant(found: Sequence[Comparison]) -> list[tuple[Comparison, MeanGain]]:
    """The means whose gain is more than chance, after Holm's correction over the table."""
    from xlt_bench.metrics.paired import ALPHA, holm

    rows = [(one, mean) for one in found for mean in _shown(one)]
    corrected = holm([mean.gain.p for _, mean in rows])
    return [row for row, p in zip(rows, corrected, strict=True) if p < ALPHA]


def _means(found: Sequence[Comparison], sure: set[tuple[str, str]]) -> list[str]:
    lines = [f"{'':20}{'mean of':15} baseline aligned  gain (95 %)"]
    for one in found:
        title = f"{one.task} {METRICS[one.task][1]}"
        for mean in _shown(one):
            g, mark = mean.gain, " *" if _key(one, mean) in sure else ""
            values = f"{mean.baseline:9.1f}{mean.value:8.1f}{g.value:+7.1f}"
            split = f"{mean.split} ({len(mean.units)})"
            lines.append(f"{title:20}{split:15}{values} ({g.low:+.1f} to {g.high:+.1f}){mark}")
            title = ""
    return lines


def _plot(curves: Curves) -> list[str]:
    """Two curves over the layers, one letter a point."""
    pairs = list(zip(curves.baseline, curves.aligned, strict=True))
    top = max(1.0, *(row.value for pair in pairs for row in pair))
    step = min(6, (WIDTH - 6) // len(pairs))
    grid = [[" "] * (step * len(pairs)) for _ in range(_HEIGHT)]
    for i, (before, after) in enumerate(pairs):
        heights = [round(row.value / top * (_HEIGHT - 1)) for row in (before, after)]
        for height, letter in zip(heights, "ba", strict=True):
            grid[_HEIGHT - 1 - height][i * step + step // 2] = letter
        if heights[0] == heights[1]:
            grid[_HEIGHT - 1 - heights[0]][i * step + step // 2] = "="
    labels = [top * (_HEIGHT - 1 - i) / (_HEIGHT - 1) for i in range(_HEIGHT)]
    title = (
        f"retrieval accuracy by layer: b baseline, a aligned, = both (a guess: {curves.chance:.1f})"
    )
    drawn = [f"{y:5.1f}|{''.join(row).rstrip()}" for y, row in zip(labels, grid, strict=True)]
    # A number ends below its point.
    axis = "".join(f"{before.layer:>{step // 2 + 1}}".ljust(step) for before, _ in pairs).rstrip()
    return [title, *drawn, " " * 6 + axis]


def _extremes(one: Comparison) -> str:
    """The units of a task with the largest gains, and with the largest losses."""
    rows = sorted(one.units, key=lambda row: row.gain.value, reverse=True)
    ups = [row for row in rows if row.gain.value >= 0.05]  # not those shown as 0.0
    downs = [row for row in rows[::-1] if row.gain.value <= -0.05]
    return f"{one.task:10}{_names(ups) or 'none gains':35}{_names(downs) or 'none loses'}"


def _names(rows: Sequence[UnitGain]) -> str:
    """As many of the first units, with their gains, as half a line has room for."""
    from xlt_bench.metrics.paired import ALPHA

    parts = [
        f"{row.unit} {row.gain.value:+.1f}{'*' if row.p_holm < ALPHA else ''}"
        for row in rows[:_NAMED]
    ]
    while len(" ".join(parts)) > _HALF:
        parts.pop()
    return " ".join(parts)


def _meaning(found: Sequence[Comparison], sure: set[tuple[str, str]]) -> str:
    """What the means say of languages without training data of the task, in one sentence."""
    means = {one.task: mean for one in found for mean in _shown(one) if _counts(mean)}
    certain = {task for task, mean in means.items() if (task, mean.split) in sure}
    kinds = {
        "raised {}": [task for task in certain if means[task].gain.value > 0],
        "lowered {}": [task for task in certain if means[task].gain.value < 0],
        "changed {} by no more than chance": [task for task in means if task not in certain],
    }
    said = [
        kind.format(_listed(task for task in means if task in some))
        for kind, some in kinds.items()
        if some
    ]
    return (
        f"Where the task has no training data, alignment {_listed(said)}; these are real answers, "
        "but of a teaching model to hand-written items: they say nothing about LLMs."
    )


def _counts(mean: MeanGain) -> bool:
    return mean.split in ("transfer", "all")


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
