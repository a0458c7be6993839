"""The commands `submit`, `export`, `card` and those of `submissions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xlt_bench.cli.options import BatchSize, DataDir, Device, Submissions, TrustRemoteCode
from xlt_bench.cli.output import console, errors, quiet, write_data
from xlt_bench.errors import InputError

app = typer.Typer()
submissions = typer.Typer(
    no_args_is_help=True, help="Check, review, migrate and verify submissions."
)
app.add_typer(submissions, name="submissions")

FOLDER = Path("submissions")
Artifacts = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STORE",
        help="Artifact store to ask first: folder, https://, hf://datasets/... or s3://; may be "
        "repeated.",
        show_default="those in stores.txt",
    ),
]
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
    artifacts: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="Artifact store to write the answers to: a folder or s3://.",
            show_default="they stay in the submission",
        ),
    ] = None,
    submissions: Submissions = FOLDER,
    data_dir: DataDir = None,
) -> None:
    """Check a run, recompute its scores and write `submissions/<id>/` for a pull request."""
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.create import About
    from xlt_bench.submissions.create import submit as create

    about = About(name=name, contact=contact, url=url, notes=notes, baseline=baseline)
    _print_submitted(create(run, about, submissions, data_root(data_dir), artifacts))


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
    if done.held:
        console.print(f"held: {done.held}")
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
    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Data set on the hub with a leaderboard: also .eval_results/."
        ),
    ] = None,
) -> None:
    """Write the scores of a run into its adapter's card (README.md), also as the hub reads them."""
    from xlt_bench.results.run_folder import read_record
    from xlt_bench.submissions.adapter_readme import write_card, write_eval_results

    record = read_record(run)
    console.print(f"written: {write_card(record, adapter)}")
    if benchmark is not None:
        console.print(f"written: {write_eval_results(record, adapter, benchmark)}")


@submissions.command()
def check(
    paths: Paths = None,
    artifacts: Artifacts = None,
    data_dir: DataDir = None,
) -> None:
    """Recompute every score of submissions from their answers.

    Exit code 0: all are correct; 1: one was refused; 4: one is held, since its system has other
    answers already; 3: one could not be fully checked (a missing test set, or an old task version).
    """
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.artifacts import read_stores
    from xlt_bench.submissions.report import list_submissions
    from xlt_bench.submissions.rescore import check as check_one
    from xlt_bench.submissions.rescore import valid

    root = data_root(data_dir)
    states = []
    others: dict[Path, Any] = {}
    for folder in list_submissions(paths or [FOLDER]):
        stores = read_stores(folder.parent, artifacts or [])
        if folder.parent not in others:
            others[folder.parent] = valid(folder.parent, stores)
        report = check_one(folder, root, others[folder.parent], stores)
        states.append(report.state)
        detail = f": {report.detail}" if report.detail else ""
        (console if report.state == "checked" else errors).print(
            f"{report.name}: {report.state}{detail}"
        )
        for warning in report.warnings:
            errors.print(f"{report.name}: warning: {warning}")
    console.print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    if "refused" in states:
        raise SystemExit(1)
    if "held" in states:
        raise SystemExit(4)
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
    artifacts: Artifacts = None,
    data_dir: DataDir = None,
) -> None:
    """Check the submissions that a pull request adds, and rank them among the others.

    Exit codes are those of `submissions check`. A submission that is changed or removed is refused,
    and so is a change of the maintainers' files that comes with a submission.
    """
    from xlt_bench.data.root import data_root
    from xlt_bench.results.run_folder import write_bytes
    from xlt_bench.store.review import review as review_all

    found = review_all(proposed, base, data_root(data_dir), artifacts or [])
    write_bytes(output, found.model_dump_json(indent=1).encode())
    for one in found.checked:
        console.print(f"{one.name}: {one.state}{f': {one.detail}' if one.detail else ''}")
    for name in found.changed:
        console.print(f"{name}: changed or removed")
    for name in found.register_changed:
        console.print(f"{name}: changed; only maintainers may change it")
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


@submissions.command()
def move(
    store: Annotated[
        str,
        typer.Argument(metavar="STORE", help="Artifact store to write to: a folder or s3://."),
    ],
    paths: Paths = None,
    artifacts: Artifacts = None,
) -> None:
    """Move the answers of submissions to an artifact store.

    Answers that are in another store are copied. Ids, records and scores do not change.
    """
    from xlt_bench.submissions.artifacts import read_stores
    from xlt_bench.submissions.move import move as move_one
    from xlt_bench.submissions.report import list_submissions

    for folder in list_submissions(paths or [FOLDER]):
        try:
            n = move_one(folder, store, read_stores(folder.parent, artifacts or []))
        except InputError as error:
            raise InputError(f"{folder.name}: {error}") from None
        console.print(f"{folder.name}: {n} files are in {store}")


