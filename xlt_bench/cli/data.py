"""The commands `data fetch`, `check` and `pin`, `languages`, `stubs` and `comet setup`."""

from __future__ import annotations

from typing import Annotated

import typer

from xlt_bench.cli.options import DataDir, PrintFormat
from xlt_bench.cli.output import console, errors, quiet, show
from xlt_bench.results.tables import DATA_FORMATS, Cell, Column, Table

app = typer.Typer()
data = typer.Typer(no_args_is_help=True, help="Download and check the data sets; pin test sets.")
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

    Existing files are kept, and an interrupted download resumes.
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


@data.command()
def pin(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Task, such as massive.")],
    add: Annotated[
        list[str] | None,
        typer.Option(
            metavar="UNIT[=SETTING]",
            help="Unit to rank, such as ko=transfer (supervised or transfer); repeat for several.",
        ),
    ] = None,
    scores_changed: Annotated[
        bool,
        typer.Option(
            "--scores-changed",
            help="Write a version for changed scores; units and items stay.",
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Write the next version of a task's test set, with more units or changed items.

    Older versions stay: submissions keep their scores and places. Run `xlt-bench stubs` next.
    """
    quiet()
    from xlt_bench.data.root import data_root
    from xlt_bench.tasks.pin import write_next_version

    path = write_next_version(task, add or [], data_root(data_dir), scores_changed=scores_changed)
    console.print(f"written: {path}, and xlt_bench/data/digests.json for new units")
    console.print("next: xlt-bench stubs")


@app.command()
def languages(form: PrintFormat = "table") -> None:
    """List the languages, their codes, and the tasks that rank them, by setting.

    Tasks under `ranked` rank a language without a setting; tasks under `beyond` have test data in
    it and do not rank it.

    `--languages` takes any of the three codes: sw, swh_Latn or sw-KE.
    """
    from xlt_bench.languages import LANGUAGES
    from xlt_bench.tasks.registry import tasks

    columns: list[str | Column] = [
        "code",
        Column("name", wrap=True),
        "flores",
        "locale",
        Column("supervised", wrap=True, whole=True),
        Column("transfer", wrap=True, whole=True),
        Column("ranked", wrap=True, whole=True, drop=1),
        Column("beyond", wrap=True, whole=True, drop=2),
        Column("script", drop=5),
        Column("family", drop=4),
        Column("resource", drop=3),
    ]
    ranks: dict[str, dict[str, list[str]]] = {}
    for task in tasks().values():
        if task.of_lm_eval:  # its file lists them
            continue
        test_set = task.test_set()
        for unit in task.units():
            rank = test_set.setting(unit) or ("ranked" if unit in test_set.units else "beyond")
            names = ranks.setdefault(task.language_of(unit), {}).setdefault(rank, [])
            names += [] if task.name in names else [task.name]
    ranks_shown = "supervised", "transfer", "ranked", "beyond"
    rows: list[list[Cell]] = []
    for row in LANGUAGES.values():
        found = ranks.get(row.code, {})
        by_rank = [tuple(found.get(rank, ())) for rank in ranks_shown]
        about = row.script, row.family, row.resource
        codes = row.code, row.name, row.flores, row.massive
        rows.append([*codes, *by_rank, *about])
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
