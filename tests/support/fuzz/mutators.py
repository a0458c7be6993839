"""Mutates JSON, bytes, answers and tables at random."""

import copy
import json

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

ODD_TEXTS = [
    "", " ", "\n", "..", "../../etc/passwd", "/etc/passwd", "~", "a/b", "C:\\con", "NUL", "\x00",
    "\x1b[2J", "\u202eabc", "\u200b", "\ufeff", "\U0010ffff" * 300, "x" * 5_000, "x" * 300_000,
    "d\u0435", "ｄｅ", "de\u0301", "dе", "=1+1", "<script>", "'; DROP TABLE submissions; --",
    "nan", "None", "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59-23:59", "2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00:01",
    "2026-W01-1T00:00:00+00:00", "20260102T030405.123456789Z", "1677-01-01T00:00:00Z", "yesterday",
    "base-0123456789-0123456789", "f" * 64, "F" * 64, "0" * 16, "fr", "flores", "massive/de",
]  # fmt: skip
ODD_NUMBERS = [
    0, -1, 1, 2, 3, 255, 32_767, 32_768, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63),
    10**30, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"),
    float("-inf"), 100.0, 100.0000001,
]  # fmt: skip


def odd_value(draw):
    """A JSON value that a reader may not expect."""
    deep = []
    for _ in range(draw.choice([3, 150, 900])):
        deep = [deep]
    return draw.choice(
        [None, True, False, [], {}, [[]], [None], {"": None}, deep, [0] * 2_000]
        + [draw.choice(ODD_TEXTS) for _ in range(6)]
        + [draw.choice(ODD_NUMBERS) for _ in range(6)]
    )


def places(value, path=()):
    """Yield the path of every value in a JSON value."""
    yield path
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in parts:
        yield from places(part, (*path, key))


def change_json(draw, value):
    """Change structure, type or value once. Returns text, since keys may be repeated."""
    value = copy.deepcopy(value)
    everywhere = [path for path in places(value) if path]
    # Draw a field first, else nearly every draw would hit the many rows of results.
    fields = sorted({tuple(k for k in path if isinstance(k, str)) for path in everywhere})
    field = draw.choice(fields)
    path = draw.choice(
        [p for p in everywhere if tuple(k for k in p if isinstance(k, str)) == field]
    )
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    key, kind = path[-1], draw.randrange(8)
    old = parent[key]
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[draw.choice(ODD_TEXTS)] = odd_value(draw)
    elif kind == 1:
        parent.insert(key, copy.deepcopy(old))
    elif kind == 2 and isinstance(parent, dict):
        text = json.dumps(value)
        name = json.dumps(key) + ":"
        return text.replace(name, f"{name} {json.dumps(odd_value(draw))}, {name}", 1)
    elif kind == 3 and isinstance(old, int | float) and not isinstance(old, bool):
        parent[key] = draw.choice([old + 1, -old, old * 1.0, str(old), old + 1e-9, [old]])
    elif kind == 4 and isinstance(old, str) and old:
        at = draw.randrange(len(old))
        parent[key] = (
            old[:at] + draw.choice(["е", "\u200b", "..", "/", "", "9", "\ud800"]) + old[at:]
        )
    elif kind == 5 and isinstance(parent, dict):
        parent[draw.choice([*ODD_TEXTS, key + "\u200b", key.upper()])] = parent.pop(key)
    else:
        parent[key] = odd_value(draw)
    return json.dumps(value, ensure_ascii=draw.random() < 0.5 or "\\ud" in json.dumps(value))


