"""Finds the model that ships with the package, a small multilingual Llama, and its adapters."""

from __future__ import annotations

from pathlib import Path

from xlt_bench.errors import unknown

_FOLDER = Path(__file__).resolve().parent
NAMES = {
    "embedded": _FOLDER / "model",
    "embedded:baseline": _FOLDER / "baseline",
    "embedded:aligned": _FOLDER / "aligned",
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
    if name.startswith("embedded:"):
        raise unknown("adapter", name, [key for key in NAMES if ":" in key])
    return name
