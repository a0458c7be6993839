"""The embedded model: a small multilingual Llama that ships in the package, and its adapters."""

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
    """The folder of a model or adapter that ships with the package; any other name as it is.

    Raises InputError for `embedded:` and something else.
    """
    if name in NAMES:
        return str(NAMES[name])
    if name.startswith("embedded:"):
        raise unknown("adapter", name, [key for key in NAMES if ":" in key])
    return name
