"""Adapters with invalid files are refused in one line, without a traceback."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from xlt_bench.errors import InputError
from xlt_bench.evaluation.config import Options, run_folder
from xlt_bench.models import adapter_config
from xlt_bench.models.adapter_card import alignment_languages
from xlt_bench.models.adapter_fit import check_adapter
from xlt_bench.models.adapters import find_adapter
from xlt_bench.models.load import meta_model


@pytest.fixture
def adapter(tiny_adapter, tmp_path):
    return shutil.copytree(tiny_adapter, tmp_path / "adapter")


def change_config(adapter, change):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def refuse(adapter, tiny_model, change, said):
    """The adapter is refused in one short line before any weights are loaded."""
    change_config(adapter, change)
    with pytest.raises(InputError, match=said) as refused:
        check_adapter(find_adapter(str(adapter)), meta_model(str(tiny_model)), "tiny")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("text", ["[]", "null", "5"])
def test_a_configuration_that_is_no_object(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match=r"adapter_config\.json is not a JSON object"):
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
        ({"auto_mapping": "evil"}, "names code outside transformers"),
        ({"r": 0}, "rank in .* between 1 and 65,536, got 0"),
        ({"r": 10**9}, "got 1000000000"),
        ({"r": True}, "got True"),
        ({"r": "8"}, "got 8"),
        ({"rank_pattern": {"q_proj": -1}}, "rank .*got -1"),
        ({"rank_pattern": [8]}, "must be JSON objects"),
        ({"lora_alpha": float("nan")}, "lora_alpha .*got nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha .*got inf"),
        ({"lora_alpha": None}, "lora_alpha .*got None"),
    ],
)
def test_a_configuration_that_no_lora_has(adapter, tiny_model, change, said):
    refuse(adapter, tiny_model, change, said)


def test_the_mapping_that_peft_writes_is_taken(adapter, tiny_model):
    path = adapter / "adapter_config.json"
    library = "transformers.models.llama.modeling_llama"
    mapping = {"base_model_class": "LlamaForCausalLM", "parent_library": library}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_mapping": mapping}))
    check_adapter(find_adapter(str(adapter)), meta_model(str(tiny_model)), "tiny")


def test_a_kind_that_peft_does_not_know(adapter, tiny_model):
    refuse(adapter, tiny_model, {"peft_type": "MADE_UP"}, r"unknown peft_type of adapter .*MADE_UP")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "SHADOW", "shadow_model": "evil-org/evil-model"}, "loads a second model"),
        ({"peft_type": "XLORA", "adapters": {"0": "hub/name"}}, "loads other adapters"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING"}, "another adapter's weights"),
        ({"shadow_model": "evil-org/evil-model"}, "shadow_model .*remove the key"),
        ({"adapters": {"0": "hub/name"}}, "adapters .*remove the key"),
        ({"prompt_tuning_init_state_dict_path": "x.pt"}, "state_dict_path .*remove the key"),
        ({"megatron_core": "megatron.core.evil"}, "megatron_core .*remove the key"),
        ({"megatron_core": 5}, "megatron_core .*remove the key"),
        ({"megatron_config": {"a": 1}}, "megatron_config .*remove the key"),
        ({"arrow_config": {"task_adapter_names": ["a"]}}, "arrow_config .*remove the key"),
        ({"layer_replication": [[0, 99]]}, "layer_replication .*remove the key"),
        ({"layer_replication": [[0, 4]] * 2000}, "layer_replication .*remove the key"),
        ({"corda_config": {"cache_file": "x.pt"}}, "cache_file .*remove the key"),
        ({"corda_config": {"covariance_file": "x.pt"}}, "covariance_file .*remove the key"),
    ],
)
def test_a_configuration_that_names_other_files(adapter, tiny_model, change, said):
    refuse(adapter, tiny_model, change, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task_type": "a\n" * 5000}, "must be CAUSAL_LM, got a a a"),
        ({"target_modules": "(("}, "regular expression .*is invalid"),
        ({"rank_pattern": {"((": 2}}, "regular expression .*is invalid"),
        ({"rank_pattern": {f"a{i}": 2 for i in range(2000)}}, "2,000 entries"),
        ({"target_modules": [f"a{i}" for i in range(20_000)]}, "20,000 entries"),
        ({"trainable_token_indices": [10**9]}, "trains token 1000000000.*--model"),
        ({"trainable_token_indices": {"a": "b"}}, "does not fit"),
        ({"r": 65_536}, r"has shape \[2, 32\], .*asks for \[65536, 32\]"),
        ({"rank_pattern": {"q_proj": 65_536}}, "asks for"),
        ({"target_modules": "all-linear"}, "lacks"),
        ({"target_modules": [5, {}]}, "does not fit"),
        ({"target_modules": {"a": 5}}, "does not fit"),
        ({"layers_to_transform": "x"}, "does not fit"),
        ({"init_lora_weights": "pissa_niter_1000000"}, "at most 99 iterations"),
        ({"peft_type": "LOHA", "r": 3_000_000}, "rank .*got 3000000"),
        ({"peft_type": "LOHA", "r": 60_000}, "lacks"),
        ({"peft_type": "ADALORA", "init_r": 10**9}, "init_r .*got 1000000000"),
        ({"peft_type": "ADALORA", "init_r": 60_000, "total_step": 5}, "lacks"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 10**9}, "num_virtual_tokens"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 60_000}, "lacks"),
        ({"peft_type": "P_TUNING", "encoder_num_layers": 10**6}, "encoder_num_layers"),
        ({"peft_type": "PEANUT", "depth": 10**6}, "depth .*got 1000000"),
        ({"peft_type": "SHIRA", "r": 60_000}, "does not fit"),
        ({"peft_type": "UNILORA", "r": 60_000}, "r in adapter_config.json must be at most 32"),
        ({"peft_type": "UNILORA", "theta_d_length": 10**9}, "theta_d_length .*got 1000000000"),
        ({"monteclora_config": {"buffer_size": 10**7}}, "buffer_size .*got 10000000"),
        ({"peft_type": "IA3", "feedforward_modules": "(("}, "is invalid"),
    ],
)
def test_a_configuration_that_would_stop_peft_late(adapter, tiny_model, change, said):
    refuse(adapter, tiny_model, change, said)


ENDLESS = r"(([a-z._]|\w|\d)+)+!"


@pytest.mark.parametrize(
    "change",
    [{"target_modules": ENDLESS}, {"rank_pattern": {ENDLESS: 2}}, {"exclude_modules": ENDLESS}],
)
@pytest.mark.parametrize("limit", ["_SECONDS", "_SECONDS_BY_THE_CLOCK"])
def test_a_regular_expression_without_end(adapter, tiny_model, change, limit, monkeypatch):
    monkeypatch.setattr(adapter_config, limit, 0.5)
    refuse(adapter, tiny_model, change, "takes more than 0.5 seconds")


def test_a_regular_expression_on_a_busy_machine(adapter, tiny_model, monkeypatch):
    """The time until the interpreter starts does not count."""
    monkeypatch.setattr(adapter_config, "_SECONDS", 0.5)
    late = "import time; time.sleep(1)" + adapter_config._MATCHER
    monkeypatch.setattr(adapter_config, "_MATCHER", late)
    change_config(adapter, {"target_modules": r".*\.(q_proj|up_proj)"})
    check_adapter(find_adapter(str(adapter)), meta_model(str(tiny_model)), "tiny")


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": r".*\.(q_proj|up_proj)"},
        {"target_modules": r"(?:.*?(?:model|text).*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)"},
        {"rank_pattern": {r".*\.layers\.[0-3]\..*q_proj": 2, "layers.0.mlp.up_proj": 2}},
        {"alpha_pattern": {"^q_proj": 16.0}},
        {"megatron_core": "megatron.core", "megatron_config": None, "loftq_config": {}},
        {"init_lora_weights": "pissa_niter_16"},
        {"corda_config": {"cache_file": None}, "eva_config": None},
        {"tokenizer_name_or_path": "some/base", "a_key_of_a_newer_peft": 5},
    ],
)
def test_a_configuration_that_is_in_order(adapter, tiny_model, change):
    change_config(adapter, change)
    check_adapter(find_adapter(str(adapter)), meta_model(str(tiny_model)), "tiny")


_KINDS = {
    "LORA": {"r": 4, "target_modules": ["q_proj"]},
    "LORA all-linear": {"r": 4, "target_modules": "all-linear", "modules_to_save": ["lm_head"]},
    "LORA tokens": {"r": 4, "target_modules": ["q_proj"], "trainable_token_indices": [1, 5]},
    "LORA dora": {"r": 4, "target_modules": ["q_proj"], "use_dora": True},
    "LORA embeddings": {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
    "LOHA": {"r": 4, "target_modules": ["q_proj", "up_proj"], "rank_pattern": {"up_proj": 2}},
    "LOKR": {"r": 4, "target_modules": ["q_proj", "up_proj"]},
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "ADALORA": {"init_r": 4, "target_modules": ["q_proj"], "total_step": 10},
    "ADALORA cut": {
        "init_r": 4,
        "target_modules": ["q_proj"],
        "total_step": 10,
        "rank_pattern": {
            f"model.layers.{i}.self_attn.q_proj.lora_E": [True, False, True, False]
            for i in range(4)
        },
    },
    "VERA": {"r": 4, "target_modules": ["q_proj"]},
    "BOFT": {"boft_block_size": 4, "target_modules": ["q_proj"]},
    "SHIRA": {"r": 4, "target_modules": ["q_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4},
    "PROMPT_TUNING": {
        "num_virtual_tokens": 4,
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "Answer:",
    },
}


@pytest.mark.parametrize("kind", _KINDS)
def test_what_peft_saves_is_taken(kind, tiny_model, tmp_path):
    from peft import get_peft_model
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from transformers import AutoModelForCausalLM

    values = dict(_KINDS[kind])
    if "prompt_tuning_init_text" in values:
        values["tokenizer_name_or_path"] = str(tiny_model)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind.split()[0]](task_type="CAUSAL_LM", **values)
    saved = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    saved.save_pretrained(tmp_path / "saved")
    if "tokenizer_name_or_path" in values:  # evaluation must not need the tokenizer
        change_config(tmp_path / "saved", {"tokenizer_name_or_path": "/not/there"})
    found = find_adapter(str(tmp_path / "saved"))
    check_adapter(found, meta_model(str(tiny_model)), "tiny")


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


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"r": ' + "9" * 9000 + "}"])
def test_a_configuration_that_json_chokes_on(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read") as refused:
        find_adapter(str(adapter))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["adapter_config.json", "README.md"])
def test_a_file_that_is_far_too_large(adapter, name):
    (adapter / name).write_text(" " * 5_000_000)
    with pytest.raises(InputError, match=f"{name} is larger than 4 MB"):
        alignment_languages(find_adapter(str(adapter)))


@pytest.mark.parametrize("shape", [(), (32,), (2, 32, 1)])
def test_factors_of_another_dimension(adapter, tiny_model, shape):
    tensors = load_file(adapter / "adapter_model.safetensors")
    change = {key: torch.zeros(shape) if "lora_A" in key else tensors[key] for key in tensors}
    save_file(change, adapter / "adapter_model.safetensors")
    refuse(adapter, tiny_model, {}, r"lora_A.weight has shape \[.*\], .* asks for \[2, 32\]")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(adapter, tiny_model, value):
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors[min(tensors)][0, 0] = value
    save_file(tensors, adapter / "adapter_model.safetensors")
    refuse(adapter, tiny_model, {}, "has NaN or infinite values")


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
