import gzip

import pytest

from xlt_bench.data import digests, flores
from xlt_bench.data.flores import Corpus
from xlt_bench.data.root import MissingFileError
from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES
from xlt_bench.tasks.retrieval import TASK

PINNED = list(digests.pinned("flores"))


def test_a_sentence_is_a_line_as_it_stands(tmp_path):
    folder = tmp_path / "flores200_dataset" / "dev"
    folder.mkdir(parents=True)
    (folder / "aaa_Latn.dev").write_text("one \ntwo\u2028still two\n", encoding="utf-8")
    assert flores.load(tmp_path, "aaa_Latn") == ["one ", "two\u2028still two"]
    with pytest.raises(MissingFileError, match=r"aaa_Latn\.devtest is missing.*fetch flores"):
        flores.load(tmp_path, "aaa_Latn", "devtest")


def test_counts(data_dir):
    assert len(PINNED) == 41
    for code in PINNED:
        dev, devtest = (flores.load(data_dir, code, split) for split in ("dev", "devtest"))
        assert (len(dev), len(devtest)) == (997, 1012)
        assert all(dev)
        assert all(devtest)


def test_repeated_sentences(data_dir):
    """Each repetition is a tie in retrieval. Line numbers start at 1."""
    for code in PINNED:
        lines = flores.load(data_dir, code)
        first = {line: number for number, line in reversed(list(enumerate(lines, start=1)))}
        repeated = [(first[line], n) for n, line in enumerate(lines, start=1) if first[line] != n]
        assert repeated == {"jav_Latn": [(747, 753)], "urd_Arab": [(99, 100)]}.get(code, [])


def test_a_corpus_is_a_file_a_language(tmp_path):
    (tmp_path / "deu_Latn.txt").write_text("ein Hund\nzwei Katzen\n")
    (tmp_path / "eng_Latn.test").write_text("a dog\ntwo cats\n")
    corpus = Corpus(tmp_path / "no FLORES here", tmp_path)
    assert corpus.sentences("de") == ["ein Hund", "zwei Katzen"]
    assert [code for code in LANGUAGES if corpus.holds(code)] == ["de", "en"]
    TASK.check(corpus, ["de", "en"])
    with pytest.raises(InputError, match=r"has 0 files for sw; it needs one, named swh_Latn\.txt"):
        corpus.sentences("sw")
    (tmp_path / "eng_Latn.txt").write_text("a dog\n")
    with pytest.raises(InputError, match="has 2 files for en"):
        corpus.sentences("en")
    (tmp_path / "eng_Latn.test").unlink()
    with pytest.raises(InputError, match="not parallel: de has 2 sentences, en has 1; line N"):
        TASK.check(corpus, ["de", "en"])
    for name in ("deu_Latn.txt", "eng_Latn.txt"):
        (tmp_path / name).write_text("word\n" * 2**15)
    with pytest.raises(InputError, match="32,768 sentences; use at most 32,767"):
        TASK.check(corpus, ["de", "en"])


def test_a_corpus_as_published_with_the_line_ends_of_windows(data_dir, tmp_path):
    """NTREX-128: every line ends in CR LF."""
    folder = data_dir / "ntrex" / "NTREX-128"
    if not folder.is_dir():
        pytest.skip("NTREX-128 is missing")
    for name, code in (("src.eng", "eng_Latn"), ("ref.deu", "deu_Latn")):
        (tmp_path / f"{code}.txt").symlink_to(folder / f"newstest2019-{name}.txt")
    corpus = Corpus(tmp_path, tmp_path)
    TASK.check(corpus, ["en", "de"])
    for code in ("en", "de"):
        lines = corpus.sentences(code)
        assert len(lines) == 1997
        assert not [line for line in lines if "\r" in line or line != line.strip("\ufeff")]


def test_a_corpus_may_be_packed_and_its_errors_do_not_say_to_fetch_it(tmp_path):
    (tmp_path / "deu_Latn.txt.gz").write_bytes(gzip.compress(b"ein Hund\r\n\r\n"))
    with pytest.raises(InputError) as error:
        Corpus(tmp_path, tmp_path).sentences("de")
    assert str(error.value) == (
        f"{tmp_path / 'deu_Latn.txt.gz'} line 2 is blank; put its sentence there, or delete the "
        "line from every language's file"
    )
