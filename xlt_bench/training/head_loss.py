"""Cross-entropy through a frozen LM head, a part of the vocabulary at a time.

The logits of a batch of MASSIVE answers over Gemma's 262,144 tokens are a quarter of a gigabyte in
float32, which autograd would write and read several times.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from xlt_bench.models.hidden_states import base_model, on_trial, without_head
from xlt_bench.models.padding import OTHER_TOKENS, close

# Logits that are computed at a time: on a CPU as many as stay in its cache (8 MB in float32), on
# other devices as many as keep it busy.
_AT_A_TIME, _AT_A_TIME_ELSEWHERE = 1 << 21, 1 << 26

_PLAIN: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Whether the logits of a transformers model are what its head returns, by model."""


class _HeadLoss(torch.autograd.Function):
    """The mean cross-entropy of states (n, d), whose gradient is computed with the loss.

    The vocabulary is cut into parts. A first pass computes each part's exp(logits - their largest)
    and their sums, a second one weighs the parts and multiplies them with the weights again.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        most = _AT_A_TIME if states.device.type == "cpu" else _AT_A_TIME_ELSEWHERE
        parts = torch.split(weight, max(1, most // max(1, len(states))))
        exps, tops, sums = [], [], []
        for part in parts:
            exp, part_top, part_sum = _exp_logits(states, part)
            exps += [exp] if ctx.needs_input_grad[0] else []
            tops.append(part_top)
            sums.append(part_sum)
        top = torch.stack(tops).amax(0)
        shares = [(part_top - top).exp() for part_top in tops]
        total = torch.stack([a * b for a, b in zip(shares, sums, strict=True)]).sum(0)
        logits = (states * weight[targets]).sum(1, dtype=total.dtype)
        if ctx.needs_input_grad[0]:
            gradient = -weight[targets].to(total.dtype)
            for part, exp, share in zip(parts, exps, shares, strict=True):
                gradient += (exp @ part) * (share / total)[:, None]
            ctx.save_for_backward((gradient / len(states)).to(states.dtype))
        loss: Tensor = (total.log() + top - logits).mean()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None, None


def _exp_logits(states: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """exp(logits - top) in the states' dtype, and each row's top and sum, at least float32."""
    logits = states @ weight.T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top = logits.amax(1)
    exp = logits.sub_(top[:, None]).exp_()
    return exp.to(states.dtype), top, exp.sum(1)


def head_loss(states: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy of a frozen head's logits.

    Args:
        states: (labelled tokens, d), the last hidden states.
        head: The head, of which no weight is trained.
        targets: (labelled tokens), the token ids to predict.

    Returns:
        A scalar in nats, at least float32; NaN without labelled tokens, as torch's.
    """
    return _HeadLoss.apply(states.to(head.weight.dtype), head.weight, targets)  # type: ignore[no-any-return, no-untyped-call]


def frozen_head(model: Any) -> nn.Linear | None:
    """Find the LM head if it is frozen and its output is the logits.

    Some models scale or cap what the head returns; each model is tried once.

    Args:
        model: The model, wrapped or not.

    Returns:
        The head; None if it must run inside of the model.
    """
    base = base_model(model)
    head = base.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None or head.weight.requires_grad:
        return None
    if base.is_distributed_loading_by_transformers:  # its weights are there in forwards only
        return None
    # accelerate offloads it, or puts it on another device than the model's inputs and outputs.
    if head.weight.is_meta or head.weight.device != base.device:
        return None
    if base not in _PLAIN:
        _PLAIN[base] = _is_plain(base, head)
    return head if _PLAIN[base] else None


def _is_plain(base: Any, head: nn.Linear) -> bool:
    """Whether the logits of tokens are the head's products with their last states.

    What the head returns must be the logits to the bit: in bfloat16, a cap changes small logits by
    no more than rounding does.
    """
    ids = torch.arange(8, device=base.device)[None]  # several, since padding may be all zeros
    returned: list[Tensor] = []
    with on_trial(base):
        # A copy, since the model may change them in place.
        hook = head.register_forward_hook(lambda _m, _inputs, out: returned.append(out.clone()))
        try:
            logits = base(input_ids=ids, use_cache=False).logits
        finally:
            hook.remove()
        with without_head(base):
            states = base(input_ids=ids, use_cache=False).logits
        same = len(returned) == 1 and torch.equal(returned[0].to(logits.dtype), logits)
        return same and close(head(states), logits, OTHER_TOKENS)
