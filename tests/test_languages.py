"""The language table against the paper's Table 1, Table 10 and Appendix C."""

import pytest

from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES, directions, language, units, units_of

MASSIVE_TRANSFER = "af az cy de el fr hi is ja jv sw th tl tr ur"


def settings(family, setting):
    return " ".join(sorted(unit for unit, found in units(family).items() if found == setting))


def test_settings_are_those_of_table_1():
    assert settings("massive", "supervised") == "ar en es ru zh"
    assert settings("massive", "transfer") == MASSIVE_TRANSFER
    assert settings("uner", "supervised") == "en pt zh"
    assert settings("uner", "transfer") == "da hr sk sr sv"
    assert len(directions()) == 16
    assert settings("wmt23", "transfer") == "en-he en-ja en-uk he-en ja-en uk-en"


def test_counts_of_table_10_and_appendix_c():
    further = set("am bn it hu hy id kn ka mn km ko lv".split())
    assert len(LANGUAGES) == 41
    downstream = {code.split("-")[0] for f in ("massive", "uner") for code in units(f)}
    downstream |= {side for unit in directions() for side in unit.split("-")}
    assert len(downstream) == 29
    assert set(LANGUAGES) == downstream | further
    in_retrieval = set(units("massive")) | {s for d in directions() for s in d.split("-")}
    assert set(units("flores")) == in_retrieval | further
    assert len(units("flores")) == 35


def test_a_language_goes_by_three_names_and_unknown_ones_are_helped():
    assert language("sw") is language("swh_Latn") is language("sw-KE")
    with pytest.raises(InputError, match="did you mean 'sw'"):
        language("sw-TZ")


def test_languages_choose_directions_by_their_other_side():
    assert units_of("wmt23", ["de", "en"]) == ["de-en", "en-de"]
    assert units_of("uner", ["de"]) == []


# Written apart from the table, family by family; the rest is Indo-European.
FAMILIES = {
    "Afro-Asiatic": "am ar he",
    "Austroasiatic": "km",
    "Austronesian": "id jv tl",
    "Dravidian": "kn",
    "Japonic": "ja",
    "Kartvelian": "ka",
    "Koreanic": "ko",
    "Kra-Dai": "th",
    "Mongolic": "mn",
    "Niger-Congo": "sw",
    "Sino-Tibetan": "zh",
    "Turkic": "az tr",
    "Uralic": "hu",
}


def test_every_language_is_in_its_family():
    for family, codes in FAMILIES.items():
        assert {row.code for row in LANGUAGES.values() if row.family == family} == {*codes.split()}
    others = {row.family for row in LANGUAGES.values()} - set(FAMILIES)
    assert others == {"Indo-European"}
