"""The commands `submit`, `export`, `card` and those of `submissions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xlt_bench.cli.options import DataDir, Submissions
from xlt_bench.cli.output import console, errors, write_data
from xlt_bench.errors import InputError

app = typer.Typer()
submissions = typer.Typer(no_args_is_help=True, help="Check and migrate accepted results.")
app.add_typer(submissions, name="submissions")

FOLDER = Path("submissions")
_LISTED = 8  # missing units that a line names

Paths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PATH", help="Submissions, or folders of submissions.", show_default="submissions"
    ),
]


@app.command()
def submit(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder, or --output_path of lm_eval.")
    ],
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Name on the leaderboard.", show_default="model + adapter"
        ),
    ] = None,
    contact: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Who answers questions about it.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of the paper, code or weights.")
    ] = None,
    notes: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Anything else readers should know.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Submission that gains are computed against."),
    ] = None,
    submissions: Submissions = FOLDER,
    data_dir: DataDir = None,
) -> None:
    """Check a run, recompute its scores and write `submissions/<id>/` for a pull request."""
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.create import About
    from xlt_bench.submissions.create import submit as create

    about = About(name=name, contact=contact, url=url, notes=notes, baseline=baseline)
    _print_submitted(create(run, about, submissions, data_root(data_dir)))


def _print_submitted(done: Any) -> None:
    if done.repeat:
        console.print(f"nothing written: {done.folder} already holds these answers")
        return
    console.print(f"written: {done.folder}; all scores were recomputed and agree")
    if done.comet:
        console.print("COMET is left out: it cannot be recomputed from the answers alone")
    for task, lacks in done.partial.items():
        lacks = sorted(lacks, key=lambda reason: not reason.startswith("limit"))
        more = f" and {len(lacks) - _LISTED} more" if len(lacks) > _LISTED else ""
        console.print(
            f"{task} is partial and will not be ranked; missing: {' '.join(lacks[:_LISTED])}{more}"
        )
    for older in done.supersedes:
        console.print(f"it supersedes {older}; the older files stay")
    console.print(
        f"""to publish it, open a pull request:
  git checkout -b {done.folder.name}
  git add {done.folder}
  git commit -m "Submission {done.folder.name}"
  git push -u origin {done.folder.name}"""
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run or submission folder.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="eee (Every Eval Ever), lm-eval (its results file) or parquet (a row per score).",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
) -> None:
    """Write the scores of a run in the format of another tool."""
    from xlt_bench.results.run_folder import read_record, write_bytes
    from xlt_bench.submissions.formats import write_format

    write_bytes(output, write_format(read_record(run), form))
    console.print(f"written: {output}")


@app.command()
def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of its adapter.")],
) -> None:
    """Write the scores of a run into its adapter's card (README.md), also as the hub reads them."""
    from xlt_bench.results.run_folder import read_record
    from xlt_bench.submissions.adapter_readme import write_card

    console.print(f"written: {write_card(read_record(run), adapter)}")


@submissions.command()
def check(
    paths: Paths = None,
    data_dir: DataDir = None,
) -> None:
    """Recompute every score of submissions from their answers.

    Exit code 0: all are correct; 1: one was refused; 3: one could not be fully checked (a missing
    test set, or an old task version).
    """
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.report import list_submissions
    from xlt_bench.submissions.rescore import check as check_one

    root = data_root(data_dir)
    states = []
    for folder in list_submissions(paths or [FOLDER]):
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


@submissions.command()
def review(
    proposed: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of submissions with the pull request merged."),
    ],
    base: Annotated[Path, typer.Option(metavar="DIR", help="The folder without it.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="JSON file to write.")],
    data_dir: DataDir = None,
) -> None:
    """Check the submissions that a pull request adds, and rank them among the others.

    Exit codes are those of `submissions check`; a submission that is changed or removed is refused.
    """
    from xlt_bench.data.root import data_root
    from xlt_bench.results.run_folder import write_bytes
    from xlt_bench.store.review import review as review_all

    found = review_all(proposed, base, data_root(data_dir))
    write_bytes(output, found.model_dump_json(indent=1).encode())
    for one in found.checked:
        console.print(f"{one.name}: {one.state}{f': {one.detail}' if one.detail else ''}")
    for name in found.changed:
        console.print(f"{name}: changed or removed")
    raise SystemExit(found.exit_code)


@submissions.command()
def comment(
    review: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `submissions review` wrote.")
    ],
    url: Annotated[str, typer.Option(metavar="URL", help="Address of the run that wrote it.")],
    other_files: Annotated[
        int, typer.Option(metavar="N", min=0, help="Files outside submissions/ that are changed.")
    ] = 0,
) -> None:
    """Print a review as a comment in Markdown; the file may come from an untrusted process."""
    from xlt_bench.store.review import comment as write
    from xlt_bench.store.review import read_review

    write_data(write(read_review(review), other_files, url))


@submissions.command()
def migrate(paths: Paths = None) -> None:
    """Rewrite submissions in the current form.

    Records get the current schema and lose paths and inner addresses; submission.json gets the
    record's sha256. Ids, answers, scores and places do not change. This is optional: older forms
    are still read.
    """
    from xlt_bench.submissions.migrate import migrate as rewrite
    from xlt_bench.submissions.report import list_submissions

    found = list_submissions(paths or [FOLDER])
    migrated = invalid = 0
    for folder in found:
        try:
            if rewrite(folder):
                migrated += 1
                console.print(f"migrated: {folder}")
        except InputError as error:
            invalid += 1
            errors.print(f"{folder.name}: {error}")
    current = len(found) - migrated - invalid
    told = f", {invalid} invalid and left as they are" if invalid else ""
    console.print(f"{migrated} migrated, {current} already current{told}")
    if invalid:
        raise SystemExit(1)
