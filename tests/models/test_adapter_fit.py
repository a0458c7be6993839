"""Adapters that peft does not load completely are refused before the base model is loaded."""

import json
import shutil
from itertools import product

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MixtralConfig,
    OlmoeConfig,
    PhiConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

import tiny
from xlt_bench.errors import InputError
from xlt_bench.models import adapter_config
from xlt_bench.models.adapter_fit import PEFT_NAME, check_adapter
from xlt_bench.models.adapter_switch import AdapterSwitch, change_norms
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
        ({"peft_type": "POLY"}, "needs a task's number"),
        ({"peft_type": "LILY"}, "averages over the rows of a batch"),
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


@pytest.mark.parametrize("shape", [(), (32,), (2, 32, 1)])
def test_factors_of_another_dimension(adapter, tiny_model, shape):
    tensors = load_file(adapter / "adapter_model.safetensors")
    change = {key: torch.zeros(shape) if "lora_A" in key else tensors[key] for key in tensors}
    save_file(change, adapter / "adapter_model.safetensors")
    refuse(adapter, tiny_model, {}, r"lora_A.weight has shape \[.*\], .* asks for \[2, 32\]")


def test_weights_that_the_configuration_does_not_name(adapter, tiny_model):
    """Peft would drop them, and the adapter would answer with a part of its training."""
    refuse(adapter, tiny_model, {"target_modules": ["q_proj"]}, "a place for 8 of its 16 weights")


def test_an_adapter_of_a_deeper_model(adapter, tiny_model):
    tensors = load_file(adapter / "adapter_model.safetensors")
    deeper = {key.replace(".layers.3.", ".layers.4."): tensors[key] + 1 for key in tensors}
    save_file(deeper | tensors, adapter / "adapter_model.safetensors")
    said = r"a place for 4 of its 20 weights, such as model.layers.4.mlp.up_proj.lora_A.weight"
    refuse(adapter, tiny_model, {}, said)


def test_a_second_copy_of_a_weight_must_be_a_copy(adapter, tiny_model):
    """Peft writes some weights under two names, of which it reads one."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    copy = {f"{key}.copy": value.clone() for key, value in tensors.items()}
    save_file(tensors | copy, adapter / "adapter_model.safetensors")
    check_adapter(find_adapter(str(adapter)), meta_model(str(tiny_model)), "tiny")
    copy[min(copy)] += 1
    save_file(tensors | copy, adapter / "adapter_model.safetensors")
    refuse(adapter, tiny_model, {}, "a place for 1 of its 32 weights")


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "CARTRIDGE"])
def test_virtual_tokens_without_a_task(adapter, tiny_model, kind):
    """Without the task type, peft loads them and answers as the bare model."""
    change = {"peft_type": kind, "task_type": None}
    refuse(adapter, tiny_model, change, "without task_type .* peft does not apply")


_SIZE = tiny.SIZE | {"vocab_size": 260, "num_hidden_layers": 2, "max_position_embeddings": 128}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_QWEN_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_SMALL = {"vocab_size": 260, "hidden_size": 32}
_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_GEMMA = {
    "head_dim": 8,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
_VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
_GPT2 = GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=128)
_MIXTRAL = MixtralConfig(**_SIZE, **_EXPERTS)
_GEMMA_3 = Gemma3Config(text_config=_SIZE | _GEMMA, vision_config=_VISION, mm_tokens_per_image=4)
_ARCHITECTURES = {
    "gpt2": (_GPT2, {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "mixtral": (_MIXTRAL, {"target_modules": ["q_proj", "w1", "w2", "w3"]}),
    "llama": (LlamaConfig(**_SIZE), {"target_modules": _ALL}),
    "embeddings": (Qwen2Config(**_SIZE), {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "gemma 3": (Gemma3TextConfig(**_SIZE, **_GEMMA), {"target_modules": _ALL}),
    "gemma 3 with vision": (_GEMMA_3, {"target_modules": _ALL}),
    "mixtral, all linear": (_MIXTRAL, {"target_modules": "all-linear"}),
    "mixtral, parameters": (
        _MIXTRAL,
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
        },
    ),
    "qwen 2 moe": (
        Qwen2MoeConfig(**_SIZE, **_QWEN_EXPERTS, shared_expert_intermediate_size=24),
        {"target_modules": _ALL},
    ),
    "qwen 3 moe": (Qwen3MoeConfig(**_SIZE, **_QWEN_EXPERTS, head_dim=8), {"target_modules": _ALL}),
    "olmoe": (
        OlmoeConfig(**_SIZE, num_experts=4, num_experts_per_tok=2), {"target_modules": _ALL}
    ),
    "gpt-oss": (
        GptOssConfig(**_SIZE, **_EXPERTS, head_dim=8, sliding_window=16),
        {
            "target_modules": "all-linear",
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        },
    ),
    "falcon": (
        FalconConfig(**_SMALL, num_hidden_layers=2, num_attention_heads=4),
        {"target_modules": ["query_key_value", "dense_h_to_4h"]},
    ),
    "mamba": (
        MambaConfig(**_SMALL, num_hidden_layers=2, state_size=8),
        {"target_modules": ["in_proj", "x_proj", "embeddings"]},
    ),
    "phi": (PhiConfig(**_SIZE), {"target_modules": ["q_proj", "fc1", "dense"], "bias": "all"}),
    "bloom": (BloomConfig(**_SMALL, n_layer=2, n_head=4), {"target_modules": ["query_key_value"]}),
    "gpt-neox": (
        GPTNeoXConfig(**{key: _SIZE[key] for key in _SIZE if key != "num_key_value_heads"}),
        {"target_modules": ["query_key_value", "dense"]},
    ),
}  # fmt: skip
_QUICK = ("gpt2", "mixtral")


def save_lora(config, folder, settings):
    """Write a random base and a random LoRA of it, as `train` has peft save it."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    saved = tiny.save_adapter(folder / "base", folder / "lora", seed=1, **settings)
    return folder / "base", saved


