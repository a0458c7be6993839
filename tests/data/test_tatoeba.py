import pytest

from xlt_bench.data import tatoeba
from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES

LASER = {"cy": 575, "jv": 205, "sw": 390, "th": 548, "am": 168, "hy": 742, "ka": 746, "mn": 440, "km": 722}  # fmt: skip # noqa: E501
CHALLENGE = {
    "cy": 818, "jv": 262, "sw": 387, "ja": 13862, "tl": 2500, "th": 1154, "hi": 5000, "el": 10899,
    "tr": 13907, "ar": 10305, "es": 16583, "ru": 19425, "zh": 10390, "da": 10795, "sv": 10362,
    "sr": 10017, "hr": 10017, "af": 1374, "az": 2659, "fr": 12681, "is": 2503, "ur": 1663,
    "de": 17565,
}  # fmt: skip
KEPT = {"ar": 9642, "hr": 1480, "jv": 260, "ru": 19424, "sr": 6656 + 1580, "zh": 4450}


def write(root, files, lines):
    for name, content in zip(files, lines, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")


def test_codes_of_the_publishers():
    assert tatoeba.laser_files("zh")[0].endswith("tatoeba.cmn-eng.cmn")
    assert tatoeba.laser_files("swh_Latn")[1].endswith("tatoeba.swh-eng.eng")
    assert "/eng-swa/" in tatoeba.challenge_files("sw")[0]
    assert "/afr-eng/" in tatoeba.challenge_files("af")[0]
    assert tatoeba.challenge_files("af")[2] is None


def test_laser_pairs(tmp_path):
    write(tmp_path, tatoeba.laser_files("cy"), [["ie", "na"], ["yes", "no"]])
    assert tatoeba.load_laser(tmp_path, "cy") == [("ie", "yes"), ("na", "no")]


def test_varieties(tmp_path):
    lines = [["da", "да", "jest"], ["a", "b", "c"], ["srp_Latn", "srp_Cyrl", "hrv"]]
    write(tmp_path, tatoeba.challenge_files("sr"), lines)
    assert tatoeba.load_challenge(tmp_path, "sr") == [("da", "a"), ("да", "b")]
    assert tatoeba.load_challenge(tmp_path, "hr") == [("jest", "c")]
    assert tatoeba.load_challenge(tmp_path, "sr", {"srp_Cyrl"}) == [("да", "b")]
    everything = set(tatoeba.challenge_labels(tmp_path, "sr"))
    assert len(tatoeba.load_challenge(tmp_path, "hr", everything)) == 3
    with pytest.raises(InputError, match="unknown label of Tatoeba sr 'srp_Cryl': did you mean"):
        tatoeba.load_challenge(tmp_path, "sr", {"srp_Cryl"})


def test_labels_of_another_length(tmp_path):
    write(tmp_path, tatoeba.challenge_files("jv"), [["ya"], ["yes"], ["jav", "jav"]])
    with pytest.raises(InputError, match=r"jav\.labels has 2 lines for 1 pairs"):
        tatoeba.load_challenge(tmp_path, "jv")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: tatoeba.load_laser(root, "kn"), "LASER's v1 'kn'"),
        (lambda root: tatoeba.load_challenge(root, "ko"), "Tatoeba Challenge 'ko'"),
        (lambda root: tatoeba.load_challenge(root, "de", {"deu"}), "has no labels for 'de'"),
        (lambda root: tatoeba.load_laser(root, "xx"), "unknown language 'xx'"),
    ],
)
def test_errors(tmp_path, call, message):
    if "labels" in message:
        write(tmp_path, tatoeba.challenge_files("de")[:2], [["ja"], ["yes"]])
    with pytest.raises(InputError, match=message):
        call(tmp_path)


def test_laser_counts(data_dir):
    assert len(set(tatoeba.LASER_LANGUAGES)) == 39
    assert set(tatoeba.LASER_LANGUAGES) < set(LANGUAGES) - {"en", "kn"}
    for code in tatoeba.LASER_LANGUAGES:
        pairs = tatoeba.load_laser(data_dir, code)
        assert len(pairs) == LASER.get(code, 1000)
        for side in zip(*pairs, strict=True):
            assert len(set(side)) == len(side)
            assert all(side)


def test_challenge_counts(data_dir):
    def everything(code):
        labelled = tatoeba.challenge_files(code)[2]
        labels = set(tatoeba.challenge_labels(data_dir, code)) if labelled else None
        return tatoeba.load_challenge(data_dir, code, labels)

    assert {code: len(everything(code)) for code in tatoeba.CHALLENGE_LANGUAGES} == CHALLENGE


def test_default_varieties(data_dir):
    found = {code: len(tatoeba.load_challenge(data_dir, code)) for code in KEPT}
    assert found == KEPT
    javanese = "".join(foreign for foreign, _ in tatoeba.load_challenge(data_dir, "jv"))
    assert not any("\ua980" <= character <= "\ua9df" for character in javanese)


def test_repeated_sides_and_overlap(data_dir):
    for code, sides in (("jv", 217), ("sw", 377)):
        labels = {"jav", "jav_Java"} if code == "jv" else None
        pairs = tatoeba.load_challenge(data_dir, code, labels)
        assert len({english for _, english in pairs}) == sides
    for code, shared in (("cy", 493), ("jv", 195), ("sw", 341)):
        labels = {"jav", "jav_Java"} if code == "jv" else None
        challenge = set(tatoeba.load_challenge(data_dir, code, labels))
        assert len(challenge & set(tatoeba.load_laser(data_dir, code))) == shared
