"""Trains a recipe's adapter on a base model; the work of `xlt-bench train`.

OUTPUT/training.json              what is trained: recipe, base model, data; no other training may
                                  use the folder
OUTPUT/checkpoints/checkpoint-N/  the Trainer's checkpoints, removed when the training is finished
OUTPUT/adapter_model.safetensors, adapter_config.json, README.md    the best checkpoint's adapter
OUTPUT/log.jsonl                  losses of each objective, one JSON line for each time of logging
OUTPUT/files.json                 sha256 of the weights, by which a damaged adapter is noticed
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from xlt_bench.data.root import data_root
from xlt_bench.distributed import meeting, rank, world_size
from xlt_bench.errors import InputError
from xlt_bench.models.adapters import CONFIG, WEIGHTS, install
from xlt_bench.models.chat import given_template, set_chat_template
from xlt_bench.models.hidden_states import count_layers
from xlt_bench.models.hub import COMMIT
from xlt_bench.models.load import Base, load_base
from xlt_bench.results.atomic_write import in_use, is_part, locked, remove_abandoned
from xlt_bench.results.run_folder import file_digest, write_bytes, write_json
from xlt_bench.training.batches import Data, encode_data
from xlt_bench.training.card import card
from xlt_bench.training.corpus import notes
from xlt_bench.training.objectives import objectives_of, overlaps_of, read_texts
from xlt_bench.training.overlap import notes as overlap_notes
from xlt_bench.training.recipe import Recipe
from xlt_bench.training.trainer import (
    DIGESTS,
    AlternatingTrainer,
    Patience,
    is_whole,
    saving,
    seal,
    trained,
)


@dataclass(frozen=True)
class TrainOptions:
    """The options of `xlt-bench train`."""

    recipe_name: str
    recipe: Recipe
    model: str
    output: Path
    data_dir: str | None = None
    chat_template: str | None = None
    report_to: Sequence[str] = ()
    trust_remote_code: bool = False


def train(options: TrainOptions, texts: Mapping[str, Any] | None = None) -> Path:
    """Train the recipe's adapter; an interrupted training resumes from its last checkpoint.

    Args:
        options: What to train, and where.
        texts: What `read_texts` returned, if the caller has read them (before importing torch).

    Returns:
        The adapter's folder.

    Raises:
        InputError: If data are missing, a layer is beyond the model, or the folder holds another
            training or is in use by another process.
    """
    _check_processes(options.recipe)
    _check_reporting(options.report_to)
    # accelerate connects processes that have a LOCAL_RANK, even a single one.
    with (
        meeting() if "LOCAL_RANK" in os.environ else nullcontext(),
        in_use(options.output) if rank() == 0 else nullcontext(),
    ):
        return _train(options, texts)


def _train(options: TrainOptions, texts: Mapping[str, Any] | None) -> Path:
    recipe, output = options.recipe, options.output
    if recipe.training.fsdp:  # the outputs of an alignment forward are not used
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    root = data_root(options.data_dir)
    texts = texts or read_texts(root, recipe)
    base = load_base(options.model, _dtype(recipe), _device(recipe), options.trust_remote_code)
    template = set_chat_template(base.tokenizer, options.chat_template)
    for objective in objectives_of(recipe).values():
        objective.check(count_layers(base.model))
    data = encode_data(texts, recipe, base.tokenizer)
    identity: dict[str, Any] = {
        "recipe": recipe.identity,
        "model_sha256": base.sha256 or f"{base.repository}@{base.revision}",
        "template_sha256": template.sha256,
        "data": data.digests,
    }
    if options.trust_remote_code:  # only then, since there are folders older than the option
        identity["trust_remote_code"] = True
    arguments = _arguments(options, bool(data.dev))
    if arguments.n_gpu > 1:  # otherwise the Trainer would use DataParallel
        arguments._n_gpu = 1
    with arguments.main_process_first(local=False):
        with locked(output):  # of two trainings that start at once, one sees the other's identity
            finished = _open(output, identity, recipe)
        checkpoint = None if finished else _last_checkpoint(output)
    if finished:
        return output
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(output / "tensorboard"))
    overlap = overlaps_of(root, recipe, texts) if rank() == 0 else {}
    for line in [*notes(data.counts), *overlap_notes(overlap)] if rank() == 0 else []:
        print(f"note: {line}", file=sys.stderr)
    trainer = _trainer(options, arguments, base, data)
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        _finish(options, base, trainer, data, overlap)
    trainer.accelerator.wait_for_everyone()
    return output


def _device(recipe: Recipe) -> str:
    """The device to load the base model to; the Trainer moves it from the CPU."""
    return "fsdp" if recipe.training.fsdp else recipe.training.device_map or "cpu"


def _check_processes(recipe: Recipe) -> None:
    """Raise InputError for a recipe that does not suit the number of processes."""
    if world_size() > 1 and "LOCAL_RANK" not in os.environ:
        raise InputError("training with several processes needs LOCAL_RANK: run it under torchrun")
    if recipe.training.fsdp and world_size() == 1:
        raise InputError("training.fsdp shards a model over processes: run it under torchrun")
    if recipe.training.device_map and world_size() > 1:
        raise InputError("training.device_map uses all GPUs: run it without torchrun")
    if recipe.micro_batches % world_size():
        raise InputError(
            f"the {recipe.micro_batches} micro-batches of an update must be a multiple of the "
            f"{world_size()} processes; change training.batch_size or training.micro_batch_size"
        )


def _check_reporting(names: Sequence[str]) -> None:
    """Raise InputError for a reporter that is unknown to transformers or not installed."""
    try:
        for callback in get_reporting_integration_callbacks(list(names)):  # type: ignore[no-untyped-call]
            callback()
    except (ValueError, RuntimeError, ImportError) as error:
        raise InputError(f"--report-to: {str(error).splitlines()[0]}") from None


def _bf16(recipe: Recipe) -> bool:
    if recipe.training.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return recipe.training.precision == "bfloat16"


def _dtype(recipe: Recipe) -> str:
    return "bfloat16" if _bf16(recipe) else "float32"


def _open(output: Path, identity: dict[str, Any], recipe: Recipe) -> bool:
    """Create the folder, or check that it holds this training; returns whether it is finished."""
    path = output / "training.json"
    remove_abandoned(part for part in output.glob(".*") if is_part(part))
    if path.exists():
        try:
            old = _completed(json.loads(path.read_text(encoding="utf-8")), recipe)
        except ValueError:
            raise InputError(f"{path} is not valid JSON; choose another --output") from None
        if difference := _difference(old, identity):
            _check_commit(output, str(old.get("model_sha256")), identity["model_sha256"])
            raise InputError(
                f"{output} holds another training ({difference} differs); choose another --output"
            )
        if finished := (output / WEIGHTS).exists():
            _check_weights(output)
            shutil.rmtree(output / "checkpoints", ignore_errors=True)
        return finished
    if output.exists() and not all(is_part(part) for part in output.iterdir()):
        raise InputError(f"{output} is not empty and not a training; choose another --output")
    write_json(path, identity)
    return False


def _completed(identity: Any, recipe: Recipe) -> Any:
    """A folder's identity with the defaults of the recipe's keys that are newer than the folder."""
    try:
        settings = {"title": "", **identity["recipe"]}
        return identity | {"recipe": type(recipe).model_validate(settings).identity}
    except (TypeError, KeyError, ValueError):  # not a training's, or of a newer release
        return identity


def _check_commit(output: Path, old: str, new: str) -> None:
    """Raise InputError if two base models are of one repository, `name@commit`, at two commits."""
    (repo, _, before), (name, _, commit) = old.partition("@"), new.partition("@")
    if repo == name and before != commit and COMMIT.fullmatch(before):
        raise InputError(
            f"{output} was started on commit {before} of {repo}, and would continue on commit "
            f"{commit}; pass --model {old}, or choose another --output"
        )


def _check_weights(output: Path) -> None:
    """Raise InputError if the finished adapter is not as it was written."""
    path = output / DIGESTS
    try:
        sound = json.loads(path.read_bytes()) == {WEIGHTS: file_digest(output / WEIGHTS)}
    except FileNotFoundError:
        return  # from a version that wrote no digests
    except ValueError:
        sound = False
    if not sound:
        raise InputError(
            f"{output / WEIGHTS} does not match {path.name}: one of them is damaged; choose "
            "another --output to train again"
        )


def _difference(old: Any, new: Any, where: str = "") -> str:
    """The first key, dotted, in which two nested dictionaries differ; empty if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(set(old) - set(new))]:
            if found := _difference(old.get(key), new.get(key), f"{where}.{key}".lstrip(".")):
                return found
        return ""
    return where if old != new else ""


