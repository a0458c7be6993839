"""The callback in transformers' Trainer: what it logs, and that it leaves the training alone."""

import gzip
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import xlt_bench
from tiny import byte_tokenizer, load_model, with_lora
from xlt_bench.tasks.registry import get_text_task

LANGUAGES = ["de", "en", "sw"]


@pytest.fixture(scope="module")
def root(made_up_root, tmp_path_factory):
    """The made-up data, with a validation split of MASSIVE that differs from its test split."""
    root = tmp_path_factory.mktemp("data") / "root"
    shutil.copytree(made_up_root, root)
    folder = root / "massive" / "1.1" / "data"
    shutil.copy(folder / "de-DE.jsonl.gz", folder / "en-US.jsonl.gz")
    for path in folder.iterdir():
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        more = [
            row | {"partition": "dev", "id": f"9{row['id']}", "utt": row["utt"] + " please",
                   "annot_utt": row["annot_utt"] + " please"}
            for row in rows
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows + more)
        path.write_bytes(gzip.compress(text.encode()))
    return root


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch):
    monkeypatch.setattr(get_text_task("massive"), "max_new_tokens", 6)


class Reporter(TrainerCallback):
    """What a tracker would get."""

    def __init__(self):
        self.rows = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append((state.global_step, dict(logs)))


def _trainer(tiny_model, folder, kind=Trainer, reporter=None, **settings):
    tokenizer = byte_tokenizer()
    model = with_lora(load_model(tiny_model), 1, lora_dropout=0.3)
    rows = [tokenizer(f"a sentence number {i}")["input_ids"][:16] for i in range(16)]
    data = [{"input_ids": row, "labels": row} for row in rows]
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, max_steps=6, learning_rate=1e-2,
        report_to="none", use_cpu=True, disable_tqdm=True,
        **{"save_strategy": "no", "logging_steps": 1} | settings,
    )  # fmt: skip
    return kind(
        model=model, args=arguments, train_dataset=data, eval_dataset=data[:2],
        processing_class=tokenizer, callbacks=[reporter] if reporter else [],
    )  # fmt: skip


def _weights(trainer):
    return {k: v.clone() for k, v in trainer.model.state_dict().items() if "lora" in k}


def test_the_training_arrives_at_the_same_weights(tiny_model, root, tmp_path):
    alone = _trainer(tiny_model, tmp_path / "a")
    alone.train()
    watched = _trainer(tiny_model, tmp_path / "b")
    watched.add_callback(
        xlt_bench.TransferCallback(
            watched, every=2, languages=LANGUAGES, layers=[1, 4], tasks=["massive"], items=2,
            data_dir=root,
        )
    )  # fmt: skip
    watched.train()
    assert sum("eval_transfer" in row for row in watched.state.log_history) == 3
    expected, found = _weights(alone), _weights(watched)
    assert expected.keys() == found.keys()
    assert any(value.abs().sum() > 0 for value in found.values())
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    losses = [
        [row["loss"] for row in trainer.state.log_history if "loss" in row]
        for trainer in (alone, watched)
    ]
    assert losses[0] == losses[1]
    assert watched.model.training
    assert "tie_weights" not in vars(watched.model)


def test_it_logs_what_evaluate_measures(tiny_model, root, tmp_path):
    reporter = Reporter()
    trainer = _trainer(tiny_model, tmp_path / "out", reporter=reporter)
    trainer.add_callback(
        xlt_bench.TransferCallback(
            trainer, every=6, languages=LANGUAGES, layers=[1, 4], sentences=5, data_dir=root,
            tasks=["massive"], items=3,
        )
    )  # fmt: skip
    trainer.train()
    ((step, logged),) = [(n, row) for n, row in reporter.rows if "eval_transfer" in row]
    assert step == 6
    run = xlt_bench.evaluate(
        trainer.model, tokenizer=byte_tokenizer(), tasks=["retrieval"], languages=LANGUAGES,
        layers=[1, 4], limit=5, output=tmp_path / "run", data_dir=root, progress=False,
    )  # fmt: skip
    layers = dict(zip(run.layers().layer, run.layers().value, strict=True))
    for layer, value in layers.items():
        assert logged[f"eval_transfer_retrieval_layer_{layer}"] == pytest.approx(value)
    assert logged.keys() >= {"eval_transfer_massive_de", "eval_transfer_massive_sw"}
    transfer = [logged["eval_transfer_massive_de"], logged["eval_transfer_massive_sw"]]
    assert logged["eval_transfer"] == pytest.approx(np.mean(transfer))
    assert logged["eval_transfer_seconds"] > 0


class Oracle:
    """An LM whose answers to one unit's validation items are gold."""

    def __init__(self, root, unit):
        gold = get_text_task("massive").load(root, unit, "validation")
        self.gold = {item.user: item.target for item in gold}

    def generate(self, prompts, max_new_tokens):
        from xlt_bench.models.lm import Generation

        return [Generation(self.gold.get(prompt, ""), False) for prompt in prompts]

    def apply_chat_template(self, messages):
        return messages[-1]["content"]


