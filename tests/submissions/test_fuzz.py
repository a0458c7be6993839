"""Broken and hostile submissions, by the thousand: accepted with true scores, or one line.

Every change is drawn from a seed, so that a failure is shown again by its number:
`XLT_BENCH_FUZZ=12345 pytest tests/submit/test_fuzz.py -k one`.
"""

import copy
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import xlt_bench.store.build as store_build
from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import count_run, scores_of
from xlt_bench.results.record import Plan, Record
from xlt_bench.submissions.counts import write_counts
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import answers_digest, check, layer_digest
from xlt_bench.submissions.safe_read import MAX_ANSWER, read_answers, read_layer
from xlt_bench.submissions.schema import COUNTS, RECORD, SUBMISSION, answer_files, identity

LONGEST = 500  # characters of a refusal
SECRET = "what-lies-outside"
UNITS = {"massive": ["de"], "wmt23": ["de-en"], "uner": ["da"], "retrieval": ["de", "en"]}
LAYER = "retrieval/layer-002.parquet"

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
    """Any JSON value that a reader may not expect."""
    deep = []
    for _ in range(draw.choice([3, 150, 900])):
        deep = [deep]
    return draw.choice(
        [None, True, False, [], {}, [[]], [None], {"": None}, deep, [0] * 2_000]
        + [draw.choice(ODD_TEXTS) for _ in range(6)]
        + [draw.choice(ODD_NUMBERS) for _ in range(6)]
    )


def places(value, path=()):
    """The path of every value within a JSON value."""
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
    """A copy with one change of structure, type or value; as text, for keys may come twice."""
    value = copy.deepcopy(value)
    everywhere = [path for path in places(value) if path]
    # By field, not by value: the many rows of results would take nearly every draw.
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
    """A copy with bits flipped, parts cut, doubled, moved or overwritten."""
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
    """Answers with a line changed, doubled, dropped or out of place."""
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
    """Frames that are cut, follow each other, lack or misstate their size, or ask for memory."""
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


def change_table(draw, data):
    """A parquet file with a cell, a column, a type or a row that is not what it should be."""
    table = pq.read_table(pa.BufferReader(data))
    kind, j = draw.randrange(9), draw.randrange(table.num_columns)
    name = table.column_names[j]
    rows = table.to_pylist()
    row = draw.choice(rows)
    try:
        if kind <= 2:
            value = row[name]
            if isinstance(value, list) and draw.random() < 0.7:
                value = list(value)
                change = draw.randrange(3)
                at = draw.randrange(len(value))
                number = draw.choice(
                    [n for n in ODD_NUMBERS if isinstance(n, int) and abs(n) < 2**31]
                )
                if change == 0:
                    value[at] = draw.choice([None, number])
                elif change == 1:
                    del value[at]
                else:
                    value += [number] * draw.choice([1, len(value), 30_000])
                row[name] = value
            else:
                row[name] = odd_value(draw)
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
            types = [pa.string(), pa.large_string(), pa.binary(), pa.float32(), pa.int64(),
                     pa.null(), pa.list_(pa.int64()), pa.large_list(pa.int16()),
                     pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.int16(), 8)]  # fmt: skip
            cast = table.column(j).cast(draw.choice(types))
            table = table.set_column(j, name, cast)
        else:
            table = table.append_column(draw.choice(ODD_TEXTS), table.column(j))
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return change_bytes(draw, data)  # arrow cannot even write it
    sink = pa.BufferOutputStream()
    options = [{"compression": "zstd"}, {"compression": "none"}, {"use_dictionary": False},
               {"row_group_size": 1}, {"compression": "gzip"}, {"store_schema": False},
               {"data_page_version": "2.0"}, {"use_byte_stream_split": False}]  # fmt: skip
    pq.write_table(table, sink, **draw.choice(options))
    written = sink.getvalue().to_pybytes()
    return change_bytes(draw, written) if draw.random() < 0.2 else written


