"""Cases for `pytest.mark.parametrize` of which only some are quick."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(quick: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """All cases; those that only repeat what the quick ones show are marked slow."""
    cases = list(cases)
    assert set(quick) <= set(cases)
    return [case if case in quick else _slow(case) for case in cases]


def _slow(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
