"""An adapter put into the weights for a run, where that leaves the answers as they are.

Unmerged, every adapted layer computes two more products and three more operations a token. Merged,
the model runs exactly the base's modules. In float32 the sum W + scale B A is rounded in its 24th
bit; in bfloat16 in its 8th, which takes most of a small change away and scores otherwise: half
precision is therefore never merged. Nor is anything but LoRA on linear layers: a merged embedding
that is tied to the LM head would change the head too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xlt_bench.models.hidden_states import base_model, lengths_mask, pad_right

TOLERANCE = 1e-3
"""How far a logit may move by merging, in units of the sample's largest logit."""


@contextmanager
def merged(model: Any, sample: Sequence[Sequence[int]]) -> Iterator[bool]:
    """Within the context the PeftModel's active adapter is in the weights, if that is safe.

    Yields whether it is. It is not, and the model is as before, where `mergeable` says so, where
    peft refuses, or where a logit of `sample` (prompts as token ids) moves by more than TOLERANCE.
    Afterwards peft's layers are in place again, and the base's weights as they were but for the
    rounding of one addition and one subtraction. Within, `disable_adapter` has no effect.
    """
    base = base_model(model)
    layers = _adapted(base)
    if not mergeable(model):
        yield False
        return
    before = _logits(model, sample)
    try:
        model.merge_adapter(safe_merge=True)
    except (ValueError, RuntimeError, NotImplementedError):
        _unmerge(model)
        yield False
        return
    # peft's layers would still ask, at each call, whether they are merged.
    _set(base, {name: layer.get_base_layer() for name, layer in layers.items()})
    moved = (_logits(model, sample) - before).abs().max()
    equal = bool(moved <= TOLERANCE * before.abs().max())
    try:
        if not equal:
            _restore(model, base, layers)
        yield equal
    finally:
        if equal:
            _restore(model, base, layers)


def mergeable(model: Any) -> bool:
    """Whether all that the PeftModel adapts are float32 linear layers, by LoRA."""
    from peft.tuners.lora import Linear

    adapter = model.active_peft_config
    if adapter.is_prompt_learning or getattr(adapter, "alora_invocation_tokens", None):
        return False
    layers = _adapted(base_model(model)).values()
    return bool(layers) and all(
        type(layer) is Linear and layer.get_base_layer().weight.dtype == torch.float32
        for layer in layers
    )


def _adapted(base: Any) -> dict[str, Any]:
    """The layers of peft, by their place in the base."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: m for name, m in base.named_modules() if isinstance(m, BaseTunerLayer)}


def _set(base: Any, modules: dict[str, Any]) -> None:
    for name, module in modules.items():
        base.set_submodule(name, module)


def _restore(model: Any, base: Any, layers: dict[str, Any]) -> None:
    _set(base, layers)
    _unmerge(model)


def _unmerge(model: Any) -> None:
    with warnings.catch_warnings():  # peft warns of each layer that an aborted merge did not reach
        warnings.simplefilter("ignore")
        model.unmerge_adapter()


@torch.inference_mode()
def _logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """The logits of all tokens of `rows`: (tokens, vocabulary)."""
    mask = lengths_mask(rows).to(model.device)
    ids = pad_right(rows, 0).to(model.device)
    logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[mask.bool()].float()
