"""A row of the table on Overview, and a group of rows that can be compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from names import Parts

Gain = dict[str, Any]
"""`gain`, `low`, `high`, `sure` (the interval leaves out zero), `value`, `from`, `resolvable`: the
smallest gain that the items show as significant in 80 of 100 cases."""


Place = dict[str, Any]
"""`place`, `tied` (how many share it), `note`: what it is from."""


@dataclass
class Row:
    """A row of the table. `id` is empty for a row of the paper; see `method_table` for the rest.

    `place` is among the verified rows, `place_all` among all.
    """

    id: str
    name: str
    gains: dict[str, Gain] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    items: str = ""
    seeds: int = 0
    covers_seeds: bool = False
    score: float | None = None
    place: Place | None = None
    place_all: Place | None = None
    retrieval: dict[str, Any] | None = None
    badges: list[tuple[str, str]] = field(default_factory=list)
    submissions: list[str] = field(default_factory=list)
    kind: str = ""
    recipe: str | None = None
    base: str = ""
    complete: bool = True
    parts: Parts = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The id of the method, which pins name."""
        return self.id.partition("-")[0]

    @property
    def up(self) -> tuple[int, int]:
        """How many languages gain, and how many of these significantly."""
        return self._counted(1)

    @property
    def down(self) -> tuple[int, int]:
        """How many languages lose, and how many of these significantly."""
        return self._counted(-1)

    def _counted(self, sign: int) -> tuple[int, int]:
        found = [cell for cell in self.cells if cell["gain"] * sign > 0]
        return len(found), sum(bool(cell["sure"]) for cell in found)


@dataclass
class Group:
    """Rows whose gains can be compared, under a heading."""

    title: str
    note: str
    rows: list[Row]
