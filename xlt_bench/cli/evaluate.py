"""The commands `evaluate`, `score`, `join` and `compare`.

Nothing here imports torch before a command runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from xlt_bench.cli.options import (
    AdaptedModel,
    BatchSize,
    ChatTemplate,
    ChatTemplateArgs,
    CometModel,
    DataDir,
    Device,
    Dtype,
    Limit,
    PrintFormat,
    Submissions,
    TableFormat,
    Tokenizer,
    TrustRemoteCode,
    WithComet,
    comet_checkpoint,
    listed,
    numbers,
)
from xlt_bench.cli.output import console, errors, quiet, show, track, write_data
from xlt_bench.cli.share import FOLDER
from xlt_bench.errors import InputError
from xlt_bench.results.tables import DATA_FORMATS

app = typer.Typer()

# The options that only `evaluate` has.
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ADAPTER",
        help=r"PEFT adapter: folder or hub name\[@revision]. Repeat for several; each gets its "
        "own folder in RUN.",
        show_default="the bare model",
    ),
]
Tasks = Annotated[str, typer.Option(metavar="TASK,...", help="Tasks to evaluate.")]
Languages = Annotated[
    str | None,
    typer.Option(
        metavar="CODE,...",
        help="Languages, such as de,sw (see `xlt-bench languages`).",
        show_default="all of each task",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        metavar="N,...",
        help="Layers for retrieval, counted from 1.",
        show_default="all even layers",
    ),
]
CorpusDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Parallel text for retrieval: one file per language (eng_Latn.txt, ...), aligned "
        "line by line; not ranked.",
        show_default="FLORES dev",
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=FILE",
        help="Jinja file with your own prompt for a text task, or native: the benchmark's in the "
        "item's language; not ranked. Repeat for several.",
        show_default="the benchmark's prompts",
    ),
]
Shots = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Put N solved training items before each prompt of the text tasks; not ranked.",
    ),
]
ShotLanguages = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Language of these examples: the same as that of the item they precede, or en.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N", help="Evaluate part I of N; then combine the parts with `xlt-bench join`."
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="hf, vllm, or openai (a server with OpenAI's API, where the model is called MODEL).",
    ),
]
ReportTo = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Also send scores and layer curve to trackers: tensorboard, wandb, mlflow, trackio.",
    ),
]
ModelArgs = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="For vllm and openai, as in lm_eval, such as tensor_parallel_size=4; or JSON.",
    ),
]


@app.command()
def evaluate(
    *,
    model: AdaptedModel = None,
    output: Annotated[
        Path, typer.Option(metavar="RUN", help="Run folder; an interrupted run resumes.")
    ],
    adapter: Adapters = None,
    tasks: Tasks = "massive,wmt23,uner,retrieval",
    languages: Languages = None,
    limit: Limit = None,
    layers: Layers = None,
    corpus: CorpusDir = None,
    dtype: Dtype = "auto",
    device: Device = None,
    batch_size: BatchSize = "auto",
    shard: Shard = None,
    tokenizer: Tokenizer = None,
    chat_template: ChatTemplate = None,
    chat_template_args: ChatTemplateArgs = None,
    prompt: Prompts = None,
    num_fewshot: Shots = 0,
    fewshot_language: ShotLanguages = "same",
    backend: Backend = "hf",
    model_args: ModelArgs = None,
    comet: WithComet = False,
    comet_model: CometModel = None,
    report_to: ReportTo = None,
    trust_remote_code: TrustRemoteCode = False,
    data_dir: DataDir = None,
) -> None:
    """Evaluate adapters, or a bare model: slot filling, translation, named entities, retrieval.

    After an interruption the same command resumes after the last finished language.
    """
    quiet()
    from xlt_bench.evaluation.config import Options
    from xlt_bench.models.adapters import base_of

    if model is None and not adapter:
        raise InputError("give --model, or --adapter, which names its base model")
    options = Options(
        model=model or base_of(adapter or []),
        output=output,
        adapters=adapter or [],
        tasks=listed(tasks),
        languages=listed(languages),
        limit=limit,
        layers=numbers("--layers", layers, int, "8,16"),
        dtype=dtype,
        device=device,
        batch_size=batch_size,
        tokenizer=tokenizer,
        chat_template=chat_template,
        chat_template_args=chat_template_args,
        prompts=prompt or [],
        num_fewshot=num_fewshot,
        fewshot_language=fewshot_language,
        data_dir=data_dir,
        corpus=corpus,
        shard=shard,
        backend=backend,
        model_args=model_args,
        trust_remote_code=trust_remote_code,
    )
    trackers = listed(report_to)
    if trackers:
        from xlt_bench.evaluation.trackers import check_trackers

        check_trackers(trackers)
    checkpoint = comet_checkpoint(comet, comet_model)
    if checkpoint:
        from xlt_bench.evaluation.comet.score import check as check_comet
        from xlt_bench.evaluation.config import plan_units

        check_comet(checkpoint, list(plan_units(options)))
    _evaluate(options, checkpoint, trackers)


def _evaluate(options: Any, checkpoint: str | None, trackers: Sequence[str]) -> None:
    from xlt_bench.cli.print_scores import comet_table, score_tables
    from xlt_bench.evaluation.config import prepare

    finished = []
    for run, record in evaluated(prepare(options), track):
        for note in record.notes:
            errors.print(note, style="bold red" if "WARNING" in note else "")
        if record.truncated_prompts:
            said = "WARNING: prompts truncated on the left, to leave room for the answer:"
            errors.print(f"{said} {record.truncated_prompts}", style="bold red")
        title = record.model.name + (f" + {record.adapter.name}" if record.adapter else "")
        show(score_tables(record.results, title))
        console.print(f"record: {run / 'record.json'}")
        finished.append((run, title))
    if checkpoint:  # last: it may fail where the answers did not, and its model needs the memory
        for run, title in finished:
            scores, record = _scored(run, options.data_dir, checkpoint)
            show([comet_table(scores, title)])
            _check_record(run, record, scores)


def evaluated(request: Any, track: Any) -> Iterator[Any]:
    """Each run of a checked request as it finishes, with `track` instead of the loader's bar."""
    from transformers.utils import logging as hf_logging

    from xlt_bench.evaluation.run import evaluate as run_all

    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return run_all(request, track)


