"""Reads translated messages of free programs, as Debian packages carry them.

    apt-get download $(cut -f1 xlt_bench/models/embedded/packages.tsv | tail -n +2)
    for package in *.deb; do dpkg-deb -x $package MESSAGES/${package%%_*}; done

A compiled catalogue of gettext, `<package>/usr/share/locale/<locale>/LC_MESSAGES/*.mo`, holds the
English messages of a program with their translations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import polib

from xlt_bench.languages import language

PACKAGES = Path(__file__).with_name("packages.tsv")

# gettext's names of languages that FLORES-200 calls otherwise.
_LOCALES = {"zh": "zh_CN", "tl": "fil", "zh_Hant": "zh_TW"}
_LONGEST, _MOST = 300, 30_000
_MARKUP = re.compile(r"<[^>]*>|&(amp|lt|gt|quot);|%?\{[^}]*\}|\$\([^)]*\)")
_PLACEHOLDER = re.compile(
    r"%(?:\d+\$)?[-#0 +']*[\d*]*(?:\.\d+)?(?:l|ll|h|z|q)?[a-zA-Z(]|%\d|\$\{?\w+"
)
_SPACES = re.compile(r"\s+")


def load_messages(folder: Path, languages: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Read the messages of at least three English words, at most 30,000 of a language.

    Args:
        folder: A folder of unpacked packages.
        languages: Language codes.

    Returns:
        (foreign, English) messages by language code, without repetitions, in the order of packages.
    """
    pairs: dict[str, list[tuple[str, str]]] = {}
    for code in languages:
        locale = _LOCALES.get(code, code)
        files = sorted(folder.glob(f"*/usr/share/locale/{locale}/LC_MESSAGES/*.mo"))
        if seen := list(dict.fromkeys(pair for file in files for pair in _messages(file, code))):
            pairs[code] = seen[:: math.ceil(len(seen) / _MOST)]
    return pairs


def _messages(file: Path, code: str) -> Iterator[tuple[str, str]]:
    """Yield the (foreign, English) messages of a catalogue; nothing if it cannot be read."""
    try:
        entries = polib.mofile(str(file), check_for_duplicates=False)
    except (OSError, UnicodeError, ValueError):
        return
    for entry in entries:
        foreign, english = plain(entry.msgstr or ""), plain(entry.msgid)
        if _useful(foreign, english) and _own_script(foreign, code):
            yield foreign, english


def plain(message: str) -> str:
    """Remove mark-up, keyboard marks and spaces at line breaks from a message.

    Args:
        message: The message.

    Returns:
        Its text; empty if it has a placeholder, since its text is then incomplete.
    """
    text = _SPACES.sub(" ", _MARKUP.sub(" ", message.replace("\\n", " "))).strip()
    if _PLACEHOLDER.search(text):
        return ""
    return re.sub(r"\(?[&_](\w)\)?", r"\1", text)


def _useful(foreign: str, english: str) -> bool:
    """Whether the English has three words, and the foreign text differs and is not much longer."""
    fits = english.count(" ") >= 2 and max(len(english), len(foreign)) <= _LONGEST
    return fits and foreign != english and 0 < len(foreign) < 4 * len(english)


def _own_script(text: str, code: str) -> bool:
    """Whether at most half of the letters are ASCII in a language that is not written so."""
    letters = [character for character in text if character.isalpha()]
    latin = language(code).script == "Latin"
    return latin or 2 * sum(character.isascii() for character in letters) <= len(letters)