def compare_with_peft(base, saved):
    """We answer as plain peft; the bare model and the norms of the change are right as well."""
    found, ids = find_adapter(str(saved)), torch.tensor([[1, 5, 9, 7, 30, 8]])
    fit = check_adapter(found, meta_model(str(base)), "base")
    with torch.inference_mode():
        plain = PeftModel.from_pretrained(tiny.load_model(base), str(saved)).eval()
        expected, bare = plain(ids).logits, tiny.load_model(base).eval()(ids).logits
        assert not torch.allclose(expected, bare, atol=1e-3)
        switch = AdapterSwitch(tiny.load_model(base).eval(), "base", {found.name: fit})
        adapted = switch.use(found)
        assert torch.equal(adapted(ids).logits, expected)
        norms = change_norms(adapted, PEFT_NAME)
        assert torch.equal(switch.use(None)(ids).logits, bare)
        before = dict(tiny.load_model(base).named_parameters())
        merged = dict(plain.merge_and_unload().named_parameters())
    change = sum(
        (merged[key] - before[key]).double().pow(2).sum() for key in merged.keys() & before
    )
    if found.config["bias"] == "none":
        assert sum(norm**2 for norm in norms.values()) == pytest.approx(float(change), rel=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in _ARCHITECTURES
    ],
)
def test_a_lora_of_any_architecture_answers_as_in_peft(name, tmp_path):
    """Among them experts in one tensor, transposed weights, and embeddings."""
    config, settings = _ARCHITECTURES[name]
    compare_with_peft(*save_lora(config, tmp_path, settings))


def older_gemma(tensors):
    """The names by which transformers 4.50 had Gemma 3's modules."""
    return {
        key.replace("model.model.language_model.", "model.language_model.model.").replace(
            "model.model.vision_tower.", "model.vision_tower.vision_model."
        ): value
        for key, value in tensors.items()
    }


def older_mixtral(tensors):
    """A LoRA for each of four experts, as transformers 4 had them."""
    older = {key: value for key, value in tensors.items() if "experts" not in key}
    for layer, expert, (name, size) in product(
        range(2), range(4), {"w1": (32, 48), "w2": (48, 32), "w3": (32, 48)}.items()
    ):
        module = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
        older[f"{module}.lora_A.weight"] = torch.randn(2, size[0])
        older[f"{module}.lora_B.weight"] = torch.randn(size[1], 2)
    return older


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("mixtral", older_mixtral),
        pytest.param("gemma 3 with vision", older_gemma, marks=pytest.mark.slow),
    ],
)
def test_a_lora_that_an_older_transformers_saved(name, rename, tmp_path):
    config, settings = _ARCHITECTURES[name]
    base, saved = save_lora(config, tmp_path, settings)
    weights = saved / "adapter_model.safetensors"
    older = rename(load_file(weights))
    save_file(older, weights)
    written = {"target_modules": settings["target_modules"], "target_parameters": None}
    change_config(saved, written | {"rank_pattern": {}, "alpha_pattern": {}})
    compare_with_peft(base, saved)
    # A layer without its weights is not loaded completely, by whatever name.
    layer_1 = {key: value for key, value in older.items() if ".layers.1." not in key}
    save_file(layer_1, weights)
    with pytest.raises(InputError, match=r"lacks .* weights that its configuration names"):
        check_adapter(find_adapter(str(saved)), meta_model(str(base)), "base")
