"""Reads and validates recipes: one experiment in a YAML file.

The paper's recipes ship in `training/recipes/`. The defaults below are the settings of the paper's
section 4.3 and appendix D.1; if the authors' code differs, the docstring of the key says so.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xlt_bench.errors import InputError, first_fault, one_line, unknown
from xlt_bench.languages import language
from xlt_bench.models.adapter_config import MAX_ALPHA, MAX_RANK
from xlt_bench.tasks.registry import get_task, trainable

FOLDER = Path(__file__).resolve().with_name("recipes")


# Far more than any training needs; a larger number is a mistake, and would run forever or overflow.
_Count = Annotated[int, Field(gt=0, le=1_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Row(_Strict):
    """A row of one of the paper's tables and the figures published there."""

    table: int
    row: str
    published: dict[str, float] = {}
    note: str = ""


class Section(_Strict):
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
    items: _Count | None = None
    """The first N training items of each unit; by default all."""
    dev_items: _Count | None = None
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
    """A language pair by the table's codes; raises ValueError if it is none."""
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
    items: _Count | None = None
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


class Lora(_Strict):
    """The adapter (section 4.3)."""

    # The limits of what `evaluate` loads.
    r: int = Field(default=8, gt=0, le=MAX_RANK)
    alpha: int = Field(default=16, gt=0, lt=MAX_ALPHA)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    targets: str | list[str] = "all-linear"
    """In Llama and Qwen all-linear is the paper's q, k, v, o, gate, up, down."""


class Training(_Strict):
    """The optimisation (appendix D.1)."""

    learning_rate: float = Field(default=5e-4, gt=0, le=1)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    batch_size: _Count = 128
    """Examples of an update, over all processes."""
    micro_batch_size: _Count = 32
    """Examples of a forward; the alignment loss sees no others."""
    epochs: float = Field(default=5, gt=0, le=1000)
    """Over the examples of the first objective: the task, or alignment without one."""
    max_steps: _Count | None = None
    """The most updates, counting those of all objectives."""
    alternation: Literal["step", "microbatch"] = "step"
    """step: one objective in each update, in turn (the paper). microbatch: each update shares its
    micro-batches between the objectives (the code)."""
    schedule_by: Literal["task", "update"] = "task"
    """The steps of the learning rate schedule. task: an aligned run has the same rate as the
    baseline at the same task update. update: its warm-up takes twice as long, as in the code."""
    select_on: Literal["task", "both"] = "task"
    """The dev loss that selects the checkpoint. both: the sum over the objectives, as in the code
    for aligned runs."""
    eval_steps: _Count = 200
    """Updates between two evaluations, each followed by a checkpoint."""
    patience: _Count = 5
    """Evaluations without a better dev loss before training stops."""
    max_tokens: _Count = 1024
    """Longer examples are left out, and counted in the card."""
    log_gradient_cosine: bool = False
    """Also log the cosine of two objectives' gradients, each of its next micro-batch, at the same
    weights. It costs a forward and backward of each every time of logging (10 updates), on every
    process, and changes no weight."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 if the GPU supports it, else float32."""
    gradient_checkpointing: bool = False
    device_map: Literal["auto"] | None = None
    """auto: one process spreads the base model's layers over all GPUs of the machine."""
    fsdp: bool = False
    """Shard the base model's weights over the processes of torchrun (FSDP2)."""
    seed: int = Field(default=1, ge=0, lt=2**32)


