"""The one table of languages: everything the benchmark knows about a language is a row here.

Languages, FLORES codes and settings: Table 1, Table 10 and Appendix C of the paper (29 languages
of the downstream tasks and 12 more that only retrieval uses). Resource level: Table 1 of the NLLB
paper (NLLB Team, 2022), which calls a language low-resource where fewer than a million sentence
pairs with any other language are public. Family: the top-level family, by the names in common use
(Ethnologue's, but Glottolog's Austroasiatic).

Whether a language is *aligned* is no column: it belongs to an adapter, not to a language.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from xlt_bench.errors import unknown

Setting = Literal["supervised", "transfer"]
Family = Literal["massive", "wmt23", "uner", "flores"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True)
class Language:
    """One language.

    `massive_locale` is filled wherever MASSIVE 1.1 has the language; `massive` and `uner` are its
    setting in that task, None where the paper does not use it. `wmt23` is the setting of its two
    directions with English. `retrieval` marks the 35 languages of the retrieval analysis.
    """

    code: str
    name: str
    flores: str
    script: str
    family: str
    resource: Literal["high", "low"]
    massive_locale: str | None = None
    massive: Setting | None = None
    wmt23: Setting | None = None
    uner: Setting | None = None
    uner_treebank: str | None = None
    retrieval: bool = True


# fmt: off
_ROWS = (
    Language("af", "Afrikaans", "afr_Latn", "Latin", "Indo-European", "high", "af-ZA", "transfer"),
    Language("am", "Amharic", "amh_Ethi", "Ethiopic", "Afro-Asiatic", "low", "am-ET"),
    Language("ar", "Modern Standard Arabic", "arb_Arab", "Arabic", "Afro-Asiatic", "high", "ar-SA", "supervised"),
    Language("az", "North Azerbaijani", "azj_Latn", "Latin", "Turkic", "low", "az-AZ", "transfer"),
    Language("bn", "Bengali", "ben_Beng", "Bengali", "Indo-European", "high", "bn-BD"),
    Language("cs", "Czech", "ces_Latn", "Latin", "Indo-European", "high", wmt23="supervised"),
    Language("cy", "Welsh", "cym_Latn", "Latin", "Indo-European", "low", "cy-GB", "transfer"),
    Language("da", "Danish", "dan_Latn", "Latin", "Indo-European", "high", "da-DK", uner="transfer", uner_treebank="Danish-DDT", retrieval=False),
    Language("de", "German", "deu_Latn", "Latin", "Indo-European", "high", "de-DE", "transfer", "supervised"),
    Language("el", "Greek", "ell_Grek", "Greek", "Indo-European", "high", "el-GR", "transfer"),
    Language("en", "English", "eng_Latn", "Latin", "Indo-European", "high", "en-US", "supervised", uner="supervised", uner_treebank="English-EWT"),
    Language("es", "Spanish", "spa_Latn", "Latin", "Indo-European", "high", "es-ES", "supervised"),
    Language("fr", "French", "fra_Latn", "Latin", "Indo-European", "high", "fr-FR", "transfer"),
    Language("he", "Hebrew", "heb_Hebr", "Hebrew", "Afro-Asiatic", "high", "he-IL", wmt23="transfer"),
    Language("hi", "Hindi", "hin_Deva", "Devanagari", "Indo-European", "high", "hi-IN", "transfer"),
    Language("hr", "Croatian", "hrv_Latn", "Latin", "Indo-European", "high", uner="transfer", uner_treebank="Croatian-SET", retrieval=False),
    Language("hu", "Hungarian", "hun_Latn", "Latin", "Uralic", "high", "hu-HU"),
    Language("hy", "Armenian", "hye_Armn", "Armenian", "Indo-European", "low", "hy-AM"),
    Language("id", "Indonesian", "ind_Latn", "Latin", "Austronesian", "high", "id-ID"),
    Language("is", "Icelandic", "isl_Latn", "Latin", "Indo-European", "high", "is-IS", "transfer", "supervised"),
    Language("it", "Italian", "ita_Latn", "Latin", "Indo-European", "high", "it-IT"),
    Language("ja", "Japanese", "jpn_Jpan", "Japanese", "Japonic", "high", "ja-JP", "transfer", "transfer"),
    Language("jv", "Javanese", "jav_Latn", "Latin", "Austronesian", "low", "jv-ID", "transfer"),
    Language("ka", "Georgian", "kat_Geor", "Georgian", "Kartvelian", "low", "ka-GE"),
    Language("km", "Khmer", "khm_Khmr", "Khmer", "Austroasiatic", "low", "km-KH"),
    Language("kn", "Kannada", "kan_Knda", "Kannada", "Dravidian", "low", "kn-IN"),
    Language("ko", "Korean", "kor_Hang", "Hangul", "Koreanic", "high", "ko-KR"),
    Language("lv", "Latvian", "lvs_Latn", "Latin", "Indo-European", "high", "lv-LV"),
    Language("mn", "Mongolian", "khk_Cyrl", "Cyrillic", "Mongolic", "low", "mn-MN"),
    Language("pt", "Portuguese", "por_Latn", "Latin", "Indo-European", "high", "pt-PT", uner="supervised", uner_treebank="Portuguese-Bosque", retrieval=False),
    Language("ru", "Russian", "rus_Cyrl", "Cyrillic", "Indo-European", "high", "ru-RU", "supervised", "supervised"),
    Language("sk", "Slovak", "slk_Latn", "Latin", "Indo-European", "high", uner="transfer", uner_treebank="Slovak-SNK", retrieval=False),
    # UNER's Serbian is in Latin script although the paper's FLORES code is srp_Cyrl.
    Language("sr", "Serbian", "srp_Cyrl", "Cyrillic", "Indo-European", "low", uner="transfer", uner_treebank="Serbian-SET", retrieval=False),
    Language("sv", "Swedish", "swe_Latn", "Latin", "Indo-European", "high", "sv-SE", uner="transfer", uner_treebank="Swedish-Talbanken", retrieval=False),
    Language("sw", "Swahili", "swh_Latn", "Latin", "Niger-Congo", "high", "sw-KE", "transfer"),
    Language("th", "Thai", "tha_Thai", "Thai", "Kra-Dai", "high", "th-TH", "transfer"),
    Language("tl", "Tagalog", "tgl_Latn", "Latin", "Austronesian", "high", "tl-PH", "transfer"),
    Language("tr", "Turkish", "tur_Latn", "Latin", "Turkic", "high", "tr-TR", "transfer"),
    Language("uk", "Ukrainian", "ukr_Cyrl", "Cyrillic", "Indo-European", "high", wmt23="transfer"),
    Language("ur", "Urdu", "urd_Arab", "Arabic", "Indo-European", "low", "ur-PK", "transfer"),
    # UNER's own Chinese set is Chinese-GSD, in Traditional characters (as in the paper's data).
    Language("zh", "Chinese (Simplified)", "zho_Hans", "Han", "Sino-Tibetan", "high", "zh-CN", "supervised", "supervised", "supervised", "Chinese-GSD"),
)
# fmt: on

LANGUAGES: dict[str, Language] = {row.code: row for row in _ROWS}


def language(code: str) -> Language:
    """The row of a language, by its code (`sw`), FLORES code (`swh_Latn`) or locale (`sw-KE`).

    Raises InputError, with the nearest choice, for anything else.
    """
    for row in _ROWS:
        if code in (row.code, row.flores, row.massive_locale):
            return row
    raise unknown("language", code, LANGUAGES)


def directions() -> dict[str, Setting]:
    """The 16 translation directions (`en-de`) and their settings, into English first."""
    pairs = [(row.code, row.wmt23) for row in _ROWS if row.wmt23]
    into = {f"{code}-en": setting for code, setting in pairs}
    return into | {f"en-{code}": setting for code, setting in pairs}


def units(family: Family) -> dict[str, Setting | None]:
    """What a task family is evaluated on, in table order, with each unit's setting.

    Language codes, or directions for wmt23; retrieval (flores) has no setting of its own.
    """
    if family == "wmt23":
        return dict(directions())
    if family == "flores":
        return {row.code: None for row in _ROWS if row.retrieval}
    settings = {row.code: getattr(row, family) for row in _ROWS}
    return {code: setting for code, setting in settings.items() if setting}


def units_of(family: Family, codes: Iterable[str]) -> list[str]:
    """The units of a family that the given languages touch (a direction by its non-English side).

    `en` alone keeps every unit that is English itself, and no direction.
    """
    wanted = {language(code).code for code in codes}
    if family == "wmt23":
        return [d for d in units(family) if other_side(d) in wanted]
    return [code for code in units(family) if code in wanted]


def other_side(direction: str) -> str:
    """The non-English language of a direction: `de` for both `en-de` and `de-en`."""
    source, target = direction.split("-")
    return target if source == "en" else source
