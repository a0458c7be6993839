"""The commands `leaderboard build`, `export` and `serve`.

Nothing here imports the store, pandas or Streamlit before a command runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from xlt_bench.cli.options import DataDir, Submissions
from xlt_bench.cli.output import console, errors
from xlt_bench.cli.share import FOLDER
from xlt_bench.errors import InputError

app = typer.Typer()
leaderboard = typer.Typer(no_args_is_help=True, help="Build, export and serve the leaderboard.")
app.add_typer(leaderboard, name="leaderboard")

Database = Annotated[Path, typer.Option(metavar="FILE", help="DuckDB file.")]
_DB = Path("build/leaderboard.duckdb")
Runs = Annotated[
    list[Path] | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="Also show an unsubmitted run, or all in a folder, for as long as this serves; repeat "
        "for several.",
    ),
]


@leaderboard.command()
def build(db: Database = _DB, submissions: Submissions = FOLDER) -> None:
    """Load all submissions into a DuckDB file. Exits 1 if one had to be left out."""
    _check_places(db, submissions)
    from xlt_bench.store.build import build as build_store

    built = build_store(submissions, db)
    for report in built.refused:
        errors.print(f"{report.name}: left out: {report.detail}")
    console.print(f"{built.loaded} submissions in {db}")
    if built.refused:
        raise SystemExit(1)


@leaderboard.command()
def export(
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="parquet, csv, latex or md.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path(
        "build/export"
    ),
    db: Database = _DB,
) -> None:
    """Export every view as Parquet or CSV, or the leaderboard as a LaTeX or Markdown page."""
    _check_places(db)
    from xlt_bench.store.build import connect
    from xlt_bench.store.export import export as write

    with connect(db) as store:
        for path in write(store, form, output):
            console.print(str(path))


@leaderboard.command()
def serve(
    db: Database = _DB,
    submissions: Submissions = FOLDER,
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="Port to listen on.")
    ] = 8501,
    run: Runs = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the leaderboard in a browser, read-only; builds the database if there is none.

    It listens on localhost; set $STREAMLIT_SERVER_ADDRESS=0.0.0.0 to open it to the network.

    With --run, it serves a temporary database of all submissions and the runs, which pass the
    checks of `submit` first; --data-dir is the data that they were evaluated on.
    """
    # A database can be served without a folder of submissions, unless one is named.
    alone = db.is_file() and submissions == FOLDER and not run
    _check_places(db, None if alone else submissions)
    if run:
        _serve_runs(run, submissions, port, data_dir)
    command, environment = _streamlit(db, submissions, port)
    # Replaces this process, so that a signal to stop reaches the server.
    os.execve(sys.executable, command, environment)


def _streamlit(db: Path, submissions: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that start the app."""
    packaged = Path(__file__).parents[1] / "leaderboard_app"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "leaderboard"
    environment = {
        "STREAMLIT_SERVER_ADDRESS": "localhost",
        "STREAMLIT_SERVER_HEADLESS": "true",
        "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none",
        "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
        "STREAMLIT_CLIENT_TOOLBAR_MODE": "viewer",
        **os.environ,
        "STREAMLIT_SERVER_PORT": str(port),
        "XLT_BENCH_LEADERBOARD": str(db),
        "XLT_BENCH_SUBMISSIONS": str(submissions),
    }
    return [sys.executable, "-m", "streamlit", "run", str(folder / "server.py")], environment


def _serve_runs(
    given: Sequence[Path], submissions: Path, port: int, data_dir: str | None
) -> NoReturn:
    """Serve a temporary copy of the submissions with the runs, and delete it afterwards."""
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.preview import MARK, finished_runs, preview

    runs, root = finished_runs(given), data_root(data_dir)
    with tempfile.TemporaryDirectory(prefix="xlt-bench-") as temporary:
        copy, db = Path(temporary, "submissions"), Path(temporary, "leaderboard.duckdb")
        for one in preview(runs, submissions, copy, root):
            if one.repeat:
                console.print(f"{one.run} is among the submissions already: {one.id}")
            else:
                older = f"; it takes the place of {', '.join(one.supersedes)}" * bool(
                    one.supersedes
                )
                console.print(f"{one.run} is shown as {MARK}{older}")
        from xlt_bench.store.build import build as build_store

        for report in build_store(copy, db).refused:
            errors.print(f"{report.name}: left out: {report.detail}")
        command, environment = _streamlit(db, copy, port)
        # The answers are shown beside the items that they were given to.
        environment["XLT_BENCH_DATA"] = str(root)
        with subprocess.Popen(command, env=environment) as server:
            try:
                code = server.wait()
            finally:  # a signal to stop may have reached this process alone
                server.terminate()
    raise SystemExit(code)


def _check_places(db: Path, submissions: Path | None = None) -> None:
    """Raise InputError for a wrong path, before DuckDB or Streamlit is imported."""
    if db.is_dir():
        raise InputError(f"{db} is a folder: pass a file to --db")
    if submissions is not None and not submissions.is_dir():
        raise InputError(f"{submissions} is not a folder: pass a folder to --submissions")
