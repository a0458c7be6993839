"""Cards of adapters that cannot be read are refused in one line."""

import shutil

import pytest

from xlt_bench.errors import InputError
from xlt_bench.models.adapter_card import alignment_languages
from xlt_bench.models.adapters import find_adapter


@pytest.fixture
def adapter(tiny_adapter, tmp_path):
    return shutil.copytree(tiny_adapter, tmp_path / "adapter")


def test_a_card_that_is_not_utf8(adapter):
    (adapter / "README.md").write_bytes(b"---\nlanguage: fran\xe7ais\n---\n")
    with pytest.raises(InputError, match=r"README\.md is not UTF-8 \(byte 18\)"):
        alignment_languages(find_adapter(str(adapter)))


@pytest.mark.parametrize("value", ["5", "sw", "{sw: 1}", "[no]"])
def test_alignment_languages_that_are_no_list_of_codes(adapter, value):
    (adapter / "README.md").write_text(f"---\nalignment_languages: {value}\n---\n")
    with pytest.raises(InputError, match="must be a list of language codes"):
        alignment_languages(find_adapter(str(adapter)))


@pytest.mark.parametrize(
    "head",
    [
        "d: 2024-99-99",
        "d: !!int x",
        "d: !!bool x",
        "d: !!timestamp 5",
        "d: " + "[" * 5000,
        "d: 0x" + "f" * 9000,
        "a: &a [x]\nb: &b [*a, *a]\nalignment_languages: [*b, *b]",
        "a: &a {x: 1}\nb: {<<: [*a, *a]}",
        "d: " + "x" * 200_000,
    ],
)
def test_a_card_that_yaml_chokes_on(adapter, head):
    (adapter / "README.md").write_text(f"---\n{head}\n---\n")
    with pytest.raises(InputError, match=r"metadata of README\.md cannot be read") as refused:
        alignment_languages(find_adapter(str(adapter)))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("value", ["[" + "[de], " * 5000 + "]", "[" + "x" * 9000 + "]"])
def test_a_long_value_in_the_card_is_cut_short(adapter, value):
    (adapter / "README.md").write_text(f"---\nalignment_languages: {value}\n---\n")
    with pytest.raises(InputError) as refused:
        alignment_languages(find_adapter(str(adapter)))
    assert len(str(refused.value)) < 800
