"""Lays the rows of a micro-batch end to end, so that a forward computes no padding.

Padding to the longest row makes half of a MASSIVE batch padding. Here all rows are one line of
tokens, in which a prefix that they share is there once. Linear layers see the line; attention sees
each row beside the prefix, by an attention function of transformers' AttentionInterface.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import dropout, softmax
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from xlt_bench.models.hidden_states import base_model, on_trial, without_head
from xlt_bench.models.kv_cache import keeps_every_slot
from xlt_bench.models.padding import OTHER_SHAPES, close

_NAME = "xlt_bench_packed"

# Pairs of a query and a key up to which a CPU attends without torch's fused kernel.
_FEW_PAIRS = 1 << 16

PREFIX = -1
"""The owner of the tokens that all rows share."""

# Tokens of the two rows on which a model is tried, after a prefix.
_TRIED_PREFIX, _TRIED_TOKENS = 8, (16, 12)

_TRIED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Whether a model gave packed rows the states that it gives them padded, by transformers model."""


@dataclass(frozen=True)
class Packed:
    """Where the tokens of a padded batch of n rows are in one line: the prefix, then each row."""

    shared: int
    """Tokens of the prefix."""
    places: Tensor
    """(tokens,), int64: the token's place in the flattened padded batch."""
    positions: Tensor
    """(tokens,), int64: the token's position in its row."""
    owners: Tensor
    """(tokens,), int64: the token's row; `PREFIX` for the shared tokens."""
    slots: Tensor
    """(n, longest row without the prefix), int64: the token's place in the line; the row's last
    token for padding."""

    def take(self, padded: Tensor) -> Tensor:
        """Lay out a padded batch.

        Args:
            padded: (n, tokens): token ids, or what is parallel to them.

        Returns:
            (1, tokens of the line).
        """
        return padded.flatten()[self.places][None]


def pack(mask: Tensor, shared: int = 0) -> Packed:
    """Lay out the rows of a batch.

    Args:
        mask: Attention mask (n, tokens), padded on the right.
        shared: Tokens of the prefix with which all rows begin; each row is longer.

    Returns:
        The layout, on the mask's device.
    """
    own = mask.bool()
    own[:, :shared] = False
    owners, positions = own.nonzero(as_tuple=True)
    first = torch.arange(shared, device=mask.device)
    last = own.sum(1).cumsum(0) - 1
    slots = shared + torch.cat([last.new_tensor([-1]), last[:-1]])[:, None] + own.cumsum(1)
    return Packed(
        shared,
        torch.cat([first, owners * mask.shape[1] + positions]),
        torch.cat([first, positions]),
        torch.cat([torch.full_like(first, PREFIX), owners]),
        slots[:, shared:],
    )


def mean_by_owner(hidden: Tensor, owners: Tensor, rows: int) -> Tensor:
    """Average hidden states over the tokens of each row.

    Args:
        hidden: (1, tokens, d), of any dtype.
        owners: (1, tokens), a layout's `owners`, without a prefix.
        rows: n.

    Returns:
        (n, d), float32, as `mean_pool` of the padded batch.
    """
    states = hidden[0].float()
    sums = states.new_zeros(rows, states.shape[1]).index_add(0, owners[0], states)
    return sums / owners[0].bincount(minlength=rows)[:, None]


