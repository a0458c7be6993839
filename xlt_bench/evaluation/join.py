"""Joins runs that are parts of one evaluation: `xlt-bench join`.

The parts come from `evaluate --shard i/n`, or are runs of different tasks or languages. The joined
run has the answers of all parts, scored again, and equals the run that was never divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import score_run
from xlt_bench.evaluation.sharding import parse_share
from xlt_bench.results.atomic_write import part_folder
from xlt_bench.results.record import (
    AdapterRecord,
    Costs,
    Plan,
    Record,
    ShotPrompt,
    UserPrompt,
    same_prompt,
)
from xlt_bench.results.redact import command_line
from xlt_bench.results.run_folder import open_run, read_digests, read_plan, read_record, write_bytes
from xlt_bench.tasks.registry import RETRIEVAL, get_task, retrieval_in, tasks

# The fields in which the plans of the parts may differ.
_OF_A_PART = {"units", "layers", "task_versions", "prompts", "shard", "corpus"}
_FOLDERS = ("predictions", "retrieval", "comet", "progress")


def join(runs: Sequence[Path], output: Path, root: Path) -> Record:
    """Join runs into a new one.

    Args:
        runs: The run folders of all parts.
        output: The folder to write; it must not exist.
        root: The data folder.

    Returns:
        The record of the joined run.

    Raises:
        InputError: A part is unfinished or missing, two parts answer the same unit, or they are
            from different systems or settings.
    """
    if output.exists():
        raise InputError(f"{output} exists; choose another --output")
    plans = [read_plan(run) for run in runs]
    records = [read_record(run) for run in runs]
    _check_system(runs, plans, records)
    _check_shares(runs, plans)
    _check_overlap(runs, plans)
    _check_versions(runs, plans)
    plan = _joined_plan(plans)
    from xlt_bench.evaluation.build_record import (
        write_record,  # imports torch, so only after the checks
    )

    digests = {name: digest for run in runs for name, digest in read_digests(run).items()}
    with part_folder(output) as staging:
        whole = staging / output.name
        open_run(whole, plan, digests)
        for run in runs:
            for folder in _FOLDERS:
                for file in sorted(path for path in (run / folder).rglob("*") if path.is_file()):
                    write_bytes(whole / file.relative_to(run), file.read_bytes())
        record = _joined_record(runs, records, plan, digests, whole, root)
        write_record(whole, record)
        try:
            whole.rename(output)
        except OSError:
            if output.exists():  # created since the check at the start
                raise InputError(f"{output} exists; choose another --output") from None
            raise
    return record


def _check_system(runs: Sequence[Path], plans: Sequence[Plan], records: Sequence[Record]) -> None:
    """Raise InputError for the first setting in which a part differs from the first part."""
    first, *others = [plan.model_dump(exclude=_OF_A_PART) for plan in plans]
    for run, plan, record in zip(runs[1:], others, records[1:], strict=True):
        odd = next((key for key, value in plan.items() if value != first[key]), None)
        if odd is None and record.model != records[0].model:
            odd = "model"
        if odd is None and _who(record.adapter) != _who(records[0].adapter):
            odd = "adapter"
        if odd is not None:
            raise InputError(
                f"{run} and {runs[0]} differ in {odd.replace('_', ' ')}: "
                f"{plan.get(odd)} and {first.get(odd)}; join only parts of one evaluation"
            )


def _who(adapter: AdapterRecord | None) -> Any:
    """The identity of an adapter, without what a run measured of it."""
    return adapter and (adapter.name, adapter.sha256, adapter.alignment_languages, adapter.recipe)


def _check_shares(runs: Sequence[Path], plans: Sequence[Plan]) -> None:
    """Raise InputError unless all shards of a divided run are given."""
    shares = {
        run: parse_share(plan.shard) for run, plan in zip(runs, plans, strict=True) if plan.shard
    }
    if not shares:
        return
    total = next(iter(shares.values())).of
    for run, share in shares.items():
        if share.of != total:
            raise InputError(
                f"{run} is one of {share.of} shards, {next(iter(shares))} one of {total}; join "
                "shards of one evaluation"
            )
    numbers = {share.number for share in shares.values()}
    if missing := [f"{i}/{total}" for i in range(1, total + 1) if i not in numbers]:
        raise InputError(f"shard {', '.join(missing)} is missing; give the runs of all shards")


def _check_overlap(runs: Sequence[Path], plans: Sequence[Plan]) -> None:
    """Raise InputError for a unit that two parts answer; retrieval counts as one unit."""
    owner: dict[tuple[str, str], Path] = {}
    pairing = [(retrieval_in(plan.units), run) for run, plan in zip(runs, plans, strict=True)]
    corpora = {one.name: run for one, run in pairing if one}
    if len(corpora) > 1:
        (one, first), (other, second) = list(corpora.items())[:2]
        raise InputError(
            f"{first} has {one} and {second} has {other}: a run has one task of retrieval; leave "
            "one out"
        )
    for run, plan in zip(runs, plans, strict=True):
        for task, names in plan.units.items():
            for name in get_task(task).work(names):
                if (task, name) in owner:
                    raise InputError(
                        f"{run} and {owner[task, name]} both answer {task} {name}; leave one out"
                    )
                owner[task, name] = run


def _check_versions(runs: Sequence[Path], plans: Sequence[Plan]) -> None:
    """Raise InputError for a task of which two parts have different versions or prompts."""
    first: dict[str, tuple[int, Path]] = {}
    prompts: dict[str, tuple[UserPrompt | None, Path]] = {}
    for run, plan in zip(runs, plans, strict=True):
        for task, version in plan.task_versions.items():
            found, where = first.setdefault(task, (version, run))
            if version != found:
                raise InputError(
                    f"{run} and {where} have versions {version} and {found} of {task}; evaluate "
                    "the part of the older version again"
                )
            prompt, where = prompts.setdefault(task, (plan.prompts.get(task), run))
            if not same_prompt(prompt, plan.prompts.get(task)):
                raise InputError(
                    f"{run} and {where} answer {task} with different prompts; evaluate one of them "
                    "with the --prompt and --num-fewshot of the other"
                )


def _joined_plan(plans: Sequence[Plan]) -> Plan:
    """The plan of the joined run, with tasks and units in their usual order."""
    chosen: dict[str, list[str]] = {}
    for name, task in tasks().items():
        there = {unit for plan in plans for unit in plan.units.get(name, [])}
        if there:
            chosen[name] = task.order(there)
    versions = {task: version for plan in plans for task, version in plan.task_versions.items()}
    return plans[0].model_copy(
        update={
            "units": chosen,
            "layers": [layer for plan in plans for layer in plan.layers],
            "task_versions": {task: versions[task] for task in chosen},
            "prompts": _joined_prompts(plans),
            "shard": None,
            "corpus": next((plan.corpus for plan in plans if RETRIEVAL in plan.units), None),
        }
    )


def _joined_prompts(plans: Sequence[Plan]) -> dict[str, UserPrompt]:
    """The prompts by task, each with the examples of all units."""
    found: dict[str, UserPrompt] = {}
    for plan in plans:
        for task, prompt in plan.prompts.items():
            before = found.get(task)
            if isinstance(prompt, ShotPrompt) and isinstance(before, ShotPrompt):
                examples = {**before.examples, **prompt.examples}
                prompt = prompt.model_copy(update={"examples": examples})
            found[task] = prompt
    return found


def _joined_record(
    runs: Sequence[Path],
    records: Sequence[Record],
    plan: Plan,
    digests: dict[str, str],
    folder: Path,
    root: Path,
) -> Record:
    from xlt_bench.evaluation.build_record import now

    first = records[0]
    truncated = [record.truncated_prompts for record in records]
    return first.model_copy(
        update={
            "created": now(),
            "command": command_line(),
            "adapter": _joined_adapter([record.adapter for record in records]),
            "bos_per_prompt": sorted({n for record in records for n in record.bos_per_prompt}),
            "truncated_prompts": None if None in truncated else sum(n or 0 for n in truncated),
            "plan": plan,
            "data_digests": digests,
            "notes": _notes(runs, records),
            "signatures": _merged(record.signatures for record in records),
            "seconds": _merged(record.seconds for record in records),
            "batch_sizes": _merged(record.batch_sizes for record in records),
            "costs": _joined_costs(records),
            "alignment": [one for record in records for one in record.alignment],
            "fertility": _merged(record.fertility for record in records),
            "results": score_run(folder, root, first.alignment_languages),
        }
    )


def _joined_costs(records: Sequence[Record]) -> Costs | None:
    from xlt_bench.evaluation.costs import of_parts

    given = [record.costs.model_dump() for record in records if record.costs]
    return of_parts(given) if len(given) == len(records) else None


def _joined_adapter(adapters: Sequence[AdapterRecord | None]) -> AdapterRecord | None:
    merged = {adapter.merged for adapter in adapters if adapter}
    first = adapters[0]
    return first and first.model_copy(update={"merged": merged.pop() if len(merged) == 1 else None})


def _merged(parts: Any) -> dict[str, Any]:
    return dict(sorted((key, value) for part in parts for key, value in part.items()))


def _notes(runs: Sequence[Path], records: Sequence[Record]) -> list[str]:
    """The notes of the parts, each once, the number of parts, and where their machines differ."""
    first = records[0]
    notes = list(dict.fromkeys(note for record in records for note in record.notes))
    notes.append(f"joined from {len(runs)} runs; command of the first: {first.command}")
    for what in ("versions", "hardware"):
        odd = {
            f"{key} {value}"
            for record in records
            for key, value in getattr(record, what).items()
            if value != getattr(first, what).get(key)
        }
        if odd:
            notes.append(f"{what} of the first run; other runs had {', '.join(sorted(odd))}")
    return notes
