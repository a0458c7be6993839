"""What the language table says of a language; its rows are tested in test_language_table."""

import pytest

from xlt_bench.errors import InputError
from xlt_bench.languages import language, read_table
from xlt_bench.tasks.registry import get_task


def test_a_language_goes_by_three_names_and_unknown_ones_are_helped():
    assert language("sw") is language("swh_Latn") is language("sw-KE")
    with pytest.raises(InputError, match="did you mean 'sw'"):
        language("sw-TZ")


def test_languages_choose_directions_by_their_other_side():
    assert get_task("wmt23").choose(["de", "en"]) == ["de-en", "en-de"]
    assert get_task("uner").choose(["de"]) == []


def test_languages_beyond_the_ranked_set_can_be_chosen():
    assert get_task("massive").choose(["ko-KR", "zho_Hant", "fi"]) == ["fi", "ko", "zho_Hant"]
    assert get_task("retrieval").choose(["yo", "quy_Latn"]) == ["qu", "yo"]


def test_a_table_with_other_columns_or_a_code_twice_is_refused(tmp_path):
    path = tmp_path / "table.tsv"
    head = "code\tname\tflores\tscript\tfamily\tresource\tmassive\tuner\tntrex\n"
    row = "xx\tExample\txxx_Latn\tLatin\tNone\t\t\t\t\n"
    path.write_text(head + row)
    assert read_table(path)["xx"].resource is None
    path.write_text(head + row + row)
    with pytest.raises(ValueError, match="occurs twice"):
        read_table(path)
    path.write_text(head.replace("uner", "treebank") + row)
    with pytest.raises(ValueError, match="columns"):
        read_table(path)
