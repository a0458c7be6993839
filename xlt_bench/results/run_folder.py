"""The run folder: the path of each file, and how it is written (whole or not at all) and read.

RUN/plan.json                        what is evaluated
RUN/items.json                       a digest of each unit's items
RUN/predictions/<task>/<unit>.jsonl.zst   {"id": ..., "hypothesis": ..., "cut_off": ...} per line
RUN/retrieval/layer-16.parquet       source, target, accuracy, neighbours (an index per sentence)
RUN/comet/<direction>.json           COMET's score of each segment, and the checkpoint it came from
RUN/progress/<task>_<unit>.json      seconds and batch size of each finished part
RUN/record.json                      the result
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from pydantic import BaseModel, ValidationError

from xlt_bench.errors import InputError, first_fault
from xlt_bench.results.atomic_write import is_part, locked, part_file, remove_abandoned
from xlt_bench.results.migrations import upgrade_items, upgrade_plan, upgrade_record
from xlt_bench.results.record import Plan, Record


@dataclass(frozen=True)
class Prediction:
    """A stored answer."""

    id: str
    hypothesis: str
    cut_off: bool | None
    """Whether the length limit cut it off; None if unknown, as with plain lm-eval."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file is synced to disk, then renamed.

    Raises:
        OSError: The file cannot be written; the error always has its name.
    """
    try:
        _write(path, data)
    except OSError as error:  # on a full disk the system does not name the file
        error.filename = str(path)
        raise


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = part_file(path)
    with os.fdopen(handle, "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            part.chmod(0o644)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file, with non-ASCII characters as they are."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def predictions_path(run: Path, task: str, unit: str) -> Path:
    """The file of a unit's answers."""
    return run / "predictions" / task / f"{unit}.jsonl.zst"


