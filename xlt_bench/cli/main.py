"""The command line: parses, calls, prints. `xlt-bench --help` imports no torch."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from xlt_bench.cli import comet as cli_comet
from xlt_bench.cli import leaderboard as cli_leaderboard
from xlt_bench.cli import reproduce as cli_reproduce
from xlt_bench.cli.comet import CometModel, WithComet
from xlt_bench.cli.shared import DataDir, TrustRemoteCode, errors, listed, quiet, track
from xlt_bench.distributed import rank
from xlt_bench.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="The data sets: fetch and check.")
app.add_typer(data, name="data")
app.add_typer(cli_comet.comet, name="comet")
app.add_typer(cli_leaderboard.submissions, name="submissions")
app.add_typer(cli_leaderboard.leaderboard, name="leaderboard")
app.command()(cli_leaderboard.submit)
app.command()(cli_leaderboard.compare)
app.command()(cli_reproduce.reproduce)
console = Console()


def main() -> None:
    """Run the command line; what the user got wrong is one line and exit code 2."""
    # SIGTERM comes from torchrun where another process died, and from a scheduler at its limit.
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _run()
    except _Stopped as stopped:  # also while an error is said
        errors.print("stopped; the same command goes on from here")
        raise SystemExit(128 + stopped.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run() -> None:
    try:
        _check_words(sys.argv[1:])
        app(standalone_mode=True)
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        # Disk full, no permission, a folder that vanished: the system names the file.
        where = f": {error.filename}" if error.filename else ""
        # The device is full or failed amid the work: the mend lies outside the command.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        hint = "; what is finished is kept, run it again after" if full else ""
        _fail(f"{error.strerror or error}{where}{hint}")


class _Stopped(BaseException):
    """A signal to stop. Not KeyboardInterrupt, which typer takes for itself and says nothing of."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, _frame: object) -> None:
    raise _Stopped(number)


def _check_words(words: Sequence[str]) -> None:
    """Raise InputError for an empty word: `Path("")` would be the folder that one is in."""
    for before, word in pairwise(["xlt-bench", *words]):
        name, equals, value = word.partition("=")
        if not word or (word.startswith("--") and equals and not value):
            raise InputError(f"an empty word after {name or before}: is a variable not set?")


