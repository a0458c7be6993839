"""Reads the training text of IWSLT 2017's TED talks (Cettolo et al., 2012; 2017), as published.

    iwslt2017/<x>-<y>/train.tags.<x>-<y>.<x>, and .<y>

Lines of the two files belong together; those with the talk's speaker, title and the like are in
tags. The archives are on wit3.fbk.eu, which no command fetches: unpack them into the data folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from xlt_bench.data.root import MissingFileError, read_lines
from xlt_bench.errors import InputError

_TAG = re.compile(
    r"</?(?:url|keywords|speaker|talkid|title|description|reviewer|translator|transcript|doc)\b"
)


def load_train(root: Path, first: str, second: str) -> list[tuple[str, str]]:
    """The sentence pairs of a language pair, in file order.

    Args:
        root: The data folder.
        first: IWSLT's code of the first side (`de`).
        second: That of the second; the files may be of either direction.

    Raises:
        InputError: A file is missing, or the two have not the same number of sentences.
    """
    folder, names = _files(root, f"{first}-{second}", f"{second}-{first}")
    sides = [_sentences(folder / f"{names}.{code}") for code in (first, second)]
    if len(sides[0]) != len(sides[1]):
        raise InputError(
            f"{folder} has {len(sides[0]):,} sentences of {first} and {len(sides[1]):,} of "
            f"{second}; unpack the archive again"
        )
    return list(zip(*sides, strict=True))


def _files(root: Path, *directions: str) -> tuple[Path, str]:
    for direction in directions:
        folder, names = root / "iwslt2017" / direction, f"train.tags.{direction}"
        if any(folder.glob(f"{names}.*")):
            return folder, names
    folder = root / "iwslt2017" / directions[0]
    raise MissingFileError(
        f"{folder}/train.tags.{directions[0]}.* is missing; unpack IWSLT 2017's archive (2017-01 "
        f"of wit3.fbk.eu) of {directions[0]} or {directions[1]} there"
    )


def _sentences(path: Path) -> list[str]:
    return [line.strip() for line in read_lines(path, None) if not _TAG.match(line.strip())]
