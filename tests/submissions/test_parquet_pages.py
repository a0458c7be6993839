"""Tests the sizes in page headers against what Arrow wrote."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xlt_bench.submissions.parquet_pages import pages

ROWS = 700
TABLE = pa.table(
    {
        "name": [f"name {i % 40}" for i in range(ROWS)],
        "values": [list(range(i, i + 50)) for i in range(ROWS)],
    },
    schema=pa.schema([("name", pa.string()), ("values", pa.list_(pa.int16()))]),
)


def written(**settings):
    sink = io.BytesIO()
    pq.write_table(TABLE, sink, write_page_checksum=True, **settings)
    return sink.getvalue()


def found(data, column):
    return list(pages(data, pq.ParquetFile(pa.BufferReader(data)).metadata, column))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd", "snappy"])
@pytest.mark.parametrize("row_group_size", [ROWS, 99])
def test_pages_are_those_that_were_written(version, compression, row_group_size):
    data = written(
        data_page_version=version,
        compression=compression,
        row_group_size=row_group_size,
        data_page_size=2_000,
        use_dictionary=False,
    )
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    for column, total in enumerate((ROWS, 50 * ROWS)):
        its = found(data, column)
        assert sum(page.values for page in its) == total
        assert len(its) >= metadata.num_row_groups
        unpacked = sum(
            metadata.row_group(i).column(column).total_uncompressed_size
            for i in range(metadata.num_row_groups)
        )
        # The total in the footer includes the headers.
        assert 0 < unpacked - sum(page.unpacked for page in its) <= 100 * len(its)


def test_a_dictionary_is_a_page():
    dictionary, *data = found(written(), 0)
    assert dictionary.values == 40
    assert sum(page.values for page in data) == ROWS


def test_equal_values_are_counted_though_they_take_no_space():
    table = pa.table({"v": pa.array([np.zeros(3_000_000, dtype=np.int16)])})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    assert len(sink.getvalue()) < 5_000
    assert sum(page.values for page in found(sink.getvalue(), 0)) == 3_000_001  # and a dictionary


@pytest.mark.parametrize(
    ("message", "header"),
    {
        "no valid size": b"\x00",  # an empty struct
        "a field twice": b"\x15\x00\x05\x02",
        "truncated": b"\x18" + b"\xff\xff\xff\x7f",
        "too long": b"\x15" + b"\xff" * 12,
        "unexpected type": b"\x19",
        "too deep": b"\x1c" * 9,
        "outside the file": None,
    }.items(),
)
def test_headers_that_no_writer_produces_are_refused(message, header):
    data = written()
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    at = metadata.row_group(0).column(0).dictionary_page_offset
    spoiled = data[:at] if header is None else data[:at] + header + data[at + len(header) :]
    with pytest.raises(ValueError, match=message):
        list(pages(spoiled, metadata, 0))
