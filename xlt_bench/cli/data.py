"""The commands `data fetch`, `data check`, `languages`, `stubs` and `comet setup`."""

from __future__ import annotations

from typing import Annotated

import typer

from xlt_bench.cli.options import DataDir, PrintFormat
from xlt_bench.cli.output import console, errors, quiet, show
from xlt_bench.results.tables import DATA_FORMATS, Cell, Column, Table

app = typer.Typer()
data = typer.Typer(no_args_is_help=True, help="Download and check the data sets.")
comet = typer.Typer(no_args_is_help=True, help="Install the metric COMET.")
app.add_typer(data, name="data")
app.add_typer(comet, name="comet")

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Data sets, such as massive.", show_default="all"),
]


@data.command()
def fetch(names: Names = None, data_dir: DataDir = None) -> None:
    """Download the data sets from their publishers.

    Files that are already there are kept, and an interrupted download resumes.
    """
    from xlt_bench.data.catalog import catalog
    from xlt_bench.data.fetch import fetch as download
    from xlt_bench.data.fetch import progress_bar
    from xlt_bench.data.root import data_root

    root = data_root(data_dir)
    with progress_bar() as progress:
        rows = download(names or [], root, progress)
    for row in rows:
        console.print(f"{row.name}: {row.downloaded} files downloaded, {row.present} already there")
        console.print(f"  cite: {catalog()[row.name].citation}")
    console.print(f"data folder: {root}")


@data.command()
def check(names: Names = None, data_dir: DataDir = None, form: PrintFormat = "table") -> None:
    """Compare the data sets with the pinned digests. Exits 1 if one is missing or differs."""
    from xlt_bench.data.check import check as compare
    from xlt_bench.data.root import data_root

    rows = compare(data_root(data_dir), names)
    columns: list[str | Column] = ["name", "state", "units", "expected", "rows"]
    columns += [Column("licence", wrap=True), Column("digest", drop=1), Column("pinned", drop=2)]
    cells: list[list[Cell]] = [
        [r.name, r.state, r.units, r.units_expected, r.rows, r.licence, r.digest, r.pinned]
        for r in rows
    ]
    if form in DATA_FORMATS:
        columns.append("detail")
        cells = [[*line, row.detail] for line, row in zip(cells, rows, strict=True)]
    show([Table("", columns, cells)], form)
    if form == "table":
        for row in rows:
            if row.detail:
                console.print(f"{row.name}: {row.detail}")
    if not all(row.ok for row in rows):
        raise SystemExit(1)


@app.command()
def languages(form: PrintFormat = "table") -> None:
    """List the languages: codes, and the tasks in which each is supervised or transfer.

    `--languages` takes any of the three codes: sw, swh_Latn or sw-KE.
    """
    from xlt_bench.languages import LANGUAGES

    columns: list[str | Column] = [
        "code",
        Column("name", wrap=True),
        "flores",
        "locale",
        Column("supervised", wrap=True),
        Column("transfer", wrap=True),
        Column("retrieval", drop=1),
        Column("script", drop=4),
        Column("family", drop=3),
        Column("resource", drop=2),
    ]
    rows: list[list[Cell]] = []
    for row in LANGUAGES.values():
        settings = {"massive": row.massive, "wmt23": row.wmt23, "uner": row.uner}
        supervised, transfer = (
            tuple(task for task, setting in settings.items() if setting == wanted)
            for wanted in ("supervised", "transfer")
        )
        codes = row.code, row.name, row.flores, row.massive_locale
        about = row.script, row.family, row.resource
        rows.append([*codes, supervised, transfer, row.retrieval, *about])
    show([Table("", columns, rows)], form)


@app.command()
def stubs(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a file is out of date.")
    ] = False,
    path: Annotated[
        bool, typer.Option("--path", help="Print the folder for `lm_eval --include_path`.")
    ] = False,
) -> None:
    """Write the task files for lm-eval."""
    quiet()
    from xlt_bench.tasks import lm_eval_yaml

    folder = lm_eval_yaml.tasks_dir()
    if path:
        print(folder)
    elif not check:
        lm_eval_yaml.write(folder)
    elif names := lm_eval_yaml.drifted(folder):
        errors.print(f"out of date: {', '.join(names)}; run: xlt-bench stubs")
        raise SystemExit(1)


@comet.command()
def setup() -> None:
    """Install COMET into its own environment, or repair it.

    The environment is $XLT_BENCH_COMET, or a folder in the user's cache.
    """
    from xlt_bench.evaluation.comet.environment import setup as make

    found = make(errors.print)
    console.print(", ".join(f"{name} {version}" for name, version in found.items()))
