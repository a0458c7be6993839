"""Compares a data folder with the pinned contents: `xlt-bench data check`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlt_bench.data import digests, uner
from xlt_bench.data.catalog import catalog
from xlt_bench.data.digests import Content
from xlt_bench.data.root import MINI, MissingFileError, content_digest
from xlt_bench.errors import InputError, unknown


@dataclass(frozen=True)
class CheckRow:
    """The state of one data set. Only pinned units count; most locales and languages are not.

    Attributes:
        name: The data set.
        state: "ok", "missing", "incomplete 3 of 20" (units) or "differs".
        units: Number of units that are present and as pinned.
        units_expected: Number of pinned units.
        rows: Number of rows in the units that are present and as pinned.
        digest: Digest of what was found; empty if nothing was.
        pinned: The digest that it should have.
        licence: The licence of the data set.
        detail: The first problem and what to do about it, or a remark.
    """

    name: str
    state: str
    units: int
    units_expected: int
    rows: int
    digest: str
    pinned: str
    licence: str
    detail: str

    @property
    def ok(self) -> bool:
        """Whether every pinned unit is present and as pinned."""
        return self.state == "ok"


def check(root: Path, names: Sequence[str] | None = None) -> list[CheckRow]:
    """Compare data sets with their pinned contents.

    Args:
        root: The data folder.
        names: The data sets to check; all of them by default.

    Returns:
        One row per data set.

    Raises:
        InputError: A name is unknown, or `root` is the mini suite, which is not pinned.
    """
    if root == MINI:
        raise InputError(
            "the mini suite ships with the package, so there is nothing to check; choose another "
            "--data-dir"
        )
    for name in names or []:
        if name not in catalog():
            raise unknown("data set", name, catalog())
    return [_row(root, name) for name in names or list(catalog())]


@dataclass(frozen=True)
class _Found:
    """The splits of a unit, and what is absent or different in it, if anything."""

    splits: Mapping[str, Content]
    absent: str = ""
    different: str = ""


def _row(root: Path, name: str) -> CheckRow:
    pinned = digests.pinned(name)
    units = [unit for unit in digests.units(name) if unit in pinned]
    found = {unit: _unit(root, name, unit, pinned[unit]) for unit in units}
    right = [one for one in found.values() if not one.absent and not one.different]
    different = next((one.different for one in found.values() if one.different), "")
    absent = next((one.absent for one in found.values() if one.absent), "")
    return CheckRow(
        name=name,
        state=_state(len(right), found.values()),
        units=len(right),
        units_expected=len(found),
        rows=sum(content.rows for one in right for content in one.splits.values()),
        digest=_combined({unit: one.splits for unit, one in found.items()}),
        pinned=_combined({unit: pinned[unit] for unit in found}),
        licence=catalog()[name].licence,
        detail=different or absent or (_remark(root) if name == "uner" else ""),
    )


def _state(right: int, found: Iterable[_Found]) -> str:
    found = list(found)
    if any(one.different for one in found):
        return "differs"
    if right == len(found):
        return "ok"
    return f"incomplete {right} of {len(found)}" if any(one.splits for one in found) else "missing"


def _unit(root: Path, name: str, unit: str, pinned: Mapping[str, Content]) -> _Found:
    splits: dict[str, Content] = {}
    try:
        for split, content in digests.contents(name, unit, root):
            splits[split] = content
            if content != pinned[split] and not _unpinned(root, unit, split, content):
                wanted = pinned[split]
                return _Found(
                    splits,
                    different=f"{unit} {split} has {content.rows} rows ({content.digest}) instead "
                    f"of {wanted.rows} ({wanted.digest}); delete its files in {root}, then: "
                    f"xlt-bench data fetch {name}",
                )
    except MissingFileError as error:
        return _Found(splits, absent=str(error))
    except InputError as error:
        return _Found(splits, different=str(error))
    return _Found(splits)


def _combined(found: Mapping[str, Mapping[str, Content]]) -> str:
    if not any(found.values()):
        return ""
    return content_digest(
        [unit, split, content.rows, content.digest]
        for unit, splits in sorted(found.items())
        for split, content in sorted(splits.items())
    )


def _unpinned(root: Path, unit: str, split: str, content: Content) -> bool:
    """Whether this is UNER's released English train file, which is recognised by its counts.

    The publisher's en_ewt-ud-train.stats states 12,543 sentences, 2,874 PER, 2,712 LOC, 1,436 ORG.
    """
    if (unit, split) != ("English-EWT", "train") or uner.is_prerelease(root):
        return False
    entities = [e.type for s in uner.load(root, unit, "train") for e in s.entities]
    counts = {kind: entities.count(kind) for kind in ("PER", "LOC", "ORG")}
    return content.rows == 12543 and counts == {"PER": 2874, "LOC": 2712, "ORG": 1436}


def _remark(root: Path) -> str:
    if uner.is_prerelease(root):
        return (
            "English-EWT train is the pre-release; get the release with: xlt-bench data fetch uner"
        )
    return "English-EWT train is checked by its counts alone (no digest of the release is pinned)"
