"""The text tasks by family; retrieval (`flores`) has hidden states for answers."""

from types import ModuleType

from xlt_bench.languages import Family
from xlt_bench.tasks import massive, uner, wmt23
from xlt_bench.tasks.base import RETRIEVAL_VERSION

TEXT: dict[str, ModuleType] = {"massive": massive, "wmt23": wmt23, "uner": uner}


def task_version(task: Family) -> int:
    """The version of a task's prompts, items and scores in this code."""
    return RETRIEVAL_VERSION if task == "flores" else TEXT[task].VERSION
