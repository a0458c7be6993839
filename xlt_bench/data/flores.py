"""Reads FLORES-200 (NLLB Team, 2022) and other parallel corpora, one sentence per line.

FLORES-200 is flores200_dataset/<split>/<code>.<split>. Another corpus is a folder with one file per
language: swh_Latn.txt, eng_Latn.txt, ...
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlt_bench.data.root import read_sentences
from xlt_bench.errors import InputError
from xlt_bench.languages import language

MOST = 2**15 - 1
"""The most sentences that a corpus may have: answers are stored as 16-bit indices."""


def load(root: Path, flores_code: str, split: Literal["dev", "devtest"] = "dev") -> list[str]:
    """The sentences of a language, in the same order for every language.

    Args:
        root: The data folder.
        flores_code: FLORES-200 code, such as `swh_Latn`.
        split: `dev` (997 sentences) or `devtest` (1,012).

    Raises:
        InputError: The file is missing or broken.
    """
    path = root / "flores200_dataset" / split / f"{flores_code}.{split}"
    return read_sentences(path, "flores")


@dataclass(frozen=True)
class Corpus:
    """The corpus of retrieval: the task's own in the data folder `root`, or the user's `folder`."""

    root: Path
    folder: Path | None = None

    @property
    def name(self) -> str | None:
        """The name of the user's folder; None for the task's own corpus."""
        return self.folder.resolve().name if self.folder else None

    def sentences(self, code: str) -> list[str]:
        """The sentences of a language in the user's folder.

        Raises:
            InputError: The language's file is missing or broken, or there are several.
        """
        name = language(code).flores
        found = self._files(name)
        if len(found) != 1:
            raise InputError(
                f"{self.folder} has {len(found)} files for {code}; it needs one, named {name}.txt"
            )
        return read_sentences(found[0], None)

    def holds(self, code: str) -> bool:
        """Whether the user's folder has a file of a language; others are taken to have them all."""
        return self.folder is None or bool(self._files(language(code).flores))

    def _files(self, name: str) -> list[Path]:
        assert self.folder is not None
        return sorted(self.folder.glob(f"{name}.*"))
