"""The Trainer's schedule, the order of micro-batches, and the size of the paper's adapters."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config
from transformers.optimization import get_inverse_sqrt_schedule

from xlt_bench.training.dataset import Example
from xlt_bench.training.objectives.task import micro_batches
from xlt_bench.training.recipe import Recipe
from xlt_bench.training.recipe_data import Alignment
from xlt_bench.training.trainer import rate

ALIGNMENT = Alignment(data="tatoeba", pairs=["cy-en"])


def test_adapter_size_is_the_papers() -> None:
    """Appendix D.1: 20,971,520 trainable parameters on Llama 3 8B, 20,185,088 on Qwen 2.5 7B."""
    shapes = {
        20_971_520: LlamaConfig(
            hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, vocab_size=128256,
        ),
        20_185_088: Qwen2Config(
            hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
            num_attention_heads=28, num_key_value_heads=4, vocab_size=152064,
        ),
    }  # fmt: skip
    lora = Recipe(title="t", alignment=ALIGNMENT).lora
    for published, config in shapes.items():
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config)
            model = get_peft_model(base, LoraConfig(r=lora.r, target_modules=lora.targets))
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == published


def test_alternation_by_step_and_by_micro_batch() -> None:
    recipe = Recipe(
        title="t",
        task={"name": "massive", "units": ["en"]},  # type: ignore[arg-type]
        alignment=ALIGNMENT,
    )
    turns = ["task"] * 4 + ["alignment"] * 4 + ["task"] * 4
    assert [recipe.objective_of(n) for n in range(12)] == turns
    code = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"alternation": "microbatch"})}
    )
    assert [code.objective_of(n) for n in range(4)] == ["task", "alignment"] * 2


def test_every_epoch_holds_every_example_once() -> None:
    examples = [Example([number], []) for number in range(7)]
    drawn = islice(micro_batches(examples, 4, seed=3), 5)
    order = [example.prompt[0] for batch in drawn for example in batch]
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert order[:7] != order[7:14]


@pytest.mark.parametrize("warmup", [0, 5])
def test_the_rate_is_transformers_inverse_square_root(warmup: int) -> None:
    """At every task update, with or without alignment updates in between."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_inverse_sqrt_schedule(optimizer, warmup).lr_lambdas[0]
    for step in range(30):
        assert rate(step, warmup, 1) == pytest.approx(theirs(step))
        assert rate(2 * step, warmup, 2) == rate(2 * step + 1, warmup, 2) == rate(step, warmup, 1)


def test_a_trained_answer_ends_its_turn(tiny_model: Path) -> None:
    from xlt_bench.models.chat import set_chat_template
    from xlt_bench.models.turn_end import encode_exchange

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    set_chat_template(tokenizer, None)
    _, ids = encode_exchange(tokenizer, [{"role": "user", "content": "hello"}], "None")
    assert tokenizer.decode(ids) == "None</s>"
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|end|>", "<|assistant|>"]})
    _, ids = encode_exchange(tokenizer, [{"role": "user", "content": "hello"}], "None")
    assert tokenizer.decode(ids) == "None<|end|>"
