"""The transformers Trainer with two objectives (section 3, "Alternate Training")."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import DynamicCache, EarlyStoppingCallback, Trainer, TrainingArguments

from xlt_bench.errors import InputError
from xlt_bench.models.hidden_states import base_model, head_at, pooled_layers, without_head
from xlt_bench.models.kv_cache import keeps_every_slot
from xlt_bench.results.run_folder import file_digest, write_json
from xlt_bench.training.batches import Batch
from xlt_bench.training.objectives.causal import causal_loss, predicting
from xlt_bench.training.objectives.contrastive import contrastive_loss
from xlt_bench.training.recipe import Alignment, Recipe

# A second forward, even of one row, costs more than this many tokens a row.
_SHORTEST_SHARED = 16


def task_loss(model: Any, batch: Batch) -> Tensor:
    """Cross-entropy on the answers; the LM head runs on the tokens before a label alone.

    What all prompts begin with runs once, for one row, and its keys and values serve the others:
    the same loss and gradient for most of MASSIVE's prompt less work. Dropout, drawn anew for each
    token, is then one draw for all rows there. Not with gradient checkpointing, which keeps no
    keys and values, nor with FSDP, where all processes have to run equal forwards.
    """
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    base = base_model(model)
    bears = keeps_every_slot(model, ids.shape[1]) and not (
        base.is_activation_checkpointing or base.is_distributed_loading_by_transformers
    )
    shared = _shared_tokens(ids, labels) if bears else 0
    cache = _prefix_cache(model, ids[:1, :shared], len(ids)) if shared else None
    with head_at(model, predicting(labels)[:, shared:]):
        output = model(
            input_ids=ids[:, shared:],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=bool(shared),
        )
    return causal_loss(output.logits, labels)


def _shared_tokens(ids: Tensor, labels: Tensor) -> int:
    """How many tokens all rows begin with, before any that predicts; 0 for too few to gain by."""
    same = (ids == ids[0]).all(0) & ~predicting(labels).any(0)
    shared = int(same.long().cumprod(0).sum())
    return shared if shared >= _SHORTEST_SHARED and len(ids) > 1 else 0


def _prefix_cache(model: Any, prefix: Tensor, rows: int) -> DynamicCache:
    """Keys and values of a prefix (1, tokens), with their gradients, for `rows` rows.

    Not through the wrapper for several processes: each of its forwards waits for the other
    processes, whose rows may share nothing. Gradients are gathered at the parameters all the same.
    """
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    cache = DynamicCache(config=base_model(model).config)
    with without_head(model):
        inner(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(rows)
    return cache


def alignment_loss(model: Any, batch: Batch, alignment: Alignment, layers: Sequence[int]) -> Tensor:
    """The contrastive loss at each of `layers`, summed.

    The forward stops at the highest layer and never reaches the LM head. `model` may be wrapped for
    several processes: what is called is the wrapper, so that gradients are shared.
    """
    mask = batch["attention_mask"]
    with without_head(model), pooled_layers(model, mask, layers) as pooled:
        model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False, logits_to_keep=1)
    losses = []
    for layer in layers:
        anchors, candidates = pooled[layer].chunk(2)
        loss = contrastive_loss(anchors, candidates, alignment.temperature, alignment.symmetric)
        losses.append(loss.to(mask.device))  # layers may lie on several devices
    return torch.stack(losses).sum()


def trained(model: Any) -> dict[str, Tensor]:
    """The adapter's weights, for peft to save.

    From a model's whole state peft would first gather every share of the base in each process.
    """
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def rate(update: int, warmup: int, stride: int) -> float:
    """The learning rate's factor at an update: transformers' inverse_sqrt of `update // stride`."""
    step = update // stride
    if step < warmup:
        return step / warmup
    timescale = warmup or 10_000
    return float(((step - warmup) / timescale + 1) ** -0.5)


class AlternatingTrainer(Trainer):
    """Trains by the micro-batches it is given; logs and evaluates each objective apart."""

    def __init__(
        self,
        recipe: Recipe,
        layers: Sequence[int],
        dev: Mapping[str, Sequence[Batch]],
        warmup: int,
        args: TrainingArguments,
        **kwargs: Any,
    ) -> None:
        # With FSDP the Trainer refuses to save an optimizer's state, which might be of shares. Ours
        # is not: the base is frozen, and each process has the whole adapter.
        args.save_only_model = recipe.training.fsdp
        super().__init__(args=args, data_collator=_only, **kwargs)
        args.save_only_model = False
        self._recipe, self._layers, self._dev, self._warmup = recipe, list(layers), dev, warmup
        self._sums = self._zeros()
        # Our losses are means of a micro-batch: the Trainer is to divide by their number.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]  # shuffled already

    def _zeros(self) -> Tensor:
        """The sum of losses and the number of micro-batches (2), by objective: task, alignment."""
        return torch.zeros(2, 2, dtype=torch.float64, device=self.args.device)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of the micro-batch's objective."""
        loss = self._loss(model, inputs)
        row = 0 if "labels" in inputs else 1
        self._sums[row] += torch.stack([loss.detach().double(), torch.ones_like(self._sums[0, 0])])
        return (loss, None) if return_outputs else loss

    def _loss(self, model: Any, batch: Batch) -> Tensor:
        if "labels" in batch:
            return task_loss(model, batch)
        assert self._recipe.alignment is not None
        return alignment_loss(model, batch, self._recipe.alignment, self._layers)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The inverse square root, counted in task updates or in all (recipe: `schedule_by`)."""
        recipe = self._recipe
        stride = recipe.updates_a_task_batch if recipe.training.schedule_by == "task" else 1
        if self.lr_scheduler is None:
            warmup = self._warmup
            self.lr_scheduler = LambdaLR(
                optimizer or self.optimizer,  # type: ignore[arg-type]
                lambda update: rate(update, warmup, stride),
            )
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each objective's loss since the last log, over all processes."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums, reduction="sum")
            for name, (total, count) in zip(("task", "alignment"), sums.tolist(), strict=True):
                if count:
                    logs[f"{name}_loss"] = total / count
            self._sums = self._zeros()
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The mean dev loss of each objective, and `eval_loss`, by which checkpoints are chosen."""
        metrics = {f"eval_{name}_loss": self._dev_loss(rows) for name, rows in self._dev.items()}
        first = metrics.get("eval_task_loss", metrics.get("eval_alignment_loss"))
        both = self._recipe.training.select_on == "both"
        metrics["eval_loss"] = sum(metrics.values()) if both else float(first or 0)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @torch.no_grad()
    def _dev_loss(self, batches: Sequence[Batch]) -> float:
        """Processes take the batches in turns; the mean over batches is the same for any number.

        With FSDP they run each forward together: where too few are left, the last is run again.
        """
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for first in range(0, len(batches), self.args.world_size):
            mine = first + self.args.process_index
            counts = mine < len(batches)
            inputs = self._prepare_inputs(batches[mine if counts else -1])
            with self.compute_loss_context_manager():
                loss = self._loss(model, inputs).double()
            total += torch.stack([loss, torch.ones_like(loss)]) * counts
        total = self.accelerator.reduce(total, reduction="sum")
        model.train()
        return float(total[0] / total[1])

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, trained(self.model))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's checkpoint and, when all processes have written theirs, its digests."""
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        with saving(folder):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            seal(folder)


# The last file of a checkpoint: sha256 of each of its others.
DIGESTS = "files.json"


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): file_digest(path) for path in files if path.name != DIGESTS
    }


def seal(checkpoint: Path) -> None:
    """Write down what a checkpoint's files are."""
    write_json(checkpoint / DIGESTS, _digests(checkpoint))


def is_whole(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint are as they were written."""
    try:
        stated = json.loads((checkpoint / DIGESTS).read_text(encoding="utf-8"))
        return bool(stated == _digests(checkpoint))
    except (OSError, ValueError):
        return False


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Turn what torch and safetensors raise where a disk is full into an InputError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, SafetensorError) as error:
        line = str(error).strip().split("\n")[0]
        raise InputError(
            f"{folder} cannot be written ({line}); with room on the disk, run the same command "
            "again: it goes on from the last checkpoint"
        ) from None


class Patience(EarlyStoppingCallback):
    """Early stopping that a kill after the last evaluation does not undo."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop at once where the checkpoint that training goes on from had lost patience."""
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


def _only(rows: list[Batch]) -> Batch:
    """A loader's row is a micro-batch already."""
    return rows[0]
