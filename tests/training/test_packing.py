"""The layout of packed rows, worked by hand, and every architecture's loss on them."""

from typing import Any

import pytest
import torch

import architectures
from xlt_bench.models.hidden_states import mean_pool
from xlt_bench.training.dataset import Example
from xlt_bench.training.objectives.causal import task_batch, task_loss
from xlt_bench.training.packing import PREFIX, can_pack, mean_by_owner, pack

MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def test_rows_follow_the_prefix_without_padding() -> None:
    layout = pack(MASK, shared=2)
    assert layout.positions.tolist() == [0, 1, 2, 3, 2, 2, 3, 4]
    assert layout.owners.tolist() == [PREFIX, PREFIX, 0, 0, 1, 2, 2, 2]
    assert layout.places.tolist() == [0, 1, 2, 3, 7, 12, 13, 14]
    assert layout.slots.tolist() == [[2, 3, 3], [4, 4, 4], [5, 6, 7]]
    ids = torch.arange(15).view(3, 5)
    assert layout.take(ids).tolist() == [[0, 1, 2, 3, 7, 12, 13, 14]]


def test_without_a_prefix_every_token_is_a_rows() -> None:
    layout = pack(MASK)
    assert layout.owners.tolist() == [0] * 4 + [1] * 3 + [2] * 5
    assert layout.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4]
    assert layout.slots.tolist() == [[0, 1, 2, 3, 3], [4, 5, 6, 6, 6], [7, 8, 9, 10, 11]]


def test_means_are_those_of_the_padded_rows() -> None:
    torch.manual_seed(0)
    padded = torch.randn(3, 5, 4)
    layout = pack(MASK)
    line = padded.flatten(0, 1)[layout.places][None]
    means = mean_by_owner(line, layout.owners[None], 3)
    torch.testing.assert_close(means, mean_pool(padded, MASK))


ROWS = [
    Example([5, 6, 7, 8, 9, 10, 11], [3, 4]),
    Example([5, 6, 7, 8, 12], [13, 14, 3]),
    Example([5, 6, 7, 8, 15, 16, 17, 18, 19, 20], [4]),
]


@torch.no_grad()
def alone(model: Any) -> float:
    """The mean loss of the answers' tokens, each row in a forward of its own."""
    total, count = 0.0, 0
    for row in ROWS:
        ids = torch.tensor([[*row.prompt, *row.answer]])
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
        for place, token in enumerate(row.answer, len(row.prompt) - 1):
            total -= logits[place].log_softmax(0)[token].item()
            count += 1
    return total / count


# They read the tokens that follow, or have an auxiliary input that a forward needs.
LEFT_OUT = {"prophetnet", "xlm", "xlnet"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in architectures.NAMES if name not in LEFT_OUT])
def test_every_architectures_loss_is_that_of_its_rows_alone(name: str) -> None:
    model = architectures.random_model(architectures.config_of(name))
    batch = task_batch(ROWS)
    assert task_loss(model, batch).item() == pytest.approx(alone(model), rel=1e-4)


def test_ordinary_architectures_are_packed() -> None:
    batch = task_batch(ROWS)
    for name in ("llama", "qwen2", "qwen3", "gemma3_text", "olmo2", "gpt_neox", "phi3", "gemma2"):
        config = architectures.config_of(name)
        if hasattr(config, "sliding_window"):
            config.sliding_window = 64
        if hasattr(config, "final_logit_softcapping"):
            config.attn_logit_softcapping = 0.05
        model = architectures.random_model(config)
        assert can_pack(model, batch["input_ids"], batch["attention_mask"]), name
        assert task_loss(model, batch).item() == pytest.approx(alone(model), rel=1e-4)


def test_rows_of_any_length_run_the_same_forwards() -> None:
    """With FSDP each forward is run by all processes, whose rows have other lengths than ours."""
    forwards = []
    for length in (9, 40):
        config = architectures.config_of("mistral")
        config.sliding_window = 32
        model = architectures.random_model(config)
        seen: list[int] = []
        model.register_forward_pre_hook(lambda _module, _inputs, seen=seen: seen.append(1))
        ids = torch.arange(2 * length).view(2, length)
        assert can_pack(model, ids, torch.ones_like(ids)) is (length == 9)
        forwards.append(len(seen))
    assert forwards[0] == forwards[1]


def test_a_trial_leaves_each_module_in_its_mode() -> None:
    batch = task_batch(ROWS)
    model = architectures.random_model(architectures.config_of("llama")).train()
    model.model.layers[1].eval()  # as a frozen part that shall have no dropout
    modes = {name: module.training for name, module in model.named_modules()}
    assert can_pack(model, batch["input_ids"], batch["attention_mask"])
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_a_model_that_mixes_rows_or_ignores_positions_is_not_packed() -> None:
    """Each fault makes the states of the trial differ."""
    batch = task_batch(ROWS)
    for fault in ("none", "mixes rows", "ignores positions"):
        model = architectures.random_model(architectures.config_of("llama"))
        if fault == "mixes rows":  # a convolution over neighbouring tokens of the line
            model.model.layers[0].register_forward_hook(
                lambda _m, _i, output: output + output.roll(1, dims=1)
            )
        if fault == "ignores positions":
            embed = model.model.rotary_emb.forward
            model.model.rotary_emb.forward = lambda x, position_ids, embed=embed: embed(
                x, torch.arange(x.shape[1])[None]
            )
        packs = can_pack(model, batch["input_ids"], batch["attention_mask"])
        assert packs is (fault == "none"), fault
