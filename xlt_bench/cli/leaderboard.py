"""The commands `leaderboard build`, `export` and `serve`.

Nothing here imports the store, pandas or Streamlit before a command runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from xlt_bench.cli.options import DataDir
from xlt_bench.cli.output import console, errors
from xlt_bench.cli.share import FOLDER
from xlt_bench.errors import InputError

app = typer.Typer()
leaderboard = typer.Typer(no_args_is_help=True, help="Build, export and serve the leaderboard.")
app.add_typer(leaderboard, name="leaderboard")

Source = Annotated[
    str,
    typer.Option(
        "--submissions",
        metavar="DIR",
        help="Folder of the submissions, or the URL of a zip or tar archive that has it.",
    ),
]
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
def build(
    db: Database = _DB,
    submissions: Source = str(FOLDER),
    fewer: Annotated[
        bool, typer.Option("--fewer", help="Leave out submissions that the file has and DIR lacks.")
    ] = False,
) -> None:
    """Load all submissions into a DuckDB file. Exits 1 if one had to be left out.

    Submissions from a URL are unpacked beside the file, into FILE.submissions.
    """
    folder = _folder(db, submissions)
    _check_places(db, None if _is_url(submissions) else folder)
    if not _build(submissions, folder, db, fewer=fewer):
        raise SystemExit(1)


def _is_url(submissions: str) -> bool:
    return submissions.startswith(("https://", "http://"))


def _folder(db: Path, submissions: str) -> Path:
    """The folder of the submissions; those from a URL are beside the database."""
    return db.with_name(f"{db.name}.submissions") if _is_url(submissions) else Path(submissions)


def _build(submissions: str, folder: Path, db: Path, *, fewer: bool = False) -> bool:
    """Build the database, from a URL after the download; returns whether nothing was left out."""
    from xlt_bench.store.build import build as build_store

    if _is_url(submissions):
        from xlt_bench.submissions.archive import fetch_submissions

        fetch_submissions(submissions, folder)
    built = build_store(folder, db, fewer=fewer)
    for report in built.refused:
        errors.print(f"{report.name}: left out: {report.detail}")
    console.print(f"{built.loaded} submissions in {db}")
    return not built.refused


@leaderboard.command()
def export(
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="parquet, csv, latex or md.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path(
        "build/export"
    ),
    db: Database = _DB,
    every: Annotated[
        bool, typer.Option("--all", help="LaTeX, Markdown: places among all, not verified systems.")
    ] = False,
) -> None:
    """Export every view as Parquet or CSV, or the leaderboard as a LaTeX or Markdown page."""
    _check_places(db)
    from xlt_bench.store.build import connect
    from xlt_bench.store.export import export as write

    with connect(db) as store:
        for path in write(store, form, output, every=every):
            console.print(str(path))


@leaderboard.command()
def serve(
    db: Database = _DB,
    submissions: Source = str(FOLDER),
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="Port to listen on.")
    ] = 8501,
    run: Runs = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the leaderboard in a browser, read-only; builds the database if there is none.

    Submissions from a URL are downloaded, and the database is built, at each start; if the download
    fails, an earlier database is served.

    It listens on localhost; set $STREAMLIT_SERVER_ADDRESS=0.0.0.0 to open it to the network.

    With --run, it serves a temporary database of all submissions and the runs, which pass the
    checks of `submit` first; --data-dir is the data that they were evaluated on.
    """
    folder = _folder(db, submissions)
    # A database or runs can be served without a folder of submissions, unless one is named.
    alone = folder == FOLDER and (db.is_file() if not run else not folder.exists())
    _check_places(db, None if alone or _is_url(submissions) else folder)
    if find_spec("streamlit") is None:
        raise ModuleNotFoundError(name="streamlit")
    if _is_url(submissions):
        try:
            _build(submissions, folder, db)
        except InputError as error:
            if not db.is_file():
                raise
            errors.print(f"{error}; serving the database as it was")
    if run:
        _serve_runs(run, folder, db, port, data_dir)
    console.print(f"submissions: {folder}, database: {db}")
    sys.stdout.flush()
    command, environment = _streamlit(db, folder, port)
    # Replaces this process, so that a signal to stop reaches the server.
    os.execve(sys.executable, command, environment)


def _streamlit(db: Path, submissions: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that start the app."""
    packaged = Path(__file__).parents[1] / "leaderboard_app"
    app_folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "leaderboard"
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
    return [sys.executable, "-m", "streamlit", "run", str(app_folder / "server.py")], environment


def _serve_runs(
    given: Sequence[Path], submissions: Path, stored: Path, port: int, data_dir: str | None
) -> NoReturn:
    """Serve a temporary copy of the submissions with the runs, and delete it afterwards."""
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.preview import MARK, finished_runs, preview

    runs, root = finished_runs(given), data_root(data_dir)
    with tempfile.TemporaryDirectory(prefix="xlt-bench-") as temporary:
        copy, db = Path(temporary, "submissions"), Path(temporary, "leaderboard.duckdb")
        for one in preview(runs, submissions if submissions.exists() else None, copy, root):
            if one.repeat:
                console.print(f"{one.run} is among the submissions already: {one.id}")
                continue
            console.print(f"{one.run} is shown as {MARK}")
            for older in one.supersedes:
                console.print(f"  it takes the place of {older}")
        console.print("building a temporary database ...")
        if stored.is_file():  # a build takes over its rows of unchanged submissions
            shutil.copyfile(stored, db)
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
