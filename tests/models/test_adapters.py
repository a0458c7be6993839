"""Adapters whose files hold something else than they should: one line, and no traceback."""

import json
import shutil

import pytest

from xlt_bench.errors import InputError
from xlt_bench.models.adapters import alignment_languages, find_adapter
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
    ("change", "message"),
    [
        ({"auto_mapping": {"parent_library": "os", "base_model_class": "x"}}, "auto_mapping"),
        ({"peft_type": "MADE_UP"}, "unknown peft_type 'MADE_UP'"),
        ({"peft_type": None}, "no peft_type"),
        ({"r": 0}, "r is 0, no rank"),
        ({"r": True}, "r is True, no rank"),
        ({"r": 10**9}, "r is 1000000000, no rank"),
        ({"r": "8"}, "r is '8', no rank"),
        ({"r": None}, "r is None, no rank"),
        ({"rank_pattern": {"q_proj": -1}}, "q_proj is -1, no rank"),
        ({"rank_pattern": [1]}, "rank_pattern is no object"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": float("-inf")}, "lora_alpha is -inf"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"alpha_pattern": {"q_proj": 1e300}}, r"q_proj is 1e\+300"),
    ],
)
def test_configurations_that_are_refused_before_peft_sees_them(adapter, change, message):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as refused:
        find_adapter(str(adapter))
    assert "\n" not in str(refused.value)


def test_every_kind_of_peft_is_known(adapter):
    from peft import PeftType

    from xlt_bench.models.adapters import _KINDS

    assert {kind.value for kind in PeftType} == _KINDS


def test_pickled_weights_are_not_opened(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    with pytest.raises(InputError, match="only pickled weights") as refused:
        find_adapter(str(adapter))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["..", ".", "adapters/..", "other/../.."])
def test_an_adapter_by_dots_is_written_within_the_output(name, tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    (folder / "adapters").mkdir(parents=True)
    (folder / "other").mkdir()
    monkeypatch.chdir(folder)
    options = Options(model="embedded", adapters=[name, "x/second"], output=tmp_path / "out")
    assert run_folder(options, name).resolve().parent == tmp_path / "out"


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_folder_never_runs(part, tiny_model, tmp_path):
    """A file of Python that would show that it ran, named by auto_map."""
    from xlt_bench.models.load import load_base, meta_model

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    marker = tmp_path / "it ran"
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass Mine: pass\n")
    path = folder / part
    config = json.loads(path.read_text())
    names = ["AutoConfig", "AutoModelForCausalLM"]
    config["auto_map"] = dict.fromkeys(names, "code.Mine") | {
        "AutoTokenizer": ["code.Mine", "code.Mine"]
    }
    config |= {"model_type": "made_up", "tokenizer_class": "Mine"}
    path.write_text(json.dumps(config))
    loads = [lambda: load_base(str(folder), "float32", "cpu")]
    loads += [lambda: meta_model(str(folder))] if part == "config.json" else []
    for load in loads:
        with pytest.raises(InputError, match="cannot be loaded") as refused:
            load()
        assert "\n" not in str(refused.value)
    assert not marker.exists()
