"""Reads the files of submissions, which may be damaged or hostile.

Sizes are checked before memory is allocated. A fault raises an InputError that names the file; the
caller adds the submission.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from xlt_bench.errors import InputError, first_fault, one_line
from xlt_bench.results.migrations import upgrade_record
from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import LAYER_SCHEMA, Prediction
from xlt_bench.submissions.parquet_pages import Page, pages

MB = 1 << 20
MAX_JSON = 4 * MB
MAX_PACKED = 16 * MB  # bytes of a compressed file of answers
MAX_UNPACKED = 64 * MB  # bytes that it may decompress to
MAX_NAMES = 1 << 16  # bytes of a string column; every row may repeat its longest string
MAX_ITEMS = 10_000
MAX_PARTS = 10_000  # elements of a list or object in JSON
MAX_ANSWER = 50_000  # characters of an answer
MAX_LANGUAGES = 64  # in retrieval; version 1 ranks 35 of the 204 of FLORES-200
MAX_PAIRS = MAX_LANGUAGES * (MAX_LANGUAGES - 1)
MAX_SENTENCES = 2_100  # per language in retrieval; NTREX-128 has 1,997
# The sum of `length` over all answers, so that a check takes minutes: about 1,000 characters per
# item of the benchmark. Long answers count more: MeCab (BLEU's tokenizer for Japanese) takes 2.5
# microseconds per character up to 1,000 characters, and 20 to 30 in the longest answers.
MAX_TEXT = 100_000_000


def length(answer: str) -> int:
    """Weighted length of an answer; scoring takes at most about 4 microseconds per unit."""
    return len(answer) + len(answer) ** 2 // 5_000


Model = TypeVar("Model", bound=BaseModel)


def read_bytes(path: Path, most: int) -> bytes:
    """Read a regular file.

    Args:
        path: The file. Links, pipes and folders are refused.
        most: The largest size in bytes.

    Raises:
        InputError: The file is missing, larger, or not a regular file.
    """
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path.name} is not a regular file")
        if found.st_size > most:
            raise InputError(f"{path.name} has {found.st_size:,} bytes; the limit is {most:,}")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{path.name} is missing") from None
    if len(data) > most:
        raise InputError(f"{path.name} grew while it was being read; try again")
    return data


def read_json(text: bytes | str, where: str) -> Any:
    """Parse JSON strictly.

    Args:
        text: The JSON text.
        where: What to call it in an error, such as the name of the file.

    Raises:
        InputError: It is not JSON, is nested too deeply, or has duplicate keys, NaN, infinity, or
            more than MAX_PARTS elements in a list or object.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        if text.count(",") >= MAX_PARTS:  # with fewer, nothing can have as many elements
            _check_parts(value)
        return value
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read as JSON: {_line(error)}") from None


