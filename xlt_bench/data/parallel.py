"""Reads a user's own parallel text: tab-separated, two files of Moses, or JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlt_bench.data.root import parse_line, read_lines
from xlt_bench.errors import InputError


def load(files: str | Sequence[str], first: str, second: str) -> list[tuple[str, str]]:
    """Read the sentence pairs of a language pair, in file order; blank sides are kept.

    Args:
        files: One file, `.tsv` (two columns) or `.jsonl` (an object with the two language codes as
            keys on each line), or two files with the same sentence on the same line. Each may be
            packed, with `.gz` appended.
        first: The code of the first column, file or key.
        second: The code of the second.

    Returns:
        Pairs of texts.

    Raises:
        InputError: A file is missing or is not what its name says.
    """
    if not isinstance(files, str):
        return _moses([Path(name) for name in files])
    path = Path(files)
    kind = path.name.removesuffix(".gz")
    if kind.endswith(".tsv"):
        return [_columns(line, path, n) for n, line in enumerate(read_lines(path, None), 1)]
    if kind.endswith(".jsonl"):
        lines = enumerate(read_lines(path, None), 1)
        return [_object(line, path, n, first, second) for n, line in lines if line.strip()]
    raise InputError(f"{path} must be a .tsv or .jsonl file; give plain text as two files")


def _moses(paths: Sequence[Path]) -> list[tuple[str, str]]:
    if len(paths) != 2:
        raise InputError(
            f"give two files of parallel text, one for each language, not {len(paths)}"
        )
    one, other = (read_lines(path, None) for path in paths)
    if len(one) != len(other):
        raise InputError(
            f"{paths[0]} has {len(one):,} lines and {paths[1]} {len(other):,}: line N of both must "
            "be the same sentence"
        )
    return list(zip(one, other, strict=True))


def _columns(line: str, path: Path, number: int) -> tuple[str, str]:
    columns = line.split("\t")
    if len(columns) != 2:
        raise InputError(f"{path} line {number} has {len(columns)} columns instead of two")
    return columns[0], columns[1]


def _object(line: str, path: Path, number: int, first: str, second: str) -> tuple[str, str]:
    row = parse_line(line, path, number)
    texts = [row.get(code) for code in (first, second)] if isinstance(row, dict) else []
    if not all(isinstance(text, str) for text in texts) or not texts:
        raise InputError(
            f'{path} line {number} must be an object such as {{"{first}": "...", '
            f'"{second}": "..."}}'
        )
    return str(texts[0]), str(texts[1])
