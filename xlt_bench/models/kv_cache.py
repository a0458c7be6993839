"""Which caches bear padding between prefix and rest, and a layer of one that works in place."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from xlt_bench.models.hidden_states import base_model

# Slots that a full buffer grows by: few copies, and little memory that no answer needs.
_GROWTH = 32


# Settings of a generation config that leave greedy decoding as it is, or that the loop follows.
_FOLLOWED = frozenset(
    "_from_model_config bos_token_id cache_implementation do_sample eos_token_id max_length "
    "max_new_tokens min_p num_beams output_attentions output_hidden_states output_scores "
    "pad_token_id repetition_penalty return_dict_in_generate temperature top_k top_p "
    "transformers_version typical_p use_cache".split()
)


def keeps_every_slot(model: Any, slots: int) -> bool:
    """Whether rows of `slots` tokens may be padded in their middle and lose nothing of the cache.

    False, and decoding is left to transformers, where

    - the model takes no `position_ids`: it counts the padding in (ALiBi by slot, recurrent states);
    - a layer's cache is more than keys and values of all slots: states of recurrent layers, layers
      that share or compress their cache, and sliding or chunked windows shorter than `slots`, which
      would count the padding as distance. A window that holds every slot hides nothing;
    - the adapter adds virtual tokens, or looks for its own start in the whole prompt (aLoRA);
    - the generation config asks for more than greedy decoding with a repetition penalty.
    """
    base = base_model(model)
    accepted = inspect.signature(base.forward).parameters
    if base.config.is_encoder_decoder or not {"position_ids", "logits_to_keep"} <= set(accepted):
        return False
    adapter = getattr(model, "active_peft_config", None)
    if adapter is not None and (
        adapter.is_prompt_learning or getattr(adapter, "alora_invocation_tokens", None)
    ):
        return False
    if not set(base.generation_config.to_diff_dict()) <= _FOLLOWED:
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
    """Keys and values of a batch, written in place; rows may leave.

    transformers' own layer copies all it holds for each new token and for each row that leaves.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stores: list[Tensor] = []
        self._length = 0

    def copies(self, rows: int) -> BufferedLayer:
        """A layer whose `rows` rows all hold this one's only row; copied when it first grows."""
        layer = BufferedLayer()
        layer._stores = [s[:, :, : self._length].expand(rows, -1, -1, -1) for s in self._stores]
        layer._length = self._length
        return layer

    def get_seq_length(self) -> int:
        """Slots in use."""
        return self._length

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (rows, heads, new, d) of both; returns views of all slots."""
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
        """The rows of all parts in `width` slots, all ending in the last.

        The first `shared` slots keep their place; between them and the rest is padding or nothing.
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
                store[start:end, :, shared : width - tail] = 0  # masked, but it must be finite
                store[start:end, :, width - tail : width] = old[
                    :, :, part._length - tail : part._length
                ]
            start = end
        whole._length = width
        return whole

    def take(self, order: Sequence[int]) -> None:
        """Keep the rows of `order` (see `closed_up`); only those that change place are copied."""
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
    """The rows that stay, in an order that moves few: the last of them fill the gaps."""
    first, moved = set(stay), [i for i in stay if i >= len(stay)]
    return [i if i in first else moved.pop() for i in range(len(stay))]
