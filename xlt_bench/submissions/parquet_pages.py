"""How much a parquet file unpacks to, by the headers of its pages.

Arrow believes a page: one of a few bytes may hold a billion equal values, or one long text a
thousand times, and the footer need not say so. So the headers are read first. They are in thrift's
compact protocol (parquet-format, parquet.thrift); what a writer has no reason to do is refused, for
there two readers may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_DEEPEST = 4
_WRITER = "parquet-cpp-arrow version "
"""Of files by others Arrow takes some to be longer than they say."""


@dataclass(frozen=True)
class Page:
    """A page's own statement of its size."""

    values: int
    unpacked: int
    """Bytes."""


def pages(data: bytes, metadata: pq.FileMetaData, column: int) -> Iterator[Page]:
    """All pages of a column. Raises ValueError where they are not what a writer makes."""
    if not str(metadata.created_by).startswith(_WRITER):
        raise ValueError("it was not written by Arrow")
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
            raise ValueError("a column lies outside the file")
        while start < end:
            reader = _Compact(data, start, end)
            header = reader.struct()
            start = reader.at + _number(header, 3)
            yield Page(_values(header), _number(header, 2))
        if start != end:
            raise ValueError("a page is longer than its column")


def _values(header: dict[int, Any]) -> int:
    """Of a data page (field 5, or 8 in its second version) or a dictionary (7)."""
    kinds = [header[field] for field in (5, 7, 8) if field in header]
    if len(kinds) != 1 or not isinstance(kinds[0], dict):
        raise ValueError("a page is neither data nor dictionary")
    return _number(kinds[0], 1)


def _number(struct: dict[int, Any], field: int) -> int:
    value = struct.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError("a page's header states no size")
    return value


class _Compact:
    """Values of thrift's compact protocol, from `at` on; ValueError beyond `end`."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data, self.at, self._end = data, at, end

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Fields by number, each once."""
        if depth > _DEEPEST:
            raise ValueError("a page's header is too deep")
        found: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._signed()
            if field in found:
                raise ValueError("a page's header states a field twice")
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
        if kind not in sizes:  # no list, set or map is in a page's header
            raise ValueError("a page's header holds what none has")
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
        raise ValueError("a number of a page's header is too long")

    def _byte(self) -> int:
        self._skip(1)
        return self._data[self.at - 1]

    def _skip(self, size: int) -> None:
        if self.at + size > self._end:
            raise ValueError("a page's header is cut off")
        self.at += size
