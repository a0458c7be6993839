"""Small adapted models of three kinds, with random factors and no dropout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

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
    models = {
        "llama": (LlamaConfig, LlamaForCausalLM, {}),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
        "gemma3": (
            Gemma3TextConfig,
            Gemma3ForCausalLM,
            {"head_dim": 8, "sliding_window": sliding_window, "sliding_window_pattern": 2},
        ),
    }
    config, model, more = models[kind]
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=0.0)
    return get_peft_model(model(config(**SIZES, **more)), lora)


@pytest.fixture
def adapted() -> Callable[..., Any]:
    """Makes a model of a kind: llama, qwen2 or gemma3."""
    return make_model


@pytest.fixture(params=["llama", "qwen2", "gemma3"])
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)