@submissions.command()
def accept(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", help="In the order of merging.", show_default="all that are new"
        ),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Older submission of its system that it may supersede."),
    ] = None,
    why: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why it may; needed with --over.")
    ] = None,
    submissions: Submissions = FOLDER,
) -> None:
    """Register merged submissions (for maintainers).

    Adds ids to `accepted.txt`, whose order decides which of two submissions is newer, and with
    --over a pair to `supersessions.json`.
    """
    from xlt_bench.submissions.accepted import Supersession, read_register
    from xlt_bench.submissions.accepted import accept as register
    from xlt_bench.submissions.report import list_submissions

    if (over is None) != (why is None) or (over and len(names or []) != 1):
        raise InputError("--over needs one ID and --why")
    places = read_register(submissions).places
    new = [one.name for one in list_submissions([submissions]) if one.name not in places]
    chosen = names or new
    pairs = [Supersession(newer=chosen[0], older=over, why=why)] if over and why else []
    for name in register(submissions, chosen, pairs):
        console.print(f"accepted: {name}")


@submissions.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="ID", help="An accepted submission.")],
    by: Annotated[str, typer.Option(metavar="TEXT", help="Who verifies it.")],
    items: Annotated[
        int, typer.Option(metavar="N", min=1, help="Items to answer again, over all text tasks.")
    ] = 200,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=2**32, help="Seed of the sample.", show_default="random"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Where the base model is.", show_default="as recorded"),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="ADAPTER", help="Where the adapter is.", show_default="as recorded"),
    ] = None,
    retrained: Annotated[
        bool, typer.Option("--retrained", help="The adapter was trained again by its recipe.")
    ] = False,
    chat_template: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Chat template.", show_default="as recorded"),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Tokenizer.", show_default="as recorded")
    ] = None,
    device: Device = None,
    batch_size: BatchSize = "auto",
    trust_remote_code: TrustRemoteCode = False,
    submissions: Submissions = FOLDER,
    data_dir: DataDir = None,
) -> None:
    """Run the model of a submission again on a random sample (for maintainers).

    Writes `verified.json` to the submission if the answers agree. Exit code 1: they do not.
    """
    quiet()
    import secrets

    from xlt_bench.data.root import data_root
    from xlt_bench.results.run_folder import write_bytes
    from xlt_bench.submissions.schema import VERIFIED, json_bytes
    from xlt_bench.submissions.verify import RETRAINED, Run, is_telling, passes
    from xlt_bench.submissions.verify import verify as run_again

    what = Run(
        model, adapter, retrained, chat_template, tokenizer, device, batch_size, trust_remote_code
    )
    chosen = secrets.randbelow(2**32) if seed is None else seed
    folder = submissions / name
    if not folder.is_dir():
        raise InputError(f"{submissions} has no submission {name}: pass its id, the folder's name")
    found = run_again(folder, what, items, chosen, by, data_root(data_dir))
    for one in found.agreement:
        share = 100 * one.equal / one.items
        console.print(
            f"{one.task}: {one.equal} of {one.items} answers are equal, {share:.1f} % "
            f"({one.low:.1f} to {one.high:.1f}); score {one.submitted:.1f} submitted, "
            f"{one.recomputed:.1f} recomputed (difference {one.gain_low:+.1f} to "
            f"{one.gain_high:+.1f}); judged by {one.judged_by}"
        )
        if one.bare is not None:
            console.print(
                f"{one.task}: {one.bare:.1f} without the adapter (difference {one.bare_low:+.1f} "
                f"to {one.bare_high:+.1f})"
            )
    if odd := [one.task for one in found.agreement if not passes(one, found.basis)]:
        errors.print(f"{name}: not verified: {', '.join(odd)} does not agree (seed {chosen})")
        raise SystemExit(1)
    if found.basis == "recipe" and not any(map(is_telling, found.agreement)):
        errors.print(
            f"{name}: not verified: on this sample it is not shown to differ by more than "
            f"{RETRAINED:g} points from the model without the adapter, so any adapter would agree "
            f"(seed {chosen}); draw another with --seed, or more --items"
        )
        raise SystemExit(1)
    write_bytes(folder / VERIFIED, json_bytes(found))
    console.print(f"{name}: verified by {found.basis}; written: {folder / VERIFIED}")
