"""What TransferCallback costs: its seconds, and their share of the updates between two of them.

python performance/transfer_callback.py [--model MODEL] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from xlt_bench import TransferCallback
from xlt_bench.data.root import data_root
from xlt_bench.models.load import choose_device, load_base
from xlt_bench.tasks.registry import get_text_task

LANGUAGES = ["en", "de", "sw"]
EVERY = 200  # as often as the recipes evaluate
UPDATES, BATCH, TOKENS = 8, 32, 256


class Clock(TrainerCallback):  # type: ignore[misc]
    """The seconds of each update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self._began)


def main() -> None:
    """Print the seconds of an update, of a measurement, and the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data-dir")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    base = load_base(given.model, "float32", choose_device(None))
    model = get_peft_model(
        base.model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    )
    items = get_text_task("massive").load(data_root(given.data_dir), "en", "train")
    texts = [f"{item.system}\n{item.user}\n{item.target}" for item in items[: UPDATES * BATCH]]
    encoded = base.tokenizer(texts, truncation=True, max_length=TOKENS)["input_ids"]

    def collate(rows: list[list[int]]) -> dict[str, torch.Tensor]:
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask == 1, -100)}

    for tasks in ((), ("massive",)):
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, per_device_train_batch_size=BATCH, max_steps=UPDATES,
                report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
                remove_unused_columns=False,
            )  # fmt: skip
            trainer = Trainer(
                model=model, args=arguments, train_dataset=encoded, data_collator=collate,
                processing_class=base.tokenizer, callbacks=[clock],
            )  # fmt: skip
            callback = TransferCallback(
                trainer, every=UPDATES, languages=LANGUAGES, tasks=tasks, data_dir=given.data_dir
            )
            trainer.add_callback(callback)
            trainer.train()
        update = sorted(clock.seconds)[len(clock.seconds) // 2]
        rows = trainer.state.log_history
        spent = next(row["eval_transfer_seconds"] for row in rows if "eval_transfer" in row)
        what = "retrieval" + "".join(f" and {name}" for name in tasks)
        print(
            f"{what}: {spent:.2f} s, an update {update:.2f} s: {spent / update:.1f} updates, "
            f"{100 * spent / (EVERY * update):.1f} % of the time of {EVERY} updates"
        )


if __name__ == "__main__":
    main()
