"""The command reproduce: a table or figure of the paper, from training to the page.

Registered by cli.py; nothing here imports torch before the command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xlt_bench.cli.comet import CometModel, WithComet, asked_model
from xlt_bench.cli.shared import DataDir, TrustRemoteCode, console, listed, quiet, track
from xlt_bench.reproduce.tables import REPRODUCTIONS
from xlt_bench.results.tables import Table, render


def reproduce(
    table: Annotated[str, typer.Argument(help=f"{', '.join(REPRODUCTIONS)}.")],
    model: Annotated[str, typer.Option(help="Folder or hub name[@revision] of the base model.")],
    output: Annotated[
        Path, typer.Option(help="Folder of all steps; tables share what they have in common.")
    ] = Path("runs/reproduction"),
    tasks: Annotated[
        str | None, typer.Option(help="Of massive, wmt23, uner: those panels alone.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each recipe, with seeds 1 to N.")] = 1,
    limit: Annotated[int | None, typer.Option(help="First N test items of each language.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates of each objective; else the recipes' epochs.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for all recipes, as in `train`.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the plan and a command for each step, and stop.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Begin without asking.")] = False,
    dtype: Annotated[str, typer.Option(help="Of evaluation: auto, float32, ...")] = "auto",
    device: Annotated[str | None, typer.Option(help="Of evaluation: cpu, cuda, ...")] = None,
    batch_size: Annotated[str, typer.Option(help="Of evaluation: a number, or auto.")] = "auto",
    chat_template: Annotated[
        str | None, typer.Option(help="tokenizer, plain, llama3-midalign or a Jinja file.")
    ] = None,
    comet: WithComet = False,
    comet_model: CometModel = None,
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Train, merge and evaluate what a table of the paper consists of; draw it beside the paper's.

    What is done already is not done again, whichever table it was done for.
    """
    from xlt_bench.reproduce import steps as module

    quiet(progress=True)
    wanted = module.reproduction(table, listed(tasks))
    checkpoint = asked_model(comet, comet_model)
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
        )
    )
    todo = _print_plan(table, wanted, project)
    if plan:
        for step in todo:
            print(project.command(step))
        return
    if todo and not yes:
        typer.confirm("Begin?", abort=True)
    for i, step in enumerate(todo, 1):
        console.print(f"[{i}/{len(todo)}] {step.what}: {step.name}")
        project.run(step, track)
    _write(table, wanted, project)


def _print_plan(name: str, wanted: Any, project: Any) -> list[Any]:
    """The plan as a table; returns the steps that are not done."""
    from xlt_bench.reproduce.steps import steps

    rows, todo, total = [], [], 0
    for step in steps(wanted, project.settings.seeds):
        words, size = project.cost(step)
        done = project.is_done(step)
        state = "done" if done else "goes on" if project.is_begun(step) else "to do"
        rows.append([step.what, step.name, state, f"{size / 1e6:.1f} MB", words])
        if not done:
            todo.append(step)
            total += size
    columns = ["step", "of", "state", "disk", "size"]
    print(render([Table(wanted.title, columns, rows)], "text"))
    console.print(f"{name}: {len(todo)} steps to do, about {total / 1e6:,.0f} MB")
    return todo


def _write(name: str, wanted: Any, project: Any) -> None:
    """Print the tables, and write them and the charts into OUTPUT."""
    from xlt_bench.reproduce.report import report
    from xlt_bench.results.run_folder import write_bytes

    tables, charts = report(name, wanted, project)
    print(render(tables, "text"))
    path = project.settings.output / f"{name}.md"
    write_bytes(path, render(tables, "md").encode())
    console.print(f"written: {path}")
    for i, chart in enumerate(charts):
        page = path.with_name(f"{name}{'ab'[i] if len(charts) > 1 else ''}.html")
        write_bytes(page, chart.to_html().encode())
        console.print(f"written: {page}")
