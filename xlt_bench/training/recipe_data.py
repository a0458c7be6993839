"""What the objectives of a recipe learn from: its sections `task` and `alignment`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xlt_bench.errors import InputError, unknown
from xlt_bench.languages import language
from xlt_bench.tasks.registry import get_task, trainable

# Far more than any training needs; a larger number is a mistake, and would run forever or overflow.
Count = Annotated[int, Field(gt=0, le=1_000_000)]


class Strict(BaseModel):
    """A part of a recipe: unknown keys and infinite numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Section(Strict):
    """What one objective learns from; a recipe holds it under the objective's name."""

    @property
    @abstractmethod
    def learns_flores(self) -> bool:
        """Whether the training text holds FLORES dev, on which retrieval is measured."""


OWN_TASK = "chats"
"""The name of a task whose chats are a user's own files."""


class TaskData(Section):
    """What the task objective learns from."""

    name: str
    """A task of the registry, or `chats`: a task of your own, in the files `train` and `dev`."""
    train: str | None = None
    """chats: a JSON lines file; each line has a `language` and `messages`, the last the answer."""
    dev: str | None = None
    """chats: the same for the dev loss."""
    units: list[str] = []
    """Languages; directions for wmt23, which is trained on ALMA's text. chats: by default all."""
    items: Count | None = None
    """The first N training items of each unit; by default all."""
    dev_items: Count | None = None
    """The first N items of each unit's dev split."""

    @model_validator(mode="after")
    def _known(self) -> TaskData:
        if (self.name == OWN_TASK) != (self.train is not None):
            raise ValueError("name: chats needs train, a JSON lines file, and no other task has it")
        if self.dev and not self.train:
            raise ValueError("dev needs name: chats, and train")
        if self.name == OWN_TASK:
            for unit in self.units:
                if language(unit).code != unit:
                    raise ValueError(f"units must be codes such as {language(unit).code}")
            return self
        if self.name not in trainable():
            raise ValueError(str(unknown("task", self.name, [*trainable(), OWN_TASK])))
        if not self.units:
            raise ValueError("units must name at least one")
        choices = get_task(self.name).units()
        for unit in self.units:
            if unit not in choices:
                raise ValueError(str(unknown(f"unit of {self.name}", unit, choices)))
        return self

    @property
    def learns_flores(self) -> bool:
        """Whether the task's training text holds FLORES dev (ALMA's does)."""
        return self.name != OWN_TASK and get_task(self.name).trains_on_flores


CORPORA = ("tatoeba", "tatoeba-laser", "flores", "alma", "massive", "iwslt2017")
"""The corpora of sentence pairs that are known by name."""


def _pair(name: str) -> str:
    """A language pair by the table's codes; raises ValueError if it is not one."""
    sides = name.split("-")
    if len(sides) != 2 or sides[0] == sides[1]:
        raise ValueError(f"must be pairs of two languages such as cy-en, got {name!r}")
    return "-".join(language(side).code for side in sides)


def _turned(pair: str) -> str:
    return "-".join(reversed(pair.split("-")))


