"""Makes the next version of a task's test set: `xlt-bench data pin`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from xlt_bench.data import digests
from xlt_bench.data.flores import Corpus
from xlt_bench.data.pin import with_units
from xlt_bench.data.root import MINI, content_digest
from xlt_bench.errors import InputError
from xlt_bench.languages import Setting
from xlt_bench.metrics.translation import is_identifiable
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.tasks.base import Task, TextTask
from xlt_bench.tasks.lm_eval_family import FamilyTask
from xlt_bench.tasks.registry import get_task
from xlt_bench.tasks.test_set import PinnedUnit, TestSet, path_of, rendered, versions


def write_next_version(
    name: str, added: Sequence[str], root: Path, *, scores_changed: bool = False
) -> Path:
    """Write the next version of a task's test set, and what `data check` needs of added units.

    Args:
        name: The task.
        added: Units to rank, as `ko=transfer`; without a setting for tasks that have none.
        root: The data folder.
        scores_changed: Whether to write a version even if its units and items are unchanged.

    Returns:
        The written file.

    Raises:
        InputError: As for `next_version`, or a unit or setting is unknown. Nothing is written.
    """
    task = get_task(name)
    parsed = [_parsed(task, text) for text in added]
    units = dict(parsed)
    if isinstance(task, FamilyTask) and not units:  # its file names them
        units = {unit: task.family_setting(unit) for unit in task.units()}
        units = {unit: units[unit] for unit in units if unit not in _current(task).units}
    if len(units) < len(parsed):
        names = [unit for unit, _ in parsed]
        twice = next(unit for unit in names if names.count(unit) > 1)
        raise InputError(f"--add names {twice} twice; give it once")
    if root == MINI and any(task.source(unit) for unit in [*_current(task).units, *units]):
        raise InputError(
            "--data-dir mini has only a part of each test set; give the folder of the whole data"
        )
    test_set = next_version(task, root, units, scores_changed=scores_changed)
    sources = [source for unit in units if (source := task.source(unit))]
    contents = with_units(root, sources) if sources else None
    path = path_of(task.pins, task.name, test_set.version)
    # The version comes last: an interruption before it leaves digests that the next call keeps.
    if contents is not None:
        write_bytes(digests.PATH, contents.encode())
    write_bytes(path, rendered(test_set).encode())
    return path


def _parsed(task: Task, text: str) -> tuple[str, Setting | None]:
    """The unit and the setting of `ko=transfer`."""
    name, _, setting = text.partition("=")
    unit = task.unit_named(name)
    if isinstance(task, TextTask) and setting not in get_args(Setting):
        raise InputError(
            f"--add {text}: write it as UNIT=SETTING, such as {name}=transfer (settings: "
            f"{', '.join(get_args(Setting))})"
        )
    if not isinstance(task, TextTask) and setting:
        raise InputError(f"--add {text}: {task.name} has no settings; write it as {name}")
    return unit, cast("Setting", setting) if setting else None


def next_version(
    task: Task,
    root: Path,
    added: Mapping[str, Setting | None],
    *,
    scores_changed: bool = False,
) -> TestSet:
    """The next version of a task: the current units, and `added` ones with their settings.

    All digests and ceilings are computed again, from the data in `root` with the current code.

    Args:
        task: The task.
        root: The data folder.
        added: The settings of the units to add; None in tasks without settings.
        scores_changed: Whether to make a version even if its units and items are unchanged.

    Raises:
        InputError: A file is missing, a unit is ranked already, or nothing differs from the
            current version.
    """
    current = _current(task)
    for unit in added:
        if unit in current.units:
            raise InputError(
                f"{unit} is already in version {current.version} of {task.name}; leave it out"
            )
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
    if not units:
        raise InputError(f"{task.name} has no unit to pin; name each with --add UNIT=SETTING")
    if units == current.units and not scores_changed:
        raise InputError(f"nothing to pin: version {current.version} of {task.name} is up to date")
    return draft.model_copy(update={"units": units})


def _current(task: Task) -> TestSet:
    """The current version; one without units if there is none yet."""
    pinned = versions(task.pins, task.name)
    return task.test_set() if pinned else TestSet(task=task.name, version=0, units={})


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
