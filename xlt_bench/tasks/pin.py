"""Makes the next version of a task's test set: `xlt-bench data pin`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xlt_bench.data.flores import Corpus
from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError
from xlt_bench.languages import Setting
from xlt_bench.metrics.translation import is_identifiable
from xlt_bench.tasks.base import Task, TextTask
from xlt_bench.tasks.test_set import PinnedUnit, TestSet


def next_version(task: Task, root: Path, added: Mapping[str, Setting | None]) -> TestSet:
    """The version after the current one: its units, and `added` ones with their settings.

    Every digest and ceiling is computed from the data below `root` and today's code.

    Raises:
        InputError: A file is missing, a unit is ranked already, or nothing differs from the
            current version.
    """
    current = task.test_set() if task.version else TestSet(task=task.name, version=0, units={})
    for unit in added:
        if unit in current.units:
            raise InputError(f"{unit} is in version {current.version} of {task.name} already")
    settings = {unit: pinned.setting for unit, pinned in current.units.items()} | dict(added)
    candidates = current.identifier_languages
    if candidates:
        codes = {task.language_of(unit) for unit in added} - set(candidates)
        candidates = [*candidates, *sorted(code for code in codes if is_identifiable(code))]
    draft = TestSet(
        task=task.name, version=current.version + 1, identifier_languages=candidates, units={}
    )
    units = {
        unit: _pinned(task, root, unit, settings[unit], draft) for unit in task.order(settings)
    }
    if units == current.units:
        raise InputError(
            f"nothing to pin: the data and the code give version {current.version} of {task.name}"
        )
    return draft.model_copy(update={"units": units})


def _pinned(
    task: Task, root: Path, unit: str, setting: Setting | None, test_set: TestSet
) -> PinnedUnit:
    rows = task.load_from(Corpus(root), unit)
    ceilings = {}
    if isinstance(task, TextTask) and task.ceilings:
        counts = task.count(rows, [item.target for item in rows], test_set)
        ceilings = {name: round(task.metric(name)(counts[name]), 2) for name in task.ceilings}
    return PinnedUnit(
        setting=setting, items=len(rows), digest=content_digest(rows), ceilings=ceilings
    )
