"""Writes lm-eval's task files from the tasks and their pinned test sets: `xlt-bench stubs`.

A unit is the task xlt_<task>_<unit>; the group xlt_<task> holds xlt_<task>_supervised and
xlt_<task>_transfer. Data, scoring and metrics are `!function` references to `tasks/`.
"""

from __future__ import annotations

from pathlib import Path

from xlt_bench.results.run_folder import write_bytes
from xlt_bench.tasks.base import CUT_OFF, Task, TextTask
from xlt_bench.tasks.registry import BUILT_IN
from xlt_bench.tasks.retrieval import ACCURACY

_HEAD = "# Written by `xlt-bench stubs` from the pinned test sets; do not edit.\n"
_RETRIEVAL = "xlt_bench.tasks.retrieval_lm_eval"


def tasks_dir() -> Path:
    """The folder for `lm_eval --include_path`: in the installed package, else in the checkout."""
    packaged = Path(__file__).parents[1] / "lm_eval_tasks"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "tasks"


def render() -> dict[str, str]:
    """The content of every file in tasks/, by path."""
    files: dict[str, str] = {}
    for task in BUILT_IN:
        found = _text_files(task) if isinstance(task, TextTask) else _retrieval_files(task)
        files |= {f"{task.name}/{name}.yaml": text for name, text in found.items()}
    return files


def _text_files(task: TextTask) -> dict[str, str]:
    units, group = task.test_set().units, task.lm_eval_name
    files = {"_base": _base(task)}
    files |= {f"{group}_{unit}": _unit(task, unit) for unit in units}
    for setting in ("supervised", "transfer"):
        members = [f"{group}_{name}" for name, unit in units.items() if unit.setting == setting]
        files[f"{group}_{setting}"] = _group(task, f"{group}_{setting}", members)
    return files | {group: _group(task, group, [f"{group}_supervised", f"{group}_transfer"])}


def write(folder: Path) -> None:
    """Write the files, and delete those that are no longer generated."""
    files = render()
    for path in folder.glob("*/*.yaml"):
        if path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for name, text in files.items():
        write_bytes(folder / name, text.encode())


def drifted(folder: Path) -> list[str]:
    """The files that are missing, left over, or different from what `write` would write."""
    files = render()
    there = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.yaml")}
    changed = {
        name
        for name in there & files.keys()
        if (folder / name).read_text(encoding="utf-8") != files[name]
    }
    return sorted((there ^ files.keys()) | changed)


def _base(task: TextTask) -> str:
    module = type(task).__module__
    # lm-eval does not know whether an answer was cut off.
    metrics = "".join(
        f"  - metric: {name}\n"
        f"    aggregation: !function {module}.{name}\n"
        f"    higher_is_better: {str(metric.higher_is_better).lower()}\n"
        for name, metric in task.metrics.items()
        if name != CUT_OFF
    )
    return (
        f"{_HEAD}custom_dataset: !function {module}.dataset\n"
        "test_split: test\n"
        "output_type: generate_until\n"
        "description: system\n"
        "doc_to_text: user\n"
        "doc_to_target: target\n"
        f"process_results: !function {module}.process_results\n"
        "num_fewshot: 0\n"
        "generation_kwargs:\n"
        "  until: []\n"
        "  do_sample: false\n"
        f"  max_gen_toks: {task.max_new_tokens}\n"
        f"metric_list:\n{metrics}"
    )


def _unit(task: TextTask, unit: str) -> str:
    return (
        f"{_HEAD}include: _base.yaml\n"
        f"task: {task.lm_eval_name}_{unit}\n"
        f"metadata:\n  version: {task.version}\n  unit: {_quoted(unit)}\n"
    )


def _quoted(unit: str) -> str:
    """Quote a unit, since YAML 1.1 reads a bare `no` as a boolean."""
    return f'"{unit}"'


def _group(task: TextTask, name: str, members: list[str]) -> str:
    listed = "".join(f"  - {member}\n" for member in members)
    return (
        f"{_HEAD}group: {name}\ntask:\n{listed}"
        f"aggregate_metric_list:\n  - metric: {task.primary}\n    weight_by_size: false\n"
        f"metadata:\n  version: {task.version}\n"
    )


def _retrieval_files(task: Task) -> dict[str, str]:
    text = (
        f"{_HEAD}task: {task.lm_eval_name}\n"
        f"class: !function {_RETRIEVAL}.RetrievalTask\n"
        f"custom_dataset: !function {_RETRIEVAL}.dataset\n"
        "test_split: test\n"
        'doc_to_text: "{{source}}-{{target}}"\n'
        'doc_to_target: ""\n'
        "num_fewshot: 0\n"
        "generation_kwargs:\n  until: []\n"
        "metric_list:\n"
        f"  - metric: {ACCURACY}\n"
        "    aggregation: mean\n"
        "    higher_is_better: true\n"
        f"metadata:\n  version: {task.version}\n  corpus: {task.name}\n"
    )
    return {task.lm_eval_name: text}
