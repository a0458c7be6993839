import gzip
import re
import shutil

import pytest

from cases import slow_but
from xlt_bench.data import catalog, digests, wmt23
from xlt_bench.data import check as module
from xlt_bench.data.check import check
from xlt_bench.data.digests import Content
from xlt_bench.errors import InputError


def test_unknown_name(tmp_path):
    with pytest.raises(InputError, match="unknown data set 'unre': did you mean 'uner'"):
        check(tmp_path, ["unre"])


def test_an_empty_folder(tmp_path):
    rows = check(tmp_path)
    assert [row.name for row in rows] == [
        "massive",
        "flores",
        "uner",
        "wmt23",
        "alma",
        "tatoeba",
        "ntrex",
    ]
    for row in rows:
        assert (row.state, row.ok, row.units, row.rows) == ("missing", False, 0, 0)
        assert " is missing; get it with: xlt-bench data fetch " in row.detail
        assert "\n" not in row.detail


@pytest.fixture
def copied(data_dir, tmp_path):
    shutil.copytree(data_dir / "wmt23", tmp_path / "wmt23")
    return tmp_path


def test_incomplete(copied):
    for path in (copied / "wmt23").rglob("*zh*"):
        path.unlink()
    (row,) = check(copied, ["wmt23"])
    assert (row.state, row.units, row.units_expected) == ("incomplete 11 of 13", 11, 13)
    assert "zh" in row.detail
    assert row.digest != row.pinned


def test_half_a_unit_is_not_a_missing_set(copied):
    for path in (copied / "wmt23").rglob("*"):
        if path.is_file() and ".en-he." not in path.name:
            path.unlink()
    (copied / "wmt23" / "references" / "generaltest2023.en-he.ref.refA.he").unlink()
    (row,) = check(copied, ["wmt23"])
    assert row.state == "incomplete 0 of 13"


def test_packed_files_are_the_same(copied):
    for path in [path for path in (copied / "wmt23").rglob("*") if path.is_file()]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    assert [row.state for row in check(copied, ["wmt23"])] == ["ok"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda raw: raw.replace(b"a", b"b", 1),
            r"en-cs refA has 2074 rows \(\w{16}\) instead of 2074 ",
        ),
        (lambda raw: raw[: len(raw) // 2], r"lines and generaltest2023\S* 2074;"),
        (lambda raw: b"\xff" + raw, "is not UTF-8"),
    ],
    ids=["a letter", "cut", "bytes"],
)
def test_differs(copied, change, message):
    path = copied / "wmt23" / "references" / "generaltest2023.en-cs.ref.refA.cs"
    path.write_bytes(change(path.read_bytes()))
    (row,) = check(copied, ["wmt23"])
    assert (row.state, row.units) == ("differs", 12)
    assert re.search(message, row.detail)
    assert "delete" in row.detail
    assert row.detail.endswith("xlt-bench data fetch wmt23")


def test_the_released_english_file_is_known_by_its_counts(tmp_path, monkeypatch):
    """The file is made up, with as many sentences and entities as the release's .stats states."""
    tags = ["B-PER"] * 2874 + ["B-LOC"] * 2712 + ["B-ORG"] * 1436 + ["O"] * 12543
    path = tmp_path / "uner" / "UNER_English-EWT" / "en_ewt-ud-train.iob2"
    path.parent.mkdir(parents=True)
    blocks = [f"# sent_id = {i}\n# text = x\n1\tx\t{tags[i]}\t-\tx" for i in range(12543)]

    def state():
        path.write_text("\n\n".join(blocks) + "\n\n")
        content = dict(digests.contents("uner", "English-EWT", tmp_path))["train"]
        return module._unpinned(tmp_path, "English-EWT", "train", content)

    monkeypatch.setattr(digests, "units", lambda name: {"English-EWT": ("train",)})
    assert state()
    blocks[0] = blocks[0].replace("B-PER", "O")
    assert not state()
    assert not module._unpinned(tmp_path, "English-EWT", "test", Content(12543, ""))


# tests/tasks/test_new_language.py checks massive by the command line.
@pytest.mark.parametrize(
    "name", slow_but(("flores", "uner", "wmt23", "tatoeba"), catalog.catalog())
)
def test_everything_is_ok(name, data_dir):
    (row,) = check(data_dir, [name])
    assert (row.name, row.state, row.ok) == (name, "ok", True)
    assert row.units == row.units_expected
    if name == "uner":
        assert "English-EWT train" in row.detail
    else:
        assert row.digest == row.pinned
    if name == "wmt23":
        assert row.units == len(wmt23.DIRECTIONS)