_LAYOUT: ContextVar[Packed] = ContextVar("layout")
"""The layout of the forward that runs."""


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention within the prefix, and of each row to the prefix and itself.

    The states are those of the line, (1, heads, tokens, d); returns (1, tokens, heads, d).
    """
    layout = _LAYOUT.get()
    shared, slots = layout.shared, layout.slots.to(query.device)

    def rows(states: Tensor) -> Tensor:
        taken = states[0].index_select(1, slots.flatten())
        return taken.view(-1, *slots.shape, states.shape[-1]).transpose(0, 1)

    def beside_prefix(states: Tensor) -> Tensor:
        prefix = states[:, :, :shared].expand(len(slots), -1, -1, -1)
        return torch.cat([prefix, rows(states)], dim=2)

    found = _attend(module, rows(query), beside_prefix(key), beside_prefix(value), **kwargs)
    owners, positions = layout.owners[shared:], layout.positions[shared:] - shared
    output = found[owners.to(query.device), positions.to(query.device)][None]
    if shared:
        query, key, value = (states[:, :, :shared] for states in (query, key, value))
        output = torch.cat([_attend(module, query, key, value, **kwargs), output], dim=1)
    return output, None


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
    """Attention of queries (n, heads, q, d) to k >= q keys, the last of which are their own.

    torch's fused attention takes two to four times as long as its parts where a CPU has few tokens
    a row. Returns (n, q, heads, d).
    """
    if kwargs.get("s_aux") is not None or kwargs.get("position_bias") is not None:
        raise NotImplementedError("attention sinks and position biases")
    q, k, softcap = query.shape[2], key.shape[2], kwargs.get("softcap")
    seen = torch.ones(q, k, dtype=torch.bool, device=query.device).tril(k - q)
    if softcap is None and (query.device.type != "cpu" or q * k > _FEW_PAIRS):
        mask = seen.expand(len(query), 1, -1, -1)
        found: Tensor = sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]
        return found
    scaling = kwargs.get("scaling")
    grouped = query.reshape(len(query), key.shape[1], -1, q, query.shape[-1])
    scores = grouped @ key.transpose(2, 3).unsqueeze(2)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~seen, -torch.inf)
    weights = softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    weights = dropout(weights.to(value.dtype), kwargs.get("dropout", 0.0))
    return (weights @ value.unsqueeze(2)).flatten(1, 2).transpose(1, 2)


AttentionInterface.register(_NAME, _attention)


@contextmanager
def packed_attention(model: Any, layout: Packed) -> Iterator[None]:
    """Make attention keep the rows of a line apart, while the body runs.

    Args:
        model: The model, wrapped or not.
        layout: The layout of the forward's tokens.
    """
    config = base_model(model).config.get_text_config()
    token, before = _LAYOUT.set(layout), config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _LAYOUT.reset(token)


def packed_inputs(layout: Packed, ids: Tensor) -> dict[str, Tensor]:
    """Collect the inputs of a forward over a line.

    Args:
        layout: The layout.
        ids: (n, tokens), padded.

    Returns:
        `input_ids` and `position_ids`, (1, tokens of the line).
    """
    return {"input_ids": layout.take(ids), "position_ids": layout.positions[None]}


def can_pack(model: Any, ids: Tensor, mask: Tensor) -> bool:
    """Check whether packed rows get the states that they get when they are padded.

    The model must take positions, attend by transformers' AttentionInterface, and mix tokens in no
    other way: such are the models whose rows may be padded in the middle. A model is also tried,
    once, on the ends of two rows after one beginning. With gradient checkpointing, blocks would run
    again when the layout is gone.

    Args:
        model: The model, with its adapter active.
        ids: (n, tokens), padded on the right.
        mask: Its attention mask.

    Returns:
        Whether the rows may be packed.
    """
    base = base_model(model)
    attention = base.config.get_text_config()._attn_implementation
    if base.is_activation_checkpointing or attention not in ("sdpa", "eager"):
        return False
    if len(ids) < 2:
        return False
    # Tried whatever the length of the rows is: with FSDP, all processes run the same forwards.
    if base not in _TRIED:
        ends = zip(ids, mask.sum(1).tolist(), _TRIED_TOKENS, strict=False)
        _TRIED[base] = keeps_every_slot(model, 0) and _packs(
            base, ids[0, :_TRIED_PREFIX], [row[:length][-most:] for row, length, most in ends]
        )
    return _TRIED[base] and keeps_every_slot(model, ids.shape[1])


def _packs(base: Any, prefix: Tensor, ends: list[Tensor]) -> bool:
    """Whether the last states of rows are the same in a line as padded, up to rounding."""
    rows = [torch.cat([prefix, end]) for end in ends]
    ids = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    layout = pack(mask, len(prefix))
    try:
        with on_trial(base), without_head(base):
            padded = base(input_ids=ids, attention_mask=mask, use_cache=False).logits
            with packed_attention(base, layout):
                line = base(**packed_inputs(layout, ids), use_cache=False).logits
    except torch.OutOfMemoryError:
        raise
    except Exception:  # models that do not take a line raise many types
        return False
    expected = padded.flatten(0, 1)[layout.places]
    return line[0].shape == expected.shape and close(line[0], expected, OTHER_SHAPES)