def bare_table(draw, data):
    """The same table unpacked and without checksums, so that a changed byte reaches its values."""
    sink = pa.BufferOutputStream()
    table = pq.read_table(pa.BufferReader(data))
    pq.write_table(table, sink, compression="none", use_dictionary=draw.random() < 0.5)
    return change_bytes(draw, sink.getvalue().to_pybytes())


def change_tree(draw, folder, outside):
    """Links, strangers, missing parts, folders and pipes where files should be, odd names."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = draw.choice(files)
    kind = draw.randrange(9)
    if kind == 0:
        path.unlink()
        path.symlink_to(outside / draw.choice(["secret", path.name, "not there"]))
    elif kind == 1:
        moved = outside / "moved"
        shutil.rmtree(moved, ignore_errors=True)
        part = draw.choice(sorted(p for p in folder.rglob("*") if p.is_dir()))
        shutil.move(part, moved)
        part.symlink_to(moved)
    elif kind == 2:
        path.unlink()
    elif kind == 3:
        path.unlink()
        path.mkdir()
    elif kind == 4:
        path.unlink()
        os.mkfifo(path)
    elif kind == 5:
        name = draw.choice([t for t in ODD_TEXTS if 0 < len(t) < 60 and not set(t) & set("/\0")])
        with_name = path.with_name(name)
        if not with_name.exists():
            with_name.write_bytes(path.read_bytes())
    elif kind == 6:
        os.link(outside / "secret", path.with_name("linked"))
    elif kind == 7:
        names = [
            b"\xff\xfe",
            b"a\nb",
            b"\x1b[2J",
            b".hidden",
            b"x" * 200,
            folder.name.upper().encode(),
        ]
        target = os.path.join(os.fsencode(folder.parent), draw.choice(names))  # noqa: PTH118
        os.rename(folder, target)  # noqa: PTH104
        return Path(os.fsdecode(target))
    else:
        part = draw.choice(sorted(p for p in folder.rglob("*") if p.is_dir()))
        shutil.rmtree(part)
        part.write_text(SECRET)
    return folder


def seal(folder, root, rescored):
    """Make digests, id and (rescored) counts and scores right again, as a careful forger would.

    The folder under its new name; where the product's own readers refuse a part, as it was.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        about = json.loads((folder / SUBMISSION).read_text())
        plan = Plan.model_validate(record["plan"])
        for name, path in answer_files(plan).items():
            digest = (
                layer_digest(*read_layer(folder / path, plan.units["retrieval"])[:2])
                if name.startswith("retrieval/")
                else answers_digest(read_answers(folder / path))
            )
            about["contents"][name] = digest
        if rescored:
            counted = count_run(plan, folder, root)
            aligned = record["adapter"]["alignment_languages"] if record["adapter"] else []
            record["results"] = scores_of(counted, aligned).model_dump()
            write_counts(folder / COUNTS, counted.tasks)
            (folder / RECORD).write_text(json.dumps(record))
        about["id"] = about["id"][:-21] + identity(plan, about["contents"])
        (folder / SUBMISSION).write_text(json.dumps(about))
        return folder.rename(folder.with_name(about["id"]))
    except Exception:  # whatever it is, the check itself has to find it
        return folder


KINDS = ["bytes", "json", "lines", "frame", "table", "bare table", "tree"]


def mutate(draw, kind, folder, outside):
    """One change of a kind to a submission; the folder, which may have another name now."""
    if kind == "tree":
        return change_tree(draw, folder, outside)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    end = {"bytes": "", "json": ".json", "lines": ".zst", "frame": ".zst"}.get(kind, ".parquet")
    path = draw.choice([p for p in files if p.name.endswith(end)])
    data = path.read_bytes()
    if kind == "json":
        text = change_json(draw, json.loads(data))
        path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    else:
        change = {"bytes": change_bytes, "lines": change_lines, "frame": change_frame,
                  "table": change_table, "bare table": bare_table}[kind]  # fmt: skip
        path.write_bytes(change(draw, data))
    return folder


