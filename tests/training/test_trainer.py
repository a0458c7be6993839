"""The two forwards: what they compute, and which blocks they leave alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, normalize
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.optimization import get_inverse_sqrt_schedule

from xlt_bench.models.hidden_states import pooled_layers
from xlt_bench.training.batches import Batch, example_order, is_task_batch, task_batch
from xlt_bench.training.dataset import Example
from xlt_bench.training.recipe import Alignment, Recipe
from xlt_bench.training.trainer import alignment_loss, rate, task_loss

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ALIGNMENT = Alignment(data="tatoeba", pairs=["cy-en"])


def _model(kind: str, sliding_window: int = 4) -> Any:
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


@pytest.fixture(params=["llama", "qwen2", "gemma3"])
def model(request: pytest.FixtureRequest) -> Any:
    return _model(request.param)


@pytest.fixture
def pairs() -> Batch:
    torch.manual_seed(1)
    lengths = torch.tensor([3, 7, 5, 6, 2, 4])
    mask = (torch.arange(7) < lengths[:, None]).long()
    return {"input_ids": torch.randint(0, 50, (6, 7)) * mask, "attention_mask": mask}


def test_task_loss_is_the_models_own_and_needs_few_logits(model: Any) -> None:
    """Against transformers' own loss with all logits; the head sees the labelled tokens alone."""
    rows = [Example([1, 2, 3, 4, 5], [6, 7]), Example([8, 9], [10, 11, 12])]
    batch = task_batch(rows, pad=0)
    seen: list[torch.Size] = []
    head = model.get_base_model().get_output_embeddings()
    hook = head.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    loss = task_loss(model, batch)
    assert seen == [torch.Size([5, 32])]
    hook.remove()
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
def test_a_prompt_that_rows_share_runs_once_for_the_same_gradients(kind: str) -> None:
    """Against transformers' own loss on the whole rows; Gemma computes parts in float32."""
    model = _model(kind, sliding_window=64).double()
    prompt = list(range(20, 40))
    rows = [Example([*prompt, 1, 2, 3], [6, 7]), Example([*prompt, 8], [10, 11, 12])]
    batch = task_batch([*rows, Example([*prompt, 1, 2], [9])], pad=0)
    widths: list[torch.Size] = []
    layer = model.get_base_model().model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _m, inputs: widths.append(inputs[0].shape[:2]))
    loss = task_loss(model, batch)
    hook.remove()
    assert widths == [(1, 20), (3, 5)]
    learned = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, learned)
    whole = model(**batch).loss
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for ours, theirs in zip(found, torch.autograd.grad(whole, learned), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_gradient_checkpointing_shares_no_prompt() -> None:
    model = _model("llama").train()
    rows = [Example([*range(20, 40), 1], [6, 7]), Example([*range(20, 40), 8], [9])]
    batch = task_batch(rows, pad=0)
    plain = task_loss(model, batch)
    model.gradient_checkpointing_enable()
    assert task_loss(model, batch).item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize("layers", [[2], [1, 3], [4]])
def test_alignment_loss_is_that_of_the_whole_forward(
    model: Any, pairs: Batch, layers: list[int]
) -> None:
    """Against `output_hidden_states` in float64 arithmetic (the top one is normed, so by hook)."""
    found = alignment_loss(model, pairs, ALIGNMENT, layers)
    with torch.no_grad(), pooled_layers(model, pairs["attention_mask"], [4]) as top:
        whole = model(**pairs, output_hidden_states=True)
    assert top[4].shape == (6, 32)
    expected = 0.0
    for layer in layers:
        mask = pairs["attention_mask"].double()[:, :, None]
        hidden = whole.hidden_states[layer].double()
        states = (hidden * mask).sum(1) / mask.sum(1) if layer < 4 else top[4].double()
        cosines = normalize(states[:3], dim=1) @ normalize(states[3:], dim=1).T
        expected += cross_entropy(cosines / 0.1, torch.arange(3)).item()
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_an_alignment_step_leaves_the_blocks_above_alone(model: Any, pairs: Batch) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("the LM head ran")

    head = model.get_base_model().get_output_embeddings()
    head.register_forward_hook(forbidden)
    alignment_loss(model, pairs, ALIGNMENT, [2]).backward()
    grads = {name: p.grad is not None for name, p in model.named_parameters() if p.requires_grad}
    learned = {name.split("layers.")[1][0] for name, has in grads.items() if has}
    assert learned == {"0", "1"}
    assert all(has for name, has in grads.items() if name.split("layers.")[1][0] in "01")
    # Afterwards the model is whole again.
    assert len(model.get_base_model().model.layers) == 4
    assert model.get_base_model().get_output_embeddings() is head


def test_gradients_are_the_same_with_checkpointed_blocks(pairs: Batch) -> None:
    grads = []
    for checkpointed in (False, True):
        model = _model("llama").train()
        if checkpointed:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        alignment_loss(model, pairs, ALIGNMENT, [1, 3]).backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name])


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
    assert [is_task_batch(recipe, n) for n in range(12)] == [True] * 4 + [False] * 4 + [True] * 4
    code = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"alternation": "microbatch"})}
    )
    assert [is_task_batch(code, n) for n in range(4)] == [True, False, True, False]


def test_every_epoch_holds_every_example_once() -> None:
    order = example_order(7, 17, seed=3)
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert order[:7] != order[7:14]


@pytest.mark.parametrize("warmup", [0, 5])
def test_the_rate_is_transformers_inverse_square_root(warmup: int) -> None:
    """At every task update, whether or not alignment updates lie between."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_inverse_sqrt_schedule(optimizer, warmup).lr_lambdas[0]
    for step in range(30):
        assert rate(step, warmup, 1) == pytest.approx(theirs(step))
        assert rate(2 * step, warmup, 2) == rate(2 * step + 1, warmup, 2) == rate(step, warmup, 1)


def test_a_trained_answer_ends_its_turn(tiny_model: Path) -> None:
    from xlt_bench.models.chat import encode_exchange, set_chat_template

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
