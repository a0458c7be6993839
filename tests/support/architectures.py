"""A tiny configuration of every causal language model in transformers, dense, hybrid and other."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import tiny

VOCABULARY = len(tiny.byte_tokenizer())

# Not built here, and why.
LEFT_OUT = {
    **dict.fromkeys(
        "blt cohere_compass_text dbrx dots3_note dots3_note_text gemma3n gemma4 gemma4_assistant "
        "gemma4_unified_assistant git got_ocr2 longcat_flash moss_transcribe_diarize musicgen "
        "musicgen_melody phi4_multimodal qwen4_exp qwen4_exp_text reformer roc_bert xlstm "
        "zamba2".split(),
        "no small configuration",
    ),
    "cpmant": "no small configuration",
}
NAMES = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES} - {*LEFT_OUT})

# Given to every configuration, and to its text_config, that has a key of the name.
SIZES: dict[str, Any] = tiny.SIZE | {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "tie_word_embeddings": False,  # tied random weights repeat the last token for ever
    "head_dim": 8,
    # Older names of the same.
    "d_model": 32,
    "emb_dim": 32,
    "n_layers": 4,
    "n_layer": 4,
    "n_heads": 4,
    "n_head": 4,
    "ffn_dim": 48,
    "decoder_layers": 4,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    # Shorter than the test's rows.
    "sliding_window": 12,
    "attention_window_size": 12,
    # Experts.
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    # Compressed and sparse attention.
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 64,
    # Recurrent layers.
    "state_size": 8,
    "lru_width": 32,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
# MLA: the rotary part is what `head_dim` names, and every head has its own keys.
_MLA = {"head_dim": 8, "num_key_value_heads": 4}
_WITH_MLA = (
    "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa minicpm3 youtu"
).split()
_LINEAR = ["linear_attention", "full_attention"] * 2
_SLIDING = ["sliding_attention", "full_attention"] * 2
_MAMBA = ["mamba", "attention"] * 2
_KIMI = _MLA | {
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "num_experts_per_token": 2,
    "num_expert_group": 1,
    "qk_head_dim": 16,
}
_GEMMA = {
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "layer_types": _SLIDING,
}
# Encoders, unless they are told that they decode.
ENCODERS = (
    "bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert "
    "roberta roberta-prelayernorm roformer xlm-roberta xlm-roberta-xl"
).split()
OWN: dict[str, dict[str, Any]] = {
    **{name: {"is_decoder": True} for name in ENCODERS},
    **dict.fromkeys(_WITH_MLA, _MLA),
    "bailing_hybrid": _KIMI | {"layer_group_size": 2, "first_k_dense_replace": 1},
    "kimi_linear": _KIMI | {"layer_types": _LINEAR, "mlp_layer_types": ["dense"] + ["sparse"] * 3},
    "gemma3n_text": _GEMMA
    | {
        "laurel_rank": 4,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "gemma4_text": _GEMMA,
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "bamba": {"attn_layer_indices": [1, 3]},
    "codegen": {"rotary_dim": 4},
    "granitemoehybrid": {"layer_types": _MAMBA},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm3": {"layer_types": ["conv", "full_attention"] * 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 12},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "zaya": {"num_experts_per_tok": 1},
    "qwen3_5_text": {"layer_types": _LINEAR},
    "qwen3_5_moe_text": {"layer_types": _LINEAR},
    "qwen3_next": {"layer_types": _LINEAR},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
}

# Of models that also take images, the part that does not read text.
WRAPPERS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "mm_tokens_per_image": 4,
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
    }
}


def config_of(name: str) -> PreTrainedConfig:
    """The tiny configuration of a model type."""
    kind = CONFIG_MAPPING[name]
    keys = kind().to_dict()
    if isinstance(keys.get("text_config"), dict):
        text = _sized(keys["text_config"]) | OWN.get(name, {})
        return kind(text_config=text, **WRAPPERS.get(name, {}))
    names = set(keys) | set(getattr(kind, "attribute_map", {})) | {"vocab_size"}
    return kind(**_sized(names) | OWN.get(name, {}))


def _sized(names: Any) -> dict[str, Any]:
    return {key: value for key, value in SIZES.items() if key in names}


def random_model(config: PreTrainedConfig, seed: int = 3) -> Any:
    """A float32 model whose weights are far from the tiny initial ones, so that answers vary."""
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in skeleton.parameters()) < 3_000_000
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "A_log" not in name:
            parameter.data.normal_(0, 0.25)
    return model