_allowed: list[str] = []
_breaches: list[str] = []
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate",
          "os.chmod", "os.chown", "os.utime"}  # fmt: skip
_NEVER = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect",
          "pickle.")  # fmt: skip


def _watch(event, args):
    if not _allowed:
        return
    if event == "open" and isinstance(args[0], str | bytes) and args[2] & _WRITES:
        paths = args[:1]
    elif event in _PATHS:
        paths = [a for a in args[:2] if isinstance(a, str | bytes)]
    elif event.startswith(_NEVER):
        _breaches.append(f"{event} {args}"[:300])
        return
    else:
        return
    for path in map(os.fsdecode, paths):
        if not (os.path.abspath(path) + os.sep).startswith(_allowed[0] + os.sep):  # noqa: PTH100
            _breaches.append(f"{event} {path}")


@pytest.fixture(scope="session", autouse=True)
def watched():
    sys.addaudithook(_watch)  # cannot be taken back; outside `only_within` it does nothing


@contextmanager
def only_within(folder):
    """Writes by Python elsewhere, processes, connections and pickles are breaches."""
    _allowed[:], _breaches[:] = [str(folder)], []
    try:
        yield
    finally:
        _allowed.clear()
    assert not _breaches, _breaches


@pytest.fixture(scope="module")
def material(make_run, made_up_root, tmp_path_factory):
    """Three submissions: the bare model's, an older and a newer one of an adapter; the data."""
    top = tmp_path_factory.mktemp("material")
    made = {}
    for name, seed, adapter, day in [
        ("bare", 0, None, 1),
        ("older", 1, "lora", 2),
        ("own", 2, "lora", 3),
    ]:
        run = make_run(top / name, seed, adapter=adapter, units=UNITS, layers=(2,),
                       created=f"2026-01-0{day}T00:00:00+00:00")  # fmt: skip
        made[name] = submit(run, About(notes="a note"), top / "submissions", made_up_root).folder
    return made, made_up_root