def _fail(message: str) -> None:
    message = f"process {rank()}: {message}" if rank() else message
    with suppress(OSError):  # where both go to one file, the error is the last line
        sys.stdout.flush()
    errors.print("error: " + " ".join(message.split()))
    raise SystemExit(2)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"xlt-bench {version('xlt-bench')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """How far a skill that an LLM learned in a few languages carries over to the others."""


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Folder or hub name[@revision] of the base model.")],
    output: Annotated[Path, typer.Option(help="Run folder; an unfinished one is gone on with.")],
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="Folder or hub name[@revision]; repeat for several, none: bare model."),
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="Of massive, wmt23, uner, retrieval.")
    ] = "massive,wmt23,uner,retrieval",
    languages: Annotated[
        str | None, typer.Option(help="Codes such as de,sw; else all of each task.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="First N items of each language.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Retrieval layers such as 8,16; else the even ones.")
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="Retrieval over this folder (eng_Latn.txt, ...) instead of FLORES dev."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; auto: the layers over all GPUs.")
    ] = None,
    batch_size: Annotated[str, typer.Option(help="A number, or auto.")] = "auto",
    shard: Annotated[
        str | None, typer.Option(help="i/n: the i-th of n shares of the work; then `join`.")
    ] = None,
    chat_template: Annotated[
        str | None,
        typer.Option(help="tokenizer, plain, llama3-midalign or a Jinja file."),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="hf, vllm, or openai: a server whose model is named MODEL.")
    ] = "hf",
    model_args: Annotated[
        str | None,
        typer.Option(help="For vllm and openai, as lm_eval's: tensor_parallel_size=4,..."),
    ] = None,
    comet: WithComet = False,
    comet_model: CometModel = None,
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Evaluate adapters on a base model: slot filling, translation, entities, retrieval."""
    quiet()
    try:
        numbers = [int(part) for part in listed(layers)]
    except ValueError:
        raise InputError(f"--layers must be numbers such as 8,16, not {layers!r}") from None
    from xlt_bench.evaluation.config import Options

    options = Options(
        model=model,
        output=output,
        adapters=adapter or [],
        tasks=listed(tasks),
        languages=listed(languages),
        limit=limit,
        layers=numbers,
        dtype=dtype,
        device=device,
        batch_size=batch_size,
        chat_template=chat_template,
        data_dir=data_dir,
        corpus=corpus,
        shard=shard,
        backend=backend,
        model_args=model_args,
        trust_remote_code=trust_remote_code,
    )
    checkpoint = cli_comet.asked_model(comet, comet_model)
    if checkpoint:
        from xlt_bench.evaluation.comet.score import check as check_comet
        from xlt_bench.evaluation.config import plan_units

        check_comet(checkpoint, list(plan_units(options)))
    finished = []
    for run, record in _evaluated(options):
        for note in record.notes:
            errors.print(note, style="bold red" if "WARNING" in note else "")
        title = record.model.name + (f" + {record.adapter.name}" if record.adapter else "")
        _print_scores(record.results, title)
        console.print(f"record: {run / 'record.json'}", markup=False)
        finished.append((run, title))
    if checkpoint:  # last: it may fail where the answers did not, and its model needs the memory
        for run, title in finished:
            scores, record = _scored(run, data_dir, checkpoint)
            _print_task(scores, "wmt23", _COMET, title)
            _check_record(run, record, scores)


