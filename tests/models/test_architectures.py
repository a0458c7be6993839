"""Every causal language model of transformers, tiny and random, against `generate` on one row.

For each: answers with batches of 1 and of 4 rows of unequal lengths, and hidden states likewise,
bare, steered and with a LoRA, in float32. What cannot be served must be refused in one line.
"""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers.pytorch_utils import Conv1D

import architectures
import tiny
from xlt_bench.errors import InputError
from xlt_bench.models.generation import answers
from xlt_bench.models.hidden_states import base_model, block, blocks_name
from xlt_bench.models.lm import XltLM
from xlt_bench.models.steering import Steering

LIMIT = 6
STOPS = list(range(2, 30))
PROMPTS = ["ab", "abcdefghij", "ab:xyzuvwrst,opq", "abcdefgh", "ab3", "abcdefghijklmnopqrs"]

# Their `hidden_states` begin with the output of the first block.
WITHOUT_EMBEDDINGS = {"falcon_mamba", "mamba", "mamba2", "rwkv"}
# Refused: what the message says.
REFUSED = {
    "prophetnet": "ProphetNetForCausalLM reads the tokens that follow",
    "xlm": "XLMWithLMHeadModel reads the tokens that follow",
    "xlnet": "XLNetLMHeadModel reads the tokens that follow",
}
# They answer, but have no states to retrieve by: what the message says.
WITHOUT_STATES = {
    "deepseek_v4": "not one state per token",
    "gemma3n_text": "not one state per token",
    "hrm_text": "no list of 32 decoder blocks",
    "hy_v4": "not one state per token",
    "mllama": "does not run block 4 for text",
}


def with_lora(model: Any) -> Any:
    """The model with a LoRA on its linear layers, but for the head and what peft refuses."""
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not model.get_output_embeddings()
        # Mamba reads the first two's weights itself; peft fails on a linear layer in groups, and on
        # a router that returns several tensors.
        and not name.endswith(("out_proj", "dt_proj", "o_a_proj", "router"))
    ]
    torch.manual_seed(5)
    config = LoraConfig(r=2, target_modules=linear, init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(model, config).eval()


@torch.no_grad()
def alone(model: Any, row: list[int]) -> list[int]:
    """What transformers' `generate` answers to one row."""
    output = model.generate(
        input_ids=torch.tensor([row]),
        attention_mask=torch.ones(1, len(row), dtype=torch.long),
        max_new_tokens=LIMIT,
        do_sample=False,
        eos_token_id=STOPS,
        pad_token_id=0,
    )
    return output[0, len(row) :].tolist()


@torch.no_grad()
def states(model: Any, row: list[int]) -> list[torch.Tensor]:
    """Mean states of one row by layer: transformers' own, and of the top its block's output."""
    base, top = base_model(model), []
    blocks = base.get_submodule(blocks_name(model))
    hook = blocks[-1].register_forward_hook(lambda _m, _i, output: top.append(output))
    found = base(input_ids=torch.tensor([row]), output_hidden_states=True)
    hook.remove()
    last = top[0][0] if isinstance(top[0], tuple | list) else top[0]
    first = 0 if base.config.model_type in WITHOUT_EMBEDDINGS else 1
    below = found.hidden_states[first : first + len(blocks) - 1]
    return [h.mean(1)[0] for h in (*below, last.view(1, len(row), -1))]


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    most = 1e-4 * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=most)


def check(name: str, model: Any, size: int) -> None:
    lm = XltLM(pretrained=model, tokenizer=tiny.byte_tokenizer(), batch_size=size)
    rows = [lm.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    expected = [alone(model, row) for row in rows]
    found = dict(answers(model, sorted(rows, key=len, reverse=True), size, LIMIT, STOPS))
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for place, i in enumerate(order):
        ends = [n for n, token in enumerate(found[place]) if token in STOPS]
        assert found[place][: ends[0] + 1 if ends else LIMIT] == expected[i]
    layers = list(range(1, lm.n_layers + 1))
    if said := WITHOUT_STATES.get(name):
        with pytest.raises(InputError, match=said):
            lm.sentence_states(PROMPTS, layers)
        return
    pooled = lm.sentence_states(PROMPTS, layers)
    below = lm.sentence_states(PROMPTS, layers[:1])
    for i, row in enumerate(rows):
        for layer, state in enumerate(states(model, row)):
            assert_close(pooled[i, layer], state)
        assert_close(below[i, 0], pooled[i, 0])
    vector = torch.arange(pooled.shape[-1]) / 10
    steering = Steering({"de": vector})
    hook = block(model, 2).register_forward_hook(steering)
    steering.use("de")
    assert_close(lm.sentence_states(PROMPTS, [2])[:, 0], pooled[:, 1] + vector)
    hook.remove()


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.NAMES)
def test_answers_and_states_are_those_of_one_row(name: str) -> None:
    model = architectures.random_model(architectures.config_of(name))
    model.generation_config.forced_eos_token_id = None  # a task's limit marks what it cuts off
    if name in REFUSED:
        lm = XltLM(pretrained=model, tokenizer=tiny.byte_tokenizer(), batch_size=4)
        with pytest.raises(InputError, match=REFUSED[name]) as refused:
            lm.try_out(True, [1])
        assert "\n" not in str(refused.value)
        return
    for size in (1, 4):
        check(name, model, size)
    adapted = with_lora(model)
    for size in (1, 4):
        check(name, adapted, size)
