"""Tatoeba sentence pairs with English: LASER's v1 and the Tatoeba Challenge's v2021-08-07.

tatoeba/laser_v1/tatoeba.<x>-eng.{<x>,eng} (Artetxe and Schwenk, 2019; up to 1,000 pairs);
tatoeba/challenge_v2021-08-07/<pair>/tatoeba-test-v2021-08-07.{<x>,eng} (Tiedemann, 2020).

Neither is multiway, and the two overlap: do not train on one and test on the other. Challenge
sets repeat sides, so another row of a batch may be a true translation. Rows may hold several
sentences.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from xlt_bench.data.root import read_lines
from xlt_bench.data.segments import read_pairs
from xlt_bench.errors import InputError, unknown
from xlt_bench.languages import language

CHALLENGE = "challenge_v2021-08-07"
_VERSION = "tatoeba-test-v2021-08-07"

# The publishers' codes are FLORES's three letters, but for these.
_LASER = {"ar": "ara", "az": "aze", "mn": "mon", "zh": "cmn"}
_CHALLENGE = {"ar": "ara", "az": "aze", "hr": "hbs", "sr": "hbs", "sw": "swa", "zh": "zho"}
CHALLENGE_LANGUAGES = tuple("af ar az cy da de el es fr hi hr is ja jv ru sr sv sw th tl tr ur zh".split())  # fmt: skip # noqa: E501
# Of LASER's v1 its Serbian is some 70 % in Latin script, its Chinese mixes both scripts.
LASER_LANGUAGES = tuple("af am ar az bn cs cy da de el es fr he hi hr hu hy id is it ja jv ka km ko lv mn pt ru sk sr sv sw th tl tr uk ur zh".split())  # fmt: skip # noqa: E501

# What is kept of a folder with .labels. Serbian keeps both scripts: UNER's is in Latin, FLORES's in
# Cyrillic. Japanese keeps all: its labels are a guess of the script from a line's characters.
_LABELS: dict[str, frozenset[str]] = {
    "ar": frozenset({"ara"}),
    "hr": frozenset({"hrv"}),
    "jv": frozenset({"jav"}),
    "ru": frozenset({"rus"}),
    "sr": frozenset({"srp_Cyrl", "srp_Latn"}),
    "zh": frozenset({"cmn_Hans"}),
}


def laser_files(code: str) -> tuple[str, str]:
    """The foreign and the English file of a language, below the data folder. Raises InputError."""
    row = language(code)
    if row.code not in LASER_LANGUAGES:
        raise unknown("language of Tatoeba in LASER's v1", row.code, LASER_LANGUAGES)
    three = _LASER.get(row.code, row.flores[:3])
    stem = f"tatoeba/laser_v1/tatoeba.{three}-eng"
    return f"{stem}.{three}", f"{stem}.eng"


def challenge_files(code: str) -> tuple[str, str, str | None]:
    """The foreign, the English and, if any, the labels file, below the data folder."""
    row = language(code)
    if row.code not in CHALLENGE_LANGUAGES:
        raise unknown("language of the Tatoeba Challenge", row.code, CHALLENGE_LANGUAGES)
    three = _CHALLENGE.get(row.code, row.flores[:3])
    folder = "-".join(sorted([three, "eng"]))
    stem = f"tatoeba/{CHALLENGE}/{folder}/{_VERSION}"
    labelled = row.code in _LABELS or row.code == "ja"
    return f"{stem}.{three}", f"{stem}.eng", f"{stem}.{three}.labels" if labelled else None


def load_laser(root: Path, code: str) -> list[tuple[str, str]]:
    """The (foreign, English) pairs of a language in LASER's v1, in file order.

    Scripts are mixed for Serbian and Chinese, and there are no labels. Raises InputError.
    """
    foreign, english = laser_files(code)
    return read_pairs(root / foreign, root / english, "tatoeba")


def load_challenge(root: Path, code: str, labels: Set[str] | None = None) -> list[tuple[str, str]]:
    """The (foreign, English) pairs of a language in the Tatoeba Challenge, in file order.

    `labels` are the varieties to keep; None keeps the table's own: Modern Standard Arabic,
    simplified Mandarin, Serbian in both scripts, Croatian, Javanese in Latin script. All of a
    folder: `set(challenge_labels(root, code))`. Raises InputError for a label that no row has, too.
    """
    foreign, english, _ = challenge_files(code)
    pairs = read_pairs(root / foreign, root / english, "tatoeba")
    kept = _LABELS.get(language(code).code) if labels is None else labels
    if kept is None:
        return pairs
    found = challenge_labels(root, code)
    if len(found) != len(pairs):
        raise InputError(
            f"{root / foreign}.labels has {len(found)} lines for {len(pairs)} pairs; delete it, "
            "then: xlt-bench data fetch tatoeba"
        )
    for label in kept - set(found):
        raise unknown(f"label of Tatoeba {code}", label, sorted(set(found)))
    return [pair for pair, label in zip(pairs, found, strict=True) if label in kept]


def challenge_labels(root: Path, code: str) -> list[str]:
    """The variety of each pair of a folder (`srp_Latn`). Raises InputError where there are none."""
    path = challenge_files(code)[2]
    if path is None:
        raise InputError(f"the Tatoeba Challenge labels no varieties of {code!r}")
    return read_lines(root / path, "tatoeba")
