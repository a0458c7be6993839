"""Reads and validates recipes: one experiment in a YAML file.

The paper's recipes ship in `training/recipes/`. The defaults below are the settings of the paper's
section 4.3 and appendix D.1; if the authors' code differs, the docstring of the key says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from xlt_bench.errors import InputError, first_fault, one_line, unknown
from xlt_bench.models.adapter_config import MAX_ALPHA, MAX_RANK
from xlt_bench.training.recipe_data import Alignment, Count, Section, Strict, TaskData

FOLDER = Path(__file__).resolve().with_name("recipes")


class Row(Strict):
    """A row of one of the paper's tables and the figures published there."""

    table: int
    row: str
    published: dict[str, float] = Field(default_factory=dict)
    note: str = ""


class Lora(Strict):
    """The adapter (section 4.3)."""

    # The limits of what `evaluate` loads.
    r: int = Field(default=8, gt=0, le=MAX_RANK)
    alpha: int = Field(default=16, gt=0, lt=MAX_ALPHA)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    targets: str | list[str] = "all-linear"
    """In Llama and Qwen all-linear is the paper's q, k, v, o, gate, up, down."""


class Training(Strict):
    """The optimisation (appendix D.1)."""

    learning_rate: float = Field(default=5e-4, gt=0, le=1)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    batch_size: Count = 128
    """Examples of an update, over all processes."""
    micro_batch_size: Count = 32
    """Examples of a forward; the alignment loss sees no others."""
    epochs: float = Field(default=5, gt=0, le=1000)
    """Over the examples of the first objective: the task, or alignment without one."""
    max_steps: Count | None = None
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
    eval_steps: Count = 200
    """Updates between two evaluations, each followed by a checkpoint."""
    patience: Count = 5
    """Evaluations without a better dev loss before training stops."""
    max_tokens: Count = 1024
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


class Recipe(Strict):
    """One experiment."""

    title: str
    paper: list[Row] = Field(default_factory=list)
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
