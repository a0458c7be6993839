"""Lays comparisons of systems and methods out as tables."""

from __future__ import annotations

from collections.abc import Sequence

from xlt_bench.metrics.paired import ALPHA
from xlt_bench.results.tables import DATA_FORMATS, Cell, Column, Table
from xlt_bench.submissions.compare import Comparison
from xlt_bench.submissions.gains import MeanGain, UnitGain
from xlt_bench.tasks.registry import get_task

_NUMBERS: Sequence[str | Column] = (
    "unit group items system baseline gain low high resolvable spread p p_holm significant verdict"
).split()
_LEGEND = (
    "* p < 0.05 by paired bootstrap; for units after Holm's correction over the ranked units of "
    "the table, and separately over those beyond the ranked set. resolvable: the smallest gain "
    "that these items show as significant in 80 of 100 cases"
)
_ONE_SEED = (
    "Intervals and p are of the test items: they say whether these two systems differ. Whether "
    "their methods do needs several seeds of each: compare A1,A2,A3 B1,B2,B3"
)
_SEEDS = (
    "Means over seeds; intervals and p are of seeds and test items: they say whether the two "
    "methods differ. SD: over seeds"
)


def tables(found: Sequence[Comparison], notes: Sequence[str], form: str) -> list[Table]:
    """Lay comparisons out as tables.

    Args:
        found: The comparisons.
        notes: Shown below the last table.
        form: The output format. CSV and JSON get full numbers; the others rounded cells.
    """
    return [
        Table(
            f"{one.task} {one.metric}",
            _NUMBERS if form in DATA_FORMATS else _readable(one),
            _rows(one, form),
            [] if form in DATA_FORMATS else _below(one, notes if one is found[-1] else []),
        )
        for one in found
    ]


def _rows(one: Comparison, form: str) -> list[list[Cell]]:
    test_set = get_task(one.task).test_set(one.version)
    rows: list[list[Cell]] = []
    for row in one.units:
        beyond = "" if row.unit in test_set.units else "beyond"
        setting = test_set.setting(row.unit) or beyond
        group = " ".join(filter(None, [setting, "aligned" if row.aligned else ""]))
        rows.append(_cells(one, row, row.unit, group, row.n, row.p_holm, form))
    rows.append([])
    for mean in one.means:
        group = f"mean of {len(mean.units)}"
        rows.append(_cells(one, mean, mean.split, group, None, None, form))
    return rows


def _readable(one: Comparison) -> list[str | Column]:
    return [
        "unit",
        Column("group", wrap=True),
        Column("items", drop=2),
        *("system", "baseline", "gain", "95 %", Column("resolvable", drop=3)),
        *(["SD"] if one.covers_seeds else []),
        *("p", "p (Holm)", ""),
    ]


def _below(one: Comparison, notes: Sequence[str]) -> list[str]:
    ranked_by = get_task(one.task).ranked_by
    verdicts = [verdict(one, mean) for mean in one.means if mean.split == ranked_by]
    return [*verdicts, _LEGEND, _SEEDS if one.covers_seeds else _ONE_SEED, *notes]


def verdict(one: Comparison, mean: MeanGain) -> str:
    """Say in a sentence whether two systems, or two methods, differ in a mean."""
    what = "methods" if one.covers_seeds else "systems"
    found = mean.gain
    differ = "differ" if found.p < ALPHA else "are not shown to differ"
    return (
        f"{mean.split}: the two {what} {differ}: {found.value:+.1f} ({found.low:+.1f} to "
        f"{found.high:+.1f}, p = {found.p:.2g})"
    )


def _cells(
    one: Comparison,
    row: UnitGain | MeanGain,
    name: str,
    group: str,
    n: int | None,
    p_holm: float | None,
    form: str,
) -> list[Cell]:
    found, p = row.gain, row.gain.p if p_holm is None else p_holm
    if form in DATA_FORMATS:
        numbers = [row.value, row.baseline, found.value, found.low, found.high]
        more = [found.resolvable, row.spread]
        cells = [*(round(x, 6) for x in numbers), *(x and round(x, 6) for x in more)]
        tested = [_digits(found.p), p_holm and _digits(p_holm), p < ALPHA]
        verdict_on = "methods" if one.covers_seeds else "systems"
        return [name, group, n, *cells, *tested, verdict_on]
    values = [f"{row.value:.1f}", f"{row.baseline:.1f}", f"{found.value:+.1f}"]
    interval = f"{found.low:+.1f} to {found.high:+.1f}"
    resolvable = "" if found.resolvable is None else f"{found.resolvable:.1f}"
    spread = [] if not one.covers_seeds else ["" if row.spread is None else f"{row.spread:.1f}"]
    holm = "" if p_holm is None else f"{p_holm:.4f}"
    mark = "*" if p < ALPHA else ""
    return [name, group, n, *values, interval, resolvable, *spread, f"{found.p:.4f}", holm, mark]


def _digits(p: float) -> float:
    """Four significant digits: a small p must not become zero."""
    return float(f"{p:.4g}")
