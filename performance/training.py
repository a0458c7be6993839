"""Times updates of supervised fine-tuning against the plain Trainer, TRL and torch.compile.

    python performance/training.py [--model MODEL] [--dtype bfloat16] [--peers plain,trl,compile]

All train the LoRA of the recipe `massive-baseline` on the same batches of 32 commands, of which the
first is not timed. Ours is the trainer of `xlt-bench train`. The peers are transformers' Trainer
with peft's modules on padded batches, TRL's SFTTrainer on the same (needs `pip install trl`), and
the plain Trainer with torch_compile (needs a C++ compiler; its first update compiles). Without
dropout, the loss of the first batch must be equal. The products are those of an update that nothing
can leave out: the linear layers on the tokens of the rows and of one shared prefix, the LM head on
the tokens of the answers, forward and for the gradient of their inputs. The last line is
`training ratio=X goal=2.5 met|missed`: the seconds of the plain Trainer divided by ours. The exit
code is 1 if the goal is missed or the losses differ.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from side_by_side import model_and_tokenizer, parser, run, verdict
from torch.nn.functional import linear
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from xlt_bench.data.root import data_root
from xlt_bench.models.chat import set_chat_template
from xlt_bench.models.hidden_states import base_model
from xlt_bench.models.load import Base
from xlt_bench.training.batches import Batch
from xlt_bench.training.dataset import Example, encode_items, load_items
from xlt_bench.training.objectives.causal import (
    IGNORE,
    next_labels,
    shared_tokens,
    task_batch,
    task_loss,
)
from xlt_bench.training.recipe import Recipe, load_recipe
from xlt_bench.training.run import adapted
from xlt_bench.training.trainer import AlternatingTrainer

GOAL = 2.5
ROWS = 32
# Two ways may round differently: the loss of a batch, as a share.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


class Watch(TrainerCallback):
    """The seconds of each update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it; reading a weight waits for the device."""
        next(kwargs["model"].parameters()).flatten()[0].item()
        self.seconds.append(time.perf_counter() - self.start)


def main() -> int:
    """Measure, compare, print. Returns the exit code."""
    options = _options()
    recipe = load_recipe("massive-baseline", [f"task.items={ROWS}", *options.set])
    assert recipe.task
    model, tokenizer = model_and_tokenizer(options)
    set_chat_template(tokenizer, None)
    base = Base("model", model, tokenizer, None, None, False)
    rows, _ = encode_items(
        tokenizer, load_items(data_root(options.data_dir), recipe.task, "train"), 1024
    )
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    batches = [
        [rows[order[i % len(rows)]] for i in range(start, start + ROWS)]
        for start in range(0, (options.updates + 1) * ROWS, ROWS)
    ]
    losses = _losses(base, recipe, batches[0], options.dtype)
    off = abs(losses[0] - losses[1]) / losses[1]
    print(f"loss of the first batch without dropout: {losses[0]:.5f}, plain {losses[1]:.5f}")
    ways = {"ours": _ours, "plain": _plain, "trl": _trl, "compile": _compiled}
    seconds = {}
    for name in ["ours", *options.peers.split(",")]:
        watch = Watch()
        ways[name](base, recipe, batches, options, watch)
        seconds[name] = statistics.median(watch.seconds[1:])
        print(f"{name}: {seconds[name]:.3f} s an update (median of {options.updates})", flush=True)
    products = _products(base, recipe, batches[0])
    print(
        f"the products alone: {products:.3f} s; ours takes {seconds['ours'] / products:.2f} times "
        f"as long (goal at most 1.5)"
    )
    ratio = seconds["plain"] / seconds["ours"]
    return verdict("training", ratio, GOAL, ratio >= GOAL and off <= TOLERANCE[options.dtype])


def _model(base: Base, recipe: Recipe, ours: bool) -> Any:
    """The base with a new LoRA, of our modules or peft's."""
    fresh = Base(base.name, copy.deepcopy(base.model), base.tokenizer, None, None, False)
    return adapted(fresh, recipe, ours)


def _autocast(dtype: str, device: Any) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")


