"""The transformers Trainer, with a loss of its own for each objective, and whole checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from xlt_bench.errors import InputError
from xlt_bench.results.run_folder import file_digest, write_json
from xlt_bench.training.batches import Batch, MicroBatches
from xlt_bench.training.gradient_cosine import cosines, gradient
from xlt_bench.training.objectives import objectives_of
from xlt_bench.training.recipe import Recipe


def trained(model: Any) -> dict[str, Tensor]:
    """Select the adapter's weights for peft to save.

    Given the whole state, peft would first gather the sharded base in each process.

    Args:
        model: The adapted model.

    Returns:
        The trained parameters by name.
    """
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def rate(update: int, warmup: int, stride: int) -> float:
    """Compute the learning rate's factor as transformers' `inverse_sqrt` schedule does.

    Args:
        update: The update, from 0.
        warmup: Steps of linear warm-up.
        stride: Updates of a step of the schedule.

    Returns:
        The factor of the highest learning rate, 0 to 1.
    """
    step = update // stride
    if step < warmup:
        return step / warmup
    timescale = warmup or 10_000
    return float(((step - warmup) / timescale + 1) ** -0.5)


class AlternatingTrainer(Trainer):
    """Trains on micro-batches in their order; logs and evaluates each objective separately.

    Each micro-batch names its objective, whose loss is looked up. Micro-batches alternate between
    objectives as they were laid out (section 3, "Alternate Training").

    Args:
        recipe: The recipe.
        dev: The dev micro-batches of each objective.
        warmup: Updates until the highest learning rate, counted as `schedule_by` says.
        args: The Trainer's settings.
        **kwargs: What else `transformers.Trainer` takes.
    """

    def __init__(
        self,
        recipe: Recipe,
        dev: Mapping[str, Sequence[Batch]],
        warmup: int,
        args: TrainingArguments,
        **kwargs: Any,
    ) -> None:
        # With FSDP the Trainer refuses to save optimizer states, since they might be sharded. Ours
        # are not: the base is frozen, and every process has the whole adapter.
        args.save_only_model = recipe.training.fsdp
        super().__init__(args=args, data_collator=_only, **kwargs)
        args.save_only_model = False
        self._recipe, self._dev, self._warmup = recipe, dev, warmup
        self._objectives = objectives_of(recipe)
        self._names = list(self._objectives)
        self._sums = self._zeros()
        # Our losses are means over a micro-batch, so the Trainer must divide by their number.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]  # shuffled already

    def _zeros(self) -> Tensor:
        """Sum of losses and number of micro-batches, a row for each objective: (objectives, 2)."""
        size = (len(self._names), 2)
        return torch.zeros(size, dtype=torch.float64, device=self.args.device)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Compute the loss of the micro-batch's objective, and add it to the sums for the log."""
        loss = self._loss(model, cast(Batch, inputs))
        row = self._names.index(inputs["objective"])
        self._sums[row] += torch.stack([loss.detach().double(), torch.ones_like(self._sums[0, 0])])
        return (loss, None) if return_outputs else loss

    def _loss(self, model: Any, batch: Batch) -> Tensor:
        return self._objectives[batch["objective"]].loss(model, batch["tensors"])

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count a micro-batch's operations; the Trainer looks for `input_ids` at the top."""
        return super().floating_point_ops(inputs["tensors"])

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Create the inverse square root schedule, counted as the recipe's `schedule_by` says."""
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
        """Log with each objective's mean loss since the last log, over all processes."""
        if "loss" in logs:
            logs.update({f"{name}_loss": loss for name, loss in self._mean_losses().items()})
            self._sums = self._zeros()
            if self._recipe.training.log_gradient_cosine:
                logs.update(self._gradient_cosines())
        super().log(logs, start_time)

    def _mean_losses(self) -> dict[str, float]:
        """Each objective's mean loss since the last log, over all processes.

        Raises InputError if one is not finite: the update has then made every weight NaN.
        """
        sums = self.accelerator.reduce(self._sums, reduction="sum")
        means = {
            name: total / count
            for name, (total, count) in zip(self._names, sums.tolist(), strict=True)
            if count
        }
        for name, loss in means.items():
            self._check_finite(f"{name} loss", loss)
        return means

    def _gradient_cosines(self) -> dict[str, float]:
        """The cosines of the objectives' gradients, each of its next micro-batch, if there is one.

        No update has used these micro-batches yet.
        """
        rows, turn = cast(MicroBatches, self.train_dataset), self._recipe.micro_batches
        first = self.state.global_step * turn
        model, weights = (
            self.accelerator.unwrap_model(self.model),
            list(trained(self.model).values()),
        )
        gradients: dict[str, Tensor] = {}
        for number in range(first, min(first + len(self._names) * turn, len(rows))):
            name = self._recipe.objective_of(number)
            if name not in gradients:
                batch = cast(Batch, self._prepare_inputs(dict(rows[number])))
                with self.compute_loss_context_manager():
                    gradients[name] = gradient(partial(self._loss, model, batch), weights)
        return cosines(gradients)

    def _check_finite(self, what: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"the {what} is not finite by update {self.state.global_step}; lower "
                "training.learning_rate or check the base model's weights, and choose another "
                "--output"
            )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Compute each objective's mean dev loss, and `eval_loss`, which selects the checkpoint."""
        metrics = {f"eval_{name}_loss": self._dev_loss(rows) for name, rows in self._dev.items()}
        for name in self._dev:
            self._check_finite(f"{name} dev loss", metrics[f"eval_{name}_loss"])
        chosen = list(metrics.values())
        if self._recipe.training.select_on == "task":
            chosen = chosen[:1]  # the first objective's; alignment's if there is no task
        metrics["eval_loss"] = sum(chosen)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @torch.no_grad()
    def _dev_loss(self, batches: Sequence[Batch]) -> float:
        """The mean over dev batches, which the processes share; the same for any number of them.

        With FSDP all processes run each forward together, so a process without a batch of its own
        runs the last one again, and does not count it.
        """
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for first in range(0, len(batches), self.args.world_size):
            mine = first + self.args.process_index
            counts = mine < len(batches)
            batch = self._prepare_inputs(dict(batches[mine if counts else -1]))
            with self.compute_loss_context_manager():
                loss = self._loss(model, cast(Batch, batch)).double()
            total += torch.stack([loss, torch.ones_like(loss)]) * counts
        total = self.accelerator.reduce(total, reduction="sum")
        model.train()
        return float(total[0] / total[1])

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, trained(self.model))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save the Trainer's checkpoint and, when every process has written its part, digests."""
        self._mean_losses()  # a checkpoint of NaN weights would be resumed from for ever
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        with saving(folder):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            seal(folder)