def change_bytes(draw, data):
    """Flip bits, or cut, repeat, insert or overwrite parts."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5, 30])):
        kind, at = draw.randrange(7), draw.randrange(len(found) + 1)
        n = draw.choice([1, 1, 2, 4, 8, 100])
        if kind == 0:
            del found[at : at + n]
        elif kind == 1:
            found[at:at] = draw.randbytes(n)
        elif kind == 2:
            found[at:at] = found[at : at + n]
        elif kind == 3:
            found[at : at + n] = bytes([draw.choice([0, 1, 0x7F, 0x80, 0xFF])]) * n
        elif kind == 4 and draw.random() < 0.2:
            del found[at:]
        elif found and at < len(found):
            found[at] ^= 1 << draw.randrange(8)
    return bytes(found)


def unpacked(data):
    return zstandard.ZstdDecompressor().stream_reader(data).read()


def change_lines(draw, data):
    """Change, repeat, drop or move a line of answers."""
    lines = unpacked(data).decode().splitlines()
    at, kind = draw.randrange(len(lines)), draw.randrange(6)
    if kind == 0:
        lines.insert(at, draw.choice(lines))
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at], lines[0] = lines[0], lines[at]
    elif kind == 3:
        row = json.loads(lines[at])
        row[draw.choice(list(row))] = odd_value(draw)
        lines[at] = json.dumps(row)
    else:
        lines[at] = change_json(draw, json.loads(lines[at]))
    text = "\n".join(lines).encode(errors="surrogatepass") + b"\n" * draw.choice([0, 1, 1, 2])
    if draw.random() < 0.2:
        text = change_bytes(draw, text)
    return zstandard.compress(text)


def change_frame(draw, data):
    """Truncate or repeat the zstd frame, or drop or misstate its sizes."""
    text = unpacked(data)
    return draw.choice(
        [
            data[: draw.randrange(len(data))],
            data + data,
            data + b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd",
            b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + data,
            zstandard.ZstdCompressor(write_content_size=False).compress(text),
            zstandard.ZstdCompressor(write_checksum=True).compress(text)[:-1] + b"\0",
            zstandard.compress(b""),
            b"",
            zstandard.compress(bytes(1 << 20)),
            zstandard.compress(b"\n" * 10_001),
            # Headers that state a window of 2 GB, and a content of 2**62 bytes.
            b"\x28\xb5\x2f\xfd\x00\xa8" + data[6:],
            b"\x28\xb5\x2f\xfd\xe0" + (1 << 62).to_bytes(8, "little") + data[6:],
        ]
    )


TYPES = [
    pa.string(), pa.large_string(), pa.binary(), pa.float32(), pa.int64(), pa.null(),
    pa.list_(pa.int64()), pa.large_list(pa.int16()), pa.dictionary(pa.int32(), pa.string()),
    pa.list_(pa.int16(), 8),
]  # fmt: skip
WRITING = [
    {"compression": "zstd"}, {"compression": "none"}, {"use_dictionary": False},
    {"row_group_size": 1}, {"compression": "gzip"}, {"store_schema": False},
    {"data_page_version": "2.0"}, {"use_byte_stream_split": False},
]  # fmt: skip


def change_table(draw, data):
    """Change a cell, row, column or type of a parquet file."""
    table = pq.read_table(pa.BufferReader(data))
    kind, j = draw.randrange(9), draw.randrange(table.num_columns)
    name = table.column_names[j]
    rows = table.to_pylist()
    row = draw.choice(rows)
    try:
        if kind <= 2:
            row[name] = odd_cell(draw, row[name])
            table = pa.Table.from_pylist(rows, schema=table.schema)
        elif kind == 3:
            rows.insert(draw.randrange(len(rows)), row)
            table = pa.Table.from_pylist(rows * draw.choice([1, 1, 700]), schema=table.schema)
        elif kind == 4:
            rows.remove(row)
            table = pa.Table.from_pylist(rows, schema=table.schema)
        elif kind == 5:
            table = table.drop_columns([name])
        elif kind == 6:
            table = table.rename_columns(
                [draw.choice(ODD_TEXTS) if c == name else c for c in table.column_names]
            )
        elif kind == 7:
            table = table.set_column(j, name, table.column(j).cast(draw.choice(TYPES)))
        else:
            table = table.append_column(draw.choice(ODD_TEXTS), table.column(j))
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return change_bytes(draw, data)  # Arrow cannot write it
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **draw.choice(WRITING))
    written = sink.getvalue().to_pybytes()
    return change_bytes(draw, written) if draw.random() < 0.2 else written


def odd_cell(draw, value):
    """Change a cell; a list mostly keeps its other elements."""
    if not isinstance(value, list) or draw.random() >= 0.7:
        return odd_value(draw)
    value = list(value)
    change = draw.randrange(3)
    at = draw.randrange(len(value))
    number = draw.choice([n for n in ODD_NUMBERS if isinstance(n, int) and abs(n) < 2**31])
    if change == 0:
        value[at] = draw.choice([None, number])
    elif change == 1:
        del value[at]
    else:
        value += [number] * draw.choice([1, len(value), 30_000])
    return value


def bare_table(draw, data):
    """Change bytes of the uncompressed table without checksums, so that values change."""
    sink = pa.BufferOutputStream()
    table = pq.read_table(pa.BufferReader(data))
    pq.write_table(table, sink, compression="none", use_dictionary=draw.random() < 0.5)
    return change_bytes(draw, sink.getvalue().to_pybytes())
