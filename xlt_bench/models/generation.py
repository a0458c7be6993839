"""Greedy decoding that computes what all prompts begin with only once.

The prompts of a task share their system prompt and the head of the chat template. Keys and values
of that prefix are computed for one row and copied to each batch. Slots of a batch, left to right:

    shared prefix | padding | rest of the prompt | answer

A row leaves the batch when its answer ends. The tokens are those of transformers' `generate` with
`do_sample=False`, in float32 token for token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor
from transformers.cache_utils import Cache

from xlt_bench.models.blocks import base_model
from xlt_bench.models.cache import BufferedLayer, closed_up, keeps_every_slot

Rows = Sequence[list[int]]
Decode = Callable[[Rows], list[list[int]]]


def decoder(
    model: Any, rows: Rows, max_new_tokens: int, stops: Sequence[int], pad_token_id: int
) -> Decode:
    """A function from a batch of `rows` to their new tokens, a stop token included where one came.

    `rows` are all prompts to come, as token ids. Whatever the adapter's state is at the first
    batch must hold until the last one: the prefix is computed then, and never kept for longer.
    """
    if not keeps_every_slot(model, max(map(len, rows), default=0) + max_new_tokens):
        return lambda batch: ordinary(model, batch, max_new_tokens, stops, pad_token_id)
    length = shared_prefix(rows)
    # At the first batch, where a device without memory for it is already dealt with.
    prefix = functools.cache(lambda: prefix_states(model, rows[0][:length]))
    return lambda batch: greedy(model, prefix(), length, batch, max_new_tokens, stops)


def shared_prefix(rows: Rows) -> int:
    """The number of tokens that all rows begin with; at least one token of each row is left over.

    One row shares nothing: computing its prefix apart would only be a second forward.
    """
    if len(rows) < 2:
        return 0
    first, last = min(rows), max(rows)  # in lexical order these two differ the earliest
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


@torch.inference_mode()
def prefix_states(model: Any, prefix: Sequence[int]) -> list[BufferedLayer]:
    """Keys and values of a prefix, one row, in each layer; no layers for an empty one."""
    cache = Cache(layer_class_to_replicate=BufferedLayer)
    if prefix:
        ids = torch.tensor([prefix], device=model.device)
        positions = torch.arange(len(prefix), device=model.device)[None]
        _forward(model, ids, torch.ones_like(ids), positions, cache)
    return cast(list[BufferedLayer], cache.layers)


@torch.inference_mode()
def greedy(
    model: Any,
    prefix: Sequence[BufferedLayer],
    shared: int,
    batch: Rows,
    max_new_tokens: int,
    stops: Sequence[int],
) -> list[list[int]]:
    """New tokens of each row, to its first stop token or the limit.

    `prefix` are the layers after the first `shared` tokens, which the rows have in common.
    """
    ids, mask = _layout(batch, shared, max_new_tokens, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = Cache(layer_class_to_replicate=BufferedLayer)
    cache.layers = [layer.copies(len(batch)) for layer in prefix]
    penalize = _penalty(model)
    answers: list[list[int]] = [[] for _ in batch]
    live = list(range(len(batch)))
    start, end = shared, ids.shape[1]
    for _ in range(max_new_tokens):
        scores = _forward(
            model, ids[:, start:end], mask[:, :end], positions[:, start:end], cache
        ).float()
        tokens = penalize(ids, scores).argmax(-1)
        for row, token in zip(live, tokens.tolist(), strict=True):
            answers[row].append(token)
        stay = [i for i, row in enumerate(live) if answers[row][-1] not in stops]
        if not stay:
            break
        ids = torch.cat([ids, tokens[:, None]], dim=1)
        if len(stay) < len(live):
            order = closed_up(stay)
            for layer in cast(list[BufferedLayer], cache.layers):
                layer.take(order)
            live = [live[i] for i in order]
            ids, mask, positions = ids[order], mask[order], positions[order]
        start, end = end, end + 1
    return answers


@torch.inference_mode()
def ordinary(
    model: Any, batch: Rows, max_new_tokens: int, stops: Sequence[int], pad_token_id: int
) -> list[list[int]]:
    """New tokens of each row by transformers' `generate`; after a stop token comes padding."""
    width = max(map(len, batch))
    ids = torch.tensor([[pad_token_id] * (width - len(row)) + [*row] for row in batch])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
    output = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=list(stops),
        pad_token_id=pad_token_id,
    )
    rows: list[list[int]] = output[:, width:].tolist()
    return rows


def _layout(
    batch: Rows, shared: int, max_new_tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids (rows, prompt slots), and their mask with the answer's slots already open.

    The padding repeats a token of its row: nothing looks at it, and a repetition penalty, which
    goes by the row's tokens, finds none that the prompt does not have.
    """
    width = max(map(len, batch))
    gaps = [width - len(row) for row in batch]
    ids = [
        [*row[:shared], *[row[-1]] * gap, *row[shared:]]
        for row, gap in zip(batch, gaps, strict=True)
    ]
    mask = torch.ones(len(batch), width + max_new_tokens, dtype=torch.long)
    for i, gap in enumerate(gaps):
        mask[i, shared : shared + gap] = 0
    return torch.tensor(ids, device=device), mask.to(device)


def _forward(model: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
    """Scores (rows, vocabulary) after the last token; the cache takes in keys and values."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    scores: Tensor = output.logits[:, -1]
    return scores


def _penalty(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The repetition penalty that the model's generation config names, as `generate` applies it."""
    penalty = base_model(model).generation_config.repetition_penalty
    if penalty in (None, 1.0):
        return lambda _ids, scores: scores
    return RepetitionPenaltyLogitsProcessor(penalty)