def layer_path(run: Path, layer: int) -> Path:
    """The file of a layer's retrieval answers."""
    return run / "retrieval" / f"layer-{layer:03d}.parquet"


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write answers, one JSON line each."""
    lines = [
        json.dumps({"id": p.id, "hypothesis": p.hypothesis, "cut_off": p.cut_off}) + "\n"
        for p in predictions
    ]
    # The checksum keeps a damaged answer from being taken for an answer.
    pack = zstandard.ZstdCompressor(level=9, write_checksum=True)
    write_bytes(path, pack.compress("".join(lines).encode()))


def _unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file of answers that is missing or damaged."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} is missing; run the same evaluate command again")
    return InputError(
        f"{path} is damaged ({error}); delete it and run the same evaluate command again"
    )


def read_predictions(path: Path) -> list[Prediction]:
    """The answers of a unit.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        frame = zstandard.ZstdDecompressor().decompressobj()
        text = frame.decompress(path.read_bytes()).decode("utf-8")
        if not frame.eof or frame.unused_data:  # a file cut short would unpack to fewer answers
            raise ValueError("it does not end with its first zstd frame")
        rows = [json.loads(line) for line in text.split("\n") if line]
        return [Prediction(row["id"], row["hypothesis"], row["cut_off"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        raise _unreadable(path, error) from None


LAYER_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("target", pa.string()),
        ("accuracy", pa.float64()),
        ("neighbours", pa.list_(pa.int16())),
    ]
)
Table = Mapping[tuple[str, str], Sequence[int]]


def write_layer(path: Path, table: Table) -> None:
    """Write a layer's answers, with the accuracy of each pair.

    Args:
        path: The file.
        table: By (source, target): for each source sentence the index of the target sentence that
            it retrieved.
    """
    rows = [
        {
            "source": source,
            "target": target,
            "accuracy": 100 * sum(i == j for i, j in enumerate(found)) / len(found),
            "neighbours": list(found),
        }
        for (source, target), found in table.items()
    ]
    write_parquet(path, pa.Table.from_pylist(rows, schema=LAYER_SCHEMA))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table atomically, with a checksum of each page."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_bytes(path, sink.getvalue().to_pybytes())


def read_layer(path: Path) -> dict[tuple[str, str], list[int]]:
    """A layer's answers, as `write_layer` takes them.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        found = pq.read_table(path, page_checksum_verification=True)
        if not found.schema.equals(LAYER_SCHEMA):
            raise ValueError("its columns are not those of a layer")
        rows = found.to_pylist()
        return {(row["source"], row["target"]): row["neighbours"] for row in rows}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def read_plan(run: Path) -> Plan:
    """The plan of a run.

    Raises:
        InputError: The folder is not a run folder, or its plan is damaged.
    """
    missing = f"{run} is not a run folder (plan.json is missing)"
    return _read(run / "plan.json", Plan, upgrade_plan, missing)


def read_record(run: Path) -> Record:
    """The record of a finished run.

    Raises:
        InputError: The run is not finished, or its record is damaged.
    """
    again = f"{run} is not finished (record.json is missing); run its evaluate command again"
    return _read(run / "record.json", Record, upgrade_record, again)


_Model = TypeVar("_Model", bound=BaseModel)


def _read(path: Path, model: type[_Model], upgrade: Callable[[Any], Any], missing: str) -> _Model:
    try:
        data = path.read_bytes()
        value = json.loads(data)
        upgraded = upgrade(value)
        if upgraded is not value:
            data = json.dumps(upgraded).encode()
        return model.model_validate_json(data)
    except FileNotFoundError:
        raise InputError(missing) from None
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); choose another --output") from None


def file_digest(path: Path) -> str:
    """sha256 of a file of any size, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_place(output: Path) -> None:
    """Raise InputError if the output folder, or one above it, is a file."""
    there = next((path for path in (output, *output.parents) if path.exists()), None)
    if there and not there.is_dir():
        raise InputError(f"{there} is not a folder; choose another --output")


def check_empty(output: Path) -> None:
    """Raise InputError if the output folder is a file, or holds anything but parts."""
    check_place(output)
    if output.exists() and not all(is_part(path) for path in output.iterdir()):
        raise InputError(f"{output} is not empty; choose another --output")


def check_free(run: Path) -> None:
    """Raise InputError if a folder is neither empty nor a run folder."""
    check_place(run)
    if not run.exists() or all(is_part(path) for path in run.iterdir()):
        return
    # Looked for last: a run that another process starts meanwhile has its plan first.
    if not (run / "plan.json").exists():
        raise InputError(f"{run} is not empty and not a run folder; choose another --output")


def _remove_abandoned_below(run: Path) -> None:
    for folder, folders, files in os.walk(run):  # which, unlike rglob, passes over what has gone
        remove_abandoned(path for name in [*folders, *files] if is_part(path := Path(folder, name)))


def open_run(run: Path, plan: Plan, digests: Mapping[str, str]) -> None:
    """Start a run folder, or check that an existing one has the same plan and items.

    Args:
        run: The run folder.
        plan: What is to be evaluated.
        digests: The digest of each unit's items, by `task/unit`.

    Raises:
        InputError: The folder is not empty and not a run folder, or has another plan or items; the
            message names the difference.
    """
    check_place(run)
    with locked(run):  # of two evaluations that start at once, one sees the other's plan
        _open_locked(run, plan, digests)


def _open_locked(run: Path, plan: Plan, digests: Mapping[str, str]) -> None:
    _remove_abandoned_below(run)
    if not (run / "plan.json").exists():
        check_free(run)
        write_bytes(run / "plan.json", plan.model_dump_json(indent=1).encode() + b"\n")
        write_json(run / "items.json", dict(digests))
        return
    _check_same(run, read_plan(run).model_dump(), plan.model_dump())
    if [path.name for path in run.iterdir()] == ["plan.json"]:  # killed between the two files
        write_json(run / "items.json", dict(digests))
    if odd := [name for name, was in read_digests(run).items() if digests.get(name) != was]:
        raise InputError(
            f"{run} was started with other items of {odd[0]} than the data folder has now; "
            "give the --data-dir that it was started with, or choose another --output"
        )


def _check_same(run: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise InputError for the first difference between two plans."""
    _check_versions(run, old["task_versions"], new["task_versions"])
    for kind in ("model", "adapter"):
        name, commit = new[kind], new[f"{kind}_revision"]
        if _repository(old[kind]) != _repository(name) or not commit:
            continue
        if (before := old[f"{kind}_revision"]) == commit:
            old |= {kind: name}  # two names of one commit
        elif before:
            raise InputError(
                f"{run} was started with commit {before} of {name}, and would go on with commit "
                f"{commit}; pass --{kind} {_repository(name)}@{before}, or choose another --output"
            )
    for key, value in new.items():
        if old[key] != value:
            tell = _APART.get(key, _apart)
            raise InputError(
                f"{run} was started with {tell(key, old[key], value)}; choose another --output"
            )


def _repository(name: str | None) -> str:
    return (name or "").partition("@")[0]


def read_digests(run: Path) -> dict[str, str]:
    """The digest of each unit's items, by `task/unit`; empty for a run that has none on file.

    Raises:
        InputError: The file is damaged.
    """
    path = run / "items.json"
    try:
        return dict(upgrade_items(json.loads(path.read_bytes())))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); choose another --output") from None


def _check_versions(run: Path, old: Mapping[str, int], new: Mapping[str, int]) -> None:
    """Raise InputError if a run was started with another version of a task.

    This comes before other differences: another version usually has other units too.
    """
    for task, version in new.items():
        if old.get(task, version) != version:
            raise InputError(
                f"{run} was started with version {old[task]} of {task}, the current version is "
                f"{version}; choose another --output, or finish it with the release of xlt-bench "
                "that started it"
            )


def _apart(key: str, old: Any, new: Any) -> str:
    kind = "other" if isinstance(new, list) else "another"
    return f"{kind} {key.replace('_', ' ')}: {_short(old)} there, {_short(new)} now"


def _units_apart(key: str, old: Mapping[str, list[str]], new: Mapping[str, list[str]]) -> str:
    """The units that only one of two plans has: the whole lists would be long."""
    only = {"there": (old, new), "now": (new, old)}
    parts = [
        f"{' '.join(odd)} of {task} only {when}"
        for when, (ours, theirs) in only.items()
        for task, names in ours.items()
        if (odd := [name for name in names if name not in theirs.get(task, [])])
    ]
    return f"other {key}: {', '.join(parts)}" if parts else _apart(key, old, new)


def _prompts_apart(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first task of which two plans have different prompts, and the names of these."""
    task = next(task for task in {**old, **new} if old.get(task) != new.get(task))
    before, now = (plan.get(task, {"name": "the benchmark's"})["name"] for plan in (old, new))
    same = "; the prompt or the examples have changed" if before == now else ""
    return f"other {key} of {task}: {before} there, {now} now{same}"


# How a difference is told, if not as `_apart` does.
_APART: dict[str, Callable[[str, Any, Any], str]] = {
    "units": _units_apart,
    "prompts": _prompts_apart,
}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