def test_tasks_are_scored_on_validation_items(root):
    from xlt_bench.api.transfer_callback import _scores, _transfer, _validation

    items = _validation("massive", ["de", "sw"], root, 3)
    assert {unit: len(rows) for unit, rows in items.items()} == {"de": 3, "sw": 3}
    assert all(item.id.startswith("9") for rows in items.values() for item in rows)
    oracle = Oracle(root, "de")
    # The made-up utterances are the same in every language.
    assert _scores(oracle, "massive", items) == {"de": 100.0, "sw": 100.0}
    assert _transfer("massive", {"en": 0.0, "de": 40.0, "sw": 60.0}) == 50.0
    assert _transfer("massive", {"en": 30.0}) == 30.0


def _rigged(monkeypatch, values):
    given = iter(values)
    monkeypatch.setattr(
        xlt_bench.TransferCallback, "measure", lambda self, model: {"eval_transfer": next(given)}
    )


def test_it_stops_when_transfer_no_longer_improves(tiny_model, root, tmp_path, monkeypatch):
    _rigged(monkeypatch, [1.0, 3.0, 2.0, 2.5, 9.0, 9.0])
    trainer = _trainer(tiny_model, tmp_path / "out")
    trainer.add_callback(
        xlt_bench.TransferCallback(trainer, every=1, languages=LANGUAGES, patience=2, data_dir=root)
    )
    trainer.train()
    assert trainer.state.global_step == 4


def test_the_trainer_can_select_by_transfer(tiny_model, root, tmp_path, monkeypatch):
    _rigged(monkeypatch, [1.0, 3.0, 2.0])
    trainer = _trainer(
        tiny_model, tmp_path / "out", eval_strategy="steps", eval_steps=2, save_strategy="steps",
        save_steps=2, metric_for_best_model="eval_transfer", load_best_model_at_end=True,
    )  # fmt: skip
    trainer.add_callback(
        xlt_bench.TransferCallback(trainer, every=2, languages=LANGUAGES, data_dir=root)
    )
    trainer.train()
    assert trainer.state.best_metric == 3.0
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4")
    # Once for each update, although both the update and the evaluation ask for it.
    assert sum("eval_transfer_seconds" in row for row in trainer.state.log_history) == 3


class LikeTrl(Trainer):
    """Logs as TRL's trainers do: with means of its own, of the mode that the model is in."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.own = {"train": [], "eval": []}

    def training_step(self, *args, **kwargs):
        self.own["train"].append(1.0)
        return super().training_step(*args, **kwargs)

    def log(self, logs, start_time=None):
        mode = "train" if self.model.training else "eval"
        logs = {**logs, f"{mode}_count": len(self.own[mode])}
        super().log(logs, start_time)
        self.own[mode].clear()


def test_trainers_with_metrics_of_their_own_keep_them(tiny_model, root, tmp_path):
    trainer = _trainer(tiny_model, tmp_path / "out", kind=LikeTrl, logging_steps=3)
    trainer.add_callback(
        xlt_bench.TransferCallback(trainer, every=2, languages=LANGUAGES, data_dir=root)
    )
    trainer.train()
    counts = [row["train_count"] for row in trainer.state.log_history if "loss" in row]
    assert counts == [3, 3]


def test_sft_trainer(tiny_model, root, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from datasets import Dataset

    tokenizer = byte_tokenizer()
    trainer = trl.SFTTrainer(
        model=with_lora(load_model(tiny_model), 1),
        args=trl.SFTConfig(
            output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=1, use_cpu=True,
            report_to="none", save_strategy="no", bf16=False,
        ),
        train_dataset=Dataset.from_list([{"text": f"a sentence number {i}"} for i in range(4)]),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.add_callback(
        xlt_bench.TransferCallback(
            trainer, every=1, languages=LANGUAGES, tasks=["massive"], items=1, data_dir=root
        )
    )
    trainer.train()
    assert sum("eval_transfer" in row for row in trainer.state.log_history) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every must be at least 1"),
        ({"languages": ["en"]}, "retrieval needs at least two languages"),
        ({"sentences": 0}, "nothing to measure"),
        ({"layers": [5]}, "the model has layers 1 to 4"),
        ({"tasks": ["uner"], "languages": ["de", "sw"]}, "uner has no validation items in de sw"),
        ({"tasks": ["retrieval"]}, "unknown text task"),
    ],
)
def test_bad_arguments(settings, message, tiny_model, root, tmp_path):
    trainer = _trainer(tiny_model, tmp_path / "out")
    given = {"every": 1, "languages": LANGUAGES, "data_dir": root} | settings
    with pytest.raises(xlt_bench.InputError, match=message):
        xlt_bench.TransferCallback(trainer, **given)
