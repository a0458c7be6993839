"""Lays comparisons of systems and methods out as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from xlt_bench.metrics.paired import ALPHA
from xlt_bench.metrics.transfer import PARTS
from xlt_bench.results.tables import DATA_FORMATS, Cell, Column, Table
from xlt_bench.submissions.compare import Comparison
from xlt_bench.submissions.gains import MeanGain, UnitGain
from xlt_bench.submissions.transfer import MEASURES
from xlt_bench.tasks.registry import get_task

_NUMBERS: Sequence[str | Column] = (
    "unit group items system baseline gain low high resolvable spread p p_holm significant verdict"
).split()
_MEASURED = (
    "relative_transfer relative_transfer_baseline consistency consistency_baseline content format "
    "neither gap_closed"
).split()
_COLUMNS = [
    name
    for measure in _MEASURED
    for name in (
        [measure]
        if measure.endswith("_baseline")
        else [measure, f"{measure}_low", f"{measure}_high"]
    )
]
_LEGEND = (
    "* p < 0.05 by paired bootstrap; for units after Holm's correction over the ranked units of "
    "the table, and separately over those beyond the ranked set. resolvable: the smallest gain "
    "that these items show as significant in 80 of 100 cases"
)
_TRANSFER = (
    "relative transfer: per cent of the mean over the supervised units. consistency: of the items "
    "that both have right in English (without empty ones), the per cent that is right. content, "
    "format, neither: the parts of the gain from items with well-formed answers of both, of one, "
    "of neither. * the 95 % interval of the part, or of the difference, excludes zero"
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
    if form in DATA_FORMATS:
        return [
            Table(f"{one.task} {one.metric}", [*_NUMBERS, *_COLUMNS], _rows(one, form))
            for one in found
        ]
    laid_out: list[Table] = []
    for one in found:
        below = _below(one, notes if one is found[-1] else [])
        title = f"{one.task} {one.metric}"
        laid_out.append(Table(title, _readable(one), _rows(one, form), below))
        laid_out += _transfer(one)
    return laid_out


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


def _transfer(one: Comparison) -> list[Table]:
    """A table of the measures of transfer; none without measures."""
    units: list[tuple[Literal["unit", "mean"], str]] = [("unit", row.unit) for row in one.units]
    means: list[tuple[Literal["unit", "mean"], str]] = [("mean", row.split) for row in one.means]
    found = {key: measure_columns(one, *key) for key in [*units, *means]}
    shown = [name for name in _MEASURED if any(row[name] is not None for row in found.values())]
    if not shown:
        return []
    rows: list[list[Cell]] = [
        [name, *(_measured(found[kind, name], column) for column in shown)]
        for kind, name in [*units, *means]
    ]
    rows.insert(len(units), [])
    columns = [Column(name.replace("_", " "), wrap=True) for name in shown]
    return [Table(f"{one.task} transfer", ["unit", *columns], rows, [_TRANSFER])]


def measure_columns(
    one: Comparison, kind: Literal["unit", "mean"], name: str
) -> dict[str, float | None]:
    """List the measures of transfer of one row of a comparison.

    Args:
        one: The comparison.
        kind: Whether the row is a unit or the mean of a split.
        name: The unit or split.

    Returns:
        By column, None where the task or the answers do not allow a measure: `relative_transfer`
        and `consistency` of the system, of the baseline (`..._baseline`) and the ends of the
        interval of their difference (`..._low`, `..._high`); the parts of the gain, `content`,
        `format` and `neither`, and `gap_closed`, with their intervals.
    """
    columns: dict[str, float | None] = {}
    for measure in MEASURES:
        row = one.measures[measure].row(kind, name) if measure in one.measures else None
        columns[measure] = row.value if row else None
        if measure not in PARTS:
            columns[f"{measure}_baseline"] = row.baseline if row else None
        columns[f"{measure}_low"] = row.gain.low if row else None
        columns[f"{measure}_high"] = row.gain.high if row else None
    share = one.gaps.get(name)
    columns["gap_closed"] = share.value if share else None
    columns["gap_closed_low"] = share.low if share else None
    columns["gap_closed_high"] = share.high if share else None
    return columns


def _measured(row: Mapping[str, float | None], column: str) -> str:
    """A measure as a person reads it; a star where the interval of a difference excludes zero."""
    value = row[column]
    if value is None:
        return ""
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    if column in PARTS:
        return f"{value:+.1f}{_star(low, high)}"
    if column == "gap_closed":
        ends = "no bounds" if low is None else f"{low:.0f} to {high:.0f}"
        return f"{value:.0f} % ({ends})"
    return f"{value:.1f}{_star(low, high)}"


def _star(low: float | None, high: float | None) -> str:
    return " *" if low is not None and high is not None and (low > 0 or high < 0) else ""


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
        cells = [*(round(x, 6) for x in numbers), *map(_rounded, more)]
        tested = [_digits(found.p), p_holm and _digits(p_holm), p < ALPHA]
        verdict_on = "methods" if one.covers_seeds else "systems"
        measured = measure_columns(one, "unit" if isinstance(row, UnitGain) else "mean", name)
        transfer = [_rounded(measured[column]) for column in _COLUMNS]
        return [name, group, n, *cells, *tested, verdict_on, *transfer]
    values = [f"{row.value:.1f}", f"{row.baseline:.1f}", f"{found.value:+.1f}"]
    interval = f"{found.low:+.1f} to {found.high:+.1f}"
    resolvable = "" if found.resolvable is None else f"{found.resolvable:.1f}"
    spread = [] if not one.covers_seeds else ["" if row.spread is None else f"{row.spread:.1f}"]
    holm = "" if p_holm is None else f"{p_holm:.4f}"
    mark = "*" if p < ALPHA else ""
    return [name, group, n, *values, interval, resolvable, *spread, f"{found.p:.4f}", holm, mark]


def _rounded(value: float | None) -> float | None:
    return value and round(value, 6)


def _digits(p: float) -> float:
    """Four significant digits: a small p must not become zero."""
    return float(f"{p:.4g}")
