"""Models small enough for any machine, with random weights, and LoRAs for them."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

# What the configuration of any decoder takes.
SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, after <s> and </s>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def save_model(folder: Path) -> Path:
    """Write the folder of a random Llama of four blocks with a tokenizer of bytes."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZE | {"intermediate_size": 64},
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a folder, as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def with_lora(model: Any, seed: int, **settings: Any) -> Any:
    """A model with a LoRA of rank 2 and random factors, of the seed, unless settings say else."""
    torch.manual_seed(seed)
    usual = {"r": 2, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False}
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **usual | settings))


def save_adapter(model: Path, folder: Path, seed: int, **settings: Any) -> Path:
    """Write the folder of such a LoRA for the model in another folder."""
    with_lora(load_model(model), seed, **settings).save_pretrained(folder)
    return folder
