"""Adapters whose files hold something else than they should: one line, and no traceback."""

import json
import shutil
from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.models.adapters import (
    AdapterFiles,
    alignment_languages,
    check_adapter,
    find_adapter,
)
from xlt_bench.models.load import meta_model
from xlt_bench.options import Options, run_folder


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


def test_every_kind_of_peft_is_known_and_no_other():
    from peft import PeftType

    for kind in set(PeftType) - {PeftType.LORA}:  # whose weights are held against a model
        check_adapter(AdapterFiles("a", Path("a"), {"peft_type": kind.value}, "", {}), None, "base")
    made_up = AdapterFiles("a", Path("a"), {"peft_type": "MADE_UP"}, "", {})
    with pytest.raises(InputError, match=r"unknown peft_type of adapter a 'MADE_UP'"):
        check_adapter(made_up, None, "base")


def test_pickled_weights_are_not_opened(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    with pytest.raises(InputError, match="only pickled weights") as refused:
        find_adapter(str(adapter))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["..", ".", "adapters/..", "other/../..", "not there/.."])
def test_an_adapter_by_dots_is_written_within_the_output(name, tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    (folder / "adapters").mkdir(parents=True)
    (folder / "other").mkdir()
    monkeypatch.chdir(folder)
    options = Options(model="embedded", adapters=[name, "x/second"], output=tmp_path / "out")
    assert run_folder(options, name).resolve().parent == tmp_path / "out"
