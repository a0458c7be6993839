"""Submissions spoiled at random: refused in one line, or accepted with the scores they had.

    pytest tests/submit/test_fuzz.py                 # a few hundred, with make test
    pytest tests/submit/test_fuzz.py -m slow -s      # 20,000, with their counts

Half of the spoiled ones are sealed again: digests and id are made to fit, as a forger would.
"""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from xlt_bench.errors import InputError
from xlt_bench.record import Plan, Record
from xlt_bench.store.build import build, connect
from xlt_bench.submit.checking import answers_digest, check
from xlt_bench.submit.package import identity
from xlt_bench.submit.packing import About, submit
from xlt_bench.submit.reading import read_answers

NASTY: list[Any] = [
    None, True, -1, 0, 1.5, 10**40, -(10**40), 1e308, float("nan"), float("inf"), "", "\x00",
    "../../x", "/etc/passwd", "a" * 100_000, "\u202eevil", "\ud800", "e\u0301", "\uff44\uff45",
    "de\n", [], {}, [[]], {"a": {}}, "<script>alert(1)</script>", "9" * 5_000, ["de"] * 10_000,
]  # fmt: skip


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def some_file(draw: random.Random, folder: Path) -> Path:
    return draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def spoil_bytes(draw: random.Random, folder: Path) -> None:
    path = some_file(draw, folder)
    data = bytearray(path.read_bytes())
    at, n = draw.randrange(len(data)), draw.randrange(1, 64)
    kind = draw.randrange(6)
    if kind == 0:
        data[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at:at] = draw.randbytes(n)
    elif kind == 3:
        data[at : at + n] = bytes(n)
    elif kind == 4:
        data += data[at:]
    else:
        del data[at : at + n]
    path.write_bytes(data)


def spoil_json(draw: random.Random, folder: Path) -> None:
    path = folder / draw.choice(["record.json", "submission.json"])
    value = json.loads(path.read_text())
    place, key = value, draw.choice(sorted(value))
    while draw.random() < 0.8 and isinstance(place[key], dict | list) and place[key]:
        place = place[key]
        key = draw.choice(sorted(place)) if isinstance(place, dict) else draw.randrange(len(place))
    kind = draw.randrange(5)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[draw.choice(["extra", "__class__", "id", "é" * 200])] = draw.choice(NASTY)
    elif kind == 2 and isinstance(place, list):
        place.append(place[key])
    else:
        place[key] = draw.choice(NASTY)
    path.write_text(json.dumps(value))


def spoil_json_text(draw: random.Random, folder: Path) -> None:
    path = folder / draw.choice(["record.json", "submission.json"])
    text = path.read_text()
    twice = text.replace("{", '{"schema_version": 1, "schema_version": 1,', 1)
    number = text.replace("1", "1" * draw.randrange(2, 6_000), draw.randrange(1, 5))
    choices = [
        twice,
        number,
        nested(100_000),
        text + text,
        '{"a":' * 50_000,
        "NaN",
        "[]",
        "\ufeff" + text,
    ]
    path.write_text(draw.choice(choices))


def spoil_answers(draw: random.Random, folder: Path) -> None:
    path = draw.choice(sorted(folder.rglob("*.zst")))
    text = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).decode()
    lines = text.splitlines()
    at = draw.randrange(len(lines))
    row = json.loads(lines[at])
    kind = draw.randrange(8)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.append(lines[at])
    elif kind == 2:
        draw.shuffle(lines)
    elif kind == 3:
        lines[at] = draw.choice([nested(50_000), "null", "{}", "NaN", '{"id": 1', "\x00"])
    elif kind == 4:
        row[draw.choice(sorted(row))] = draw.choice(NASTY)
        lines[at] = json.dumps(row)
    elif kind == 5:
        row["id"] = str(row["id"]) + draw.choice(["\u200b", " ", "\u0660", "\n", "\uff10"])
        lines[at] = json.dumps(row)
    elif kind == 6:
        row["extra"] = draw.choice(NASTY)
        lines[at] = json.dumps(row)
    else:
        row["hypothesis"] = draw.choice(["", "[x : y", "\u202e" * 50, "{" * 5_000, "]" * 5_000])
        lines[at] = json.dumps(row)
    data = "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
    path.write_bytes(zstandard.ZstdCompressor().compress(data))


def spoil_frame(draw: random.Random, folder: Path) -> None:
    path = draw.choice(sorted(folder.rglob("*.zst")))
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(draw.choice([10**6, 3 * 10**7])))
    whole = path.read_bytes()
    path.write_bytes(
        draw.choice([bomb, whole + bomb, whole + whole, b"", b"PK\x03\x04", bomb[:20]])
    )


