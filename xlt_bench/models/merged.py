"""Merges an adapter into the weights for the time of a run, if that does not change the answers.

Unmerged, every adapted layer computes two more matrix products and three more operations a token;
merged, the model runs the base's modules alone. Only LoRA on float32 linear layers is merged: in
float32 the sum W + scale B A is rounded at its 24th bit, but in bfloat16 at its 8th, which loses
most of a small change; and a merged embedding that is tied to the LM head would change the head.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xlt_bench.models.hidden_states import acts_in_forward, base_model, lengths_mask, pad_right

TOLERANCE = 1e-3
"""The most that merging may change a logit, as a share of the sample's largest logit."""


@contextmanager
def merged(model: Any, sample: Sequence[Sequence[int]]) -> Iterator[bool]:
    """Merge the active adapter while the body runs, if that is safe.

    It is not, and the model stays as it is, if `mergeable` says no, peft refuses, or a logit of the
    sample changes by more than TOLERANCE. Within the body, `disable_adapter` has no effect.
    Afterwards the adapter is unmerged; the base's weights are then what they were, up to the
    rounding of one addition and one subtraction.

    Args:
        model: The PeftModel.
        sample: Prompts as token ids.

    Yields:
        Whether the adapter is merged.
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
    in_weights = True
    try:
        # Bypass peft's layers, which would still check at each call whether they are merged.
        _set(base, {name: layer.get_base_layer() for name, layer in layers.items()})
        moved = (_logits(model, sample) - before).abs().max()
        if not moved <= TOLERANCE * before.abs().max():
            _restore(model, base, layers)
            in_weights = False
        yield in_weights
    finally:
        if in_weights:
            _restore(model, base, layers)


def mergeable(model: Any) -> bool:
    """Check whether the active adapter is LoRA on float32 linear layers alone.

    Args:
        model: The PeftModel.

    Returns:
        Whether it may be merged.
    """
    from peft.tuners.lora import Linear

    if acts_in_forward(model):
        return False
    layers = _adapted(base_model(model)).values()
    return bool(layers) and all(
        type(layer) is Linear and layer.get_base_layer().weight.dtype == torch.float32
        for layer in layers
    )


def _adapted(base: Any) -> dict[str, Any]:
    """The layers that peft has put in, by their name in the base."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: m for name, m in base.named_modules() if isinstance(m, BaseTunerLayer)}


def _set(base: Any, modules: dict[str, Any]) -> None:
    for name, module in modules.items():
        base.set_submodule(name, module)


def _restore(model: Any, base: Any, layers: dict[str, Any]) -> None:
    _set(base, layers)
    _unmerge(model)


def _unmerge(model: Any) -> None:
    with warnings.catch_warnings():  # peft warns for each layer that an aborted merge did not reach
        warnings.simplefilter("ignore")
        model.unmerge_adapter()


@torch.inference_mode()
def _logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits of all tokens of `rows`: (tokens, vocabulary), float32."""
    mask = lengths_mask(rows).to(model.device)
    ids = pad_right(rows).to(model.device)
    logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[mask.bool()].float()
