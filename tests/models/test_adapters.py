"""Adapters whose files hold something else than they should: one line, and no traceback."""

import shutil

import pytest

from xlt_bench.errors import InputError
from xlt_bench.models.adapters import alignment_languages, find_adapter


@pytest.fixture
def adapter(tiny_adapter, tmp_path):
    return shutil.copytree(tiny_adapter, tmp_path / "adapter")


@pytest.mark.parametrize("text", ["[]", "null", "5"])
def test_a_configuration_that_is_no_object(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match=r"adapter_config\.json holds no JSON object"):
        find_adapter(str(adapter))


def test_a_card_that_is_not_utf8(adapter):
    (adapter / "README.md").write_bytes(b"---\nlanguage: fran\xe7ais\n---\n")
    with pytest.raises(InputError, match=r"README\.md is not UTF-8 \(byte 18\)"):
        alignment_languages(find_adapter(str(adapter)))


@pytest.mark.parametrize("value", ["5", "sw", "{sw: 1}", "[no]"])
def test_alignment_languages_that_are_no_list_of_codes(adapter, value):
    (adapter / "README.md").write_text(f"---\nalignment_languages: {value}\n---\n")
    with pytest.raises(InputError, match="must be a list of language codes"):
        alignment_languages(find_adapter(str(adapter)))