@app.command()
def score(
    run: Annotated[Path, typer.Argument(help="A run folder of `evaluate`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    comet: WithComet = False,
    comet_model: CometModel = None,
    data_dir: DataDir = None,
) -> None:
    """Re-compute all scores of a run from its predictions; exits 1 if the record differs."""
    scores, record = _scored(run, data_dir, cli_comet.asked_model(comet, comet_model))
    if as_json:
        print(scores.model_dump_json(indent=1))
    else:
        _print_scores(scores, str(run))
    _check_record(run, record, scores)


@app.command()
def join(
    runs: Annotated[list[Path], typer.Argument(help="The run folders of all shards.")],
    output: Annotated[Path, typer.Option(help="Folder of the joined run.")],
    data_dir: DataDir = None,
) -> None:
    """Put together the runs of `evaluate --shard i/n`, or of different tasks or languages."""
    quiet()
    from xlt_bench.data.root import data_root
    from xlt_bench.evaluation.join import join as run

    record = run(runs, output, data_root(data_dir))
    _print_scores(record.results, str(output))
    console.print(f"record: {output / 'record.json'}", markup=False)


@app.command()
def recipes() -> None:
    """List the training recipes, the paper's rows they belong to, and its published numbers."""
    from xlt_bench.training.recipe import load_recipe, names

    table = Table("recipe", "table", "row", "published (by the paper, not measured here)")
    for name in names():
        for i, row in enumerate(load_recipe(name).paper):
            figures = ", ".join(f"{key} {value:g}" for key, value in row.published.items())
            told = "; ".join(part for part in (figures, row.note) if part)
            table.add_row("" if i else name, str(row.table), row.row, told)
        table.add_section()
    console.print(table)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A name of `xlt-bench recipes`, or a YAML file.")],
    model: Annotated[str, typer.Option(help="Folder or hub name[@revision] of the base model.")],
    output: Annotated[
        Path, typer.Option(help="Adapter folder; an unfinished one is gone on with.")
    ],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as training.seed=2; repeat.")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(help="tokenizer, plain, llama3-midalign or a Jinja file.")
    ] = None,
    report_to: Annotated[
        str | None, typer.Option(help="The Trainer's own: tensorboard, wandb, ...")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Train an adapter by a recipe; killed, the same command goes on from the last checkpoint."""
    quiet(progress=True)
    from xlt_bench.data.root import data_root
    from xlt_bench.models.chat import check_template
    from xlt_bench.models.validate_names import check_model
    from xlt_bench.results.run_folder import check_place
    from xlt_bench.training.recipe import load_recipe

    loaded = load_recipe(recipe, changes or [])
    check_model(model)
    check_template(chat_template)
    check_place(output)
    from xlt_bench.training.objectives import read_texts

    texts = read_texts(data_root(data_dir), loaded)  # before torch: what is wrong is said at once
    from xlt_bench.training.run import TrainOptions
    from xlt_bench.training.run import train as run

    options = TrainOptions(
        recipe_name=recipe,
        recipe=loaded,
        model=model,
        output=output,
        data_dir=data_dir,
        chat_template=chat_template,
        report_to=listed(report_to),
        trust_remote_code=trust_remote_code,
    )
    adapter = run(options, texts)
    if rank() == 0:
        console.print(f"adapter: {adapter}", markup=False)


@app.command()
def merge(
    task: Annotated[str, typer.Option(help="The task's adapter, a folder or hub name.")],
    alignment: Annotated[str, typer.Option(help="The alignment adapter.")],
    output: Annotated[Path, typer.Option(help="Folder of the merged adapter.")],
    weight: Annotated[float, typer.Option(help="The task's share; the paper's is 0.9.")] = 0.9,
    weights: Annotated[
        str | None, typer.Option(help="Several shares such as 0.5,0.7,0.9: the best on dev.")
    ] = None,
    select_on: Annotated[
        str | None, typer.Option(help="massive or uner: whose dev split chooses the weight.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Base; else the one the task names.")] = None,
    combination: Annotated[str, typer.Option(help="cat (exact), svd or linear.")] = "cat",
    limit: Annotated[
        int | None, typer.Option(min=1, help="First N dev items of each language.")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(help="The one the task's adapter was trained with.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Merge a task and an alignment adapter of one base into one adapter."""
    quiet()
    try:
        shares = [float(part) for part in listed(weights)] or [weight]
    except ValueError:
        raise InputError(f"--weights must be numbers such as 0.5,0.9, not {weights!r}") from None
    from xlt_bench.training.merge import MergeOptions
    from xlt_bench.training.merge import merge as run

    options = MergeOptions(
        task=task,
        alignment=alignment,
        output=output,
        weights=shares,
        select_on=select_on,
        model=model,
        combination=combination,
        limit=limit,
        chat_template=chat_template,
        device=device,
        data_dir=data_dir,
        trust_remote_code=trust_remote_code,
    )
    for share, value in run(options).items():
        console.print(f"weight {share:g}: dev {value:.2f}")
    console.print(f"adapter: {output}", markup=False)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder of the two runs.")] = Path("runs/demo"),
) -> None:
    """See it work, offline: the embedded model's two adapters on the mini suite, and the gains."""
    quiet()
    from xlt_bench.data.root import data_root
    from xlt_bench.evaluation.config import Options
    from xlt_bench.results.tables import render
    from xlt_bench.submissions.compare import compare_systems, load_system
    from xlt_bench.submissions.compare import tables as comparison_tables

    adapters = ["embedded:baseline", "embedded:aligned"]
    options = Options(model="embedded", adapters=adapters, data_dir="mini", output=output)
    (base_run, base), (run, aligned) = _evaluated(options)
    root = data_root("mini")
    systems = [load_system(str(path), Path("submissions"), root) for path in (run, base_run)]
    print(render(comparison_tables(*compare_systems(*systems), "text"), "text"))
    table = Table("layer", "baseline", "aligned", title="retrieval by layer", title_justify="left")
    for before, after in zip(base.results.layers, aligned.results.layers, strict=True):
        table.add_row(str(before.layer), _cell(before), _cell(after))
    console.print(table)
    console.print(_AFTER_DEMO, markup=False, highlight=False, soft_wrap=True)


_AFTER_DEMO = """\
These are real answers of a teaching model to a few hand-written items: they show what the benchmark
measures, and say nothing about LLMs. Next, with a model of your own:
  xlt-bench data fetch
  xlt-bench evaluate --model MODEL --adapter ADAPTER --output runs/mine"""


@data.command("fetch")
def data_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; none: all.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Download the publishers' files; what is there is kept, a broken download goes on."""
    from xlt_bench.data.catalog import catalog
    from xlt_bench.data.fetch import fetch, progress_bar
    from xlt_bench.data.root import data_root

    root = data_root(data_dir)
    with progress_bar() as progress:
        rows = fetch(names or [], root, progress)
    for row in rows:
        console.print(f"{row.name}: {row.downloaded} downloaded, {row.present} were there")
        console.print(f"  {catalog()[row.name].citation}", markup=False, highlight=False)
    console.print(f"data folder: {root}", markup=False)


@data.command("check")
def data_check(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; none: all.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Compare the data folder with the pinned contents; exits 1 if anything is not as pinned."""
    from xlt_bench.data.check import check
    from xlt_bench.data.root import data_root

    rows = check(data_root(data_dir), names)
    table = Table("data set", "state", "units", "rows", "digest", "pinned", "licence")
    for row in rows:
        units = f"{row.units} of {row.units_expected}"
        cells = (row.name, row.state, units, f"{row.rows:,}", row.digest, row.pinned, row.licence)
        table.add_row(*cells)
    console.print(table)
    for row in rows:
        if row.detail:
            console.print(f"{row.name}: {row.detail}", markup=False, highlight=False)
    if not all(row.ok for row in rows):
        raise SystemExit(1)


@app.command()
def languages() -> None:
    """List the languages: codes, script, family, resource level, and their setting in each task."""
    from xlt_bench.languages import LANGUAGES
    from xlt_bench.tasks.registry import get_task, tasks

    names = list(tasks())
    table = Table(*"code name FLORES MASSIVE script family resource".split(), *names)
    ranked = {name: get_task(name).test_set().units for name in names}
    for row in LANGUAGES.values():
        cells = []
        for name in names:
            units = [u for u in get_task(name).units() if get_task(name).language_of(u) == row.code]
            settings = {ranked[name][u].setting or "ranked" for u in units if u in ranked[name]}
            cells.append(" ".join(sorted(settings)) or ("beyond" if units else ""))
        table.add_row(
            row.code, row.name, row.flores, row.massive or "", row.script, row.family,
            row.resource or "", *cells,
        )  # fmt: skip
    console.print(table)


@app.command()
def stubs(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if a file drifted.")
    ] = False,
    path: Annotated[
        bool, typer.Option("--path", help="Print the folder for lm_eval --include_path.")
    ] = False,
) -> None:
    """Write lm-eval's task files from the language table."""
    quiet()
    from xlt_bench.tasks import lm_eval_yaml as module

    folder = module.tasks_dir()
    if path:
        print(folder)
    elif not check:
        module.write(folder)
    elif names := module.drifted(folder):
        errors.print(f"not as `xlt-bench stubs` writes them: {', '.join(names)}")
        raise SystemExit(1)


def _evaluated(options: Any) -> Iterator[Any]:
    """Each run of `evaluate` as it is finished, with our progress line in place of the loader's."""
    from xlt_bench.evaluation.config import prepare

    request = prepare(options)  # before torch: what is wrong is said at once
    from transformers.utils import logging as hf_logging

    from xlt_bench.evaluation.run import evaluate as run_all

    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return run_all(request, track)


def _scored(run: Path, data_dir: str | None, checkpoint: str | None) -> tuple[Any, Any]:
    """A run's scores and record (None: it has none), with those of a COMET checkpoint if given."""
    from xlt_bench.data.root import data_root
    from xlt_bench.evaluation.score import score_run
    from xlt_bench.results.run_folder import read_record

    root = data_root(data_dir)
    record = read_record(run) if (run / "record.json").exists() else None
    if checkpoint:
        from xlt_bench.evaluation.comet.score import score_segments, with_comet

        score_segments(run, root, checkpoint, track)
    scores = score_run(run, root, record.alignment_languages if record else [])
    if checkpoint and record:
        record = with_comet(run, record, scores)
    return scores, record


def _check_record(run: Path, record: Any, scores: Any) -> None:
    if record and record.results != scores:
        path = run / "record.json"
        errors.print(f"{path} states other scores than its predictions give")
        raise SystemExit(1)


_COMET = ("comet",)  # in a table of its own: the first has no room for it


def _print_scores(scores: Any, title: str) -> None:
    """A table a task: units by setting, then the means over exactly the units shown."""
    from xlt_bench.tasks.registry import tasks

    for name, task in tasks().items():
        if any(row.task == name for row in scores.scores):
            _print_task(scores, name, task.shown, title)
    if any(row.metric == "comet" for row in scores.scores):
        _print_task(scores, "wmt23", _COMET, title)
    if scores.layers:
        table = Table(
            "layer", "retrieval accuracy", title="retrieval by layer", title_justify="left"
        )
        for row in scores.layers:
            table.add_row(str(row.layer), _cell(row))
        console.print(table)


def _print_task(scores: Any, task: str, metrics: tuple[str, ...], title: str) -> None:
    """Narrow enough for 80 columns; a heading's words break where a column is narrow."""
    cells = {(row.unit, row.metric): row for row in scores.scores if row.task == task}
    firsts = [row for row in cells.values() if row.metric == metrics[0]]
    table = Table("", title=f"{task}: {title}", title_justify="left")
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right")
    for setting in ("supervised", "transfer", None):
        for first in (row for row in firsts if row.setting == setting):
            label = first.unit + ("*" if first.aligned else "")
            table.add_row(label, *[_cell(cells.get((first.unit, m))) for m in metrics])
        table.add_section()
    means = {(row.split, row.metric): row for row in scores.means if row.task == task}
    for split in ("supervised", "aligned", "transfer", "all"):
        rows = [means.get((split, metric)) for metric in metrics]
        if rows[0] is not None:
            n = len(rows[0].units)
            share = f"{n} of {n + len(rows[0].missing)}" if rows[0].missing else str(n)
            table.add_row(f"{split} ({share})", *[_cell(row) for row in rows], style="bold")
    console.print(table)
    aligned = "; * aligned" if any(row.aligned for row in firsts) else ""
    console.print(f"by setting, with means over the units shown{aligned}", style="dim")
    _print_ceilings(task, [row.unit for row in firsts])
    whole = means.get(("all", metrics[0]))
    if whole is not None and whole.missing:
        console.print(f"missing, and in no mean: {' '.join(whole.missing)}", markup=False)


def _print_ceilings(task: str, units: list[str]) -> None:
    """What no answer can beat, since the gold answers themselves do not: below 99.65 by name."""
    from xlt_bench.tasks.registry import get_task

    pinned = get_task(task).test_set().units
    for metric in get_task(task).ceilings:
        by_unit = {unit: pinned[unit].ceilings[metric] for unit in units if unit in pinned}
        low = [f"{value:.1f} in {unit}" for unit, value in by_unit.items() if value < 99.65]
        least = min((v for v in by_unit.values() if v >= 99.65), default=100.0)
        text = ", ".join([f"{least:.1f} or more", *low])
        console.print(f"gold answers score {text} ({metric}, whole test sets)", style="dim")


def _cell(row: Any) -> str:
    return "" if row is None else f"{row.value:.1f} [dim]{row.low:.1f}–{row.high:.1f}[/dim]"
