import gzip
import json

import pytest

from xlt_bench.data import digests, massive
from xlt_bench.data.root import content_digest, read_lines
from xlt_bench.errors import InputError

SPLITS = {"train": 11514, "validation": 2033, "test": 2974}


def write(root, rows, packed=False):
    folder = root / "massive" / "1.1" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    name = "xx-XX.jsonl"
    if packed:
        (folder / f"{name}.gz").write_bytes(gzip.compress(text))
    else:
        (folder / name).write_bytes(text)


def row(number, partition, **more):
    text = {"utt": f"ring at {number}", "annot_utt": f"ring at [time : {number}]"}
    return {"id": str(number), "partition": partition, **text, **more}


def test_partitions_become_splits(tmp_path):
    write(tmp_path, [row(0, "test"), row(1, "train"), row(2, "dev"), row(3, "test")])
    assert [one.id for one in massive.load(tmp_path, "xx-XX", "test")] == ["0", "3"]
    (one,) = massive.load(tmp_path, "xx-XX", "validation")
    assert one == massive.Utterance("2", "xx-XX", "validation", "ring at 2", "ring at [time : 2]")


def test_packed_and_rebuilt_files_have_the_upstream_digest(tmp_path):
    write(tmp_path / "a", [row(0, "test", worker_id="1", judgments=[])])
    write(tmp_path / "b", [row(0, "test")], packed=True)
    rows = [massive.load(tmp_path / name, "xx-XX", "test") for name in "ab"]
    assert content_digest(rows[0]) == content_digest(rows[1])


@pytest.mark.parametrize(
    "bad",
    [{"id": "1"}, [], row(1, "other"), row(1, "test", id=5), row(1, "test", annot_utt=None)],
)
def test_a_row_of_another_form_is_named(tmp_path, bad):
    write(tmp_path, [row(0, "test"), bad])
    with pytest.raises(InputError, match=r"xx-XX\.jsonl line 2 is not a MASSIVE 1\.1 row"):
        massive.load(tmp_path, "xx-XX", "test")


@pytest.fixture(scope="module")
def locales(data_dir):
    return {locale: massive.load_all(data_dir, locale) for locale in digests.pinned("massive")}


def test_the_locales_are_all_of_the_publishers():
    assert len(set(massive.LOCALES)) == 52
    assert set(digests.pinned("massive")) <= set(massive.LOCALES)


@pytest.mark.parametrize("locale", ["ko-KR", "zh-TW", "fi-FI"])
def test_locales_beyond_the_ranked_set_are_read_too(locale, data_dir):
    found = [row.split for row in massive.load_all(data_dir, locale)]
    assert {split: found.count(split) for split in SPLITS} == SPLITS


def test_counts(locales):
    assert len(locales) == 20
    for rows in locales.values():
        found = [row.split for row in rows]
        assert {split: found.count(split) for split in SPLITS} == SPLITS
        assert all(row.text == row.text.lower() for row in rows)


def test_ids_are_the_same_in_all_locales(locales):
    english = [(row.id, row.split) for row in locales["en-US"]]
    assert all([(row.id, row.split) for row in rows] == english for rows in locales.values())


def test_share_without_slots(locales):
    for rows in locales.values():
        assert 0.32 <= sum("[" not in row.annotated for row in rows) / len(rows) <= 0.365


def test_french_equals_the_audit(locales):
    slots = dict.fromkeys(SPLITS, 0)
    none = dict.fromkeys(SPLITS, 0)
    texts = {split: [] for split in SPLITS}
    for row in locales["fr-FR"]:
        slots[row.split] += row.annotated.count("[")
        none[row.split] += "[" not in row.annotated
        texts[row.split].append(row.text)
    assert list(slots.values()) == [11100, 1958, 2744]
    assert list(none.values()) == [3927, 684, 1045]
    assert [len(one) - len(set(one)) for one in texts.values()] == [325, 17, 31]


@pytest.mark.parametrize("locale", ["de-DE", "sw-KE"])
@pytest.mark.parametrize("partition", ["dev", "test"])
def test_rebuilt_rows_equal_upstream_ones(data_dir, locales, locale, partition):
    path = data_dir / "massive" / "upstream_rows" / f"{locale}_{partition}.jsonl"
    if not path.with_name(path.name + ".gz").exists():
        pytest.skip(f"no {path.name}.gz, which the publisher does not distribute")
    upstream = [json.loads(line) for line in read_lines(path, "massive")]
    split = {"dev": "validation"}.get(partition, partition)
    rows = [row for row in locales[locale] if row.split == split]
    assert [(r["id"], r["utt"], r["annot_utt"]) for r in upstream] == [
        (row.id, row.text, row.annotated) for row in rows
    ]
