"""Validates the files of a steering folder, which are untrusted. Importing it imports no torch.

FOLDER/steering_config.json    the layer, the scale, and what the vectors were computed from
FOLDER/steering.safetensors    a vector (d,) for each language, by its code
FOLDER/adapter/                the adapter that the steered model has, if it has one
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open

from xlt_bench.data.flores import MOST
from xlt_bench.errors import InputError, first_fault, one_line
from xlt_bench.languages import LANGUAGES
from xlt_bench.results.record import MAX_LAYERS
from xlt_bench.results.run_folder import file_digest
from xlt_bench.tasks.retrieval import DEVTEST, NTREX

CONFIG, VECTORS, UNDER = "steering_config.json", "steering.safetensors", "adapter"
KIND: Literal["STEERING"] = "STEERING"
"""What stands for peft's kind of adapter, in the configuration and in records."""
STEERING_CORPORA = {"flores-devtest": DEVTEST, "ntrex": NTREX}
"""The corpora that vectors are computed from, as the tasks of retrieval in them. FLORES dev is not
one, since retrieval is measured on it."""
PIVOT = "en"
"""The language towards which the others are steered; it has no vector."""
MAX_SCALE = 1_000_000
_MAX_WIDTH = 1_000_000

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(min_length=1, max_length=1_000)]


class SteeringConfig(BaseModel):
    """The content of steering_config.json; keys that peft's configurations have are named so."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    peft_type: Literal["STEERING"]
    base_model_name_or_path: _Name
    revision: str | None = None
    """The base model's commit on the hub; None for a folder."""
    base_model_sha256: _Sha256 | None = None
    """Digest of the weight files of a local base model."""
    adapter_sha256: _Sha256 | None = None
    """Digest of the weights in `adapter/`; None if the bare model is steered."""
    layer: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    """The decoder block, from 1, to whose output the vectors are added."""
    scale: Annotated[float, Field(ge=-MAX_SCALE, le=MAX_SCALE)]
    """What the vectors are multiplied by."""
    pooling: Literal["mean"]
    """How the states of a sentence's tokens become one."""
    corpus: Literal["flores-devtest", "ntrex"]
    corpus_digest: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    sentences: Annotated[int, Field(ge=1, le=MOST)]
    """Sentences in each language."""


def check_steering_config(name: str, config: dict[str, Any]) -> SteeringConfig:
    """Validate a configuration.

    Args:
        name: The folder's name, for messages.
        config: The content of steering_config.json.

    Raises:
        InputError: If a key is missing, unknown or has an impossible value.
    """
    try:
        return SteeringConfig.model_validate(config)
    except ValidationError as error:
        raise InputError(f"adapter {name}: {CONFIG}: {first_fault(error)}") from None


def vector_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Check the vectors of a file.

    Args:
        path: The file.

    Returns:
        The shape of each vector, (d,), by the code of its language.

    Raises:
        ValueError: If the tensors are not finite vectors of one length, each of a language.
        SafetensorError: If the file is damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            shape = tuple(file.get_slice(key).get_shape())
            if key not in LANGUAGES:
                raise ValueError(
                    f"{one_line(key, 40)} in {VECTORS} is not the code of a language (see: "
                    "xlt-bench languages)"
                )
            if len(shape) != 1 or not 1 <= shape[0] <= _MAX_WIDTH:
                raise ValueError(f"{key} in {VECTORS} has shape {list(shape)} and is not a vector")
            if shape != (first := next(iter(shapes.values()), shape)):
                raise ValueError(f"{key} in {VECTORS} has {shape[0]} values, others {first[0]}")
            tensor = file.get_tensor(key)
            if not tensor.is_floating_point() or not tensor.float().isfinite().all():
                raise ValueError(f"{key} in {VECTORS} has values that are not finite numbers")
            shapes[key] = shape
    if not shapes:
        raise ValueError(f"{VECTORS} has no vectors")
    return shapes


def steering_digest(vectors: Path, config: SteeringConfig) -> str:
    """Hash all that changes answers: the vectors, the layer, the scale and the adapter below.

    Args:
        vectors: The file of the vectors.
        config: The configuration.
    """
    acting = [file_digest(vectors), config.layer, float(config.scale), config.adapter_sha256]
    return hashlib.sha256(json.dumps(acting).encode()).hexdigest()
