"""`TransferCallback`: measures transfer while any transformers Trainer trains."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from xlt_bench.api.quiet import quiet
from xlt_bench.data.flores import Corpus
from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError
from xlt_bench.languages import language
from xlt_bench.metrics.retrieval import accuracy, all_pairs
from xlt_bench.models.adapter_switch import Saved
from xlt_bench.models.chat import set_chat_template
from xlt_bench.models.hidden_states import count_layers
from xlt_bench.models.lm import XltLM
from xlt_bench.tasks import retrieval
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_text_task

METRIC = "eval_transfer"
"""The logged number that `patience` and `metric_for_best_model` use."""


class TransferCallback(TrainerCallback):
    """Measures retrieval and a few items of tasks every N updates, and logs them.

    They go wherever the Trainer's `report_to` does, as `eval_transfer_<task>_<unit>`,
    `eval_transfer_retrieval_layer_<n>`, `eval_transfer_seconds` (of this measurement) and
    `eval_transfer`: the mean over the units of each task that are not supervised, and then over
    tasks; without tasks, the mean over layers. Weights, random numbers and modes are what they
    were, so the training arrives at the same weights.

    Each measurement at an evaluation of the Trainer is also among that evaluation's metrics:
    `TrainingArguments(metric_for_best_model="eval_transfer", load_best_model_at_end=True)` keeps
    the checkpoint that transfers best.

    Every process measures all, so that sharded models work and processes agree when to stop.
    """

    def __init__(
        self,
        trainer: Any,
        *,
        every: int,
        languages: Sequence[str],
        layers: Sequence[int] = (),
        sentences: int = 100,
        tasks: Sequence[str] = (),
        items: int = 8,
        patience: int | None = None,
        corpus: str | Path | None = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        batch_size: int | str = "auto",
        data_dir: str | Path | None = None,
    ) -> None:
        """Read all items; add the callback with `trainer.add_callback`.

        Args:
            trainer: The Trainer, whose `log` is called.
            every: Updates between measurements.
            languages: At least two for retrieval, such as `["en", "de", "sw"]`; one will do for
                tasks alone.
            layers: Layers for retrieval, from 1. Empty: the middle one.
            sentences: Sentences of a language for retrieval; 0 for none.
            tasks: Text tasks, of which the validation split is used.
            items: Items of a unit.
            patience: Stop after so many measurements without a better `eval_transfer`.
            corpus: Folder of parallel text for retrieval. None: FLORES dev, which the benchmark's
                retrieval ranks, so that what is selected on it scores too high there.
            tokenizer: The tokenizer. None: the Trainer's.
            chat_template: As for `evaluate`. None: the tokenizer's, or `plain`.
            batch_size: A number, or `auto`.
            data_dir: Folder of the data sets. None: $XLT_BENCH_DATA, or the user's cache.

        Raises:
            InputError: An argument is invalid, or data are missing.
        """
        if every < 1:
            raise InputError(f"every must be at least 1, not {every}")
        self._trainer, self._every, self._patience = trainer, every, patience
        self._batch_size, root = batch_size, data_root(data_dir)
        codes = list(dict.fromkeys(language(name).code for name in languages))
        self._items = {task: _validation(task, codes, root, items) for task in tasks}
        self._sentences = {}
        if sentences:
            if len(codes) < 2:
                raise InputError("retrieval needs at least two languages; or set sentences=0")
            source = Corpus(root, Path(corpus) if corpus is not None else None)
            read = {code: retrieval.TASK.load_from(source, code) for code in codes}
            self._sentences = {code: rows[:sentences] for code, rows in read.items()}
        elif not tasks:
            raise InputError("nothing to measure: give tasks, or sentences for retrieval")
        given = trainer.processing_class if tokenizer is None else tokenizer
        if given is None:
            raise InputError(
                "the Trainer has no processing_class: give the tokenizer to the Trainer "
                "(processing_class=) or to TransferCallback (tokenizer=)"
            )
        self._tokenizer = copy.deepcopy(getattr(given, "tokenizer", given))
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._template_args = set_chat_template(self._tokenizer, chat_template).args
        depth = count_layers(trainer.model)
        self._layers = sorted(set(layers)) or [max(1, depth // 2)]
        if odd := [layer for layer in self._layers if not 1 <= layer <= depth]:
            raise InputError(f"layer {odd[0]} does not exist: the model has layers 1 to {depth}")
        self._last: tuple[int, dict[str, float]] | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure every N updates; stop if patience has run out."""
        if state.global_step % self._every == 0:
            asked = control.should_log
            self._measured(state)
            control.should_log = asked  # the Trainer's own log is still to come
            if self._patience is not None and _stale(state) >= self._patience:
                control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the measurement to an evaluation's metrics, from which the Trainer selects."""
        kwargs["metrics"].update(self._measured(state))

    def _measured(self, state: Any) -> dict[str, float]:
        """The measurement at this update, which is made and logged once."""
        if self._last is None or self._last[0] != state.global_step:
            started = time.perf_counter()
            with _as_it_was(self._trainer.model), self._trainer.accelerator.autocast():
                with quiet():
                    found = self.measure(self._trainer.model)
                found["eval_transfer_seconds"] = time.perf_counter() - started
                # In eval mode: TRL's trainers then leave their own means of training alone.
                self._trainer.log(dict(found))
            self._last = state.global_step, found
        return self._last[1]

    def measure(self, model: Any) -> dict[str, float]:
        """Measure a model.

        Args:
            model: The model in eval mode, with or without an adapter.

        Returns:
            What is logged, without the seconds; scores are 0 to 100.
        """
        lm = XltLM(pretrained=model, tokenizer=self._tokenizer, batch_size=self._batch_size)
        lm.chat_template_args = self._template_args
        layers = self._retrieved(lm)
        tasks = {task: _scores(lm, task, by_unit) for task, by_unit in self._items.items()}
        chosen = [_transfer(task, by_unit) for task, by_unit in tasks.items()]
        return {
            METRIC: float(np.mean(chosen or list(layers.values()))),
            **{f"{METRIC}_retrieval_layer_{layer}": value for layer, value in layers.items()},
            **{
                f"{METRIC}_{t}_{u}": value
                for t, units in tasks.items()
                for u, value in units.items()
            },
        }

    def _retrieved(self, lm: XltLM) -> dict[int, float]:
        """The mean accuracy over all ordered pairs of languages, by layer."""
        if not self._sentences:
            return {}
        states = {
            code: lm.sentence_states(rows, self._layers) for code, rows in self._sentences.items()
        }
        found = {}
        for i, layer in enumerate(self._layers):
            pairs = all_pairs({code: one[:, i] for code, one in states.items()})
            found[layer] = float(np.mean([accuracy(answers) for answers in pairs.values()]))
        return found


