"""Greedy decoding with a shared prefix and continuous batching.

All prompts of a task start with the same system prompt. The keys and values of that prefix are
computed once, for one row, and copied to each batch. Cache slots of a batch, from left to right:

    shared prefix | padding | rest of the prompt | answer

A row leaves the batch when its answer ends, and waiting prompts take its place, since a step costs
nearly the same for few rows as for many. New prompts get a forward of their own and are then joined
to the batch, so that all rows end in the same slot. In float32 the answers are, token for token,
those of transformers' `generate` with `do_sample=False`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.cache_utils import Cache

from xlt_bench.errors import InputError
from xlt_bench.models.generation_config import applied, greedy
from xlt_bench.models.hidden_states import PADDING, acts_in_forward
from xlt_bench.models.kv_cache import (
    BufferedLayer,
    closed_up,
    keeps_every_slot,
)
from xlt_bench.models.padding import Run, keeps_rows_apart, masks_padding

Rows = Sequence[list[int]]
Answer = tuple[int, list[int]]
"""The index of a row, and its new tokens up to the first stop token, included, or the limit."""

# Waiting prompts join once this share of the batch is free: joining costs a forward and a copy of
# the cache, so it should serve several.
_FREE = 0.25

# By model, which is another object with each adapter, and by side of the padding: the shortest and
# the longest row for which it was measured that padding is masked.
_MASKED: WeakKeyDictionary[Any, dict[str, tuple[int, int]]] = WeakKeyDictionary()

# What to try instead of a number format in which scores overflow.
_WIDER = {"float16": "--dtype bfloat16 or float32", "bfloat16": "--dtype float32"}


class NotFiniteError(InputError):
    """The model's numbers overflow, or its weights are broken: there is no answer."""

    def __init__(self, what: str, dtype: str) -> None:
        wider = _WIDER.get(dtype)
        remedy = (
            f"choose {wider}, and another --output"
            if wider
            else "check the weights of the model and of the adapter"
        )
        super().__init__(f"{what} are not finite in {dtype}; {remedy}")


def repetition_penalty(model: Any) -> float:
    """Read the repetition penalty of the model's generation config, which greedy decoding applies.

    Args:
        model: The model.

    Returns:
        The penalty; 1 for none.
    """
    return float(applied(model).get("repetition_penalty", 1))


def answers(
    model: Any, rows: Rows, size: int, max_new_tokens: int, stops: Sequence[int]
) -> Iterator[Answer]:
    """Generate answers greedily, `size` prompts at a time.

    The active adapter must not change before the last answer. Rows are padded only where the model
    masks the padding; otherwise a batch has rows of one length, or a single row if the model mixes
    rows up.

    Args:
        model: The model, with its adapter active.
        rows: Prompts as token ids; sort them by length, longest first, for the least padding.
        size: Rows of a batch.
        max_new_tokens: The longest answer.
        stops: Token ids that end an answer.

    Yields:
        Each answer as it ends.

    Raises:
        NotFiniteError: If a token's best score is infinite or NaN.
    """
    slots = max(map(len, rows), default=0) + max_new_tokens
    only_penalty = set(applied(model)) <= {"repetition_penalty"}
    if only_penalty and keeps_every_slot(model, slots) and _pads_inside(model, rows):
        yield from _greedy(_Decoding(model, rows, size, max_new_tokens, frozenset(stops)), slots)
        return
    several, start = min(len(rows), size) > 1, 0
    # Other processors of scores read the padding too: n-grams, lengths.
    padded = several and only_penalty and _pads_left(model, rows)
    if several and not padded and not keeps_rows_apart(partial(_runs_left, model), rows[0]):
        size = 1
    for batch in _batches(rows, size, padded):
        yield from enumerate(ordinary(model, batch, max_new_tokens, stops), start)
        start += len(batch)


def _pads_inside(model: Any, rows: Rows) -> bool:
    """Whether the rows may share a prefix and be padded after it; see `masks_padding`."""

    @torch.inference_mode()
    def run(chosen: Rows, fill: int) -> Tensor:
        work = _Decoding(model, chosen, len(chosen), 1, frozenset())
        batch = work.newcomers(list(range(len(chosen))), work.prefix(), fill)
        found: Tensor = work.forward(batch)[0].to(model.dtype)
        return found

    return len(rows) < 2 or _measured(model, "inside", run, rows)


def _measured(model: Any, side: str, run: Run, rows: Rows) -> bool:
    """`masks_padding`, unless it was found for this model with rows as short and as long."""
    known = _MASKED.setdefault(model, {})
    shortest, longest = known.get(side, (len(rows[0]) + 1, -1))
    if shortest <= len(rows[-1]) and len(rows[0]) <= longest:
        return True
    if not masks_padding(run, rows):
        return False
    known[side] = (min(shortest, len(rows[-1])), max(longest, len(rows[0])))
    return True


