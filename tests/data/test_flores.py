import pytest

from xlt_bench.data import flores
from xlt_bench.data.root import MissingFileError
from xlt_bench.languages import LANGUAGES


def test_a_sentence_is_a_line_as_it_stands(tmp_path):
    folder = tmp_path / "flores200_dataset" / "dev"
    folder.mkdir(parents=True)
    (folder / "aaa_Latn.dev").write_text("one \ntwo\u2028still two\n", encoding="utf-8")
    assert flores.load(tmp_path, "aaa_Latn") == ["one ", "two\u2028still two"]
    with pytest.raises(MissingFileError, match=r"aaa_Latn\.devtest is missing.*fetch flores"):
        flores.load(tmp_path, "aaa_Latn", "devtest")


def test_counts(data_dir):
    assert len(LANGUAGES) == 41
    for row in LANGUAGES.values():
        dev, devtest = (flores.load(data_dir, row.flores, split) for split in ("dev", "devtest"))
        assert (len(dev), len(devtest)) == (997, 1012)
        assert all(dev)
        assert all(devtest)


def test_repeated_sentences(data_dir):
    """Each is a tie in retrieval. Line numbers from 1."""
    for row in LANGUAGES.values():
        lines = flores.load(data_dir, row.flores)
        first = {line: number for number, line in reversed(list(enumerate(lines, start=1)))}
        repeated = [(first[line], n) for n, line in enumerate(lines, start=1) if first[line] != n]
        assert repeated == {"jv": [(747, 753)], "ur": [(99, 100)]}.get(row.code, [])
