"""Evaluates from Python."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_bench.api.quiet import bar, no_loading_bars, quiet
from xlt_bench.errors import InputError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from xlt_bench.api.run import Run
    from xlt_bench.evaluation.config import Options

Names = str | Sequence[str]


def evaluate(
    model: str | Path | PreTrainedModel | PeftModel | None = None,
    adapter: str | Path | None = None,
    *,
    tasks: Names | None = None,
    languages: Names = (),
    limit: int | None = None,
    layers: Sequence[int] = (),
    output: str | Path | None = None,
    tokenizer: str | PreTrainedTokenizerBase | None = None,
    chat_template: str | None = None,
    chat_template_args: Mapping[str, Any] | None = None,
    prompt: Mapping[str, str | Path] | None = None,
    num_fewshot: int = 0,
    fewshot_language: str = "same",
    dtype: str = "auto",
    device: str | None = None,
    batch_size: int | str = "auto",
    corpus: str | Path | None = None,
    shard: str | None = None,
    backend: str = "hf",
    model_args: str | Mapping[str, Any] | None = None,
    comet: bool = False,
    comet_model: str | None = None,
    report_to: Names = (),
    trust_remote_code: bool = False,
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Evaluate an adapter, or a bare model; the same call resumes after an interruption.

    Args:
        model: Base model: a folder, a hub name, a PreTrainedModel, or a PeftModel, whose adapter is
            evaluated. A model in memory is left as it was. None: the one that the adapter names.
        adapter: PEFT adapter: a folder or hub name.
        tasks: Tasks, such as `["massive", "retrieval"]`. None: all.
        languages: Languages, such as `["de", "sw"]`. Empty: all of each task.
        limit: Only the first items of each language; such a run is not ranked.
        layers: Layers for retrieval, from 1. Empty: all even ones.
        output: Run folder. None: a folder in `runs/`, named after model, adapter and arguments.
        tokenizer: A folder, a hub name or a tokenizer. None: the adapter's, or the model's.
        chat_template: `tokenizer`, `plain`, `llama3-midalign` or a Jinja file.
        chat_template_args: Variables of the chat template.
        prompt: By text task, a Jinja file with your own prompt, or `native`: the benchmark's in the
            language of the item. Such a run is not ranked.
        num_fewshot: Solved training items before each prompt; with any, a run is not ranked.
        fewshot_language: Their language: `same` as that of the item they precede, or `en`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: `cpu`, `cuda`, ...; None: CUDA if there is a GPU.
        batch_size: A number, or `auto`.
        corpus: Folder of parallel text for retrieval instead of FLORES dev.
        shard: `"1/4"`: the first of four parts of the work.
        backend: `hf`, `vllm` or `openai`.
        model_args: Arguments of that backend.
        comet: Also score translations with COMET.
        comet_model: COMET's checkpoint.
        report_to: Trackers for scores and layer curve: `tensorboard`, `wandb`, `mlflow`, `trackio`.
        trust_remote_code: Run Python code that ships with the model.
        data_dir: Folder of the data sets, or `mini`. None: $XLT_BENCH_DATA, or the user's cache.
        progress: Show a bar for each unit.

    Returns:
        The finished run.

    Raises:
        InputError: An argument is invalid, data are missing, or `output` holds another run.
    """
    names = [] if adapter is None else [str(adapter)]
    with quiet(), no_loading_bars(), _model(model, names) as (name, loaded):
        from xlt_bench.evaluation.config import Options
        from xlt_bench.evaluation.trackers import check_trackers

        check_trackers(_listed(report_to))
        options = Options(
            model=name,
            output=Path(),
            adapters=names,
            languages=_listed(languages),
            limit=limit,
            layers=layers,
            dtype=dtype,
            device=device,
            batch_size=str(batch_size),
            tokenizer=tokenizer,
            chat_template=chat_template,
            chat_template_args=json.dumps(dict(chat_template_args)) if chat_template_args else None,
            prompts=[f"{task}={file}" for task, file in (prompt or {}).items()],
            num_fewshot=num_fewshot,
            fewshot_language=fewshot_language,
            data_dir=str(data_dir) if data_dir is not None else None,
            corpus=str(corpus) if corpus is not None else None,
            shard=shard,
            backend=backend,
            model_args=_arguments(model_args),
            trust_remote_code=trust_remote_code,
            loaded=loaded,
        )
        if tasks is not None:
            options = replace(options, tasks=_listed(tasks))
        place = Path(output) if output is not None else _place(options)
        checkpoint = _checkpoint(comet, comet_model)
        run = _run(replace(options, output=place), checkpoint, bar if progress else None)
        if report_to:
            run.report(*_listed(report_to))
    for note in run.record.notes:
        if note.startswith("WARNING: "):
            warnings.warn(note.removeprefix("WARNING: "), stacklevel=2)
    return run


