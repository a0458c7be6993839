"""Trains, merges and steers from Python."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlt_bench.api.quiet import no_loading_bars, quiet


def train(
    recipe: str | Path,
    model: str | Path,
    output: str | Path,
    *,
    changes: Mapping[str, Any] | Sequence[str] = (),
    chat_template: str | None = None,
    report_to: str | Sequence[str] = (),
    trust_remote_code: bool = False,
    data_dir: str | Path | None = None,
) -> Path:
    """Train an adapter with a recipe; the same call resumes after an interruption.

    Args:
        recipe: A recipe's name (`xlt-bench recipes`) or YAML file.
        model: Base model: a folder or hub name.
        output: Adapter folder.
        changes: Changed settings, such as `{"training.seed": 2}`, or `["training.seed=2"]`.
        chat_template: `tokenizer`, `plain`, `llama3-midalign` or a Jinja file.
        report_to: Where the Trainer logs: `tensorboard`, `wandb`, ...
        trust_remote_code: Run Python code that ships with the model.
        data_dir: Folder of the data sets, or `mini`. None: $XLT_BENCH_DATA, or the user's cache.

    Returns:
        The adapter folder.

    Raises:
        InputError: The recipe is invalid, data are missing, or `output` holds another training.
    """
    with quiet():
        from xlt_bench.data.root import data_root
        from xlt_bench.models.chat import given_template
        from xlt_bench.models.validate_names import check_model
        from xlt_bench.results.run_folder import check_place
        from xlt_bench.training.objectives import read_texts
        from xlt_bench.training.recipe import load_recipe

        loaded, place = load_recipe(str(recipe), _assigned(changes)), Path(output)
        folder = _name(data_dir)
        check_model(str(model))
        given_template(chat_template)
        check_place(place)
        texts = read_texts(data_root(folder), loaded)
        from xlt_bench.training.run import TrainOptions
        from xlt_bench.training.run import train as run

        options = TrainOptions(
            recipe_name=str(recipe),
            recipe=loaded,
            model=str(model),
            output=place,
            data_dir=folder,
            chat_template=chat_template,
            report_to=[report_to] if isinstance(report_to, str) else report_to,
            trust_remote_code=trust_remote_code,
        )
        with no_loading_bars():
            return run(options, texts)


def merge(
    task: str | Path,
    output: str | Path,
    alignment: str | Path | None = None,
    *,
    reference_source: str | Path | None = None,
    reference_target: str | Path | None = None,
    weight: float | None = None,
    weights: Sequence[float] = (),
    alignment_blocks: Sequence[str] = (),
    task_blocks: Sequence[str] = (),
    transition: int = 0,
    select_on: str | None = None,
    model: str | Path | None = None,
    combination: str = "cat",
    limit: int | None = None,
    chat_template: str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    data_dir: str | Path | None = None,
) -> Path:
    """Merge a task adapter with an alignment adapter, or two of a reference task, into one.

    Args:
        task: Task adapter: a folder or hub name.
        output: Folder of the merged adapter; its card has the scores of what was tried.
        alignment: Alignment adapter.
        reference_source: AdaMergeX: adapter of a reference task in the task adapter's languages.
        reference_target: AdaMergeX: adapter of that task in the target languages.
        weight: Weight of the task adapter, 0 to 1. None: 0.9, the paper's; with references 1.
        weights: Weights to try instead; the best on dev is kept.
        alignment_blocks: Swap layers: blocks of the alignment adapter, such as `["5-12"]`, the rest
            of the task adapter; several are tried on dev.
        task_blocks: The same with blocks of the task adapter.
        transition: Blocks on each side of a range that mix.
        select_on: What selects among those tried, as in `xlt-bench merge --select-on`.
        model: Base model. None: the one that the adapters name.
        combination: As in peft: `cat` (the exact sum), `svd` or `linear`.
        limit: Only the first dev items of each language.
        chat_template: The one that the task adapter was trained with.
        device: `cpu`, `cuda`, ...; None: CUDA if there is a GPU.
        trust_remote_code: Run Python code that ships with the model.
        data_dir: Folder of the data sets, or `mini`. None: $XLT_BENCH_DATA, or the user's cache.

    Returns:
        The folder of the merged adapter.

    Raises:
        InputError: The adapters cannot be added, or `output` is not empty.
    """
    with quiet(), no_loading_bars():
        from xlt_bench.training.merge import MergeOptions
        from xlt_bench.training.merge import merge as run

        options = MergeOptions(
            task=str(task),
            alignment=_name(alignment),
            output=Path(output),
            weights=list(weights) or ([] if weight is None else [weight]),
            reference_source=_name(reference_source),
            reference_target=_name(reference_target),
            alignment_blocks=list(alignment_blocks),
            task_blocks=list(task_blocks),
            transition=transition,
            select_on=select_on,
            model=_name(model),
            combination=combination,
            limit=limit,
            chat_template=chat_template,
            device=device,
            data_dir=_name(data_dir),
            trust_remote_code=trust_remote_code,
        )
        run(options)
    return Path(output)


def steer(
    output: str | Path,
    model: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    layer: float = 0.5,
    languages: str | Sequence[str] = (),
    corpus: str = "flores-devtest",
    scale: float = 1.0,
    dtype: str = "auto",
    device: str | None = None,
    batch_size: int | str = "auto",
    trust_remote_code: bool = False,
    data_dir: str | Path | None = None,
) -> Path:
    """Compute vectors that steer a model from each language towards English, without training.

    Args:
        output: Folder of the vectors, the `adapter` of `evaluate`.
        model: Base model: a folder or hub name. None: the one that the adapter names.
        adapter: Steer the model with this adapter, which is copied. None: the bare model.
        layer: Decoder block, an int from 1, or a share of all blocks, such as 0.5.
        languages: Languages that get a vector. Empty: all that the benchmark ranks.
        corpus: Parallel sentences: `flores-devtest` or `ntrex`.
        scale: What the vectors are multiplied by.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: `cpu`, `cuda`, ...; None: CUDA if there is a GPU.
        batch_size: A number, or `auto`.
        trust_remote_code: Run Python code that ships with the model.
        data_dir: Folder of the data sets. None: $XLT_BENCH_DATA, or the user's cache.

    Returns:
        The folder.

    Raises:
        InputError: An option is wrong, data are missing, or `output` is not empty.
    """
    with quiet(), no_loading_bars():
        from xlt_bench.training.steer import SteerOptions
        from xlt_bench.training.steer import steer as run

        options = SteerOptions(
            output=Path(output),
            model=_name(model),
            adapter=_name(adapter),
            layer=layer,
            languages=languages.split(",") if isinstance(languages, str) else languages,
            corpus=corpus,
            scale=scale,
            dtype=dtype,
            device=device,
            batch_size=str(batch_size),
            trust_remote_code=trust_remote_code,
            data_dir=_name(data_dir),
        )
        made = run(options)
    for note in made.notes:
        warnings.warn(note, stacklevel=2)
    return Path(output)


def _name(given: str | Path | None) -> str | None:
    return None if given is None else str(given)


def _assigned(changes: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Changes as `key=value`, the form of the command line's --set, whose values are YAML."""
    if not isinstance(changes, Mapping):
        return list(changes)
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