def _check_parts(value: Any) -> None:
    """Raise ValueError for a huge list or object, in which pydantic would report every element."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict | list):
            if len(part) > MAX_PARTS:
                raise ValueError(
                    f"a list or object has {len(part):,} elements; the limit is {MAX_PARTS:,}"
                )
            left += part.values() if isinstance(part, dict) else part


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:60]!r} occurs twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not allowed")


def read_model(path: Path, model: type[Model]) -> Model:
    """Read a JSON file into a pydantic model, strictly; records of old schemas are upgraded.

    Raises:
        InputError: The file is missing or too large, or does not fit the model.
    """
    return parse_model(read_bytes(path, MAX_JSON), path.name, model)


def parse_model(data: bytes, name: str, model: type[Model]) -> Model:
    """Parse the contents of a JSON file, as `read_model` does.

    Args:
        data: The contents, of at most MAX_JSON bytes.
        name: The name of the file, for messages.
        model: The pydantic model.

    Raises:
        InputError: The contents do not fit the model.
    """
    value = read_json(data, name)
    if model is Record and (upgraded := upgrade_record(value)) is not value:
        data = json.dumps(upgraded).encode()
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise InputError(f"{name}: {first_fault(error)}") from None


def read_answers(path: Path) -> list[Prediction]:
    """Read and check the answers of a unit.

    Raises:
        InputError: The file is damaged or too large, or a line is not an answer.
    """
    return parse_answers(read_bytes(path, MAX_PACKED), path.name)


def parse_answers(packed: bytes, name: str) -> list[Prediction]:
    """Parse the contents of a file of answers, as `read_answers` does."""
    data = _unpack(packed, name)
    # Count before splitting: a Python string takes a hundred times the memory of a line break.
    n_items = data.count(b"\n") + (not data.endswith(b"\n"))
    if n_items > MAX_ITEMS:
        raise InputError(f"{name} has {n_items:,} items; the limit is {MAX_ITEMS:,}")
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 (byte {error.start})") from None
    return [_answer(line, f"{name} line {i}") for i, line in enumerate(lines, start=1)]


def _unpack(data: bytes, name: str) -> bytes:
    try:
        # A zstd frame states its window size, and a reader allocates it at once.
        unpack = zstandard.ZstdDecompressor(max_window_size=MAX_UNPACKED)
        text = bytes(unpack.stream_reader(data).read(MAX_UNPACKED + 1))
    except zstandard.ZstdError as error:
        raise InputError(f"{name} is damaged: {_line(error)}") from None
    if len(text) > MAX_UNPACKED:
        raise InputError(f"{name} unpacks to more than {MAX_UNPACKED:,} bytes")
    # Only after the size check: a decompressobj has no size limit. It stops after the first frame.
    first = unpack.decompressobj()
    first.decompress(data)
    if not first.eof or first.unused_data:
        raise InputError(f"{name} is not exactly one zstd frame; compress it as a single frame")
    return text


def _answer(line: str, where: str) -> Prediction:
    row = read_json(line, where) if len(line) <= 8 * MAX_ANSWER else None
    if not isinstance(row, dict) or list(row) != ["id", "hypothesis", "cut_off"]:
        raise InputError(f'{where} must be {{"id": ..., "hypothesis": ..., "cut_off": ...}}')
    name, hypothesis, cut_off = row.values()
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise InputError(f"{where}: id must be a string of 1 to 200 characters")
    if not isinstance(hypothesis, str) or len(hypothesis) > MAX_ANSWER:
        raise InputError(
            f"{where}: hypothesis of item {name!r} must be a string of at most {MAX_ANSWER:,} "
            "characters"
        )
    if not isinstance(cut_off, bool | None):
        raise InputError(f"{where}: cut_off of item {name!r} must be true, false or null")
    try:
        (name + hypothesis).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{where}: item {name!r} contains a lone surrogate") from None
    return Prediction(name, hypothesis, cut_off)


Answers = NDArray[np.int16]
"""Answers at one layer, (pairs, sentences): the index of the retrieved sentence.

