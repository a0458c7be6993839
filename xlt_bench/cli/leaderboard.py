"""The commands submit, submissions check, leaderboard build, export and serve, and compare.

Registered by cli.py; nothing here imports the store, pandas or torch before a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xlt_bench.cli.shared import DataDir, console, errors
from xlt_bench.errors import InputError, unknown

submissions = typer.Typer(no_args_is_help=True, help="Accepted results: check them.")
leaderboard = typer.Typer(no_args_is_help=True, help="All submissions as one database.")
Submissions = Annotated[Path, typer.Option(help="The folder of submissions.")]
Database = Annotated[Path, typer.Option(help="The DuckDB file.")]
_FOLDER = Path("submissions")
_DB = Path("build/leaderboard.duckdb")


def submit(
    run: Annotated[Path, typer.Argument(help="Run folder, or lm-eval's --output_path.")],
    name: Annotated[str | None, typer.Option(help="Name to show; else model + adapter.")] = None,
    contact: Annotated[str | None, typer.Option(help="Who answers questions.")] = None,
    url: Annotated[str | None, typer.Option(help="Paper, code or weights.")] = None,
    notes: Annotated[str | None, typer.Option(help="Anything a reader should know.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Id of the submission that gains are counted from.")
    ] = None,
    into: Submissions = _FOLDER,
    data_dir: DataDir = None,
) -> None:
    """Check and re-score a run, and put it into submissions/<id>/ for a pull request."""
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.create import About
    from xlt_bench.submissions.create import submit as pack

    about = About(name=name, contact=contact, url=url, notes=notes, baseline=baseline)
    done = pack(run, about, into, data_root(data_dir))
    if done.repeat:
        console.print(f"these answers are there already, nothing was written: {done.folder}")
        return
    console.print(f"every score was computed again and agrees: {done.folder}")
    if done.comet:
        console.print("COMET is left out: it cannot be computed again from the answers alone")
    for task, lacks in done.partial.items():
        shown = " ".join(lacks[:8]) + (f" and {len(lacks) - 8} more" if len(lacks) > 8 else "")
        console.print(f"{task} is partial and will not be ranked; it lacks {shown}")
    for older in done.supersedes:
        console.print(f"it supersedes {older}, which stays where it is")
    console.print(
        f"""to publish it, open a pull request:
  git checkout -b {done.folder.name}
  git add {done.folder}
  git commit -m "Submission {done.folder.name}"
  git push -u origin {done.folder.name}"""
    )


@submissions.command()
def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Submissions or folders of them.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Compute everything again. Exits 0: all checked; 1: one refused; 3: test sets are missing."""
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.rescore import check as check_one
    from xlt_bench.submissions.rescore import folders

    root = data_root(data_dir)
    states = []
    for folder in folders(paths or [_FOLDER]):
        report = check_one(folder, root)
        states.append(report.state)
        detail = f": {report.detail}" if report.detail else ""
        (console if report.state == "checked" else errors).print(
            f"{report.name}: {report.state}{detail}"
        )
    console.print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    if "refused" in states:
        raise SystemExit(1)
    if "not fully checked" in states:
        raise SystemExit(3)


@leaderboard.command()
def build(db: Database = _DB, folder: Submissions = _FOLDER) -> None:
    """All submissions into one DuckDB file; exits 1 if one had to be left out."""
    _check_places(db, folder)
    from xlt_bench.store.build import build as build_store

    built = build_store(folder, db)
    for report in built.refused:
        errors.print(f"{report.name}: left out: {report.detail}")
    console.print(f"{built.loaded} submissions in {db}")
    if built.refused:
        raise SystemExit(1)


@leaderboard.command()
def export(
    form: Annotated[str, typer.Option("--format", help="parquet, csv, latex or md.")],
    output: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("build/export"),
    db: Database = _DB,
) -> None:
    """Every view as parquet or CSV, or the leaderboard as a page of tables."""
    _check_places(db)
    from xlt_bench.store.build import connect
    from xlt_bench.store.export import export as write

    with connect(db) as store:
        for path in write(store, form, output):
            console.print(str(path))


@leaderboard.command()
def serve(
    db: Database = _DB,
    submissions: Submissions = _FOLDER,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
) -> None:
    """The leaderboard in a browser, read-only; the first start builds the database.

    It listens on localhost; $STREAMLIT_SERVER_ADDRESS=0.0.0.0 opens it to the network, and
    Streamlit's other settings can be given in the environment as well.
    """
    import os
    import sys

    # A database that is there is served without the submissions that lie here by default.
    alone = db.is_file() and submissions == _FOLDER
    _check_places(db, None if alone else submissions)
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
    command = [sys.executable, "-m", "streamlit", "run", str(folder / "server.py")]
    # In place of this process, so that a signal to stop reaches the server.
    os.execve(sys.executable, command, environment)


def _check_places(db: Path, folder: Path | None = None) -> None:
    """Raise InputError for what is no file or no folder, before DuckDB or Streamlit is there."""
    if db.is_dir():
        raise InputError(f"{db} is a folder; --db names a file in one")
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder} is no folder; submissions lie in one")


def compare(
    system: Annotated[str, typer.Argument(help="Run folder or submission id.")],
    baseline: Annotated[str, typer.Argument(help="Run folder or submission id.")],
    form: Annotated[str, typer.Option("--format", help="text, md, latex or csv.")] = "text",
    folder: Submissions = _FOLDER,
    data_dir: DataDir = None,
) -> None:
    """Gains of a system over a baseline, language by language, with paired significance."""
    from xlt_bench.data.root import data_root
    from xlt_bench.results.tables import FORMATS, render
    from xlt_bench.submissions.compare import compare_systems, load_system, tables

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    root = data_root(data_dir)
    systems = [load_system(name, folder, root) for name in (system, baseline)]
    found, notes = compare_systems(*systems)
    print(render(tables(found, notes, form), form), end="")
    if form == "csv":
        for note in notes:
            errors.print(note)
