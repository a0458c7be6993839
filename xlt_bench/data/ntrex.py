"""Reads NTREX-128 (Federmann, Kocmi and Xin, 2022): WMT19's English news test in 128 languages.

ntrex/NTREX-128/newstest2019-src.eng.txt and newstest2019-ref.<code>.txt have a sentence on each
line, the same one in every file. The codes are the publisher's (`swa`, `zho-CN`); `languages.tsv`
maps ours to them. It leaves out Burmese, which is in Zawgyi instead of Unicode, and second variants
of a language (American English, Serbian in Latin script, ...).
"""

from __future__ import annotations

from pathlib import Path

from xlt_bench.data.root import read_sentences

ENGLISH = "eng"


def path_of(code: str) -> str:
    """The file of a language, by the publisher's code, relative to the data folder."""
    side = "src" if code == ENGLISH else "ref"
    return f"ntrex/NTREX-128/newstest2019-{side}.{code}.txt"


def load(root: Path, code: str) -> list[str]:
    """The 1,997 sentences of a language, in the same order for every language.

    Args:
        root: The data folder.
        code: The publisher's code, such as `swa`.

    Raises:
        InputError: The file is missing or broken.
    """
    return read_sentences(root / path_of(code), "ntrex")
