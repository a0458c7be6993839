"""Reads Tatoeba pairs with English: LASER's v1 and the Tatoeba Challenge's v2021-08-07.

tatoeba/laser_v1/tatoeba.<x>-eng.{<x>,eng} (Artetxe and Schwenk, 2019; up to 1,000 pairs);
tatoeba/challenge_v2021-08-07/<pair>/tatoeba-test-v2021-08-07.{<x>,eng} (Tiedemann, 2020).

Neither is multiway, and the two overlap: do not train on one and test on the other. Challenge sets
repeat sentences, so another row of a batch may also be a correct translation. A row may hold
several sentences.
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

# The publishers use the three letters of FLORES codes, except for these.
_LASER = {"ar": "ara", "az": "aze", "mn": "mon", "zh": "cmn"}
_CHALLENGE = {"ar": "ara", "az": "aze", "hr": "hbs", "sr": "hbs", "sw": "swa", "zh": "zho"}
CHALLENGE_LANGUAGES = tuple("af ar az cy da de el es fr hi hr is ja jv ru sr sv sw th tl tr ur zh".split())  # fmt: skip # noqa: E501
# In LASER's v1, Serbian is about 70 % in Latin script, and Chinese mixes both scripts.
LASER_LANGUAGES = tuple("af am ar az bn cs cy da de el es fr he hi hr hu hy id is it ja jv ka km ko lv mn pt ru sk sr sv sw th tl tr uk ur zh".split())  # fmt: skip # noqa: E501

# The labels that are kept by default. Serbian keeps both scripts: UNER's is in Latin, FLORES's in
# Cyrillic. Japanese keeps every row: its labels guess the script from a line's characters.
_LABELS: dict[str, frozenset[str]] = {
    "ar": frozenset({"ara"}),
    "hr": frozenset({"hrv"}),
    "jv": frozenset({"jav"}),
    "ru": frozenset({"rus"}),
    "sr": frozenset({"srp_Cyrl", "srp_Latn"}),
    "zh": frozenset({"cmn_Hans"}),
}


def laser_files(code: str) -> tuple[str, str]:
    """The two files of a language in LASER's v1, relative to the data folder.

    Returns:
        The foreign file and the English one.

    Raises:
        InputError: LASER's v1 lacks the language.
    """
    row = language(code)
    if row.code not in LASER_LANGUAGES:
        raise unknown("language of Tatoeba in LASER's v1", row.code, LASER_LANGUAGES)
    three = _LASER.get(row.code, row.flores[:3])
    stem = f"tatoeba/laser_v1/tatoeba.{three}-eng"
    return f"{stem}.{three}", f"{stem}.eng"


def challenge_files(code: str) -> tuple[str, str, str | None]:
    """The files of a language in the Tatoeba Challenge, relative to the data folder.

    Returns:
        The foreign file, the English one, and the file of labels or None.

    Raises:
        InputError: The Tatoeba Challenge lacks the language.
    """
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

    Serbian and Chinese mix scripts, without labels to tell them apart.

    Raises:
        InputError: LASER's v1 lacks the language, or a file is missing or broken.
    """
    foreign, english = laser_files(code)
    return read_pairs(root / foreign, root / english, "tatoeba")


def load_challenge(root: Path, code: str, labels: Set[str] | None = None) -> list[tuple[str, str]]:
    """The (foreign, English) pairs of a language in the Tatoeba Challenge, in file order.

    Args:
        root: The data folder.
        code: The language.
        labels: The varieties to keep. By default Modern Standard Arabic, simplified Mandarin,
            Serbian in both scripts, Croatian, and Javanese in Latin script. To keep all of a
            folder, pass `set(challenge_labels(root, code))`.

    Raises:
        InputError: The Tatoeba Challenge lacks the language or its labels, no row has one of
            `labels`, or a file is missing or broken.
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
    """The label of each pair of a language's folder, such as `srp_Latn`.

    Raises:
        InputError: The folder has no labels, or a file is missing or broken.
    """
    path = challenge_files(code)[2]
    if path is None:
        raise InputError(f"the Tatoeba Challenge has no labels for {code!r}; leave them out")
    return read_lines(root / path, "tatoeba")
