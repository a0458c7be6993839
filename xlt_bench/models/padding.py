"""Measures whether padding changes the logits of a model, on rows that it is about to answer.

No list of architectures says which models mask padding: some take an attention mask and ignore it
(recurrent states), some count the padding as positions, and a model may bring its own code. So a
row is run alone and beside a longer one, padded, twice: with different tokens as its padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# The most that padding may change a logit, as a share of the row's largest: what rounding does,
# in multiples of the number format's epsilon, and the least share, for float32.
OTHER_TOKENS = (4, 1e-4)  # the shapes are the same: only experts' batches are rounded differently
OTHER_SHAPES = (16, 1e-3)  # so other kernels

# Odd, since layers take tokens together in twos, fours and so on.
_GAP = 5

Run = Callable[[Sequence[list[int]], int], Tensor]
"""Runs rows, those that are too short padded with a token id; logits after the first: (n,),
in the number format of the model."""


def masks_padding(run: Run, rows: Sequence[list[int]]) -> bool:
    """Check that padding does not change the logits of rows: a short, a middling and the longest.

    A short row gets the most padding; what padding does to windows, and to tokens that a layer
    takes together, is seen in long rows only.

    Args:
        run: Runs rows on the model.
        rows: Prompts as token ids, the longest first; at least one.

    Returns:
        Whether the logits are the same, up to the rounding of their number format.
    """
    longest, middling, shortest = rows[0], rows[len(rows) // 2], rows[-1]
    pairs = [(longest, longest + longest[:_GAP])]
    pairs += [(row, longest) for row in (middling, shortest) if len(row) < len(longest)]
    return all(_is_masked(run, short, long) for short, long in pairs)


def _is_masked(run: Run, short: list[int], long: list[int]) -> bool:
    first = short[0]
    other = next((token for token in [*short, *long] if token != first), 0 if first else 1)
    try:
        padded = run([short, long], first)
        again = run([short, long], other)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # models that take no padding raise many types
        return False
    return close(again, padded, OTHER_TOKENS) and close(run([short], first), padded, OTHER_SHAPES)


def keeps_rows_apart(run: Run, row: list[int]) -> bool:
    """Check that another row of the same length in the batch does not change a row's logits.

    Args:
        run: Runs rows on the model.
        row: A prompt as token ids.

    Returns:
        Whether the logits are the same, up to the rounding of their number format.
    """
    return close(run([row, row[::-1]], row[0]), run([row], row[0]), OTHER_SHAPES)


def close(found: Tensor, expected: Tensor, tolerance: tuple[int, float]) -> bool:
    """Compare logits; infinite ones must be equal.

    Args:
        found: Logits, in the number format of the model.
        expected: Logits of the same shape.
        tolerance: What rounding may do: `OTHER_TOKENS` if both come from the same shapes,
            `OTHER_SHAPES` if not.

    Returns:
        Whether they are equal up to rounding.
    """
    multiple, least = tolerance
    share = max(multiple * torch.finfo(expected.dtype).eps, least)
    found, expected = found.float(), expected.float()
    finite = expected[expected.isfinite()]
    if not len(finite):
        return False
    most = share * finite.abs().max()
    return bool(((found == expected) | ((found - expected).abs() <= most)).all())
