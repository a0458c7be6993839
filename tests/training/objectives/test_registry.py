"""The registry matches the recipe's sections, and takes an objective that is defined here."""

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml

from xlt_bench.data.root import MINI
from xlt_bench.models.hidden_states import lengths_mask, pad_right
from xlt_bench.training.objectives import OBJECTIVES
from xlt_bench.training.objectives.base import Examples, Objective
from xlt_bench.training.recipe import Recipe, Training
from xlt_bench.training.recipe_data import Section
from xlt_bench.training.run import TrainOptions, train

RECIPE = {
    "title": "Three objectives",
    "task": {"name": "massive", "units": ["en"]},
    "alignment": {"data": "massive", "pairs": ["ru-en"]},
    "repeating": {"word": "again"},
    "training": {
        "batch_size": 8, "micro_batch_size": 4, "max_steps": 9, "eval_steps": 9,
        "select_on": "both",
    },
}  # fmt: skip


def test_every_section_of_a_recipe_has_its_objective() -> None:
    sections = [
        name
        for name, field in Recipe.model_fields.items()
        if any(isinstance(kind, type) and issubclass(kind, Section)
               for kind in (field.annotation, *get_args(field.annotation)))
    ]  # fmt: skip
    assert sections == list(OBJECTIVES)


class Repeating(Section):
    """The section of the objective below: a word to learn."""

    word: str

    @property
    def learns_flores(self) -> bool:
        return False


class RepeatingRecipe(Recipe):
    """A recipe with one more section."""

    repeating: Repeating | None = None


class RepeatingObjective(Objective[str, str]):
    """Plain language modelling of one word, repeated."""

    name = "repeating"
    reaches_every_weight = True

    def __init__(self, section: Repeating, training: Training) -> None:
        self.word, self.training = section.word, training

    def read(self, root: Path) -> str:
        return self.word

    def encode(self, texts: str, tokenizer: Any) -> Examples[str]:
        rows = [f"{texts} " * n for n in range(1, self.training.micro_batch_size + 1)]
        return Examples(4, cycle([rows]), [rows], {"repeating": texts}, {"repeating": 4})

    def tensors(self, rows: Sequence[str], tokenizer: Any) -> dict[str, torch.Tensor]:
        ids = tokenizer(list(rows))["input_ids"]
        return {"input_ids": pad_right(ids, 0), "attention_mask": lengths_mask(ids)}

    def loss(self, model: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = model(**tensors, labels=tensors["input_ids"]).loss
        return loss


def test_a_third_objective_is_trained_logged_and_selected_on(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs a class, a section and an entry in the registry, and nothing else."""
    monkeypatch.setitem(OBJECTIVES, "repeating", RepeatingObjective)
    recipe = RepeatingRecipe.model_validate(RECIPE)
    turns = ["task", "task", "alignment", "alignment", "repeating", "repeating"]
    assert [recipe.objective_of(n) for n in range(12)] == turns * 2
    out = train(TrainOptions("three", recipe, str(tiny_model), tmp_path / "out", str(MINI)))

    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    names = ("task", "alignment", "repeating")
    logged = next(row for row in log if "loss" in row)
    assert all(logged[f"{name}_loss"] > 0 for name in names)
    # Each update has one objective, so the mean over nine updates is that of three means.
    assert logged["loss"] == pytest.approx(sum(logged[f"{name}_loss"] for name in names) / 3)
    measured = next(row for row in log if "eval_loss" in row)
    dev = [measured[f"eval_{name}_loss"] for name in names]
    assert measured["eval_loss"] == pytest.approx(sum(dev))
    head = yaml.safe_load((out / "README.md").read_text().split("---")[1])
    assert head["xlt_bench"]["examples"]["repeating"] == 4
    assert head["xlt_bench"]["data_digests"]["repeating"] == "again"