@torch.no_grad()
def _losses(base: Base, recipe: Recipe, rows: Sequence[Example], dtype: str) -> tuple[float, float]:
    """Our loss of a batch and the model's own."""
    batch = {name: value.to(base.model.device) for name, value in task_batch(rows).items()}
    with _autocast(dtype, base.model.device):
        ours = task_loss(_model(base, recipe, True).eval(), batch)
        plain = _model(base, recipe, False).eval()(**batch).loss
    return ours.item(), plain.item()


def _arguments(folder: str, options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """What all trainers have in common."""
    return {
        "output_dir": folder,
        "max_steps": options.updates + 1,
        "learning_rate": 5e-4,
        "bf16": options.dtype == "bfloat16",
        "report_to": "none",
        "save_strategy": "no",
        "remove_unused_columns": False,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
        "logging_steps": 1000,
        **more,
    }


def _ours(base: Base, recipe: Recipe, batches: Any, options: Any, watch: Watch) -> None:
    data = [Batch(objective="task", tensors=task_batch(rows)) for rows in batches]
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(
            folder, options, per_device_train_batch_size=1, eval_strategy="no", label_names=[]
        )
        trainer = AlternatingTrainer(
            recipe=recipe,
            dev={},
            warmup=1,
            model=_model(base, recipe, True),
            args=TrainingArguments(**arguments),
            train_dataset=data,
            callbacks=[watch],
        )
        trainer.train()


def _examples(batches: Sequence[Sequence[Example]]) -> list[dict[str, list[int]]]:
    """The rows of all batches, as Trainer and SFTTrainer take them."""
    return [
        {
            "input_ids": [*row.prompt, *row.answer],
            "attention_mask": [1] * (len(row.prompt) + len(row.answer)),
            "labels": [IGNORE] * len(row.prompt) + row.answer,
        }
        for rows in batches
        for row in rows
    ]


def _plain(
    base: Base, recipe: Recipe, batches: Any, options: Any, watch: Watch, **more: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(folder, options, per_device_train_batch_size=ROWS, **more)
        Trainer(
            model=_model(base, recipe, False),
            args=TrainingArguments(train_sampling_strategy="sequential", **arguments),
            train_dataset=_examples(batches),
            data_collator=DataCollatorForSeq2Seq(base.tokenizer),
            callbacks=[watch],
        ).train()


def _compiled(base: Base, recipe: Recipe, batches: Any, options: Any, watch: Watch) -> None:
    _plain(base, recipe, batches, options, watch, torch_compile=True)


def _trl(base: Base, recipe: Recipe, batches: Any, options: Any, watch: Watch) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(folder, options, per_device_train_batch_size=ROWS)
        arguments |= {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
        SFTTrainer(
            model=_model(base, recipe, False),
            args=SFTConfig(**arguments),
            train_dataset=Dataset.from_list(_examples(batches)),
            processing_class=base.tokenizer,
            data_collator=DataCollatorForSeq2Seq(base.tokenizer),
            callbacks=[watch],
        ).train()


@torch.no_grad()
def _products(base: Base, recipe: Recipe, rows: Sequence[Example]) -> float:
    """The seconds of the matrix products of an update, without those of attention and the LoRA."""
    batch = task_batch(rows)
    following = next_labels(batch["labels"])
    shared = shared_tokens(batch["input_ids"], batch["attention_mask"], following)
    tokens = int(batch["attention_mask"].sum()) - (len(rows) - 1) * shared
    transformer = base_model(base.model)
    head = transformer.get_output_embeddings()
    work = []
    for module in transformer.modules():
        if isinstance(module, torch.nn.Linear):
            n = int((following != IGNORE).sum()) if module is head else tokens
            weight = module.weight
            work.append((weight.new_empty(n, weight.shape[1]).normal_(), weight))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for x, weight in work:
            linear(x, weight) @ weight
        best = min(best, time.perf_counter() - start)
    return best


def _options() -> argparse.Namespace:
    made = parser(__doc__, turns=1)
    made.add_argument("--updates", type=int, default=4, help="timed, after one that is not")
    made.add_argument("--peers", default="plain", help="of plain, trl and compile")
    made.add_argument("--set", action="append", default=[], help="as in xlt-bench train")
    return made.parse_args()


if __name__ == "__main__":
    run(main)