class Recipe(_Strict):
    """One experiment."""

    title: str
    paper: list[Row] = []
    task: TaskData | None = None
    alignment: Alignment | None = None
    lora: Lora = Lora()
    training: Training = Training()

    @model_validator(mode="after")
    def _something_to_learn(self) -> Recipe:
        if not self.sections:
            raise ValueError("a recipe needs something to learn from: task, alignment or both")
        if self.training.batch_size % self.training.micro_batch_size:
            raise ValueError("training.batch_size must be a multiple of training.micro_batch_size")
        if self.alignment and self.training.micro_batch_size < self.alignment.least_pairs:
            raise ValueError(
                f"training.micro_batch_size must be at least {self.alignment.least_pairs} for "
                "alignment, which compares pairs"
            )
        if self.training.log_gradient_cosine and not self.alternates:
            raise ValueError("training.log_gradient_cosine needs both task and alignment")
        if self.training.log_gradient_cosine and self.training.fsdp:
            raise ValueError("training.log_gradient_cosine and training.fsdp exclude each other")
        by_microbatch = self.alternates and self.training.alternation == "microbatch"
        if by_microbatch and self.micro_batches % len(self.sections):
            raise ValueError(
                "training.alternation: microbatch shares a batch between the objectives: "
                f"batch_size / micro_batch_size must be a multiple of {len(self.sections)}, got "
                f"{self.micro_batches}"
            )
        if by_microbatch and self.training.fsdp:
            # The Trainer averages only the gradients that the last micro-batch has.
            raise ValueError("training.fsdp needs training.alternation: step")
        if self.training.fsdp and self.training.device_map:
            raise ValueError("training.fsdp and training.device_map exclude each other")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that a resumed training must share: all that the weights depend on."""
        # Every process has the whole adapter, so the base may be distributed differently.
        free = {"device_map", "fsdp", "log_gradient_cosine"}
        apart: Any = {"title": True, "paper": True, "training": free}
        return self.model_dump(mode="json", exclude=apart)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are not the defaults, by dotted key (`training.batch_size`).

        Two trainings with equal settings differ in their seed and devices alone. A key that a later
        release adds is absent while it has its default.
        """
        apart = {"device_map", "fsdp", "gradient_checkpointing", "log_gradient_cosine", "seed"}
        given = self.model_dump(
            mode="json",
            exclude={"title": True, "paper": True, "training": apart},
            exclude_defaults=True,
        )
        # Of a user's own files, the names are enough; folders are nobody's business.
        return {key: _name(v) if _is_file(key) else v for key, v in _dotted(given)}

    @property
    def sections(self) -> dict[str, Section]:
        """What it learns from, by objective, in the order in which the objectives alternate.

        The first one's examples are counted in epochs, and its dev loss selects the checkpoint.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, Section)}

    @property
    def alternates(self) -> bool:
        """Whether several objectives take part."""
        return len(self.sections) > 1

    @property
    def learns_flores(self) -> bool:
        """Whether it trains on FLORES dev, on which retrieval is measured.

        True even where `items` leaves FLORES out: a wrong mark harms less than a missing one.
        """
        return any(section.learns_flores for section in self.sections.values())

    def objective_of(self, number: int) -> str:
        """The objective of micro-batch `number` of a training, counted from 0."""
        names = list(self.sections)
        turn = self.micro_batches if self.training.alternation == "step" else 1
        return names[number // turn % len(names)]

    @property
    def micro_batches(self) -> int:
        """Micro-batches of an update."""
        return self.training.batch_size // self.training.micro_batch_size

    @property
    def updates_a_task_batch(self) -> int:
        """Updates in which each objective has used one batch of its examples."""
        return len(self.sections)

    def updates(self, n_items: int) -> int:
        """Count the updates of a training.

        Args:
            n_items: Training examples of the first objective.

        Returns:
            The updates of `epochs`, at most `max_steps`.
        """
        whole = ceil(self.training.epochs * n_items / self.training.batch_size)
        total = whole * self.updates_a_task_batch
        return min(total, self.training.max_steps or total)


def _is_file(key: str) -> bool:
    return key in ("task.train", "task.dev") or key.startswith("alignment.data.")


def _name(files: Any) -> Any:
    return [Path(file).name for file in files] if isinstance(files, list) else Path(files).name


def _dotted(nested: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{parent}{key}.")
        else:
            yield f"{parent}{key}", value


def names() -> list[str]:
    """List the recipes that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Load a recipe.

    Args:
        name: A recipe that ships, or a YAML file.
        changes: Changes of keys, such as `training.seed=2`.

    Returns:
        The recipe.

    Raises:
        InputError: If there is no such recipe, or a key is wrong, which the message names.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
        if not path.is_file():
            raise unknown("recipe", name, [*names(), "a YAML file"])
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # not UTF-8, an impossible date, too many digits
        line = " ".join(str(error).split())
        raise InputError(f"recipe {path} cannot be read: {line}") from None
    if not isinstance(raw, dict):
        raise InputError(f"recipe {path} must have keys such as title, task, alignment")
    for change in changes:
        _change(raw, change)
    return parse_recipe(raw, str(name))


def _change(raw: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise InputError(f"--set {change}: write it as key=value, such as training.seed=2")
    *parents, last = key.strip().split(".")
    place: Any = raw
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise InputError(f"--set {change}: {parent} has no keys of its own")
    try:
        place[last] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"--set {one_line(change, 80)}: not a valid YAML value") from None


def parse_recipe(raw: Mapping[str, Any], name: str) -> Recipe:
    """Validate a recipe.

    Args:
        raw: The content of a YAML file.
        name: The recipe's name, for messages.

    Returns:
        The recipe.

    Raises:
        InputError: If a key is wrong; the message names the first.
    """
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            where, allowed = ".".join(map(str, first["loc"])), _allowed(first["loc"])
            hint = unknown("key", where, [".".join([*where.split(".")[:-1], f]) for f in allowed])
            raise InputError(f"recipe {name}: {hint}") from None
        raise InputError(f"recipe {name}: {first_fault(error)}") from None


def _allowed(loc: Sequence[int | str]) -> list[str]:
    """The keys that are allowed at the place of an unknown one."""
    if len(loc) == 1:
        return list(Recipe.model_fields)
    annotation = Recipe.model_fields[str(loc[0])].annotation  # Task | None, list[Row], Lora
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return [key for kind in kinds if issubclass(kind, BaseModel) for key in kind.model_fields]
