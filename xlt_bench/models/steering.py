"""Steers a model: adds the vector of the current language to the output of a decoder block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from xlt_bench.errors import InputError
from xlt_bench.models.adapters import AdapterFiles
from xlt_bench.models.hidden_states import block, blocks_name, count_layers
from xlt_bench.models.steering_config import PIVOT, STEERING_CORPORA, VECTORS
from xlt_bench.results.record import Plan
from xlt_bench.tasks.registry import get_task, retrieval_in

_LONGEST = 1e12  # that a record can state


class Steering:
    """A forward hook that adds one of several vectors, or none, to the states of all tokens."""

    def __init__(self, vectors: Mapping[str, Tensor]) -> None:
        """Start without a language.

        Args:
            vectors: The vector (d,) of each language, scaled.
        """
        self._vectors = dict(vectors)
        self._vector: Tensor | None = None

    def use(self, language: str | None, away: bool = False) -> None:
        """Steer text of this language from now on.

        Args:
            language: Its code; nothing is added for None and for a language without a vector.
            away: Subtract the vector: from English to the language.
        """
        vector = None if language is None else self._vectors.get(language)
        self._vector = -vector if away and vector is not None else vector

    @property
    def norms(self) -> dict[str, float]:
        """The length of each vector, scaled, by language."""
        return {code: float(vector.norm()) for code, vector in self._vectors.items()}

    def __call__(self, module: Any, _inputs: Any, output: Any) -> Any:
        """Add the current vector to a block's states, which are its output or come first in it."""
        if self._vector is None:
            return output
        several = isinstance(output, (tuple, list))
        hidden = output[0] if several else output
        fits = isinstance(hidden, Tensor) and hidden.shape[-1:] == self._vector.shape
        if not fits or hidden.ndim > 3:  # several states per token
            raise InputError(
                f"{type(module).__name__} does not return one state of {len(self._vector)} values "
                "per token: steering does not support this architecture"
            )
        self._vector = self._vector.to(hidden)  # so that it moves to the device only once
        moved = hidden + self._vector
        return (moved, *output[1:]) if several else moved


def steer_by(adapter: AdapterFiles, model: Any) -> Steering:
    """Put the hook of a steering folder into a model.

    Args:
        adapter: The steering folder.
        model: The base model, or a PeftModel of it.

    Returns:
        What chooses the language.

    Raises:
        InputError: If the vectors are of impossible length.
    """
    vectors = load_file(adapter.folder / VECTORS)
    steering = Steering({k: adapter.config["scale"] * v.float() for k, v in vectors.items()})
    if not max(steering.norms.values()) <= _LONGEST:
        raise InputError(f"adapter {adapter.name}: vectors are longer than {_LONGEST:g}, scaled")
    block(model, adapter.config["layer"]).register_forward_hook(steering)
    return steering


def check_steering(adapter: AdapterFiles, model: Any, model_name: str) -> None:
    """Check that a steering folder fits the base model.

    Args:
        adapter: The steering folder.
        model: The base model on the meta device.
        model_name: The base model's name, for messages.

    Raises:
        InputError: If the model has no such layer, or states of another size.
    """
    blocks_name(model)  # raises InputError if there is no list of blocks
    misfit, last = f"adapter {adapter.name} does not fit {model_name}", count_layers(model)
    if (layer := adapter.config["layer"]) > last:
        raise InputError(f"{misfit}: it steers layer {layer}, and the model has layers 1 to {last}")
    (width,) = next(iter(adapter.shapes.values()))
    size = getattr(model.config.get_text_config(), "hidden_size", width)
    if width != size:
        raise InputError(
            f"{misfit}: its vectors have {width} values, and the model's states {size}"
        )


def steering_notes(adapter: AdapterFiles, plan: Plan) -> list[str]:
    """What a reader of the scores should know of a steering folder.

    Args:
        adapter: The steering folder.
        plan: What is evaluated with it.
    """
    notes, config = [], adapter.config
    asked = {get_task(task).language_of(u) for task, units in plan.units.items() for u in units}
    if lacking := sorted(asked - {PIVOT, *adapter.shapes}):
        notes.append(f"not steered, since {adapter.name} has no vector: {' '.join(lacking)}")
    if retrieval_in(plan.units) is STEERING_CORPORA[config["corpus"]]:
        notes.append("retrieval is inflated: the vectors are means of the sentences of its corpus")
    if (stated := config["base_model_sha256"]) and plan.model_sha256 not in (None, stated):
        notes.append(
            f"WARNING: the vectors of {adapter.name} are of other weights than the model's"
        )
    return notes