def _last_checkpoint(output: Path) -> str | None:
    """Find the newest checkpoint that is complete and whose best checkpoint is complete too.

    Later ones are removed: the Trainer would fail on them, or finish without the best weights.
    """
    found = sorted(
        (output / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:])
    )
    for path in reversed(found):
        file = path / "trainer_state.json"
        if is_whole(path):
            state = json.loads(file.read_text(encoding="utf-8"))
            best = state["best_model_checkpoint"]
            here = best and str(output / "checkpoints" / Path(best).name)
            if best is None or is_whole(Path(here)):
                if here != best:  # the folder has been moved
                    write_json(file, state | {"best_model_checkpoint": here})
                    seal(path)
                return str(path)
        shutil.rmtree(path, ignore_errors=True)
    return None


def adapted(base: Base, recipe: Recipe, fast: bool = True) -> Any:
    """Put the recipe's LoRA into a model.

    Args:
        base: The model.
        recipe: The recipe.
        fast: With our module on linear layers, which computes what peft's does in less time.

    Returns:
        The PeftModel.

    Raises:
        InputError: If the recipe's targets do not fit the model.
    """
    from peft import LoraConfig, get_peft_model

    from xlt_bench.training.lora_linear import LoraLinear

    config = LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=recipe.lora.targets,
        task_type="CAUSAL_LM",
    )
    # peft has modules of its own for quantized layers.
    if fast and getattr(base.model, "hf_quantizer", None) is None:
        config._register_custom_module({torch.nn.Linear: LoraLinear})
    torch.manual_seed(recipe.training.seed)
    try:
        return get_peft_model(base.model, config)
    except ValueError as error:
        line = str(error).split(". ")[0]
        if "lora_dropout" in line:
            raise InputError(
                f"{base.name} has its experts in one tensor, on which a LoRA cannot have dropout: "
                "set lora.dropout to 0, or leave them out of lora.targets"
            ) from None
        raise InputError(f"lora.targets do not match {base.name}: {line}") from None


