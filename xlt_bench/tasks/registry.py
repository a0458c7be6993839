"""The registry: the only list of tasks, which all other code asks.

Other packages add tasks with the entry point group `xlt_bench.tasks`; an entry point names a
`TextTask` object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from xlt_bench.errors import InputError, unknown
from xlt_bench.results.migrations import RENAMED
from xlt_bench.tasks import intents, massive, retrieval, uner, wmt23
from xlt_bench.tasks.base import Task, TextTask
from xlt_bench.tasks.lm_eval_family import families, family_task
from xlt_bench.tasks.retrieval import Retrieval

GROUP = "xlt_bench.tasks"
_OF_THE_PAPER: tuple[Task, ...] = (massive.TASK, wmt23.TASK, uner.TASK, retrieval.TASK)
BUILT_IN = (*_OF_THE_PAPER, intents.TASK, retrieval.DEVTEST, retrieval.NTREX)
BY_DEFAULT = tuple(task.name for task in _OF_THE_PAPER)
"""What `evaluate` answers if no task is chosen."""
RETRIEVAL = retrieval.TASK.name
"""The task of retrieval that the paper has, on FLORES dev; `retrieval_in` finds that of a run."""


@cache
def tasks() -> Mapping[str, Task]:
    """Every task by its name: the built-in ones, lm-eval's families, those of other packages.

    Raises:
        InputError: A package's task cannot be loaded, or has the name of another task.
    """
    found = {task.name: task for task in (*BUILT_IN, *map(family_task, families()))}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        task = _load(entry)
        # Old records use the old names.
        if task.name in found or task.name in RENAMED:
            raise InputError(f"{_origin(entry)}: the name {task.name} is taken; rename the task")
        found[task.name] = task
    return MappingProxyType(found)


def get_task(name: str) -> Task:
    """A task by its name.

    Raises:
        InputError: There is no such task; the message names the choices.
    """
    if name not in tasks():
        raise unknown("task", name, tasks())
    return tasks()[name]


def get_text_task(name: str) -> TextTask:
    """A task that is answered with text.

    Raises:
        InputError: There is no such task, or it is not answered with text.
    """
    task = get_task(name)
    if not isinstance(task, TextTask):
        raise unknown("text task", name, text_tasks())
    return task


def retrieval_in(names: Iterable[str]) -> Retrieval | None:
    """The task of retrieval among the tasks of a run, which has one at most; None without one."""
    found = (tasks().get(name) for name in names)
    return next((task for task in found if isinstance(task, Retrieval)), None)


def retrieval_units(units: Mapping[str, list[str]]) -> list[str]:
    """The languages of retrieval among the units of a run by task; empty without retrieval."""
    task = retrieval_in(units)
    return units[task.name] if task else []


def text_tasks() -> list[str]:
    """The names of the tasks whose prompts are chats, which excludes lm-eval's families."""
    return [task.name for task in _text_tasks()]


def trainable() -> list[str]:
    """The names of the tasks that recipes can train on."""
    return [task.name for task in _text_tasks() if task.trainable]


def selectable() -> list[str]:
    """The names of the tasks whose validation splits can choose a merge weight."""
    return [task.name for task in _text_tasks() if task.selectable]


def _text_tasks() -> list[TextTask]:
    found = (task for task in tasks().values() if isinstance(task, TextTask))
    return [task for task in found if not task.of_lm_eval]


def _load(entry: EntryPoint) -> TextTask:
    try:
        task = entry.load()
    except Exception as error:  # importing another package's module may raise anything
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{_origin(entry)} cannot be loaded ({line}); update or remove it"
        ) from None
    if not isinstance(task, TextTask):
        raise InputError(f"{_origin(entry)} is not a TextTask object; update or remove its package")
    return task


def _origin(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "an unknown package"
    return f"the task {entry.value} of {package}"
