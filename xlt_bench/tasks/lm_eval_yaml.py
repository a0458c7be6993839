"""lm-eval's task files, written from the language table: `xlt-bench stubs [--check]`.

A task is xlt_<family>_<unit>, a group xlt_<family>, made of xlt_<family>_supervised and
xlt_<family>_transfer. Everything that is not a name is a reference into benchmarks/.
"""

from __future__ import annotations

from pathlib import Path

from xlt_bench.languages import FAMILIES, Family, units
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.tasks import TEXT
from xlt_bench.tasks import retrieval as flores

_HEAD = "# Written by `xlt-bench stubs` from the language table; edit that and run it again.\n"


def tasks_dir() -> Path:
    """The folder for `lm_eval --include_path`: in the installed package, else in the checkout."""
    packaged = Path(__file__).parents[1] / "lm_eval_tasks"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "tasks"


def task_name(family: Family, unit: str | None = None) -> str:
    """The lm-eval name of a unit's task, or of the family's group."""
    if family == "flores":
        return "xlt_flores_retrieval"
    return f"xlt_{family}_{unit}" if unit else f"xlt_{family}"


def render() -> dict[str, str]:
    """Every file below tasks/: path to content."""
    files: dict[str, str] = {"flores/xlt_flores_retrieval.yaml": _retrieval()}
    for family in FAMILIES:
        if family == "flores":
            continue
        files[f"{family}/_base.yaml"] = _base(family)
        for unit in units(family):
            files[f"{family}/{task_name(family, unit)}.yaml"] = _task(family, unit)
        for setting in ("supervised", "transfer"):
            members = [task_name(family, u) for u, s in units(family).items() if s == setting]
            name = f"xlt_{family}_{setting}"
            files[f"{family}/{name}.yaml"] = _group(family, name, members)
        members = [f"xlt_{family}_supervised", f"xlt_{family}_transfer"]
        files[f"{family}/xlt_{family}.yaml"] = _group(family, f"xlt_{family}", members)
    return files


def write(folder: Path) -> None:
    """Write the files and delete those that no row of the table asks for any more."""
    files = render()
    for path in folder.glob("*/*.yaml"):
        if path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for name, text in files.items():
        write_bytes(folder / name, text.encode())


def drifted(folder: Path) -> list[str]:
    """The files below the folder that are missing, superfluous or not as `write` leaves them."""
    files = render()
    there = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.yaml")}
    changed = {
        name
        for name in there & files.keys()
        if (folder / name).read_text(encoding="utf-8") != files[name]
    }
    return sorted((there ^ files.keys()) | changed)


def _base(family: Family) -> str:
    benchmark = TEXT[family]
    module = f"xlt_bench.tasks.{family}"
    metrics = "".join(
        f"  - metric: {name}\n"
        f"    aggregation: !function {module}.{name}\n"
        f"    higher_is_better: {str(metric.higher_is_better).lower()}\n"
        for name, metric in benchmark.METRICS.items()
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
        f"  max_gen_toks: {benchmark.MAX_NEW_TOKENS}\n"
        f"metric_list:\n{metrics}"
    )


def _task(family: Family, unit: str) -> str:
    return (
        f"{_HEAD}include: _base.yaml\n"
        f"task: {task_name(family, unit)}\n"
        f"metadata:\n  version: {TEXT[family].VERSION}\n  unit: {_quoted(unit)}\n"
    )


def _quoted(unit: str) -> str:
    """YAML 1.1 reads a bare `no` and its like as booleans."""
    return f'"{unit}"'


def _group(family: Family, name: str, members: list[str]) -> str:
    primary = TEXT[family].PRIMARY
    listed = "".join(f"  - {member}\n" for member in members)
    return (
        f"{_HEAD}group: {name}\ntask:\n{listed}"
        f"aggregate_metric_list:\n  - metric: {primary}\n    weight_by_size: false\n"
        f"metadata:\n  version: {TEXT[family].VERSION}\n"
    )


def _retrieval() -> str:
    module = "xlt_bench.tasks.retrieval"
    return (
        f"{_HEAD}task: xlt_flores_retrieval\n"
        f"class: !function {module}.RetrievalTask\n"
        f"custom_dataset: !function {module}.dataset\n"
        "test_split: test\n"
        'doc_to_text: "{{source}}-{{target}}"\n'
        'doc_to_target: ""\n'
        "num_fewshot: 0\n"
        "generation_kwargs:\n  until: []\n"
        "metric_list:\n"
        f"  - metric: {flores.PRIMARY}\n"
        "    aggregation: mean\n"
        "    higher_is_better: true\n"
        f"metadata:\n  version: {flores.VERSION}\n"
    )