class Fuzz:
    """Runs numbered mutations in a scratch folder."""

    def __init__(self, material, scratch):
        self.made, self.root = material
        self.inside = scratch / "submissions"
        self.out = scratch / "out"
        self.outside = scratch / "outside"
        for folder in (self.out, self.outside):
            folder.mkdir(parents=True)
        (self.outside / "secret").write_text(SECRET)
        for name in (RECORD, SUBMISSION, COUNTS):  # what a link would like to pass off as its own
            shutil.copy(self.made["own"] / name, self.outside / name)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.store = duckdb.connect(":memory:")
        here = Path(store_build.__file__).parent
        self.store.execute((here / "schema.sql").read_text())

    def one(self, number):
        """Make and judge a mutation. AssertionError, or any other, is a failure."""
        draw = random.Random(number)
        kind = KINDS[number % len(KINDS)]
        role = draw.choice(["own", "own", "own", "older", "bare"])
        shutil.rmtree(self.inside, ignore_errors=True)
        alone = role == "own" and draw.random() < 0.7
        for name in [role] if alone else ["bare", "older", "own"]:
            shutil.copytree(self.made[name], self.inside / self.made[name].name)
        folder = mutate(draw, kind, self.inside / self.made[role].name, self.outside)
        sealing = draw.randrange(3)
        if sealing and kind != "tree":
            folder = seal(folder, self.root, rescored=sealing == 2)
        before = self._tree()
        with only_within(self.out):
            report = check(folder, self.root)
            judged = report
            if role != "own":  # what a neighbour does to another's check
                judged = check(self.inside / self.made["own"].name, self.root)
            built = self._build(number)
        assert self._tree() == before
        for one in (report, judged, *built.refused):
            self._line(one)
        if report.state == "checked":
            self._true(folder)
        if role != "own":
            assert judged.state in ("checked", "refused")
        self.counts[kind, "refused" if report.state == "refused" else "accepted"] += 1

    def _build(self, number):
        if number % 20 == 0:
            built = store_build.build(self.inside, self.out / "leaderboard.duckdb")
            assert [p.name for p in self.out.iterdir()] == ["leaderboard.duckdb"]
            return built
        # The same without making a file.
        self.store.begin()
        try:
            return store_build._load_submissions(self.store, self.inside)
        finally:
            self.store.rollback()

    def _tree(self):
        return {
            str(path): path.lstat().st_mtime_ns
            for top in (self.inside, self.outside)
            for path in top.rglob("*")
        }

    def _line(self, report):
        for text in (report.name, report.detail):
            assert len(text) <= LONGEST, text[:1000]
            assert text.isprintable(), text
            assert SECRET not in text
            text.encode()
        assert bool(report.detail) or report.state == "checked"

    def _true(self, folder):
        """An accepted record's scores are those of the answers, by the run's own reader."""
        record = Record.model_validate_json((folder / RECORD).read_bytes())
        counted = count_run(record.plan, folder, self.root)
        wanted = scores_of(counted, record.alignment_languages).model_dump()
        got = record.results.model_dump()

        def key(row):
            return sorted(str(v) for k, v in row.items() if k not in ("value", "low", "high"))

        for table, rows in wanted.items():
            assert len(rows) == len(got[table])
            for one, other in zip(sorted(rows, key=key), sorted(got[table], key=key), strict=True):
                for name, value in one.items():
                    if isinstance(value, float):
                        assert abs(value - other[name]) <= 1e-6
                    elif isinstance(value, list):
                        assert sorted(value) == sorted(other[name])
                    else:
                        assert value == other[name]

    def run(self, numbers):
        """All of them; every failure by its number and kind."""
        failures = []
        for number in numbers:
            try:
                self.one(number)
            except Exception as error:  # any is a failure, and the next ones are wanted too
                line = f"{number} {KINDS[number % len(KINDS)]}: {type(error).__name__}: {error}"
                failures.append(line[:400])
        return failures


@pytest.fixture
def fuzz(material, tmp_path):
    return Fuzz(material, tmp_path)


def test_a_mutation_that_changes_nothing_is_accepted(fuzz, material):
    shutil.copytree(fuzz.made["own"], fuzz.inside / fuzz.made["own"].name)
    report = check(fuzz.inside / fuzz.made["own"].name, fuzz.root)
    assert report.state == "checked"
    fuzz._true(fuzz.inside / fuzz.made["own"].name)


def test_a_breach_is_seen(fuzz, tmp_path):
    with pytest.raises(AssertionError, match="elsewhere"), only_within(fuzz.out):
        (tmp_path / "elsewhere").write_text("")


def test_short(fuzz):
    failures = fuzz.run(range(300))
    assert not failures, "\n".join(failures)
    assert sum(n for (_, state), n in fuzz.counts.items() if state == "accepted") > 20


@pytest.mark.skipif("XLT_BENCH_FUZZ" not in os.environ, reason="XLT_BENCH_FUZZ names no mutation")
def test_one(fuzz):
    fuzz.one(int(os.environ["XLT_BENCH_FUZZ"]))


def packed(text):
    return zstandard.compress(text.encode())


def hypotheses(pattern):
    """Every answer of every text task is as long as may be, made of a pattern."""

    def attack(folder, root):
        for path in folder.rglob("*.zst"):
            rows = [json.loads(line) for line in unpacked(path.read_bytes()).splitlines()]
            for row in rows:
                row["hypothesis"] = (pattern * MAX_ANSWER)[:MAX_ANSWER]
            path.write_bytes(packed("\n".join(json.dumps(row) for row in rows)))
        return seal(folder, root, rescored=False)

    return attack


def answers(text):
    """A unit's answers are this text, given as a function so that it is made only when needed."""

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
    """A number as thrift's compact protocol writes it, as long as may be wanted."""
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
    """Of 80 million values the footer says that they are 16."""
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
    """One name of 8 MB that each of 1,190 rows repeats."""
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