@app.command()
def score(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    form: PrintFormat = "table",
    comet: WithComet = False,
    comet_model: CometModel = None,
    data_dir: DataDir = None,
) -> None:
    """Recompute all scores of a run from its predictions. Exits 1 if its record differs."""
    from xlt_bench.cli.print_scores import score_json, score_rows, score_tables

    scores, record = _scored(run, data_dir, comet_checkpoint(comet, comet_model))
    if form == "json":
        write_data(score_json(scores) + "\n")
    elif form == "csv":
        show([score_rows(scores)], form)
    else:
        show(score_tables(scores, str(run)))
    _check_record(run, record, scores)


def _scored(run: Path, data_dir: str | None, checkpoint: str | None) -> tuple[Any, Any]:
    """A run's scores and its record, or None; with a COMET checkpoint, COMET's scores too."""
    from xlt_bench.data.root import data_root
    from xlt_bench.evaluation.score import rescore_run
    from xlt_bench.results.run_folder import read_record

    root = data_root(data_dir)
    if checkpoint:
        from xlt_bench.evaluation.comet.score import score_with

        return score_with(run, root, checkpoint, track)
    record = read_record(run) if (run / "record.json").exists() else None
    return rescore_run(run, root, record), record


def _check_record(run: Path, record: Any, scores: Any) -> None:
    if record and record.results != scores:
        errors.print(
            f"{run / 'record.json'} differs from the scores of its predictions: "
            "the record or the predictions were changed"
        )
        raise SystemExit(1)


@app.command()
def join(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders to join.")],
    output: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the joined run.")],
    data_dir: DataDir = None,
) -> None:
    """Join the runs of `evaluate --shard`, or of different tasks or languages, into one."""
    quiet()
    from xlt_bench.cli.print_scores import score_tables
    from xlt_bench.data.root import data_root
    from xlt_bench.evaluation.join import join as join_runs

    record = join_runs(runs, output, data_root(data_dir))
    show(score_tables(record.results, str(output)))
    console.print(f"record: {output / 'record.json'}")


_COMPARED = "Run folder, submission folder or id; several seeds of a method with commas between."


@app.command()
def compare(
    system: Annotated[str, typer.Argument(metavar="SYSTEM[,SYSTEM...]", help=_COMPARED)],
    baseline: Annotated[
        str,
        typer.Argument(metavar="BASELINE[,BASELINE...]", help="The same; gains are over these."),
    ],
    oracle: Annotated[
        str | None,
        typer.Option(
            metavar="ORACLE[,...]",
            help="The same, trained in all languages: also print the share of the gap closed.",
        ),
    ] = None,
    form: TableFormat = "table",
    submissions: Submissions = FOLDER,
    data_dir: DataDir = None,
) -> None:
    """Print a system's gains over a baseline by language, with paired significance tests.

    With several seeds of each, separated by commas, two methods are compared: intervals and p
    values then cover seeds and test items. A second table says what the gains consist of, and how
    far scores carry over from the supervised languages.
    """
    from xlt_bench.data.root import data_root
    from xlt_bench.submissions.compare import compare_methods, load_system
    from xlt_bench.submissions.compare_tables import tables

    root = data_root(data_dir)
    methods = [
        [load_system(name.strip(), submissions, root) for name in names.split(",")]
        for names in (system, baseline, *([oracle] if oracle else []))
    ]
    found, notes = compare_methods(*methods)
    show(tables(found, notes, form), form)
    if form in DATA_FORMATS:
        for note in notes:
            errors.print(note)
