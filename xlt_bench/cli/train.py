"""The commands `train`, `merge`, `steer`, `recipes` and `reproduce`.

Nothing here imports torch before a command runs.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from xlt_bench.cli.options import (
    AdaptedModel,
    BatchSize,
    Changes,
    ChatTemplate,
    CometModel,
    DataDir,
    Device,
    Dtype,
    Limit,
    Model,
    PrintFormat,
    TrustRemoteCode,
    WithComet,
    comet_checkpoint,
    listed,
    numbers,
)
from xlt_bench.cli.output import console, errors, quiet, show, track
from xlt_bench.distributed import check_launcher, rank
from xlt_bench.results.tables import DATA_FORMATS, Cell, Column, Table, render

app = typer.Typer()

# In words of its own, since importing the list takes half as long as all of `--help`.
REPRODUCIBLE = (
    "table2, table3, table4, table5, table6, table7, table8, table9, table11, table12, table13, "
    "figure1, figure3, figure4"
)


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="Name (see `xlt-bench recipes`) or YAML file."),
    ],
    model: Model,
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Adapter folder; an interrupted training resumes."),
    ],
    changes: Changes = None,
    chat_template: ChatTemplate = None,
    report_to: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Where the Trainer logs: tensorboard, wandb, ..."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Train an adapter with a recipe.

    After an interruption the same command resumes from the last checkpoint.
    """
    quiet(progress=True)
    from xlt_bench.data.root import data_root
    from xlt_bench.models.chat import given_template
    from xlt_bench.models.validate_names import check_model
    from xlt_bench.results.run_folder import check_place
    from xlt_bench.training.recipe import load_recipe

    check_launcher()
    loaded = load_recipe(recipe, changes or [])
    check_model(model)
    given_template(chat_template)
    check_place(output)
    from xlt_bench.training.objectives import read_texts

    texts = read_texts(data_root(data_dir), loaded)  # errors in the data come before torch
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
        console.print(f"adapter: {adapter}")