MEASURE = """
import json, re, sys, time
from pathlib import Path
from xlt_bench.store.build import build
from xlt_bench.submissions.rescore import check
folder, root, db = map(Path, sys.argv[1:])
# Not getrusage: its peak is that of the process that started this one, if that was larger.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10
start = time.perf_counter()
report = check(folder, root)
checked = time.perf_counter()
built = build(folder.parent, db)
print(json.dumps([report.state, report.detail, checked - start, time.perf_counter() - checked,
                  peak()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_on_memory(name, fuzz, capsys, tmp_path):
    folder = shutil.copytree(fuzz.made["own"], fuzz.inside / fuzz.made["own"].name)
    folder = ATTACKS[name](folder, fuzz.root)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, folder, fuzz.root, tmp_path / "db"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    state, detail, checking, building, peak = json.loads(done.stdout)
    with capsys.disabled():
        print(
            f"\n{name}: {peak} MB, check {checking:.1f} s, build {building:.1f} s: {detail[:110]}"
        )
    assert state == "refused"
    assert len(detail) <= LONGEST
    assert peak < 1_000


@pytest.mark.slow
@pytest.mark.parametrize("first", [1_000, 11_000])
def test_full(first, fuzz, capsys):
    failures = fuzz.run(range(first, first + 10_000))
    with capsys.disabled():
        print()
        for kind in KINDS:
            accepted, refused = (fuzz.counts[kind, state] for state in ("accepted", "refused"))
            print(f"{kind}: {accepted:,} accepted, {refused:,} refused")
    assert not failures, "\n".join(failures)


def spoil(draw, output):
    """One change to one of lm-eval's files: of a value, of bytes, or of the file as a whole."""
    path = draw.choice(sorted(output.rglob("*.json*")))
    kind = draw.randrange(10)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(change_bytes(draw, path.read_bytes()))
    elif kind == 2:
        path.write_text(draw.choice(["", "null", "[]", "{}", "[" * 100_000, "NaN", "\x00"]))
    elif path.suffix == ".json":
        text = change_json(draw, json.loads(path.read_text()))
        path.write_text(text, errors="surrogatepass")
    else:
        lines = path.read_text().splitlines()
        at = draw.randrange(len(lines))
        if kind == 3:
            lines[at : at + 1] = draw.choice([[], [lines[at]] * 2, [""]])
        else:
            lines[at] = change_json(draw, json.loads(lines[at]))
        path.write_text("\n".join(lines) + "\n", errors="surrogatepass")


def spoiled(output, root, scratch, numbers):
    """How many of the changes were refused in one line; any other error is raised."""
    refused = 0
    for number in numbers:
        shutil.rmtree(scratch, ignore_errors=True)
        copy = shutil.copytree(output, scratch / "output")
        spoil(random.Random(number), copy)
        try:
            done = submit(copy, About(), scratch / "submissions", root)
        except InputError as error:
            refused, line = refused + 1, str(error)
        except Exception as error:
            raise AssertionError(f"change {number}: {error!r}") from error
        else:
            assert check(done.folder, root).state == "checked", number
            continue
        assert len(line) <= LONGEST, (number, line[:1000])
        assert line.isprintable(), (number, line)
        assert not list((scratch / "submissions").glob("[!.]*")), number
    return refused


def test_spoiled_output_is_refused_in_a_line(output, made_up_root, tmp_path):
    assert 0 < spoiled(output, made_up_root, tmp_path / "scratch", range(60)) < 60


@pytest.mark.slow
def test_much_spoiled_output(output, made_up_root, tmp_path, capsys):
    refused = spoiled(output, made_up_root, tmp_path / "scratch", range(1_000, 4_000))
    with capsys.disabled():
        print(f"\nlm-eval's output, spoiled 3,000 times: {refused:,} refused, none failed")
    assert refused
