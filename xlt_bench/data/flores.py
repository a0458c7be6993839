"""FLORES-200 (NLLB Team, 2022): flores200_dataset/<split>/<code>.<split>, a sentence a line.

Another corpus is a folder with one such file a language: swh_Latn.txt, eng_Latn.txt, ...
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlt_bench.data.root import read_lines
from xlt_bench.errors import InputError
from xlt_bench.languages import language

MOST = 2**15 - 1
"""Sentences of a corpus: answers are stored as 16-bit indices."""


def load(root: Path, flores_code: str, split: Literal["dev", "devtest"] = "dev") -> list[str]:
    """The sentences of a language (997 in dev), parallel over languages by their position."""
    path = root / "flores200_dataset" / split / f"{flores_code}.{split}"
    return read_lines(path, "flores")


@dataclass(frozen=True)
class Corpus:
    """What retrieval is over: FLORES dev below `root`, or a folder of the user's."""

    root: Path
    folder: Path | None = None

    @property
    def name(self) -> str | None:
        """Of the folder, None for FLORES dev."""
        return self.folder.resolve().name if self.folder else None

    def sentences(self, code: str) -> list[str]:
        """Those of a language by its code. Raises InputError where they cannot be read."""
        name = language(code).flores
        if self.folder is None:
            return load(self.root, name)
        found = self._files(name)
        if len(found) != 1:
            raise InputError(
                f"{self.folder} has {len(found)} files of {code}; it needs one, named {name}.txt"
            )
        return read_lines(found[0], "flores")

    def holds(self, code: str) -> bool:
        """Whether there is anything of a language; FLORES has them all."""
        return self.folder is None or bool(self._files(language(code).flores))

    def _files(self, name: str) -> list[Path]:
        assert self.folder is not None
        return sorted(self.folder.glob(f"{name}.*"))

    def check(self, codes: Iterable[str]) -> None:
        """Raise InputError where two languages' sentences cannot be translations by position."""
        counts = {code: len(self.sentences(code)) for code in codes}
        first = next(iter(counts), "")
        for code, count in counts.items():
            if count != counts[first] or not count:
                both = f"{first} has {counts[first]} sentences, {code} has {count}"
                raise InputError(f"{self._named()} is not parallel: {both}; {self._mend()}")
            if count > MOST:
                raise InputError(f"{self._named()} has {count:,} sentences; {MOST:,} are taken")

    def _named(self) -> str:
        return "FLORES dev" if self.folder is None else str(self.folder)

    def _mend(self) -> str:
        if self.folder is not None:
            return "line N of every file must be one sentence's translation"
        folder = self.root / "flores200_dataset" / "dev"
        return f"delete the odd one below {folder}, then: xlt-bench data fetch flores"