def spoil_table(draw: random.Random, folder: Path) -> None:
    path = draw.choice(sorted(folder.rglob("*.parquet")))
    table = pq.read_table(path)
    name = draw.choice(table.column_names)
    at, n = table.column_names.index(name), table.num_rows
    column = draw.choice(
        [
            pa.array(["x"] * n),
            pa.array([None] * n, pa.int64()),
            pa.array([float("nan")] * n),
            pa.array([[2**40]] * n),
            pa.array([-1] * n),
            pa.array([{"a": 1}] * n),
        ]
    )
    kind = draw.randrange(4)
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = table.set_column(at, name, column)
    elif kind == 2:
        table = pa.concat_tables([table, table.slice(0, 1)])
    else:
        table = table.append_column(draw.choice(["extra", name]), column)
    pq.write_table(table, path)


def spoil_folder(draw: random.Random, folder: Path) -> None:
    path = some_file(draw, folder)
    kind = draw.randrange(5)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.unlink()
        path.symlink_to(draw.choice(["/etc/passwd", "../outside", path.name, "/dev/zero"]))
    elif kind == 2:
        path.unlink()
        path.mkdir()
    elif kind == 3:
        (
            folder / draw.choice(["evil.py", ".hidden", "RECORD.json", "ｒecord.json", "a" * 200])
        ).touch()
    else:
        path.unlink()
        os.mkfifo(path)


Spoil = Callable[[random.Random, Path], None]
SPOILS: list[Spoil] = [
    spoil_bytes, spoil_json, spoil_json_text, spoil_answers, spoil_frame, spoil_table, spoil_folder,
]  # fmt: skip


def sealed(folder: Path) -> Path:
    """The folder with digests and id that fit what it has now; as it is where that cannot be."""
    path = folder / "submission.json"
    if any(one.is_symlink() or not (one.is_file() or one.is_dir()) for one in folder.rglob("*")):
        return folder
    try:
        submission = json.loads(path.read_text())
        plan = Plan.model_validate(json.loads((folder / "record.json").read_text())["plan"])
        for name in submission["contents"]:
            if name.endswith(".zst"):
                submission["contents"][name] = answers_digest(read_answers(folder / name))
        name = f"{folder.name.rsplit('-', 1)[0]}-{identity(plan, submission['contents'])}"
        submission["id"] = name
        path.write_text(json.dumps(submission))
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return folder
    return folder.rename(folder.with_name(name))


@pytest.fixture(scope="module")
def accepted(make_run: Any, made_up_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accepted")
    run = make_run(folder / "run", adapter="lora")
    return submit(run, About(), folder / "submissions", made_up_root).folder


def fuzz(accepted: Path, root: Path, place: Path, seeds: range, builds: int) -> Counter[str]:
    """How many were refused and accepted, by what was done to them."""
    original = Record.model_validate_json((accepted / "record.json").read_bytes())
    counts: Counter[str] = Counter()
    for seed in seeds:
        draw = random.Random(seed)
        home = place / "submissions"
        folder = Path(shutil.copytree(accepted, home / accepted.name))
        spoil = draw.choice(SPOILS)
        spoil(draw, folder)
        folder = sealed(folder) if draw.random() < 0.5 else folder
        there = sorted(path.name for path in folder.iterdir())
        report = check(folder, root if draw.random() < 0.8 else None)
        said = f"seed {seed}, {spoil.__name__}: {report.detail[:300]}"
        assert "\n" not in report.detail, said
        assert len(report.detail) < 2_000, said
        assert sorted(path.name for path in folder.iterdir()) == there, said
        assert [path.name for path in place.iterdir()] == ["submissions"], said
        if report.state != "refused" and spoil is not spoil_answers:
            record = Record.model_validate_json((folder / "record.json").read_bytes())
            assert record.results == original.results, said
        counts[f"{spoil.__name__.removeprefix('spoil_')} {report.state}"] += 1
        if seed % builds == 0:
            _build(accepted, folder, home)
        shutil.rmtree(home)
    return counts


def _build(accepted: Path, folder: Path, home: Path) -> None:
    """A build beside a sound submission has that one, whatever the other is."""
    sound = folder.name != accepted.name
    if sound:
        shutil.copytree(accepted, home / accepted.name)
    db = home.parent / "leaderboard.duckdb"
    built = build(home, db)
    with connect(db) as store:
        row = store.execute("SELECT count(*) FROM submissions").fetchone()
    assert row
    assert row[0] >= sound
    assert len(built.refused) + row[0] >= 1
    for path in home.parent.glob("leaderboard.duckdb*"):
        path.unlink()


def test_a_few_hundred_spoiled_submissions(
    accepted: Path, made_up_root: Path, tmp_path: Path
) -> None:
    counts = fuzz(accepted, made_up_root, tmp_path, range(300), builds=50)
    assert sum(n for name, n in counts.items() if name.endswith("refused")) > 200


@pytest.mark.slow
def test_twenty_thousand_spoiled_submissions(
    accepted: Path, made_up_root: Path, tmp_path: Path
) -> None:
    first = int(os.environ.get("XLT_BENCH_FUZZ_SEED", "1000"))
    counts = fuzz(accepted, made_up_root, tmp_path, range(first, first + 20_000), builds=100)
    for name, n in sorted(counts.items()):
        print(f"{name}: {n}")