def _trainer(
    options: TrainOptions, arguments: TrainingArguments, base: Base, data: Data
) -> AlternatingTrainer:
    recipe = options.recipe
    counted = recipe.updates_a_task_batch if recipe.training.schedule_by == "task" else 1
    return AlternatingTrainer(
        recipe=recipe,
        dev=data.dev,
        warmup=ceil(recipe.training.warmup_ratio * data.updates / counted),
        model=adapted(base, recipe),
        args=arguments,
        train_dataset=data.train,
        eval_dataset=[batch for batches in data.dev.values() for batch in batches] or None,
        callbacks=[Patience(recipe.training.patience)] if data.dev else [],
    )


def _arguments(options: TrainOptions, has_dev: bool) -> TrainingArguments:
    """The Trainer's settings; an item of the data set is a whole micro-batch."""
    training = options.recipe.training
    return TrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=options.recipe.micro_batches // world_size(),
        num_train_epochs=1,
        learning_rate=training.learning_rate,
        weight_decay=0.0,
        max_grad_norm=1.0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        bf16=_bf16(options.recipe),
        activation_checkpointing=training.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        eval_strategy="steps" if has_dev else "no",
        eval_steps=training.eval_steps,
        save_strategy="steps",
        save_steps=training.eval_steps,
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=has_dev,
        metric_for_best_model="eval_loss" if has_dev else None,
        greater_is_better=False if has_dev else None,
        logging_steps=max(1, min(10, training.eval_steps)),
        report_to=list(options.report_to) or "none",
        seed=training.seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=not all(
            objective.reaches_every_weight for objective in objectives_of(options.recipe).values()
        ),
        remove_unused_columns=False,
        label_names=[],
        disable_tqdm=False,
    )


def _finish(
    options: TrainOptions,
    base: Base,
    trainer: AlternatingTrainer,
    data: Data,
    overlap: Mapping[str, int],
) -> None:
    """Write the adapter, its card and the log; the weights last, since they mark the end."""
    output = options.output
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not all(value.isfinite().all() for value in trained(model).values()):
        raise InputError(
            "the trained weights are not finite; lower training.learning_rate or check the base "
            "model's weights, and choose another --output"
        )
    staging = output / "checkpoints" / "final"
    with saving(staging):
        model.save_pretrained(staging, state_dict=trained(model))
    # Set after saving, since peft would look for the name on the hub.
    config = json.loads((staging / CONFIG).read_text(encoding="utf-8"))
    named = {"base_model_name_or_path": base.repository, "revision": base.revision}
    write_json(staging / CONFIG, config | named)
    # The Trainer's own mean covers only the time since it was last started.
    history = [
        {key: value for key, value in row.items() if key != "train_loss"}
        for row in trainer.state.log_history
    ]
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in history)
    write_bytes(output / "log.jsonl", lines.encode())
    text = card(
        options.recipe_name, options.recipe, base, data.digests, data.counts, overlap, history
    )
    write_bytes(output / "README.md", text.encode())
    write_json(output / DIGESTS, {WEIGHTS: file_digest(staging / WEIGHTS)})
    install(staging, output, given_template(options.chat_template))
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
