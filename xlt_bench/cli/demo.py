"""The command `demo`: the embedded model's adapters on the mini suite, on one page.

Nothing here imports torch before the command runs.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlt_bench.cli.evaluate import evaluated
from xlt_bench.cli.output import console, errors, quiet, show
from xlt_bench.cli.share import FOLDER

if TYPE_CHECKING:
    from xlt_bench.cli.demo_screen import Curves, Next
    from xlt_bench.evaluation.config import Request
    from xlt_bench.results.record import Record

app = typer.Typer()
_SUITE = "mini"
_WITH_RETRIEVAL = "massive"  # the pair whose hidden states retrieval takes
_LIMITS = {"wmt23": 6}  # a translation takes ten times as long as a command


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the runs.")] = Path(
        "runs/demo"
    ),
    details: Annotated[
        bool, typer.Option("--details", help="Also print the gains by language.")
    ] = False,
) -> None:
    """Evaluate the embedded model's adapters on the mini suite, offline; print what alignment does.

    A second call prints the finished runs at once.
    """
    quiet()
    from xlt_bench.cli.demo_screen import METRICS, screen
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.compare import compare_metric, compare_systems, load_system
    from xlt_bench.submissions.compare_tables import tables

    started = time.perf_counter()
    requests = _requests(output)
    runs = list(_evaluated(requests))
    root = data_root(_SUITE)
    systems = [load_system(str(run), FOLDER, root) for run, _ in runs]
    pairs = list(zip(systems[1::2], systems[::2], strict=True))
    found = [
        one
        for system, baseline in pairs
        for task in system.tasks
        if (one := compare_metric(task, METRICS[task][0], [system], [baseline]))
    ]
    records = [record for _, record in runs]
    said = _said(output, requests, records[0], time.perf_counter() - started)
    console.print(screen(said, found, _curves(records), _next(output)))
    if details:
        for pair in pairs:
            show(tables(*compare_systems(*pair), "table"))


def _requests(output: Path) -> list[Request]:
    """What is evaluated: each adapter on the task of its pair, and two also on retrieval.

    The baseline of a pair precedes its aligned adapter. One at a time, and in float32, an adapter
    is merged into the weights, which halves the time on a CPU.

    Raises:
        InputError: DIR cannot be written to, or holds other runs.
    """
    from xlt_bench.evaluation.config import Options, prepare
    from xlt_bench.models.embedded import MODEL, PAIRS, n_layers
    from xlt_bench.tasks.registry import RETRIEVAL

    return [
        prepare(
            Options(
                model=MODEL,
                adapters=[adapter],
                tasks=[pair.task, *([RETRIEVAL] if pair.task == _WITH_RETRIEVAL else [])],
                limit=_LIMITS.get(pair.task),
                layers=range(1, n_layers() + 1),
                dtype="float32",
                data_dir=_SUITE,
                output=output / adapter.replace(":", "-"),
            )
        )
        for pair in PAIRS
        for adapter in (pair.baseline, pair.aligned)
    ]


def _evaluated(requests: Sequence[Request]) -> Iterator[tuple[Path, Record]]:
    """The run of each request."""
    with _progress(requests) as track:
        for request in requests:
            for run, record in evaluated(request, track):
                if not errors.is_terminal:
                    errors.print(f"{run}: {', '.join(record.plan.units)} done")
                for note in record.notes:
                    if "WARNING" in note:
                        errors.print(note, style="bold red")
                yield run, record


@contextmanager
def _progress(requests: Sequence[Request]) -> Iterator[Any]:
    """One progress bar over all items of all runs; none in a log file. Yields `track`."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description:20}"), BarColumn(), TaskProgressColumn())
    total = sum(len(items) for one in requests for items in one.items.values())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("loading", total=total)

        @contextmanager
        def track(name: str, _total: int) -> Iterator[Any]:
            bar.update(task, description=name)
            yield lambda done: bar.advance(task, done)

        yield track


def _said(output: Path, requests: Sequence[Request], record: Record, seconds: float) -> str:
    """What was run."""
    from xlt_bench.tasks.registry import get_task

    asked = {unit: len(rows) for one in requests for unit, rows in one.items.items()}
    items = sum(asked.values())
    languages = {code for task, unit in asked for code in get_task(task).languages_of(unit)}
    size = f"{record.model.parameters:,} parameters"
    suite = f"the mini suite ({items:,} items, {len(languages)} languages)"
    n = len(requests)
    return (
        f"{n} adapters of a teaching model ({size}) answered {suite} in {seconds:.0f} s. "
        "Each was fine-tuned on a task in a few languages, the aligned ones also to give "
        f"translations similar states in the middle layer. Runs: {output}"
    )


def _curves(records: Sequence[Record]) -> Curves | None:
    """Retrieval by layer of the two adapters that were evaluated on it."""
    from xlt_bench.cli.demo_screen import Curves
    from xlt_bench.tasks.registry import RETRIEVAL

    found = [record.results for record in records if record.results.layers]
    if len(found) != 2:
        return None
    sentences = next(row.n for row in found[0].scores if row.task == RETRIEVAL)
    return Curves(found[0].layers, found[1].layers, chance=100 / sentences)


def _next(output: Path) -> list[Next]:
    """Commands that can be copied as they stand."""
    from xlt_bench.cli.demo_screen import Next
    from xlt_bench.models.embedded import PAIRS

    program, folder = _program(), shlex.quote(str(output))
    mine = shlex.quote(str(output.with_name("mine")))
    return [
        Next(
            "the leaderboard with these runs",
            f"{program} leaderboard serve --run {folder} --data-dir {_SUITE}",
        ),
        Next("every language", f"{program} demo --output {folder} --details"),
        Next(
            "one adapter (or yours)",
            f"{program} evaluate --adapter {PAIRS[0].aligned} \\\n"
            f"  --data-dir {_SUITE} --output {mine}",
        ),
    ]


def _program() -> str:
    """The running program as a shell in this folder can call it."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m xlt_bench"
    on_path = shutil.which(called.name)
    if on_path and called.exists() and called.samefile(on_path):
        return called.name
    within = called.is_absolute() and called.is_relative_to(Path.cwd())
    return shlex.quote(str(called.relative_to(Path.cwd()) if within else called))
