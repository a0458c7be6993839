"""How a run is divided among jobs or processes: by whole units, never within one.

A unit answered elsewhere has the batches, and so to the last bit the answers, of an undivided run.
Retrieval is one unit: every language meets every other. The whole benchmark has 45 units, of which
the largest is a twentieth of the work, so 16 shares are near even and more than 45 are refused.
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
    """Share `number` of `of`, from 1."""

    number: int
    of: int


def parse_share(text: str) -> Share:
    """The share of `2/4`. Raises InputError for anything else."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard must be i/n with i from 1 to n, such as 2/4, not {text!r}")
    return Share(int(found[1]), int(found[2]))


def unit_costs(items: Items) -> dict[Unit, float]:
    """What each part costs, in bytes written: gold answers, and a tenth of what is read.

    An estimate; equal for equal items, so that all who divide a run find the same shares.
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
    """The units of each share: dearest first, each to the share with least so far (Graham, 1969).

    Within a share they stay in the order of `costs`.
    """
    loads = [0.0] * shares
    owner: dict[Unit, int] = {}
    for unit in sorted(costs, key=lambda unit: (-costs[unit], unit)):
        owner[unit] = min(range(shares), key=lambda i: loads[i])
        loads[owner[unit]] += costs[unit]
    return [[unit for unit in costs if owner[unit] == i] for i in range(shares)]
