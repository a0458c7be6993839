"""Reading what strangers send: every size is bounded before it is believed, errors are one line.

Raises InputError that names the file; the caller names the submission.
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
from xlt_bench.results.migrations import upgrade_record, upgraded
from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import LAYER_SCHEMA, Prediction
from xlt_bench.submissions.parquet_pages import Page, pages

MB = 1 << 20
MAX_JSON = 4 * MB
MAX_PACKED = 16 * MB  # of one file of answers, as it lies there
MAX_UNPACKED = 64 * MB
MAX_NAMES = 1 << 16  # bytes of a column of names, any of which every row may repeat
MAX_ITEMS = 10_000
MAX_PARTS = 10_000  # of a list or an object in JSON
MAX_ANSWER = 50_000  # characters
MAX_LANGUAGES = 64  # of retrieval; FLORES-200 has 204, of which version 1 ranks 35
MAX_SENTENCES = 1_100  # of a language in retrieval; FLORES dev has 997
# All answers together, so that a check ends in minutes: a thousand characters for each of a whole
# benchmark, where a long answer counts more. MeCab, which BLEU has for Japanese, takes 2.5
# microseconds a character up to a thousand of them, and 20 to 30 in answers of the largest size.
MAX_TEXT = 100_000_000


def length(answer: str) -> int:
    """What an answer counts of MAX_TEXT; about 4 microseconds of the slowest metric each."""
    return len(answer) + len(answer) ** 2 // 5_000


Model = TypeVar("Model", bound=BaseModel)


def read_bytes(path: Path, most: int) -> bytes:
    """A plain file of at most `most` bytes; a link or anything else is refused."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path.name} is no plain file")
        if found.st_size > most:
            raise InputError(f"{path.name} has {found.st_size:,} bytes; at most {most:,} are taken")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{path.name} is missing") from None
    if len(data) > most:
        raise InputError(f"{path.name} grew while it was read")
    return data


def read_json(text: bytes | str, where: str) -> Any:
    """A JSON value: no duplicate keys, no NaN or infinity, no nesting beyond Python's own limit."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        _check_parts(value)
        return value
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not accepted: {_line(error)}") from None


def _check_parts(value: Any) -> None:
    """ValueError for a list or object of too many parts: pydantic says of each what is wrong."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict | list):
            if len(part) > MAX_PARTS:
                raise ValueError(f"a list or an object has {len(part):,} parts, not {MAX_PARTS:,}")
            left += part.values() if isinstance(part, dict) else part


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:60]!r} occurs twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def read_model(path: Path, model: type[Model]) -> Model:
    """A JSON file as its pydantic model: strict types, no unknown keys, old schemas upgraded."""
    data = read_bytes(path, MAX_JSON)
    read_json(data, path.name)
    if model is Record:
        data = upgraded(data, upgrade_record)
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise InputError(f"{path.name}: {first_fault(error)}") from None


def read_answers(path: Path) -> list[Prediction]:
    """The answers of a unit, every line checked."""
    data = _unpack(read_bytes(path, MAX_PACKED), path.name)
    # Counted before they are split: a line costs a hundred times its byte.
    n_items = data.count(b"\n") + (not data.endswith(b"\n"))
    if n_items > MAX_ITEMS:
        raise InputError(f"{path.name} has {n_items:,} items; at most {MAX_ITEMS:,} are taken")
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start})") from None
    return [_answer(line, f"{path.name} line {i}") for i, line in enumerate(lines, start=1)]


def _unpack(data: bytes, name: str) -> bytes:
    try:
        # The window is what a frame makes a reader allocate at once.
        unpack = zstandard.ZstdDecompressor(max_window_size=MAX_UNPACKED)
        text = bytes(unpack.stream_reader(data).read(MAX_UNPACKED + 1))
    except zstandard.ZstdError as error:
        raise InputError(f"{name} is damaged: {_line(error)}") from None
    if len(text) > MAX_UNPACKED:
        raise InputError(f"{name} unpacks to more than {MAX_UNPACKED:,} bytes")
    # Only now, since an object of this kind unpacks without a bound. It ends with the first frame.
    first = unpack.decompressobj()
    first.decompress(data)
    if not first.eof or first.unused_data:
        raise InputError(f"{name} does not end with its first zstd frame; pack it as one frame")
    return text


def _answer(line: str, where: str) -> Prediction:
    row = read_json(line, where) if len(line) <= 8 * MAX_ANSWER else None
    if not isinstance(row, dict) or list(row) != ["id", "hypothesis", "cut_off"]:
        raise InputError(f'{where} is not {{"id": ..., "hypothesis": ..., "cut_off": ...}}')
    name, hypothesis, cut_off = row.values()
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise InputError(f"{where}: id is no text of 1 to 200 characters")
    if not isinstance(hypothesis, str) or len(hypothesis) > MAX_ANSWER:
        raise InputError(f"{where}: hypothesis of item {name!r} is no text up to {MAX_ANSWER:,}")
    if not isinstance(cut_off, bool | None):
        raise InputError(f"{where}: cut_off of item {name!r} is neither true, false nor null")
    try:
        (name + hypothesis).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{where}: half of a surrogate pair in item {name!r}") from None
    return Prediction(name, hypothesis, cut_off)