def _runs_left(model: Any, chosen: Rows, fill: int) -> Tensor:
    """Logits of the first two tokens that `generate` answers to the first row, padded on the left.

    The second token shows whether the states that a model keeps are those of its row.
    """
    output = _generate(model, chosen, 2, (), fill, output_logits=True)
    found: Tensor = torch.cat([step[0] for step in output.logits])
    return found.to(model.dtype)


def _pads_left(model: Any, rows: Rows) -> bool:
    """Whether the rows may be padded on the left for `generate`; see `masks_padding`.

    Virtual tokens come before the padding, and their distance would grow with it, too little to be
    measured in half precision.
    """
    run = partial(_runs_left, model)
    return not acts_in_forward(model) and _measured(model, "left", run, rows)


def _batches(rows: Rows, size: int, padded: bool) -> Iterator[Rows]:
    """Cut rows into batches in their order; of one length each, unless they may be padded."""
    groups = [rows] if padded else [list(group) for _, group in groupby(rows, len)]
    for group in groups:
        for start in range(0, len(group), size):
            yield group[start : start + size]


def shared_prefix(rows: Rows) -> int:
    """Count the tokens that all rows start with.

    Args:
        rows: Prompts as token ids.

    Returns:
        The length of the prefix, which leaves at least one token of each row; 0 for a single row,
        which would only gain a second forward.
    """
    if len(rows) < 2:
        return 0
    first, last = (
        min(rows),
        max(rows),
    )  # the two that differ first, as rows are compared in lexical order
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


@dataclass
class _Batch:
    """Rows that are being decoded."""

    rows: list[int]
    mask: Tensor
    """Which slots hold tokens: (rows, slots in the cache)."""
    tokens: Tensor
    """Input of the next forward: (rows, new). While it is a prompt, `mask` includes its slots."""
    cache: Cache

    @property
    def layers(self) -> list[BufferedLayer]:
        """The layers of the cache."""
        return cast(list[BufferedLayer], self.cache.layers)