def _validation(task: str, codes: Sequence[str], root: Path, most: int) -> dict[str, list[Item]]:
    """The first validation items of the units of a task in some languages."""
    text_task = get_text_task(task)
    units = [unit for unit in text_task.choose(codes) if "validation" in text_task.splits(unit)]
    found = {unit: text_task.load(root, unit, "validation")[:most] for unit in units}
    if not any(found.values()):
        raise InputError(
            f"{task} has no validation items in {' '.join(codes)}; choose other tasks or languages"
        )
    return {unit: rows for unit, rows in found.items() if rows}


def _scores(lm: XltLM, task: str, by_unit: dict[str, list[Item]]) -> dict[str, float]:
    text_task = get_text_task(task)
    metric, found = text_task.metric(text_task.primary), {}
    for unit, items in by_unit.items():
        prompts = [lm.apply_chat_template(item.messages) for item in items]
        answers = [one.text for one in lm.generate(prompts, text_task.max_new_tokens)]
        counts = text_task.count(items, answers, text_task.test_set())
        found[unit] = metric(counts[text_task.primary])
    return found


def _transfer(task: str, by_unit: dict[str, float]) -> float:
    """The mean over the units that are not supervised; over all if there are no others."""
    test_set = get_text_task(task).test_set()
    chosen = [v for unit, v in by_unit.items() if test_set.setting(unit) != "supervised"]
    return float(np.mean(chosen or list(by_unit.values())))


def _stale(state: Any) -> int:
    """Count the measurements since the best, from the log, which checkpoints keep."""
    values = [row[METRIC] for row in state.log_history if f"{METRIC}_seconds" in row]
    return len(values) - 1 - int(np.argmax(values)) if values else 0


@contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Put a model into eval mode, and afterwards back: modules, modes and random numbers."""
    saved = Saved(model)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            model.eval()
            yield
    finally:
        saved.restore()