@app.command()
def merge(
    task: Annotated[str, typer.Option(metavar="ADAPTER", help="Task adapter: folder or hub name.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the merged adapter.")],
    alignment: Annotated[
        str | None, typer.Option(metavar="ADAPTER", help="Alignment adapter: folder or hub name.")
    ] = None,
    reference_source: Annotated[
        str | None,
        typer.Option(
            metavar="ADAPTER",
            help="AdaMergeX: adapter of a reference task in the task adapter's languages.",
        ),
    ] = None,
    reference_target: Annotated[
        str | None,
        typer.Option(
            metavar="ADAPTER", help="AdaMergeX: adapter of that task in the target languages."
        ),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Weight of the task adapter, 0 to 1; with references, of their difference.",
            show_default="0.9, the paper's; with references 1",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="X,...", help="Weights to try, such as 0.5,0.7,0.9; keeps the best on dev."
        ),
    ] = None,
    alignment_blocks: Annotated[
        str | None,
        typer.Option(
            metavar="N-N,...",
            help="Swap layers: blocks, such as 5-12, of the alignment adapter, the rest of the "
            "task adapter; several ranges are tried on dev.",
        ),
    ] = None,
    task_blocks: Annotated[
        str | None,
        typer.Option(metavar="N-N,...", help="The same with blocks of the task adapter."),
    ] = None,
    transition: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Blocks on each side of a range that mix."),
    ] = 0,
    select_on: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="What selects the weight or the blocks: massive, uner or intents (their dev "
            "splits), or a .jsonl file of chats (its loss).",
        ),
    ] = None,
    model: AdaptedModel = None,
    combination: Annotated[
        str, typer.Option(metavar="NAME", help="As in peft: cat (the exact sum), svd or linear.")
    ] = "cat",
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Only the first N dev items of each language."),
    ] = None,
    chat_template: ChatTemplate = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Merge a task adapter with an alignment adapter, or two of a reference task, into one.

    All are of the same base model. To select a weight or blocks, give the --chat-template that the
    task adapter was trained with.
    """
    quiet()
    given = [] if weight is None else [weight]
    shares = numbers("--weights", weights, float, "0.5,0.9") or given
    from xlt_bench.training.merge import MergeOptions
    from xlt_bench.training.merge import merge as run

    options = MergeOptions(
        task=task,
        alignment=alignment,
        output=output,
        weights=shares,
        reference_source=reference_source,
        reference_target=reference_target,
        alignment_blocks=listed(alignment_blocks),
        task_blocks=listed(task_blocks),
        transition=transition,
        select_on=select_on,
        model=model,
        combination=combination,
        limit=limit,
        chat_template=chat_template,
        device=device,
        data_dir=data_dir,
        trust_remote_code=trust_remote_code,
    )
    what = "blocks" if alignment_blocks or task_blocks else "weight"
    for label, value in run(options).items():
        console.print(f"{what} {label}: dev {value:.2f}")
    console.print(f"adapter: {output}")


@app.command()
def steer(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the vectors.")],
    model: AdaptedModel = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="ADAPTER",
            help="Steer the model with this adapter, which is copied: folder or hub name.",
            show_default="steer the bare model",
        ),
    ] = None,
    layer: Annotated[
        str,
        typer.Option(metavar="N", help="Decoder block, from 1, or a share of all, such as 0.5."),
    ] = "0.5",
    languages: Annotated[
        str | None,
        typer.Option(
            metavar="CODE,...",
            help="Languages that get a vector.",
            show_default="all that the benchmark ranks",
        ),
    ] = None,
    corpus: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Parallel sentences: flores-devtest or ntrex. Not FLORES dev, on which retrieval "
            "is measured.",
        ),
    ] = "flores-devtest",
    scale: Annotated[
        float, typer.Option(metavar="X", help="What the vectors are multiplied by.")
    ] = 1.0,
    dtype: Dtype = "auto",
    device: Device = None,
    batch_size: BatchSize = "auto",
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Compute vectors that steer a model from each language towards English, without training.

    A vector is the difference of mean hidden states; `evaluate --adapter DIR` adds it to them.
    """
    quiet()
    from xlt_bench.training.steer import SteerOptions, parse_layer
    from xlt_bench.training.steer import steer as run

    options = SteerOptions(
        output=output,
        model=model,
        adapter=adapter,
        layer=parse_layer(layer),
        languages=listed(languages),
        corpus=corpus,
        scale=scale,
        dtype=dtype,
        device=device,
        batch_size=batch_size,
        trust_remote_code=trust_remote_code,
        data_dir=data_dir,
    )
    made = run(options, track)
    for note in made.notes:
        errors.print(f"note: {note}")
    number = len(made.languages)
    some = "1 language" if number == 1 else f"{number} languages"
    console.print(f"vectors of {some} at layer {made.layer}: {output}")