class _Decoding:
    """The prompts, the answers so far, and the steps that extend them."""

    def __init__(
        self, model: Any, rows: Rows, size: int, max_new_tokens: int, stops: frozenset[int]
    ) -> None:
        self.model, self.rows, self.size = model, rows, size
        self.max_new_tokens, self.stops = max_new_tokens, stops
        self.shared = shared_prefix(rows)
        self.answers: list[list[int]] = [[] for _ in rows]
        penalty = repetition_penalty(model)
        self._penalize = None if penalty == 1 else RepetitionPenaltyLogitsProcessor(penalty)

    def prefix(self) -> list[BufferedLayer]:
        """Compute the shared prefix: one row of keys and values a layer; empty without a prefix."""
        ids = torch.tensor([self.rows[0][: self.shared]], device=self.model.device)
        cache = _cache([])
        if self.shared:
            self.forward(_Batch([0], torch.ones_like(ids), ids, cache))
        return cast(list[BufferedLayer], cache.layers)

    def newcomers(
        self, rows: list[int], prefix: Sequence[BufferedLayer], fill: int = PADDING
    ) -> _Batch:
        """Make a batch of rows whose prompts have not run yet, padded with `fill`."""
        width = max(len(self.rows[i]) for i in rows)
        ids, mask = [], torch.ones(len(rows), width, dtype=torch.long)
        for place, i in enumerate(rows):
            gap, rest = width - len(self.rows[i]), self.rows[i][self.shared :]
            ids.append([*[fill] * gap, *rest])
            mask[place, self.shared : self.shared + gap] = 0
        device = self.model.device
        cache = _cache([layer.copies(len(rows)) for layer in prefix])
        return _Batch(rows, mask.to(device), torch.tensor(ids, device=device), cache)

    def advance(self, batch: _Batch) -> list[Answer]:
        """Extend each row by a token, and remove and return the rows that end with it."""
        tokens = self._choice(batch.rows, self.forward(batch))
        for row, token in zip(batch.rows, tokens.tolist(), strict=True):
            if token == _NOT_FINITE:
                raise _not_finite(self.model)
            self.answers[row].append(token)
        stay = [i for i, row in enumerate(batch.rows) if not self._ended(row)]
        ended = [(row, self.answers[row]) for row in batch.rows if self._ended(row)]
        batch.tokens = tokens[:, None]
        if ended:
            order = closed_up(stay)
            for layer in batch.layers:
                layer.take(order)
            batch.rows = [batch.rows[i] for i in order]
            batch.mask, batch.tokens = batch.mask[order], batch.tokens[order]
        return ended

    def _ended(self, row: int) -> bool:
        answer = self.answers[row]
        return answer[-1] in self.stops or len(answer) == self.max_new_tokens

    def forward(self, batch: _Batch) -> Tensor:
        """Run the model on `batch.tokens`; float32 logits of the last one: (rows, vocabulary)."""
        output = self.model(
            input_ids=batch.tokens,
            attention_mask=batch.mask,
            position_ids=(batch.mask.cumsum(-1) - 1).clamp(min=0)[:, -batch.tokens.shape[1] :],
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        scores: Tensor = output.logits[:, -1]
        return scores.float()

    def _choice(self, rows: Sequence[int], scores: Tensor) -> Tensor:
        """Choose the best token of each row: (rows,); the repetition penalty applies.

        `_NOT_FINITE` stands for one whose score is not finite. NaN counts as larger than any.
        """
        if self._penalize is not None:
            seen = [[*self.rows[i], *self.answers[i]] for i in rows]
            width = max(map(len, seen))  # padding with a token repeats it, and it is penalised once
            ids = [[*row, *[row[0]] * (width - len(row))] for row in seen]
            scores = self._penalize(torch.tensor(ids, device=scores.device), scores)
        best, tokens = scores.max(-1)
        return torch.where(best.isfinite(), tokens, _NOT_FINITE)


@torch.inference_mode()
def _greedy(work: _Decoding, slots: int) -> Iterator[Answer]:
    """Decode all rows. The cache never has more than `slots` slots, padding included."""
    waiting = deque(range(len(work.rows)))
    prefix = work.prefix()
    batch: _Batch | None = None
    while waiting or batch:
        free = work.size - (len(batch.rows) if batch else 0)
        if waiting and (batch is None or free >= _FREE * work.size):
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            arriving = work.newcomers(chosen, prefix)
            yield from work.advance(arriving)
            parts = [part for part in (batch, arriving) if part and part.rows]
            batch = _joined(parts, work.shared) if parts else None
            continue
        assert batch is not None
        if batch.mask.shape[1] == slots:
            batch = _joined([batch], work.shared)
        batch.mask = torch.cat([batch.mask, torch.ones_like(batch.tokens)], dim=1)
        yield from work.advance(batch)
        batch = batch if batch.rows else None


def _joined(parts: Sequence[_Batch], shared: int) -> _Batch:
    """Join batches in as few slots as the longest row needs; all rows end in the last slot.

    A single batch without unused slots is returned as it is.
    """
    width = max(int(part.mask.sum(1).max()) for part in parts)
    if len(parts) == 1 and parts[0].mask.shape[1] == width:
        return parts[0]
    masks = []
    for part in parts:
        tail = min(part.mask.shape[1], width) - shared
        mask = part.mask.new_zeros(len(part.rows), width)
        mask[:, :shared] = 1
        mask[:, width - tail :] = part.mask[:, part.mask.shape[1] - tail :]
        masks.append(mask)
    layers = zip(*(part.layers for part in parts), strict=True)
    return _Batch(
        [row for part in parts for row in part.rows],
        torch.cat(masks),
        torch.cat([part.tokens for part in parts]),
        _cache([BufferedLayer.joined(layer, shared, width) for layer in layers]),
    )


def _cache(layers: Sequence[BufferedLayer]) -> Cache:
    cache = Cache(layer_class_to_replicate=BufferedLayer)
    cache.layers = list(layers)
    return cache


_NOT_FINITE = -1


def _not_finite(model: Any) -> NotFiniteError:
    return NotFiniteError("logits", str(model.dtype).removeprefix("torch."))


class _Finite(LogitsProcessor):
    """Remembers whether a best score was not finite, on the device: `generate` waits for nothing.

    Rows whose answer has ended go on in `generate`, and do not count.
    """

    def __init__(self, width: int, stops: Sequence[int], device: Any) -> None:
        self._width, self._stops = width, torch.tensor(stops, dtype=torch.long, device=device)
        self.all = torch.tensor(True, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Look at the scores (rows, vocabulary), and return them."""
        ended = torch.isin(input_ids[:, self._width :], self._stops).any(-1)
        finite = scores.max(-1).values.isfinite()
        self.all = self.all & (finite | ended).all()
        return scores


def ordinary(model: Any, batch: Rows, max_new_tokens: int, stops: Sequence[int]) -> list[list[int]]:
    """Decode a batch by transformers' `generate`, for models whose cache cannot be padded.

    Args:
        model: The model, with its adapter active.
        batch: Prompts as token ids; of one length, unless the model masks padding on the left.
        max_new_tokens: The longest answer.
        stops: Token ids that end an answer.

    Returns:
        The new tokens of each row; padding follows a stop token.

    Raises:
        NotFiniteError: If a token's best score is infinite or NaN.
    """
    width = max(map(len, batch))
    check = _Finite(width, stops, model.device)
    output = _generate(model, batch, max_new_tokens, stops, PADDING, LogitsProcessorList([check]))
    if not check.all:
        raise _not_finite(model)
    rows: list[list[int]] = output.sequences[:, width:].tolist()
    return rows


@torch.inference_mode()
def _generate(
    model: Any,
    batch: Rows,
    max_new_tokens: int,
    stops: Sequence[int],
    fill: int,
    processors: LogitsProcessorList | None = None,
    output_logits: bool = False,
) -> Any:
    """Call transformers' `generate` on rows padded on the left with `fill`."""
    width = max(map(len, batch))
    ids = torch.tensor([[fill] * (width - len(row)) + [*row] for row in batch])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
    with greedy(model, max_new_tokens, stops) as config:
        config.return_dict_in_generate, config.output_logits = True, output_logits
        return model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            logits_processor=processors,
        )
