"""Small adapted models of many kinds, with random factors and no dropout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def make_model(kind: str, sliding_window: int = 4) -> Any:
    torch.manual_seed(0)
    more: dict[str, Any] = {
        "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 0.05},
        "gemma3_text": {"head_dim": 8, "sliding_window_pattern": 2},
        "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        "cohere": {"logit_scale": 0.25},
        "phi3": {"pad_token_id": 0},
    }
    kind = {"gemma3": "gemma3_text"}.get(kind, kind)
    windows = (
        {"sliding_window": sliding_window} if kind in ("gemma2", "gemma3_text", "mistral") else {}
    )
    sizes = {} if kind == "gpt2" else SIZES
    config = AutoConfig.for_model(kind, **{"vocab_size": 50} | sizes | windows | more.get(kind, {}))
    config.resid_pdrop = config.attention_dropout = 0.0
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=0.0)
    return get_peft_model(AutoModelForCausalLM.from_config(config), lora)


@pytest.fixture
def adapted() -> Callable[..., Any]:
    """Makes a model of a kind, such as llama."""
    return make_model


@pytest.fixture(params=["llama", "qwen2", "gemma3"])
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)
