"""Divides a run among jobs or processes, by whole units and never within one.

In half precision a unit has the same batches in every job and so, to the last bit, the answers of
an undivided run; in float32 an answer does not depend on its batch.
Retrieval is one unit, since it pairs all languages. The ranked benchmark has 45 units; the largest
is a twentieth of the work, so 16 shares are nearly even, and more than 45 are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xlt_bench.errors import InputError
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_task

Unit = tuple[str, str]
"""A task and a part of it: a unit, or `*` for a task that is answered as a whole."""
Items = dict[Unit, list[Any]]
"""The items of each unit: `Item`s, or sentences for retrieval."""

# Reading a token costs about a tenth of writing one: prompts are read many tokens at a time.
_READING = 0.1


@dataclass(frozen=True)
class Share:
    """Share number `number` of `of` shares, counted from 1."""

    number: int
    of: int


def parse_share(text: str) -> Share:
    """Parse a share such as `2/4`.

    Raises:
        InputError: The text is not i/n with i from 1 to n.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard must be i/n with i from 1 to n, such as 2/4, not {text!r}")
    return Share(int(found[1]), int(found[2]))


def unit_costs(items: Items) -> dict[Unit, float]:
    """Estimate the cost of each part in bytes: its gold answers, and a tenth of its prompts.

    The estimate depends on the items alone, so that all jobs compute the same shares.
    """
    costs: dict[Unit, float] = {}
    for (task, unit), rows in items.items():
        (part,) = get_task(task).work([unit])
        costs[task, part] = costs.get((task, part), 0.0) + sum(map(_cost, rows))
    return costs


def _cost(item: Item | str) -> float:
    if isinstance(item, str):
        return _READING * len(item.encode())
    return len(item.target.encode()) + _READING * len((item.system + item.user).encode())


def divide(costs: Mapping[Unit, float], shares: int) -> list[list[Unit]]:
    """Divide units into shares: the costliest first, each to the lightest share (Graham, 1969).

    Within a share they stay in the order of `costs`.
    """
    loads = [0.0] * shares
    owner: dict[Unit, int] = {}
    for unit in sorted(costs, key=lambda unit: (-costs[unit], unit)):
        owner[unit] = min(range(shares), key=lambda i: loads[i])
        loads[owner[unit]] += costs[unit]
    return [[unit for unit in costs if owner[unit] == i] for i in range(shares)]
