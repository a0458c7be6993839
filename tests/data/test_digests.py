import hashlib
from pathlib import Path

import pytest

from xlt_bench.data import digests, pin
from xlt_bench.data.catalog import catalog
from xlt_bench.errors import InputError


def test_pins_are_of_units_and_splits_that_there_are():
    for name in catalog():
        pinned, units = digests.pinned(name), digests.units(name)
        for unit, splits in pinned.items():
            assert set(splits) == set(units[unit])
        if name not in ("massive", "flores", "ntrex"):  # which have more units than are pinned
            assert pinned.keys() == units.keys()
        assert all(c.rows > 0 and len(c.digest) == 16 for s in pinned.values() for c in s.values())


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="unknown data set 'massif': did you mean 'massive'"):
        digests.units("massif")
    with pytest.raises(InputError, match="unknown unit of massive 'de'"):
        digests.digest("massive", "de", "test", tmp_path)
    with pytest.raises(InputError, match="unknown split of massive de-DE 'dev'"):
        digests.digest("massive", "de-DE", "dev", tmp_path)


def test_catalog_addresses():
    for dataset in catalog().values():
        assert dataset.licence
        assert dataset.citation
        paths = [file.path for file in dataset.files]
        assert len(paths) == len(set(paths))
        for file in dataset.files:
            assert file.url.startswith("https://")
            assert ".." not in file.path
            assert not file.path.startswith("/")
            if file.member:
                assert file.url.endswith(".tar.gz")
                assert file.path.endswith(file.member)
            else:
                assert file.url.rsplit("/", 1)[1] == file.path.rsplit("/", 1)[1]
                released = file.path.endswith("en_ewt-ud-train.iob2")
                assert (file.sha256 is None) == released


def test_sums_are_the_files(data_dir):
    for path, sha256 in digests.file_sums().items():
        if (data_dir / path).exists():
            assert hashlib.sha256((data_dir / path).read_bytes()).hexdigest() == sha256


def _is_pinned(dataset, path):
    """Whether a file belongs to a pinned unit: most of MASSIVE, FLORES and NTREX is not pinned."""
    known = {unit for unit in digests.units(dataset) if unit not in digests.pinned(dataset)}
    return not known & set(Path(path).name.split(".")[:2])


def test_every_file_of_the_catalog_is_there(data_dir):
    absent = [
        file.path
        for dataset in catalog().values()
        for file in dataset.files
        if not (data_dir / file.path).exists()
        and not (data_dir / f"{file.path}.gz").exists()
        and _is_pinned(dataset.name, file.path)
    ]
    assert absent in ([], ["uner/UNER_English-EWT/en_ewt-ud-train.iob2"])


def test_digest_of_one_split(data_dir):
    expected = digests.pinned("wmt23")["en-de"]["refA"]
    assert digests.digest("wmt23", "en-de", "refA", data_dir) == expected.digest
    assert len(digests.rows("wmt23", "en-de", "refA", data_dir)) == expected.rows == 557


def test_committed_file_is_as_written(data_dir, monkeypatch):
    """One small data set is enough, since `check` compares the contents of all of them."""
    monkeypatch.setattr(pin, "catalog", lambda: {"wmt23": catalog()["wmt23"]})
    lines = digests.PATH.read_text(encoding="utf-8").splitlines()
    for line in pin.rendered(data_dir).splitlines():
        assert line.rstrip(",") in {one.rstrip(",") for one in lines}


def test_a_new_data_set_has_no_pinned_digests(monkeypatch):
    monkeypatch.setitem(digests._UNITS, "new", {"one": ("test",)})
    assert digests.pinned("new") == {}
