"""Checks whether a model's key-value cache can be padded in the middle; a cache layer that can.

Decoding and training with a shared prefix put padding between the prefix and the rest of a row.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from xlt_bench.models.hidden_states import acts_in_forward, base_model

# A full buffer grows by this many slots: a compromise between copies and unused memory.
_GROWTH = 32


def keeps_every_slot(model: Any, slots: int) -> bool:
    """Check whether rows of a batch may be padded in the middle without changing their results.

    They may not, and decoding is left to transformers, if

    - the model takes no `position_ids` and so counts the padding (ALiBi by slot, recurrent states),
      or has no cache;
    - a layer caches anything but the keys and values of all slots: recurrent states, shared or
      compressed caches, sliding or chunked windows shorter than `slots`, which would count the
      padding as distance (a window that holds every slot is harmless);
    - the adapter adds virtual tokens, or searches the prompt for its invocation tokens (aLoRA).

    Args:
        model: The model, with its adapter active.
        slots: The longest row, padding included.

    Returns:
        Whether padding in the middle is safe.
    """
    base = base_model(model)
    accepted = inspect.signature(base.forward).parameters
    needed = {"position_ids", "logits_to_keep", "past_key_values"}
    if base.config.is_encoder_decoder or not needed <= set(accepted):
        return False
    if acts_in_forward(model):
        return False
    # GPT-Neo's local attention is not in its cache's layers.
    if "local" in getattr(base.config, "attention_layers", ()):
        return False
    layers = DynamicCache(config=base.config).layers
    return all(
        type(layer) is DynamicLayer
        or (type(layer) is DynamicSlidingWindowLayer and slots <= layer.sliding_window)
        for layer in layers
    )


class BufferedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of a batch in a buffer that is written in place.

    transformers' own layer copies everything for each new token and for each row that leaves.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stores: list[Tensor] = []
        self._length = 0

    def copies(self, rows: int) -> BufferedLayer:
        """Repeat this layer's only row.

        Args:
            rows: Rows of the new layer.

        Returns:
            A layer that shares this one's memory until it first grows.
        """
        layer = BufferedLayer()
        layer._stores = [s[:, :, : self._length].expand(rows, -1, -1, -1) for s in self._stores]
        layer._length = self._length
        return layer

    def get_seq_length(self) -> int:
        """Return the number of slots in use."""
        return self._length

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values.

        Args:
            key_states: (rows, heads, new, d).
            value_states: (rows, heads, new, d).

        Returns:
            Keys and values of all slots, (rows, heads, slots, d) each; views of the buffers.
        """
        states = (key_states, value_states)
        start, end = self._length, self._length + key_states.shape[-2]
        stores = self._stores or [state[:, :, :0] for state in states]
        if end > stores[0].shape[-2]:
            stores = [_grown(store, end + _GROWTH) for store in stores]
        for store, state in zip(stores, states, strict=True):
            store[:, :, start:end] = state
        self._stores, self._length = stores, end
        self.keys, self.values = (store[:, :, :end] for store in stores)
        return self.keys, self.values

    @classmethod
    def joined(cls, parts: Sequence[BufferedLayer], shared: int, width: int) -> BufferedLayer:
        """Join the rows of several layers.

        Args:
            parts: The layers.
            shared: Slots of the shared prefix, which stay first.
            width: Slots of the joined layer; all rows end in the last, after padding that follows
                the prefix.

        Returns:
            A layer with the rows of all parts.
        """
        whole, rows = cls(), sum(len(part._stores[0]) for part in parts)
        for store in parts[0]._stores:
            _, heads, _, size = store.shape
            whole._stores.append(store.new_empty(rows, heads, width + _GROWTH, size))
        start = 0
        for part in parts:
            tail, end = min(part._length, width) - shared, start + len(part._stores[0])
            for store, old in zip(whole._stores, part._stores, strict=True):
                store[start:end, :, :shared] = old[:, :, :shared]
                store[start:end, :, shared : width - tail] = 0  # masked, but must be finite
                store[start:end, :, width - tail : width] = old[
                    :, :, part._length - tail : part._length
                ]
            start = end
        whole._length = width
        return whole

    def take(self, order: Sequence[int]) -> None:
        """Keep some rows, copying only those that move.

        Args:
            order: The rows that stay, as `closed_up` orders them.
        """
        moved = [i for i, source in enumerate(order) if i != source]
        for store in self._stores if moved else ():
            store[moved] = store[[order[i] for i in moved]]
        self._stores = [store[: len(order)] for store in self._stores]


def _grown(store: Tensor, slots: int) -> Tensor:
    rows, heads, used, size = store.shape
    grown = store.new_empty(rows, heads, slots, size)
    grown[:, :, :used] = store
    return grown


def closed_up(stay: Sequence[int]) -> list[int]:
    """Order the rows that stay so that few move: the last ones fill the gaps.

    Args:
        stay: Indices of the rows that stay, ascending.

    Returns:
        For each place of the smaller batch the row that it gets.
    """
    first, moved = set(stay), [i for i in stay if i >= len(stay)]
    return [i if i in first else moved.pop() for i in range(len(stay))]
