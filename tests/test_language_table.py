"""The rows of `languages.tsv` against the publishers' lists.

Each list below was copied from its publisher, not from the table: the FLORES codes from the README
of facebookresearch/flores, the locales from the dataset card of MASSIVE 1.1, the high-resource
languages from Table 1 of the NLLB paper (NLLB Team, 2022), which counts 150 others as low.
"""

import re
from importlib.resources import files

import pytest

COLUMNS = "code name flores script family resource massive uner ntrex".split()

FLORES_200 = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab
arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab
azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn
bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn
cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn
eus_Latn ewe_Latn fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn
gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn
hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn
kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor knc_Arab knc_Latn kaz_Cyrl kbp_Latn
kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn kon_Latn kor_Hang lao_Laoo
lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn
lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Arab min_Latn mkd_Cyrl plt_Latn
mlt_Latn mni_Beng khk_Cyrl mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva
nso_Latn nus_Latn nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pes_Arab
pol_Latn por_Latn prs_Arab pbt_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva
sat_Olck scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab som_Latn
sot_Latn spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn
tam_Taml tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi taq_Latn taq_Tfng tpi_Latn
tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn
urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant
zho_Hans zho_Hant zsm_Latn zul_Latn
""".split()

MASSIVE_1_1 = """
af-ZA am-ET ar-SA az-AZ bn-BD ca-ES cy-GB da-DK de-DE el-GR en-US es-ES fa-IR fi-FI fr-FR he-IL
hi-IN hu-HU hy-AM id-ID is-IS it-IT ja-JP jv-ID ka-GE km-KH kn-IN ko-KR lv-LV ml-IN mn-MN ms-MY
my-MM nb-NO nl-NL pl-PL pt-PT ro-RO ru-RU sl-SL sq-AL sv-SE sw-KE ta-IN te-IN th-TH tl-PH tr-TR
ur-PK vi-VN zh-CN zh-TW
""".split()

HIGH = """
afr_Latn arb_Arab ben_Beng bos_Latn bul_Cyrl cat_Latn ces_Latn dan_Latn deu_Latn ell_Grek eng_Latn
est_Latn eus_Latn fin_Latn fra_Latn heb_Hebr hin_Deva hrv_Latn hun_Latn ind_Latn isl_Latn ita_Latn
jpn_Jpan kaz_Cyrl kor_Hang lit_Latn lvs_Latn mkd_Cyrl mlt_Latn nld_Latn pes_Arab pol_Latn por_Latn
ron_Latn rus_Cyrl slk_Latn slv_Latn sot_Latn spa_Latn als_Latn swe_Latn swh_Latn tgl_Latn tha_Thai
tsn_Latn tur_Latn ukr_Cyrl uzn_Latn vie_Latn xho_Latn zho_Hans zho_Hant zsm_Latn zul_Latn
""".split()

# ISO 15924's English names; Hans and Hant are both Han.
SCRIPTS = {
    "Arab": "Arabic",
    "Armn": "Armenian",
    "Beng": "Bengali",
    "Cyrl": "Cyrillic",
    "Deva": "Devanagari",
    "Ethi": "Ethiopic",
    "Geor": "Georgian",
    "Grek": "Greek",
    "Gujr": "Gujarati",
    "Guru": "Gurmukhi",
    "Hang": "Hangul",
    "Hans": "Han",
    "Hant": "Han",
    "Hebr": "Hebrew",
    "Jpan": "Japanese",
    "Khmr": "Khmer",
    "Knda": "Kannada",
    "Laoo": "Lao",
    "Latn": "Latin",
    "Mlym": "Malayalam",
    "Mymr": "Myanmar",
    "Olck": "Ol Chiki",
    "Orya": "Oriya",
    "Sinh": "Sinhala",
    "Taml": "Tamil",
    "Telu": "Telugu",
    "Tfng": "Tifinagh",
    "Thai": "Thai",
    "Tibt": "Tibetan",
}

# The smaller families, language by language; Indo-European and Niger-Congo have the rest.
FAMILIES = {
    "Afro-Asiatic": "acm acq aeb ajp am apc ar arb_Latn ars ary arz ha he kab mt om so taq taq_Tfng"
    " ti tzm",
    "Austroasiatic": "km sat vi",
    "Austronesian": "ace ace_Arab ban bjn bjn_Arab bug ceb fj id ilo jv mg mi min min_Arab ms pag"
    " sm su tl war",
    "Aymaran": "ay",
    "Constructed": "eo",
    "Creole": "ht kea pap sg tpi",
    "Dravidian": "kn ml ta te",
    "Japonic": "ja",
    "Kartvelian": "ka",
    "Koreanic": "ko",
    "Kra-Dai": "lo shn th",
    "Language isolate": "eu",
    "Mongolic": "mn",
    "Nilo-Saharan": "dik knc_Arab kr luo nus",
    "Quechuan": "qu",
    "Sino-Tibetan": "bo dz kac lus mni my yue zh zho_Hant",
    "Tupian": "gn",
    "Turkic": "az azb ba crh kk ky tk tr tt ug uz",
    "Uralic": "et fi hu",
}

# Worked by hand. The first fifteen are rows of the benchmark's own 41 languages.
SAMPLE = """
af|Afrikaans|afr_Latn|Latin|Indo-European|high|af-ZA||afr
am|Amharic|amh_Ethi|Ethiopic|Afro-Asiatic|low|am-ET||amh
ar|Modern Standard Arabic|arb_Arab|Arabic|Afro-Asiatic|high|ar-SA||arb
az|North Azerbaijani|azj_Latn|Latin|Turkic|low|az-AZ||aze-Latn
cs|Czech|ces_Latn|Latin|Indo-European|high|||ces
da|Danish|dan_Latn|Latin|Indo-European|high|da-DK|Danish-DDT|dan
en|English|eng_Latn|Latin|Indo-European|high|en-US|English-EWT|eng
hr|Croatian|hrv_Latn|Latin|Indo-European|high||Croatian-SET|hrv
lv|Latvian|lvs_Latn|Latin|Indo-European|high|lv-LV||lav
mn|Mongolian|khk_Cyrl|Cyrillic|Mongolic|low|mn-MN||mon
pt|Portuguese|por_Latn|Latin|Indo-European|high|pt-PT|Portuguese-Bosque|por
sr|Serbian|srp_Cyrl|Cyrillic|Indo-European|low||Serbian-SET|srp-Cyrl
sw|Swahili|swh_Latn|Latin|Niger-Congo|high|sw-KE||swa
th|Thai|tha_Thai|Thai|Kra-Dai|high|th-TH||tha
zh|Chinese (Simplified)|zho_Hans|Han|Sino-Tibetan|high|zh-CN|Chinese-GSD|zho-CN
zho_Hant|Chinese (Traditional)|zho_Hant|Han|Sino-Tibetan|high|zh-TW||zho-TW
arb_Latn|Modern Standard Arabic (Romanized)|arb_Latn|Latin|Afro-Asiatic|low|||
kr|Central Kanuri (Latin script)|knc_Latn|Latin|Nilo-Saharan|low|||
ks|Kashmiri (Arabic script)|kas_Arab|Arabic|Indo-European|low|||
taq_Tfng|Tamasheq (Tifinagh script)|taq_Tfng|Tifinagh|Afro-Asiatic|low|||
mni|Meitei|mni_Beng|Bengali|Sino-Tibetan|low|||
sat|Santali|sat_Olck|Ol Chiki|Austroasiatic|low|||
fa|Western Persian|pes_Arab|Arabic|Indo-European|high|fa-IR||fas
sq|Tosk Albanian|als_Latn|Latin|Indo-European|high|sq-AL||sqi
nb|Norwegian Bokmål|nob_Latn|Latin|Indo-European|low|nb-NO||nob
sl|Slovenian|slv_Latn|Latin|Indo-European|high|sl-SL||slv
ku|Northern Kurdish|kmr_Latn|Latin|Indo-European|low|||kmr
yo|Yoruba|yor_Latn|Latin|Niger-Congo|low|||yor
qu|Ayacucho Quechua|quy_Latn|Latin|Quechuan|low|||
"""


def table():
    text = (files("xlt_bench") / "languages.tsv").read_text(encoding="utf-8")
    header, *lines = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    assert header == COLUMNS
    assert {len(line) for line in lines} == {len(COLUMNS)}
    return [dict(zip(COLUMNS, line, strict=True)) for line in lines]


def column(name):
    return [row[name] for row in table()]


def test_the_languages_are_those_of_flores_200():
    assert len(FLORES_200) == 204
    assert sorted(column("flores")) == sorted(FLORES_200)


def test_codes_are_unique_sorted_and_well_formed():
    codes = column("code")
    assert len(set(codes)) == len(codes)
    assert codes == sorted(codes)
    malformed = [c for c in codes if not re.fullmatch("[a-z]{2,3}|[a-z]{3}_[A-Z][a-z]{3}", c)]
    assert malformed == []


def test_a_code_is_of_two_letters_or_part_of_the_flores_code():
    rows = table()
    plain = [row for row in rows if len(row["code"]) != 2 and row["code"] != row["flores"]]
    assert [row["code"] for row in plain] == [row["flores"].split("_")[0] for row in plain]
    second = "ace_Arab arb_Latn bjn_Arab kas_Deva knc_Arab min_Arab taq_Tfng zho_Hant"
    assert [row["code"] for row in rows if row["code"] == row["flores"]] == second.split()


def test_every_locale_of_massive_is_in_one_row():
    assert len(MASSIVE_1_1) == 52
    assert sorted(filter(None, column("massive"))) == sorted(MASSIVE_1_1)


def test_a_locale_is_in_the_row_of_its_language():
    elsewhere = {
        row["code"]: row["massive"]
        for row in table()
        if row["massive"] and row["massive"].split("-")[0] != row["code"]
    }
    assert elsewhere == {"zho_Hant": "zh-TW"}


def test_resource_levels_are_those_of_nllb():
    levels = {row["flores"]: row["resource"] for row in table()}
    assert sorted(code for code, level in levels.items() if level == "high") == sorted(HIGH)
    assert [*levels.values()].count("low") == 150


def test_a_script_is_that_of_the_flores_code():
    wrong = [row for row in table() if row["script"] != SCRIPTS[row["flores"].split("_")[1]]]
    assert wrong == []


@pytest.mark.parametrize(("family", "codes"), FAMILIES.items())
def test_every_language_is_in_its_family(family, codes):
    assert [row["code"] for row in table() if row["family"] == family] == codes.split()


def test_no_other_families():
    assert set(column("family")) == {*FAMILIES, "Indo-European", "Niger-Congo"}
    assert len([family for family in column("family") if family == "Niger-Congo"]) == 35


def test_only_resource_and_codes_of_data_sets_may_be_empty():
    for row in table():
        assert all(row[name] for name in ("code", "name", "flores", "script", "family")), row
        assert all(cell == cell.strip() for cell in row.values()), row


def test_names_are_unique():
    assert len(set(column("name"))) == 204


@pytest.mark.parametrize("line", SAMPLE.split("\n")[1:-1])
def test_rows_worked_by_hand(line):
    expected = dict(zip(COLUMNS, line.split("|"), strict=True))
    assert [row for row in table() if row["code"] == expected["code"]] == [expected]


def test_codes_of_ntrex_are_those_of_its_list_with_its_scripts(data_dir):
    """And those it has twice or in another script are not in the table."""
    listed = data_dir / "ntrex" / "LANGUAGES.tsv"
    if not listed.is_file():
        pytest.skip("NTREX-128 is missing")
    theirs = {line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines()}
    ours = {row["ntrex"]: row for row in table() if row["ntrex"]}
    assert len(ours) == 111
    assert ours.keys() - theirs == {"eng"}, "the source"
    assert {code for code in theirs - ours.keys() if code[:3] in {c[:3] for c in ours}} == set(
        "eng-GB eng-IN eng-US fra-CA por-BR spa-MX srp-Latn".split()
    )
    # Codes of three letters are ISO 639-3 or, in these rows, of the macrolanguage or another name.
    other = {code: row["flores"][:3] for code, row in ours.items() if code[:3] != row["flores"][:3]}
    assert other == {
        "aze-Latn": "azj", "fas": "pes", "fil": "tgl", "lav": "lvs", "mlg": "plt", "mon": "khk",
        "msa": "zsm", "nep": "npi", "orm": "gaz", "pus": "pbt", "sqi": "als", "swa": "swh",
        "uzb": "uzn",
    }  # fmt: skip


def test_uner_has_a_treebank_of_eight_languages():
    assert [row["code"] for row in table() if row["uner"]] == "da en hr pt sk sr sv zh".split()
