"""Linear layers on weights laid out for oneDNN, against `nn.Linear`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from xlt_bench.models import prepacked as prepacking
from xlt_bench.models.prepacked import prepacked


def model(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        attention_bias=True,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def laid_out(whole: Any) -> int:
    return sum("forward" in vars(module) for module in whole.modules())


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("rows", [1, 3, 40])
@torch.inference_mode()
def test_logits_are_those_of_linear_layers(dtype: torch.dtype, share: float, rows: int) -> None:
    plain = model(dtype)
    ids = torch.arange(rows * 5).view(rows, 5)
    expected = plain(ids).logits
    # In bfloat16 only a processor with instructions for it has anything to lay out.
    lays_out = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with prepacked(plain):
        assert laid_out(plain) == (2 * 7 + 1 if lays_out else 0)
        found = plain(ids).logits
    most = share * expected.float().abs().max().item()
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=most)
    assert laid_out(plain) == 0
    assert torch.equal(plain(ids).logits, expected)


@torch.inference_mode()
def test_an_adapter_acts_on_top() -> None:
    adapted = tiny.with_lora(model(), 1, target_modules="all-linear").eval()
    ids = torch.arange(10).view(2, 5)
    expected = adapted(ids).logits
    with prepacked(adapted):
        assert laid_out(adapted) == 2 * 7 + 1
        torch.testing.assert_close(adapted(ids).logits, expected, rtol=1e-4, atol=1e-5)


def weights_of(whole: Any) -> int:
    return sum(m.weight.nbytes for m in whole.modules() if isinstance(m, nn.Linear))


@torch.inference_mode()
def test_without_room_for_copies_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model()
    weights = weights_of(plain)
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * weights - 2)
    )
    with prepacked(plain):
        assert laid_out(plain) == 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * weights))
    with prepacked(plain):
        assert laid_out(plain) > 0


def test_other_dtypes_and_subclasses_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    kept = [nn.Linear(200, 200, dtype=torch.float64), nn.Linear(8, 8), Own(200, 200)]
    whole = nn.Sequential(*kept)
    with prepacked(whole):
        assert laid_out(whole) == 0


def test_an_interrupt_while_weights_are_laid_out_leaves_no_layer_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, lay_out = model(), prepacking._forward

    def interrupted(layer: nn.Linear) -> Any:
        if laid_out(plain) == 2:
            raise KeyboardInterrupt
        return lay_out(layer)

    monkeypatch.setattr(prepacking, "_forward", interrupted)
    with pytest.raises(KeyboardInterrupt), prepacked(plain):
        raise AssertionError
    assert laid_out(plain) == 0


def test_the_processes_of_a_machine_share_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model()
    free = SimpleNamespace(available=4 * weights_of(plain))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    for processes, packs in (("1", True), ("2", True), ("3", False)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        with prepacked(plain):
            assert (laid_out(plain) > 0) is packs


@pytest.mark.parametrize(
    ("limit", "used", "cached"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_container_has_no_more_than_its_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, used: str, cached: str
) -> None:
    """The files are laid out as in Linux' documentation of control groups, version 2 and 1."""
    plain = model()
    need = 2 * weights_of(plain)
    monkeypatch.setattr(prepacking, "_CGROUP", tmp_path)
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / used).write_text("7000\n")
    (tmp_path / limit).with_name("memory.stat").write_text(f"anon 5000\n{cached} 2000\n")
    for most, packs in ((need + 5000, True), (need + 4999, False), ("max", True)):
        (tmp_path / limit).write_text(f"{most}\n")
        with prepacked(plain):
            assert (laid_out(plain) > 0) is packs, most