From a file of hits, -1 is any sentence that is not the translation.
"""
Pairs = list[tuple[str, str]]


def read_layer(path: Path, codes: list[str]) -> tuple[Pairs, Answers, NDArray[np.float64]]:
    """Read the neighbours of retrieval at one layer.

    Args:
        path: The layer's parquet file.
        codes: The languages; the file must have every ordered pair of them once.

    Returns:
        The pairs (source, target), their answers (pairs, sentences), and their stated accuracies
        (pairs,) in percent, which are not checked against the answers.

    Raises:
        InputError: The file is damaged or too large, or pairs, answers or accuracies are not valid.
    """
    return _parse_layer(read_bytes(path, MAX_PACKED), path.name, codes)


def read_accuracies(path: Path, codes: list[str]) -> pa.Table:
    """Read the columns source, target and accuracy of a file of neighbours; see `read_layer`."""
    return parse_accuracies(read_bytes(path, MAX_PACKED), path.name, codes)


def parse_neighbours(data: bytes, name: str, codes: list[str]) -> tuple[Pairs, Answers]:
    """Parse the pairs and answers of a file of neighbours; see `read_layer`."""
    pairs, answers, _ = _parse_layer(data, name, codes)
    return pairs, answers


def parse_accuracies(data: bytes, name: str, codes: list[str]) -> pa.Table:
    """Parse the contents of a file of neighbours, as `read_accuracies` does."""
    return _parse_columns(data, name, codes, ["source", "target", "accuracy"])[1]


def _parse_layer(
    data: bytes, name: str, codes: list[str]
) -> tuple[Pairs, Answers, NDArray[np.float64]]:
    pairs, table = _parse_columns(data, name, codes)
    cells = table.column("neighbours")
    answers: Answers = rectangle(cells, len(pairs), MAX_ITEMS, f"{name}: neighbours")
    n = answers.shape[1]
    if answers.min() < 0 or answers.max() >= n:
        raise InputError(f"{name}: neighbours must be from 0 to {n - 1}")
    return pairs, answers, table.column("accuracy").to_numpy()


def _parse_columns(
    data: bytes, name: str, codes: list[str], names: list[str] | None = None
) -> tuple[Pairs, pa.Table]:
    """The pairs and columns of a file of neighbours, with valid pairs and accuracies."""
    most = MAX_PAIRS * MAX_SENTENCES
    table = parse_parquet(data, name, LAYER_SCHEMA, MAX_PAIRS, most, names)
    pairs = pairs_of(table, codes, name)
    check_percent(table.column("accuracy").to_numpy(), name)
    return pairs, table


def rectangle(column: pa.ChunkedArray, rows: int, most: int, where: str) -> NDArray[Any]:
    """A column of lists as a matrix (rows, values); the lists must have equal lengths up to `most`.

    Raises:
        InputError: They have not, or a value is missing.
    """
    lists = column.combine_chunks()
    values = lists.flatten()
    sizes = {int(b - a) for a, b in pairwise(lists.offsets.to_numpy())}
    if lists.null_count or values.null_count or len(sizes) != 1:
        raise InputError(f"{where} must be one list per pair, all of equal length")
    (n,) = sizes
    # Arrow may read fewer values than the lists state if the file contradicts itself.
    if not 0 < n <= most or len(values) != rows * n:
        raise InputError(
            f"{where}: expected {n} per pair (at most {most:,}), found {len(values)} in {rows} "
            "pairs"
        )
    matrix: NDArray[Any] = values.to_numpy().reshape(rows, n)
    return matrix


def pairs_of(table: pa.Table, codes: list[str], name: str) -> Pairs:
    """The pairs of the columns source and target: every ordered pair of the languages once.

    Raises:
        InputError: There are others.
    """
    pairs = list(zip(*(table.column(c).to_pylist() for c in ("source", "target")), strict=True))
    wanted = {(a, b) for a in codes for b in codes if a != b}
    if len(pairs) != len(wanted) or set(pairs) != wanted:
        odd = next((p for p in pairs if p not in wanted), None)
        fault = (
            f"pair {odd[0]}-{odd[1]} is not in the plan" if odd else "a pair is missing or repeated"
        )
        raise InputError(f"{name}: {fault} (expected {len(wanted)} pairs, found {len(pairs)})")
    return pairs


def check_percent(accuracy: NDArray[Any], name: str) -> None:
    """Raise InputError for an accuracy that is not a percentage."""
    if not (np.isfinite(accuracy).all() and (accuracy >= 0).all() and (accuracy <= 100).all()):
        raise InputError(f"{name}: accuracy must be between 0 and 100")


def read_parquet(
    path: Path, schema: pa.Schema, rows: int, values: int, names: list[str] | None = None
) -> pa.Table:
    """Read a parquet file, and check what its footer and pages state before decoding anything.

    Args:
        path: The file.
        schema: The exact schema that it must have.
        rows: The largest number of rows.
        values: The largest number of values in a list column.
        names: The columns to decode; all by default.

    Raises:
        InputError: The file is damaged or too large, or has another schema.
    """
    return parse_parquet(read_bytes(path, MAX_PACKED), path.name, schema, rows, values, names)


def parse_parquet(
    data: bytes,
    name: str,
    schema: pa.Schema,
    rows: int,
    values: int,
    names: list[str] | None = None,
) -> pa.Table:
    """Parse the contents of a parquet file, as `read_parquet` does."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if not file.schema_arrow.equals(schema):
            expected = ", ".join(schema.names)
            raise InputError(f"{name}: wrong columns or column types; expected {expected}")
        if not 0 < file.metadata.num_rows <= rows or file.metadata.num_row_groups > rows:
            raise InputError(f"{name} must have 1 to {rows:,} rows")
        for column, field in enumerate(schema):
            most = values if pa.types.is_list(field.type) else rows
            room = MAX_NAMES if pa.types.is_string(field.type) else MAX_UNPACKED
            found = list(pages(data, file.metadata, column))
            _check_pages(f"{name}: {field.name}", found, most, room)
        table = file.read(columns=names, use_threads=False)
        # Without this, Arrow trusts offsets and UTF-8 and reads out of bounds later.
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is damaged: {_line(error)}") from None


def _check_pages(where: str, found: Sequence[Page], values: int, room: int) -> None:
    """Raise InputError for too many bytes or values; a dictionary may have as many again."""
    if sum(page.values for page in found) > 2 * values:
        raise InputError(f"{where} has more than {values:,} values")
    if sum(page.unpacked for page in found) > room:
        raise InputError(f"{where} unpacks to more than {room:,} bytes")


def _line(error: object) -> str:
    return one_line(error, 200)
