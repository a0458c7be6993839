"""Submits runs and reads the leaderboard from Python."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from xlt_bench.api.quiet import quiet
from xlt_bench.api.run import Run
from xlt_bench.errors import unknown

if TYPE_CHECKING:
    import pandas as pd


def submit(
    run: Run | str | Path,
    *,
    name: str | None = None,
    contact: str | None = None,
    url: str | None = None,
    notes: str | None = None,
    baseline: str | None = None,
    artifacts: str | None = None,
    submissions: str | Path = "submissions",
    data_dir: str | Path | None = None,
) -> Path:
    """Check a run, recompute its scores and write `submissions/<id>/` for a pull request.

    Args:
        run: A Run, a run folder, or the --output_path of lm_eval.
        name: Name on the leaderboard. None: model + adapter.
        contact: Who answers questions about it.
        url: Address of the paper, code or weights.
        notes: Anything else that readers should know.
        baseline: Id of the submission that gains are computed against.
        artifacts: Artifact store to write the answers to: a folder or `s3://`. None: they stay in
            the submission.
        submissions: The folder of submissions.
        data_dir: The data of the run. None: $XLT_BENCH_DATA, or the user's cache.

    Returns:
        The folder of the submission. What is partial, and will not be ranked, is a warning.

    Raises:
        InputError: The run is not finished, or its scores do not follow from its answers.
    """
    with quiet():
        from xlt_bench.data.root import data_root
        from xlt_bench.submissions.create import About
        from xlt_bench.submissions.create import submit as create

        about = About(name=name, contact=contact, url=url, notes=notes, baseline=baseline)
        folder = run.folder if isinstance(run, Run) else Path(run)
        done = create(folder, about, Path(submissions), data_root(data_dir), artifacts)
    for task, lacks in done.partial.items():
        missing = " ".join(lacks[:8]) + (" ..." if len(lacks) > 8 else "")
        warnings.warn(f"{task} is partial and will not be ranked: {missing}", stacklevel=2)
    return done.folder


def load_leaderboard(
    source: str | Path = "submissions", *, view: str = "split_means"
) -> pd.DataFrame:
    """Read one table of the leaderboard.

    Args:
        source: A folder of submissions, the URL of an archive of one, or a database that
            `xlt-bench leaderboard build` wrote.
        view: `split_means` (places are by it), `scores`, `gains`, `significance`, `layer_curves`,
            ...: the tables of `xlt-bench leaderboard export`.

    Returns:
        The whole view.

    Raises:
        InputError: There is no such source or view.
    """
    with quiet(), tempfile.TemporaryDirectory(prefix="xlt-bench-") as temporary:
        from xlt_bench.store.build import build, connect
        from xlt_bench.store.export import VIEWS
        from xlt_bench.submissions.archive import fetch_submissions

        if view not in VIEWS:
            raise unknown("view", view, VIEWS)

        db, folder, left_out = Path(source), Path(source), []
        if str(source).startswith(("http://", "https://")):
            folder = Path(temporary, "submissions")
            fetch_submissions(str(source), folder)
        if not folder.is_file():
            db = Path(temporary, "leaderboard.duckdb")
            left_out = [report.name for report in build(folder, db).refused]
        with connect(db) as store:
            frame = store.execute(VIEWS[view]).df()
    if left_out:
        warnings.warn(f"left out, as they are not valid: {' '.join(left_out)}", stacklevel=2)
    return frame
