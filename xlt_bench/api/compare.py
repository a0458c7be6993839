"""Compares runs and submissions from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xlt_bench.api.quiet import quiet
from xlt_bench.api.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from xlt_bench.submissions.compare import Comparison
    from xlt_bench.submissions.gains import MeanGain, UnitGain


One = Run | str | Path


def compare(
    system: One | Sequence[One],
    baseline: One | Sequence[One],
    *,
    oracle: One | Sequence[One] | None = None,
    submissions: str | Path = "submissions",
    data_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Compute a system's gains over a baseline on the same items, with paired bootstrap tests.

    Args:
        system: A Run, a run folder, a submission folder or a submission's id; or a list of them:
            the seeds of a method.
        baseline: The same. With several seeds of each, intervals and p cover seeds and items.
        oracle: The same, trained in all languages: the share of the gap between baseline and oracle
            that the system closes is computed too.
        submissions: The folder of submissions, for ids.
        data_dir: The data that runs were evaluated on. None: $XLT_BENCH_DATA, or the user's cache.

    Returns:
        kind (`unit` or `mean`), task, metric, unit (or split), setting, aligned, n (items, or units
        of a mean), system, baseline, gain with its 95 % interval (low, high), p, p_holm (units:
        after Holm's correction), significant (at 0.05), resolvable (the smallest gain that
        these items show) and spread (the standard deviation over seeds; None without). Then the
        measures of transfer of the primary metric, with intervals (`..._low`, `..._high`):
        relative_transfer (the score in per cent of the supervised mean) and consistency (of the
        items that both have right in English, the share that is right), also of the baseline
        (`..._baseline`, the interval is the difference's); content, format and neither, the parts
        of the gain by whether both, one or neither of the two answers is well-formed; gap_closed.
        `attrs["notes"]` says what was left out.

    Raises:
        InputError: The two have nothing that can be compared.
    """
    import pandas as pd

    with quiet():
        from xlt_bench.data.root import data_root
        from xlt_bench.submissions.compare import compare_methods, load_system

        root = data_root(data_dir)
        systems, baselines = (
            [load_system(name, Path(submissions), root) for name in _names(given)]
            for given in (system, baseline)
        )
        best = [] if oracle is None else _names(oracle)
        oracles = [load_system(name, Path(submissions), root) for name in best]
        found, notes = compare_methods(systems, baselines, oracles)
        frame = pd.DataFrame([row for one in found for row in _rows(one)])
    frame.attrs["notes"] = notes
    return frame


def _names(given: One | Sequence[One]) -> list[str]:
    seeds = [given] if isinstance(given, Run | str | Path) else given
    return [str(one.folder if isinstance(one, Run) else one) for one in seeds]


def _rows(one: Comparison) -> list[dict[str, Any]]:
    from xlt_bench.tasks.registry import get_task

    test_set = get_task(one.task).test_set(one.version)
    units = [
        _row(one, row, "unit", row.unit, row.n, row.p_holm)
        | {"setting": test_set.setting(row.unit), "aligned": row.aligned}
        for row in one.units
    ]
    means = [_row(one, row, "mean", row.split, len(row.units), None) for row in one.means]
    return units + means


def _row(
    one: Comparison,
    row: UnitGain | MeanGain,
    kind: Literal["unit", "mean"],
    name: str,
    n: int,
    p_holm: float | None,
) -> dict[str, Any]:
    from xlt_bench.metrics.paired import ALPHA
    from xlt_bench.submissions.compare_tables import measure_columns

    return {
        "kind": kind,
        "task": one.task,
        "metric": one.metric,
        "unit": name,
        "setting": None,
        "aligned": None,
        "n": n,
        "system": row.value,
        "baseline": row.baseline,
        "gain": row.gain.value,
        "low": row.gain.low,
        "high": row.gain.high,
        "p": row.gain.p,
        "p_holm": p_holm,
        "significant": (row.gain.p if p_holm is None else p_holm) < ALPHA,
        "resolvable": row.gain.resolvable,
        "spread": row.spread,
        **measure_columns(one, kind, name),
    }