class Alignment(Section):
    """What the alignment objective learns from, and where in the model."""

    data: str | dict[str, str | list[str]]
    """A corpus by its name, or files of your own by language pair: a .tsv or .jsonl file, or a list
    of two plain ones."""
    pairs: list[str] = Field(min_length=1)
    """Such as `cy-en`: the first side is the anchor. Pairs without English are matched by English
    sentences that are equal. With files, by default their language pairs."""
    loss: Literal["contrastive", "cosine", "mse", "cka", "transport", "translation"] = "contrastive"
    """What is minimised at each layer. contrastive: the paper's. cosine, mse: the distance of each
    sentence's state to its translation's. cka: 1 - linear CKA of the micro-batch's two sides.
    transport: optimal transport between the tokens of a sentence and of its translation.
    translation, a control: the first side is translated into the second, without layers."""
    shuffled: bool = False
    """A control: each first side gets the second side of another pair of its language pair."""
    layers: list[int | Annotated[float, Field(gt=0, le=1)] | Literal["random"]] = Field(
        default=[0.5], min_length=1
    )
    """Blocks from 1 (an integer), or a share of all blocks (0.5 is the middle, 1.0 the top).
    random, a control: a block that the seed draws."""
    temperature: float = Field(default=0.1, ge=0.001, le=1000)
    """The paper tuned it: 0.1 for Llama 3, 1.5 for Qwen 2.5. Of transport, it is the weight of the
    entropy; the other losses have none."""
    symmetric: bool = False
    """contrastive, translation: also from the second side to the first; neither the paper's text
    nor its code does."""
    items: Count | None = None
    """The first N pairs of each language pair."""

    @model_validator(mode="before")
    @classmethod
    def _pairs_of_files(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("data"), dict) and "pairs" not in raw:
            return raw | {"pairs": list(raw["data"])}
        return raw

    @field_validator("data")
    @classmethod
    def _known(cls, data: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(data, dict):
            return {_pair(name): files for name, files in data.items()}
        if data not in CORPORA:
            raise ValueError(str(unknown("corpus", data, CORPORA)))
        return data

    @field_validator("pairs")
    @classmethod
    def _two_languages(cls, pairs: list[str]) -> list[str]:
        return [_pair(pair) for pair in pairs]

    @model_validator(mode="after")
    def _have_files(self) -> Alignment:
        if isinstance(self.data, dict):
            for pair in self.pairs:
                if pair not in self.data and _turned(pair) not in self.data:
                    raise ValueError(str(unknown("pair of alignment.data", pair, self.data)))
        return self

    def files(self, pair: str) -> tuple[str | list[str], bool]:
        """Find the files of a language pair.

        Args:
            pair: One of `pairs`.

        Returns:
            The files, and whether they are those of the pair in the other order.
        """
        assert isinstance(self.data, dict)
        return (self.data[pair], False) if pair in self.data else (self.data[_turned(pair)], True)

    @model_validator(mode="after")
    def _suits_the_loss(self) -> Alignment:
        if self.symmetric and self.loss not in ("contrastive", "translation"):
            raise ValueError(
                f"symmetric needs loss: contrastive or translation; {self.loss} has no direction"
            )
        if self.loss == "transport" and self.temperature < 0.01:
            raise ValueError(
                "temperature must be at least 0.01 for loss: transport, or its iterations do not "
                f"converge, got {self.temperature:g}"
            )
        return self

    @property
    def least_pairs(self) -> int:
        """Pairs that a micro-batch needs for the loss."""
        return 4 if self.loss == "cka" else 2

    @property
    def languages(self) -> list[str]:
        """All languages but English, in order."""
        sides = [side for pair in self.pairs for side in pair.split("-")]
        return [code for code in dict.fromkeys(sides) if code != "en"]

    @property
    def learns_flores(self) -> bool:
        """Whether the pairs are FLORES dev itself, or ALMA's, which end with it.

        What files of your own hold is counted before training (`training.overlap`).
        """
        return self.data in ("alma", "flores")

    def block_numbers(self, n_layers: int, seed: int) -> list[int]:
        """Resolve the layers for a model.

        Args:
            n_layers: Decoder blocks of the model.
            seed: The recipe's seed, on which a random layer depends.

        Returns:
            Block numbers, from 1, in ascending order; none for `loss: translation`.

        Raises:
            InputError: If a layer is beyond the model.
        """
        found = []
        for layer in self.layers if self.loss != "translation" else []:
            number = block_number(layer, n_layers, seed)
            if not 1 <= number <= n_layers:
                raise InputError(
                    f"alignment.layers must be between 1 and {n_layers} for this model, got "
                    f"{layer} (a share such as 0.5 fits any model)"
                )
            found.append(number)
        return sorted(set(found))


def block_number(layer: float | str, n_layers: int, seed: int) -> int:
    """Resolve a layer of a recipe for a model.

    Args:
        layer: A block, a share of all blocks, or `random`.
        n_layers: Decoder blocks of the model.
        seed: The recipe's seed, on which a random layer depends.

    Returns:
        The block, from 1; beyond the model if the recipe says so.
    """
    if isinstance(layer, str):
        return int(np.random.default_rng([seed, 11]).integers(1, n_layers + 1))
    return layer if isinstance(layer, int) else max(1, round(layer * n_layers))
