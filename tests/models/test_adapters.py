"""Adapters whose files hold something else than they should: one line, and no traceback."""

import json
import shutil

import pytest

from xlt_bench.errors import InputError
from xlt_bench.models.adapters import alignment_languages, check_adapter, find_adapter
from xlt_bench.models.load import meta_model


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"auto_mapping": {"parent_library": "evil.code", "base_model_class": "A"}}, "evil.code"),
        ({"auto_mapping": "evil"}, "names code of its own"),
        ({"r": 0}, "rank 0"),
        ({"r": 10**9}, "rank 1000000000"),
        ({"r": True}, "rank True"),
        ({"r": "8"}, "rank 8"),
        ({"rank_pattern": {"q_proj": -1}}, "rank -1"),
        ({"rank_pattern": [8]}, "is no mapping"),
        ({"lora_alpha": float("nan")}, "lora_alpha nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha inf"),
        ({"lora_alpha": None}, "lora_alpha None"),
    ],
)
def test_a_configuration_that_no_lora_has(adapter, tiny_model, change, said):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=said) as refused:
        check_adapter(find_adapter(str(adapter)), meta_model(str(tiny_model)), "tiny")
    assert "\n" not in str(refused.value)


def test_the_mapping_that_peft_writes_is_taken(adapter, tiny_model):
    path = adapter / "adapter_config.json"
    library = "transformers.models.llama.modeling_llama"
    mapping = {"base_model_class": "LlamaForCausalLM", "parent_library": library}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_mapping": mapping}))
    check_adapter(find_adapter(str(adapter)), meta_model(str(tiny_model)), "tiny")
