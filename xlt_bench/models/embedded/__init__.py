"""Finds the model that ships with the package, a small multilingual Llama, and its adapters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from xlt_bench.errors import unknown

_FOLDER = Path(__file__).resolve().parent
_ADAPTERS = _FOLDER / "adapters"
MODEL = "embedded"


@dataclass(frozen=True)
class Pair:
    """The names of two adapters for a task, which differ in whether they were also aligned."""

    task: str
    baseline: str
    aligned: str


def _pairs() -> list[Pair]:
    tasks = ("massive", "wmt23", "uner")
    pairs = [Pair(t, f"{MODEL}:{t}-baseline", f"{MODEL}:{t}-aligned") for t in tasks]
    return [pair for pair in pairs if _folder(pair.baseline).is_dir()]


def _folder(adapter: str) -> Path:
    """`embedded:massive-baseline` is in `adapters/massive-baseline`."""
    return _ADAPTERS / adapter.removeprefix(f"{MODEL}:")


PAIRS = _pairs()
"""The shipped adapters, in the order of the tasks."""
NAMES = {
    MODEL: _FOLDER / "model",
    **{name: _folder(name) for pair in PAIRS for name in (pair.baseline, pair.aligned)},
    # The names from when slot filling alone had adapters.
    "embedded:baseline": _ADAPTERS / "massive-baseline",
    "embedded:aligned": _ADAPTERS / "massive-aligned",
}


def shipped(name: str) -> str:
    """Resolve the name of a model or adapter that ships with the package.

    Args:
        name: Any name of a model or adapter.

    Returns:
        The folder in the package; any other name as it is.

    Raises:
        InputError: If the name starts with `embedded:` and is unknown.
    """
    if name in NAMES:
        return str(NAMES[name])
    if name.startswith(f"{MODEL}:"):
        raise unknown("adapter", name, [key for key in NAMES if ":" in key])
    return name


def n_layers() -> int:
    """The number of decoder blocks of the model."""
    config = json.loads((NAMES[MODEL] / "config.json").read_text(encoding="utf-8"))
    return int(config["num_hidden_layers"])