# Written last in a checkpoint: the sha256 of each of its other files.
DIGESTS = "files.json"


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): file_digest(path) for path in files if path.name != DIGESTS
    }


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as complete, by the digests of its files.

    Args:
        checkpoint: Its folder, in which `files.json` is written.
    """
    write_json(checkpoint / DIGESTS, _digests(checkpoint))


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete and all its files are as they were written.

    Args:
        checkpoint: Its folder.
    """
    try:
        stated = json.loads((checkpoint / DIGESTS).read_text(encoding="utf-8"))
        return bool(stated == _digests(checkpoint))
    except (OSError, ValueError):
        return False


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Turn what torch and safetensors raise on a full disk into an InputError.

    Args:
        folder: The folder that the body writes, for the message.

    Raises:
        InputError: If writing failed.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, SafetensorError) as error:
        line = str(error).strip().split("\n")[0]
        raise InputError(
            f"{folder} cannot be written ({line}); free disk space, then run the same command to "
            "resume from the last checkpoint"
        ) from None


class Patience(EarlyStoppingCallback):
    """Early stopping that still stops if the training is killed after the last evaluation."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop at once if the checkpoint was saved when patience had run out."""
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


def _only(rows: list[Any]) -> Any:
    """Collate nothing: a row of the data set is a whole micro-batch."""
    return rows[0]
