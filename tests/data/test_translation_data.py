import json

import pytest

from xlt_bench.data import alma, flores, wmt23
from xlt_bench.data.segments import Segment
from xlt_bench.data.wmt23 import ALL_DIRECTIONS
from xlt_bench.errors import InputError
from xlt_bench.languages import language

WMT23 = {
    "de-en": 549, "he-en": 1910, "ja-en": 1992, "ru-en": 1723, "uk-en": 1826, "zh-en": 1976,
    "en-de": 557, "en-cs": 2074, "en-he": 2074, "en-ja": 2074, "en-ru": 2074, "en-uk": 2074,
    "en-zh": 2074,
}  # fmt: skip
ALMA = {
    "cs-en": 1448, "en-cs": 2037, "de-en": 1984, "en-de": 2037, "is-en": 1000, "en-is": 1000,
    "ru-en": 2016, "en-ru": 2037, "zh-en": 1875, "en-zh": 2037,
}  # fmt: skip
TRAIN = {"cs": 12076, "de": 14211, "is": 2009, "ru": 15000, "zh": 15406}
DEV_START = {"cs": 10067, "de": 12202, "is": 0, "ru": 12991, "zh": 13397}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def made(tmp_path):
    wmt, czech = tmp_path / "wmt23", tmp_path / "alma_human_written" / "csen"
    write(wmt / "sources" / "generaltest2023.he-en.src.he", "א\nב\n")
    write(wmt / "references" / "generaltest2023.he-en.ref.refA.en", "a\nb\n")
    write(wmt / "references" / "generaltest2023.he-en.ref.refB.en", "A\nB\n")
    pair = {"translation": {"cs": "ano", "en": "yes"}}
    write(czech / "test.cs-en.json", json.dumps([pair]))
    write(czech / "valid.cs-en.json", json.dumps([pair, pair]))
    write(czech / "train.cs-en.cs", "ano\nne \n")
    write(czech / "train.cs-en.en", "yes\nno\n")
    return tmp_path


def test_hebrew_is_read_with_refb(made):
    assert wmt23.load(made, "he-en") == [Segment("0", "א", "A"), Segment("1", "ב", "B")]
    assert wmt23.load(made, "he-en", "refA")[0].reference == "a"


def test_alma_in_both_directions(made):
    assert wmt23.test_segments(made, "cs-en") == [Segment("0", "ano", "yes")]
    assert alma.load_validation(made, "en-cs")[1] == Segment("1", "yes", "ano")
    assert alma.load_train(made, "cs-en") == [Segment("0", "ano", "yes"), Segment("1", "ne ", "no")]
    assert alma.load_train(made, "en-cs")[0] == Segment("0", "yes", "ano")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: wmt23.load(root, "cs-en"), "unknown WMT23 direction 'cs-en'"),
        (lambda root: wmt23.load(root, "nonsense"), "unknown WMT23 direction"),
        (lambda root: wmt23.load(root, "de-en", "refB"), "unknown reference of de-en 'refB'"),
        (lambda root: alma.load_test(root, "he-en"), "unknown ALMA pair 'he-en'"),
        (lambda root: alma.load_test(root, "cs"), "unknown ALMA pair 'cs'"),
        (lambda root: alma.load_validation(root, "is-en"), "validation files 'is'"),
        (lambda root: alma.load_test(root, "en-cs"), r"test\.en-cs\.json is missing"),
    ],
)
def test_errors(made, call, message):
    with pytest.raises(InputError, match=message) as error:
        call(made)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"translation": 1}', '[{"translation": {}}]', "["])
def test_an_alma_file_of_another_form(made, text):
    write(made / "alma_human_written" / "csen" / "test.cs-en.json", text)
    if text == "{}":
        assert alma.load_test(made, "cs-en") == []
        return
    with pytest.raises(InputError, match=r"test\.cs-en\.json .*fetch alma"):
        alma.load_test(made, "cs-en")


def test_wmt23_counts(data_dir):
    assert {name: len(wmt23.load(data_dir, name)) for name in wmt23.DIRECTIONS} == WMT23


def test_both_hebrew_references(data_dir):
    for name in ("he-en", "en-he"):
        a, b = (wmt23.load(data_dir, name, reference) for reference in ("refA", "refB"))
        assert wmt23.load(data_dir, name) == b
        assert [row.source for row in a] == [row.source for row in b]
        assert sum(x.reference != y.reference for x, y in zip(a, b, strict=True)) > len(a) / 2


def test_repeated_wmt23_sources(data_dir):
    def repeated(name):
        sources = [row.source for row in wmt23.load(data_dir, name)]
        return len(sources) - len(set(sources))

    assert [repeated(name) for name in ("he-en", "zh-en", "ja-en")] == [20, 17, 10]


def test_english_sources_are_shared_except_for_german(data_dir):
    codes = ("cs", "he", "ja", "ru", "uk", "zh", "de")
    sources = [[row.source for row in wmt23.load(data_dir, f"en-{code}")] for code in codes]
    assert all(one == sources[0] for one in sources[:-1])
    assert max(len(source.split()) for source in sources[-1]) > 150  # paragraphs


def test_the_sixteen_directions(data_dir):
    for name in ALL_DIRECTIONS:
        rows = wmt23.test_segments(data_dir, name)
        assert len(rows) == (ALMA if name in wmt23.FROM_ALMA else WMT23)[name]
        assert all(row.source and row.reference for row in rows)
        assert [row.id for row in rows] == [str(i) for i in range(len(rows))]


def test_alma_counts(data_dir):
    assert {name: len(alma.load_test(data_dir, name)) for name in ALMA} == ALMA
    assert {x: len(alma.load_train(data_dir, f"{x}-en")) for x in TRAIN} == TRAIN
    assert {len(alma.load_validation(data_dir, f"{x}-en")) for x in alma.VALIDATED} == {1002}
    sources = [row.source for row in alma.load_test(data_dir, "en-cs")]
    assert len(sources) - len(set(sources)) == 122


@pytest.mark.parametrize("code", TRAIN)
def test_training_text_ends_with_flores(data_dir, code):
    rows = alma.load_train(data_dir, f"{code}-en")
    own = alma.load_train(data_dir, f"{code}-en", flores=False)
    assert rows[: len(own)] == own
    assert len(own) == DEV_START[code]
    foreign, english = language(code).flores, language("en").flores
    for side, name in (("source", foreign), ("reference", english)):
        lines = flores.load(data_dir, name) + flores.load(data_dir, name, "devtest")
        assert [getattr(row, side) for row in rows[len(own) :]] == lines
    kept = {row.reference for row in own}
    assert not kept & {*flores.load(data_dir, english), *flores.load(data_dir, english, "devtest")}