@contextmanager
def _model(model: Any, adapters: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The base model's name and, if it is in memory, the model."""
    if model is None:
        if not adapters:
            raise InputError("give a model, or an adapter, which names its base model")
        from xlt_bench.models.adapters import base_of

        yield base_of(adapters), None
    elif isinstance(model, str | Path):
        yield str(model), None
    else:
        from peft import PeftModel
        from transformers import PreTrainedModel

        if not isinstance(model, PreTrainedModel | PeftModel):
            raise InputError(
                f"model must be a name, a folder, a PreTrainedModel or a PeftModel, not a "
                f"{type(model).__name__}"
            )
        from xlt_bench.models.loaded import borrowed

        with borrowed(model) as loaded:
            yield loaded.base.name, loaded


def _run(options: Options, checkpoint: str | None, track: Any) -> Run:
    from xlt_bench.api.run import load_run
    from xlt_bench.evaluation.config import plan_units, prepare
    from xlt_bench.evaluation.predict import untracked
    from xlt_bench.evaluation.run import evaluate as run_all

    track = track or untracked
    if checkpoint:
        from xlt_bench.evaluation.comet.score import check

        check(checkpoint, list(plan_units(options)))
    ((run, _),) = run_all(prepare(options), track)
    if checkpoint:
        from xlt_bench.data.root import data_root
        from xlt_bench.evaluation.comet.score import score_with

        score_with(run, data_root(options.data_dir), checkpoint, track)
    return load_run(run, data_dir=options.data_dir)


def _checkpoint(comet: bool, model: str | None) -> str | None:
    if not comet:
        if model is not None:
            raise InputError("comet_model needs comet=True")
        return None
    from xlt_bench.evaluation.comet.score import MODEL

    return model or MODEL


def _place(options: Options) -> Path:
    """The folder of a run without a name, which depends on what is evaluated."""
    loaded = options.loaded
    its = loaded and [loaded.base.sha256, loaded.adapter and loaded.adapter.sha256]
    asked = {one.name: str(getattr(options, one.name)) for one in fields(options)}
    for name in ("output", "device", "batch_size", "loaded", "tokenizer"):
        del asked[name]
    if not options.num_fewshot:  # the folder that a call without examples has always had
        del asked["num_fewshot"], asked["fewshot_language"]
    tokenizer = options.tokenizer if isinstance(options.tokenizer, str) else None
    text = json.dumps([asked, its, tokenizer], sort_keys=True)
    last = [options.model, *options.adapters, *([loaded.adapter.name] if its and its[1] else [])]  # type: ignore[union-attr]
    name = "-".join(Path(one).name.replace(":", "-") for one in dict.fromkeys(last))
    return Path("runs", f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")


def _listed(names: Names) -> list[str]:
    """Names as a list; `"de,sw"` is one, as on the command line."""
    parts = names.split(",") if isinstance(names, str) else names
    return [part.strip() for part in parts if part.strip()]


def _arguments(given: str | Mapping[str, Any] | None) -> str | None:
    return given if isinstance(given, str | None) else json.dumps(dict(given))