@app.command()
def recipes(form: PrintFormat = "table") -> None:
    """List the training recipes, the paper's rows they reproduce, and the published numbers."""
    from xlt_bench.training.recipe import load_recipe, names

    rows: list[list[Cell]] = []
    for name in names():
        recipe = load_recipe(name)
        if not recipe.paper:
            rows.append([name, None, recipe.title, "", *([""] if form in DATA_FORMATS else [])])
        for row in recipe.paper:
            figures = ", ".join(f"{key} {value:g}" for key, value in row.published.items())
            if form in DATA_FORMATS:
                rows.append([name, row.table, row.row, figures, row.note])
            else:
                told = "; ".join(part for part in (figures.replace("_", " "), row.note) if part)
                rows.append([name, row.table, row.row, told])
    columns: list[str | Column] = ["recipe", "table", Column("row", wrap=True)]
    columns.append(Column("published", wrap=True))
    if form in DATA_FORMATS:
        columns.append("note")
    note = "Published numbers are the paper's; they were not measured here."
    show([Table("", columns, rows, [note])], form)


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help=f"One of {REPRODUCIBLE}.")],
    model: Model,
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of all trainings and runs, which tables share."),
    ] = Path("runs/reproduction"),
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="TASK,...",
            help="Only the panels of these tasks: massive, wmt23, uner.",
            show_default="all panels",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Train each recipe with seeds 1 to N.")
    ] = 1,
    limit: Limit = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Updates per objective.", show_default="the recipes' epochs"
        ),
    ] = None,
    changes: Changes = None,
    authors_adapters: Annotated[
        bool,
        typer.Option(
            "--authors-adapters",
            help="Train nothing: evaluate the adapters that the authors published.",
        ),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the steps and their commands, and stop.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Start without asking.")] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    batch_size: BatchSize = "auto",
    chat_template: ChatTemplate = None,
    comet: WithComet = False,
    comet_model: CometModel = None,
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Train, merge and evaluate for a table or figure of the paper; print it beside the original.

    Steps that are finished, also those of another table, are reused.
    """
    from xlt_bench.reproduce import steps as module

    quiet(progress=True)
    check_launcher()
    wanted = module.reproduction(table, listed(tasks), authors_adapters)
    checkpoint = comet_checkpoint(comet, comet_model)
    if checkpoint:
        from xlt_bench.evaluation.comet.score import check as check_comet

        check_comet(checkpoint, ["wmt23"])
    project = module.Project(
        module.Settings(
            model=model,
            output=output,
            seeds=seeds,
            limit=limit,
            steps=steps,
            changes=tuple(changes or ()),
            dtype=dtype,
            device=device,
            batch_size=batch_size,
            chat_template=chat_template,
            data_dir=data_dir,
            comet=checkpoint,
            trust_remote_code=trust_remote_code,
            authors_adapters=authors_adapters,
        )
    )
    todo = _print_plan(table, wanted, project)
    if plan:
        for step in todo:
            print(project.command(step))
        return
    if todo and not yes:
        typer.confirm("Start?", abort=True)
    from xlt_bench.results.atomic_write import in_use

    with in_use(output) if rank() == 0 else nullcontext():
        for i, step in enumerate(todo, 1):
            console.print(f"[{i}/{len(todo)}] {step.what}: {step.name}")
            project.run(step, track)
        _write(table, wanted, project)


def _print_plan(name: str, wanted: Any, project: Any) -> list[Any]:
    """Print the steps as a table; returns those that are not done."""
    from xlt_bench.reproduce.steps import steps

    rows, todo, total = [], [], 0
    for step in steps(wanted, project.settings.seeds, not project.settings.authors_adapters):
        words, size = project.cost(step)
        done = project.is_done(step)
        state = "done" if done else "resumes" if project.is_begun(step) else "to do"
        rows.append([step.what, step.name, state, f"{size / 1e6:.1f} MB", words])
        if not done:
            todo.append(step)
            total += size
    columns: list[str | Column] = ["step", "name", "state", "disk", Column("size", wrap=True)]
    show([Table(wanted.title, columns, rows)])
    console.print(f"{name}: {len(todo)} steps to do, about {total / 1e6:,.0f} MB")
    return todo


def _write(name: str, wanted: Any, project: Any) -> None:
    """Print the tables, and write them and the charts to the output folder."""
    from xlt_bench.reproduce.report import report
    from xlt_bench.results.run_folder import write_bytes

    tables, charts = report(name, wanted, project)
    show(tables)
    path = project.settings.output / f"{name}.md"
    write_bytes(path, render(tables, "md").encode())
    console.print(f"written: {path}")
    for i, chart in enumerate(charts):
        page = path.with_name(f"{name}{'ab'[i] if len(charts) > 1 else ''}.html")
        write_bytes(page, chart.to_html().encode())
        console.print(f"written: {page}")
