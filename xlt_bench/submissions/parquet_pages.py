"""Reads the page headers of a parquet file, to know its decompressed size before decoding it.

A page of a few bytes can expand to a billion equal values, or repeat one long string a thousand
times, and the footer does not have to say so; Arrow would allocate all of it. Headers are in
thrift's compact protocol (parquet.thrift in apache/parquet-format). Whatever Arrow's writer never
produces is refused, because two readers might interpret it differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_DEEPEST = 4
_WRITER = "parquet-cpp-arrow version "
"""With files of other writers, Arrow may read more values than the headers state."""


@dataclass(frozen=True)
class Page:
    """The size of a page, as its header states it."""

    values: int
    unpacked: int
    """Bytes after decompression."""


def pages(data: bytes, metadata: pq.FileMetaData, column: int) -> Iterator[Page]:
    """Read the page headers of a column.

    Args:
        data: The whole file.
        metadata: Its footer.
        column: The index of the column.

    Raises:
        ValueError: The file was not written by Arrow, or a header is not valid.
    """
    if not str(metadata.created_by).startswith(_WRITER):
        raise ValueError("it was not written by Arrow; write it with pyarrow")
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        if columns.num_columns != metadata.num_columns:
            raise ValueError("a column is missing")
        chunk = columns.column(column)
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = chunk.dictionary_page_offset
        end = start + chunk.total_compressed_size
        if not 0 < start < end <= len(data):
            raise ValueError("a column is outside the file")
        while start < end:
            reader = _Compact(data, start, end)
            header = reader.struct()
            start = reader.at + _number(header, 3)
            yield Page(_values(header), _number(header, 2))
        if start != end:
            raise ValueError("a page is longer than its column")


def _values(header: dict[int, Any]) -> int:
    """The number of values: in field 5 of data pages, 8 of data pages v2, 7 of dictionaries."""
    kinds = [header[field] for field in (5, 7, 8) if field in header]
    if len(kinds) != 1 or not isinstance(kinds[0], dict):
        raise ValueError("a page is neither a data page nor a dictionary")
    return _number(kinds[0], 1)


def _number(struct: dict[int, Any], field: int) -> int:
    value = struct.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError("a page header has no valid size")
    return value


class _Compact:
    """Parses thrift's compact protocol from `at`; raises ValueError at `end`."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data, self.at, self._end = data, at, end

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Parse a struct into its fields by number."""
        if depth > _DEEPEST:
            raise ValueError("a page header is nested too deeply")
        found: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._signed()
            if field in found:
                raise ValueError("a page header has a field twice")
            found[field] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        sizes = {_BYTE: lambda: 1, _DOUBLE: lambda: 8, _BINARY: self._varint}
        if kind not in sizes:  # page headers have no lists, sets or maps
            raise ValueError("a page header has a field of an unexpected type")
        self._skip(sizes[kind]())
        return None

    def _signed(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise ValueError("a number in a page header is too long")

    def _byte(self) -> int:
        self._skip(1)
        return self._data[self.at - 1]

    def _skip(self, size: int) -> None:
        if self.at + size > self._end:
            raise ValueError("a page header is truncated")
        self.at += size
