"""Checks that the systems of a method differ in their seed alone; pairs those of two methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from xlt_bench.errors import InputError
from xlt_bench.results.record import Plan
from xlt_bench.submissions.trainings import Trained

if TYPE_CHECKING:
    from xlt_bench.submissions.compare import ComparedSystem


class _Seeded(Protocol):
    """A system with what says its seed, and whether it is a bare model."""

    @property
    def plan(self) -> Plan: ...

    @property
    def trained(self) -> Trained: ...


Seeded = TypeVar("Seeded", bound=_Seeded)


def check_seeds(systems: Sequence[ComparedSystem]) -> list[str]:
    """Check that systems belong to one method.

    Returns:
        A note if nothing says how one of several was trained.

    Raises:
        InputError: Two systems are one adapter or have one seed, or differ in more than their seed.
    """
    first, *others = systems
    notes = []
    for i, other in enumerate(others, 1):
        for one in systems[:i]:
            same = one.plan.adapter_sha256 == other.plan.adapter_sha256
            if same or (one.trained.seed is not None and one.trained.seed == other.trained.seed):
                what = "are one system" if same else f"both have seed {one.trained.seed}"
                raise InputError(
                    f"{one.name} and {other.name} {what}; give trainings with different seeds"
                )
        if first.trained.training and other.trained.training:
            if first.trained.method != other.trained.method:
                raise InputError(
                    f"{first.name} and {other.name} differ in more than their seed; compare each "
                    "with the baseline in a command of its own"
                )
        else:
            name = (other if first.trained.training else first).name
            notes.append(f"nothing says how {name} was trained; is its seed all that differs?")
    return notes


def pair_seeds(
    systems: Sequence[Seeded], baselines: Sequence[Seeded]
) -> tuple[list[Seeded], list[Seeded], bool]:
    """Order the systems of two methods by seed.

    Returns:
        The systems of both, and whether they are paired: the seeds of both are known and the same,
        or one is a bare model, which is repeated.
    """
    if len(baselines) == 1 and baselines[0].plan.adapter is None:
        return list(systems), [baselines[0]] * len(systems), True
    if len(systems) == 1 and systems[0].plan.adapter is None:
        return [systems[0]] * len(baselines), list(baselines), True
    ours, theirs = (
        sorted(method, key=lambda one: -1 if one.trained.seed is None else one.trained.seed)
        for method in (systems, baselines)
    )
    seeds = [[one.trained.seed for one in method] for method in (ours, theirs)]
    paired = len(ours) == len(theirs) == 1 or (seeds[0] == seeds[1] and None not in seeds[0])
    return ours, theirs, paired
