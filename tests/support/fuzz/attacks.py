"""Submissions that would exhaust the memory or time of a naive reader."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from fuzz.folders import seal
from fuzz.mutators import unpacked
from xlt_bench.submissions.safe_read import MAX_ANSWER
from xlt_bench.submissions.schema import RECORD

LAYER = "retrieval/layer-002.parquet"


def packed(text):
    return zstandard.compress(text.encode())


def hypotheses(pattern):
    """Repeat a pattern up to the longest allowed answer, for every item of every text task."""

    def attack(folder, root):
        for path in folder.rglob("*.zst"):
            rows = [json.loads(line) for line in unpacked(path.read_bytes()).splitlines()]
            for row in rows:
                row["hypothesis"] = (pattern * MAX_ANSWER)[:MAX_ANSWER]
            path.write_bytes(packed("\n".join(json.dumps(row) for row in rows)))
        return seal(folder, root, rescored=False)

    return attack


def answers(text):
    """Replace the answers of a unit by the text that a function returns."""

    def attack(folder, root):
        (folder / "predictions/massive/de.jsonl.zst").write_bytes(packed(text()))
        return seal(folder, root, rescored=False)

    return attack


def written(name, text):
    return lambda folder, root: (folder / name).write_text(text(folder / name)) and folder


def edited(change):
    def text(path):
        value = json.loads(path.read_text())
        change(value)
        return json.dumps(value)

    return written(RECORD, text)


def wide_table(folder, root):
    table = pa.table({f"c{i}": pa.array([0]) for i in range(20_000)})
    pq.write_table(table, folder / LAYER)
    return folder


def many_groups(folder, root):
    table = pq.read_table(folder / LAYER)
    pq.write_table(pa.concat_tables([table] * 10_000), folder / LAYER, row_group_size=2)
    return folder


def many_values(folder, root):
    table = pq.read_table(folder / LAYER)
    values = pa.array([np.zeros(40_000_000, dtype=np.int16)] * 2, type=pa.list_(pa.int16()))
    pq.write_table(table.set_column(3, "neighbours", values), folder / LAYER, compression="zstd")
    return folder


def varint(number, width):
    """A number in thrift's compact protocol, padded to `width` bytes."""
    number <<= 1
    found = []
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    while len(found) < width:
        found[-1] |= 0x80
        found.append(0)
    return bytes(found)


def lying_footer(folder, root):
    """80 million values, of which the footer states 16."""
    many_values(folder, root)
    data = (folder / LAYER).read_bytes()
    metadata = pq.ParquetFile(folder / LAYER).metadata
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    head, tail = data[:footer], data[footer:]
    chunk = metadata.row_group(0).column(3)
    for number in {chunk.num_values, chunk.total_uncompressed_size,
                   metadata.row_group(0).total_byte_size}:  # fmt: skip
        true = varint(number, 1)
        tail = tail.replace(true, varint(16, len(true)))
    (folder / LAYER).write_bytes(head + tail)
    assert pq.ParquetFile(folder / LAYER).metadata.row_group(0).column(3).num_values == 16
    return folder


def long_name(folder, root):
    """One name of 8 MB, repeated in 1,190 rows."""
    table = pq.read_table(folder / LAYER)
    rows = pa.concat_tables([table] * (1_190 // len(table)))
    names = pa.array(["x" * (8 << 20)] * len(rows), type=pa.string())
    rows = rows.set_column(0, "source", names)
    pq.write_table(rows, folder / LAYER, compression="zstd", write_page_checksum=True)
    return folder


ATTACKS = {
    "zstd of 2 GB": answers(lambda: "x" * (2 << 30)),
    "one line of 60 MB": answers(lambda: "x" * (60 << 20)),
    "60 MB with an emoji": answers(lambda: "x" * (60 << 20) + "\U0001f600"),
    "10,000 items of 6 kB": answers(
        lambda: "\n".join(
            json.dumps({"id": str(i), "hypothesis": "\U0001f600" + "x" * 6_000, "cut_off": False},
                       ensure_ascii=False) for i in range(10_000))
    ),
    "the last of 10,000 items twice": answers(
        lambda: "\n".join(
            json.dumps({"id": str(min(i, 9_998)), "hypothesis": "", "cut_off": False})
            for i in range(10_000))
    ),
    "millions of lines": answers(lambda: "{}\n" * 20_000_000),
    "deep line": answers(lambda: "[" * 700_000),
    "deep record": written(RECORD, lambda _: "[" * 4_000_000),
    "deep objects": written(RECORD, lambda _: '{"a":' * 800_000),
    "number of 4 million digits": written(RECORD, lambda _: "9" * 4_000_000),
    "array of 2 million": written(RECORD, lambda _: "[" + "0," * 1_990_000 + "0]"),
    "380,000 keys": written(
        RECORD, lambda _: "{" + ",".join(f'"{i}":0' for i in range(380_000)) + "}"
    ),
    "900,000 notes": edited(lambda r: r.update(notes=[""] * 900_000)),
    "600,000 units": edited(lambda r: r["plan"]["units"].update(massive=["de"] * 600_000)),
    "200,000 digests": edited(
        lambda r: r["data_digests"].update({f"x/{i}": "" for i in range(200_000)})
    ),
    "20,000 scores": edited(
        lambda r: r["results"].update(scores=r["results"]["scores"][:1] * 20_000)),
    "a mean of 500,000 units": edited(
        lambda r: r["results"]["means"][0].update(units=["de"] * 500_000)),
    "a million wrong layers": edited(lambda r: r["plan"].update(layers=[""] * 900_000)),
    "10,000 objects of 40 wrong keys": edited(
        lambda r: r.update(notes=[{str(i): 0 for i in range(40)}] * 9_000)
    ),
    "2 billion layers": edited(lambda r: r["model"].update(layers=2**31 - 1)),
    "parquet of 20,000 columns": wide_table,
    "parquet of 10,000 groups": many_groups,
    "parquet of 80 million values": many_values,
    "parquet with a lying footer": lying_footer,
    "parquet of one long name": long_name,
    **{
        f"hypotheses of {pattern!r}": hypotheses(pattern)
        for pattern in (
            "[", "x", "a:b; ", "B-PER ", "\n", " ", "[[", "\u0e01", "字", "({", "-", '"')
    },
}  # fmt: skip