Answers = NDArray[np.int16]
"""A layer: (pairs, sentences), each the index of the sentence that was retrieved."""


def read_layer(
    path: Path, codes: list[str]
) -> tuple[list[tuple[str, str]], Answers, NDArray[np.float64]]:
    """The ordered pairs of a layer, every pair of `codes` once; their answers and accuracies."""
    pairs, table = _pairs(path, codes)
    column = _columns(path, ["neighbours"]).column("neighbours").combine_chunks()
    offsets = column.offsets.to_numpy()
    values = column.flatten()
    sizes = {int(b - a) for a, b in pairwise(offsets)}
    if column.null_count or values.null_count or len(sizes) != 1:
        raise InputError(f"{path.name}: neighbours are not one list of equal length a pair")
    (n,) = sizes
    # A file whose parts contradict each other may be read as fewer values than its lists state.
    if not 0 < n <= MAX_ITEMS or len(values) != len(pairs) * n:
        raise InputError(f"{path.name}: {len(values)} neighbours are not {n} for each pair")
    answers: Answers = values.to_numpy().reshape(len(pairs), n)
    if answers.min() < 0 or answers.max() >= n:
        raise InputError(f"{path.name}: a neighbour is no sentence number below {n}")
    return pairs, answers, table.column("accuracy").to_numpy()


def read_accuracies(path: Path, codes: list[str]) -> pa.Table:
    """The accuracy of every ordered pair of a layer, without reading the neighbours."""
    _, table = _pairs(path, codes)
    return table


def _pairs(path: Path, codes: list[str]) -> tuple[list[tuple[str, str]], pa.Table]:
    table = _columns(path, ["source", "target", "accuracy"])
    pairs = list(zip(*(table.column(c).to_pylist() for c in ("source", "target")), strict=True))
    wanted = [(a, b) for a in codes for b in codes if a != b]
    if len(pairs) != len(wanted) or set(pairs) != set(wanted):
        odd = next((p for p in pairs if p not in set(wanted)), None)
        fault = f"pair {odd[0]}-{odd[1]} was not planned" if odd else "a pair is missing or twice"
        raise InputError(f"{path.name}: {fault} ({len(wanted)} pairs expected, {len(pairs)} found)")
    accuracy = table.column("accuracy").to_numpy()
    if not (np.isfinite(accuracy).all() and (accuracy >= 0).all() and (accuracy <= 100).all()):
        raise InputError(f"{path.name}: an accuracy is not between 0 and 100")
    return pairs, table


def _columns(path: Path, names: list[str]) -> pa.Table:
    pairs = MAX_LANGUAGES * (MAX_LANGUAGES - 1)
    return read_parquet(path, LAYER_SCHEMA, pairs, pairs * MAX_SENTENCES, names)


def read_parquet(
    path: Path, schema: pa.Schema, rows: int, values: int, names: list[str] | None = None
) -> pa.Table:
    """A parquet file of exactly this schema: at most `rows` rows and, of a list column, `values`.

    What its footer and its pages state is checked before anything is decoded.
    """
    data = read_bytes(path, MAX_PACKED)
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if not file.schema_arrow.equals(schema):
            raise InputError(f"{path.name}: its columns are not {', '.join(schema.names)}")
        if not 0 < file.metadata.num_rows <= rows or file.metadata.num_row_groups > rows:
            raise InputError(f"{path.name} does not hold 1 to {rows:,} rows")
        for column, field in enumerate(schema):
            most = values if pa.types.is_list(field.type) else rows
            room = MAX_NAMES if pa.types.is_string(field.type) else MAX_UNPACKED
            found = list(pages(data, file.metadata, column))
            _check_pages(f"{path.name}: {field.name}", found, most, room)
        table = file.read(columns=names, use_threads=False)
        # Arrow takes offsets and UTF-8 as they come, and reads past them later.
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name} is damaged: {_line(error)}") from None


def _check_pages(where: str, found: Sequence[Page], values: int, room: int) -> None:
    """InputError for more values (as many again may be in a dictionary) or bytes than fit."""
    if sum(page.values for page in found) > 2 * values:
        raise InputError(f"{where} holds more than {values:,} values")
    if sum(page.unpacked for page in found) > room:
        raise InputError(f"{where} unpacks to more than {room:,} bytes")


def _line(error: object) -> str:
    return one_line(error, 200)
