"""Pinned test sets: what a version of a task ranks, read from `pinned/<task>-v<N>.json`.

A file is never changed once released. A record is read, checked, ranked and shown against the
version that it names, so a new version leaves old submissions as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from xlt_bench.errors import InputError, first_fault
from xlt_bench.languages import Setting


class PinnedUnit(BaseModel):
    """What a version pins for a language or direction.

    `setting` is None in tasks without settings. `items` is the number of test items, `digest` their
    content digest (`data.root.content_digest`), and `ceilings` the scores of the gold answers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    setting: Setting | None = None
    items: int
    digest: str
    ceilings: dict[str, float] = {}


class TestSet(BaseModel):
    """A version of a task: the units that it ranks, in order.

    `identifier_languages` are the candidates of the language identifier, where the task has one.
    """

    __test__ = False  # not a test case for pytest
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: str
    version: int
    identifier_languages: list[str] = []
    units: dict[str, PinnedUnit]

    def setting(self, unit: str) -> Setting | None:
        """The setting of a unit; None for a unit beyond the ranked set."""
        return self.units[unit].setting if unit in self.units else None


@cache
def versions(folder: Path, task: str) -> Sequence[int]:
    """The pinned versions of a task, in ascending order."""
    pattern = re.compile(rf"{re.escape(task)}-v([1-9]\d*)\.json")
    names = (pattern.fullmatch(path.name) for path in folder.glob("*.json"))
    return sorted(int(found[1]) for found in names if found)


def path_of(folder: Path, task: str, version: int) -> Path:
    """The file that pins a version."""
    return folder / f"{task}-v{version}.json"


@cache
def read_test_set(folder: Path, task: str, version: int) -> TestSet:
    """The pinned version of a task.

    Raises:
        InputError: The file does not pin that version of the task.
    """
    path = path_of(folder, task, version)
    try:
        found = TestSet.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{path} is not a valid test set ({first_fault(error)}); restore it"
        ) from None
    if (found.task, found.version) != (task, version):
        raise InputError(f"{path} pins version {found.version} of {found.task}; rename it")
    return found


def rendered(test_set: TestSet) -> str:
    """The text of a pin file, one line per unit."""
    head: dict[str, Any] = {"task": test_set.task, "version": test_set.version}
    if test_set.identifier_languages:
        head["identifier_languages"] = test_set.identifier_languages
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    units = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(unit.model_dump(exclude_defaults=True))}"
        for name, unit in test_set.units.items()
    )
    return "{\n" + ",\n".join([*lines, f' "units": {{\n{units}\n }}']) + "\n}\n"
