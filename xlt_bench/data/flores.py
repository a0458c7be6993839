"""FLORES-200 (NLLB Team, 2022): flores200_dataset/<split>/<code>.<split>, a sentence a line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from xlt_bench.data.root import read_lines


def load(root: Path, flores_code: str, split: Literal["dev", "devtest"] = "dev") -> list[str]:
    """The sentences of a language (997 in dev), parallel over languages by their position."""
    path = root / "flores200_dataset" / split / f"{flores_code}.{split}"
    return read_lines(path, "flores")
