"""Reads and writes what a submission keeps of retrieval: hits by sentence, accuracies by pair.

Every score of retrieval counts hits: the sentences that retrieved their own translation. So a
submission needs no other neighbours, which take ten times the space.

retrieval/layer-NNN.parquet   source, target, number of sentences, and a bit per sentence, the first
                              in the highest bit of the first byte (`numpy.packbits`)
accuracies.parquet            source, target, and a percentage for each layer of the plan
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xlt_bench.errors import InputError
from xlt_bench.results.run_folder import write_parquet
from xlt_bench.submissions.safe_read import (
    MAX_ITEMS,
    MAX_PAIRS,
    MAX_SENTENCES,
    Answers,
    Pairs,
    check_percent,
    pairs_of,
    parse_parquet,
    read_parquet,
    rectangle,
)

HITS_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("target", pa.string()),
        ("sentences", pa.int32()),
        ("hits", pa.list_(pa.uint8())),
    ]
)
ACCURACY_SCHEMA = pa.schema(
    [("source", pa.string()), ("target", pa.string()), ("accuracy", pa.list_(pa.float64()))]
)
_BYTES = -(-MAX_SENTENCES // 8)
Floats = NDArray[np.float64]


def as_hits(answers: NDArray[Any]) -> Answers:
    """Answers (pairs, sentences) with -1 for every sentence that is not the translation."""
    own = np.arange(answers.shape[1])
    hits: Answers = np.where(answers == own, own, -1).astype(np.int16)
    return hits


def accuracies_of(answers: Answers) -> Floats:
    """The percentage of hits of each pair, (pairs,), from answers (pairs, sentences)."""
    right = (answers == np.arange(answers.shape[1])).sum(axis=1)
    percentages: Floats = 100 * right / answers.shape[1]
    return percentages


def write_hits(path: Path, pairs: Pairs, answers: Answers) -> None:
    """Write the hits at a layer.

    Args:
        path: The file.
        pairs: The pairs (source, target).
        answers: Their answers, (pairs, sentences).
    """
    n = answers.shape[1]
    bits = np.packbits(answers == np.arange(n), axis=1)
    columns = [
        *_sides(pairs),
        pa.array([n] * len(pairs), pa.int32()),
        pa.array(list(bits), pa.list_(pa.uint8())),
    ]
    write_parquet(path, pa.table(columns, schema=HITS_SCHEMA))


def parse_hits(data: bytes, name: str, codes: list[str]) -> tuple[Pairs, Answers]:
    """Parse the contents of a file of hits.

    Args:
        data: The contents.
        name: The name of the file, for messages.
        codes: The languages; the file must have every ordered pair of them once.

    Returns:
        The pairs (source, target), and their answers (pairs, sentences).

    Raises:
        InputError: The contents are damaged or too large, or not valid.
    """
    table = parse_parquet(data, name, HITS_SCHEMA, MAX_PAIRS, MAX_PAIRS * _BYTES)
    pairs = pairs_of(table, codes, name)
    bits = rectangle(table.column("hits"), len(pairs), _BYTES, f"{name}: hits")
    numbers = set(table.column("sentences").to_pylist())
    n = numbers.pop()
    if numbers or n is None or not 0 < n <= MAX_ITEMS or -(-n // 8) != bits.shape[1]:
        raise InputError(f"{name}: {bits.shape[1]} bytes of hits are not those of {n} sentences")
    found = np.unpackbits(bits, axis=1)
    if found[:, n:].any():
        raise InputError(f"{name}: a bit is set beyond the last sentence")
    own = np.arange(n, dtype=np.int16)
    return pairs, np.where(found[:, :n], own, np.int16(-1))


def write_accuracies(path: Path, by_layer: Mapping[int, Mapping[tuple[str, str], float]]) -> None:
    """Write the accuracies of all layers, in the order of the layers, from percentages by pair."""
    pairs = list(next(iter(by_layer.values())))
    cells = [[found[pair] for found in by_layer.values()] for pair in pairs]
    columns = [*_sides(pairs), pa.array(cells, pa.list_(pa.float64()))]
    write_parquet(path, pa.table(columns, schema=ACCURACY_SCHEMA))


def read_accuracies(path: Path, codes: list[str], layers: int) -> tuple[Pairs, Floats]:
    """Read the accuracies of all layers.

    Args:
        path: The file.
        codes: The languages; the file must have every ordered pair of them once.
        layers: The number of layers.

    Returns:
        The pairs (source, target), and their percentages (pairs, layers).

    Raises:
        InputError: The file is damaged or too large, or not valid.
    """
    table = read_parquet(path, ACCURACY_SCHEMA, MAX_PAIRS, MAX_PAIRS * layers)
    pairs = pairs_of(table, codes, path.name)
    where = f"{path.name}: accuracy"
    found: Floats = rectangle(table.column("accuracy"), len(pairs), layers, where)
    if found.shape[1] != layers:
        raise InputError(f"{path.name}: {found.shape[1]} layers, but the plan has {layers}")
    check_percent(found, path.name)
    return pairs, found


def _sides(pairs: Sequence[tuple[str, str]]) -> list[pa.Array]:
    return [pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1)]
