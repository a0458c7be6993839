"""Reads the answers of a submission, which are in its folder or in an artifact store."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from xlt_bench.results.run_folder import Prediction
from xlt_bench.submissions import hits
from xlt_bench.submissions.safe_read import (
    MAX_PACKED,
    Answers,
    Pairs,
    parse_accuracies,
    parse_answers,
    parse_neighbours,
    read_bytes,
)
from xlt_bench.submissions.schema import ACCURACIES, answer_files, has_accuracies, layer_names
from xlt_bench.submissions.validate import Package
from xlt_bench.tasks.registry import retrieval_units


def answer_bytes(package: Package, name: str) -> bytes:
    """The contents of a file of answers.

    Args:
        package: The submission.
        name: The name of the file in `Submission.contents`.

    Raises:
        InputError: The file is missing or too large, or no store has the artifact.
    """
    artifacts = package.submission.artifacts
    if artifacts is not None:
        return package.stores.read(artifacts[name], name)
    return read_bytes(package.folder / answer_files(package.record.plan)[name], MAX_PACKED)


def read_unit(package: Package, task: str, unit: str) -> list[Prediction]:
    """Read the answers to a unit of a text task.

    Raises:
        InputError: They are missing or damaged.
    """
    name = f"{task}/{unit}"
    data = answer_bytes(package, name)
    return parse_answers(data, answer_files(package.record.plan)[name].name)


def read_retrieval(package: Package, layer: int) -> tuple[Pairs, Answers]:
    """Read the answers of retrieval at one layer.

    Returns:
        The pairs (source, target), and their answers (pairs, sentences).

    Raises:
        InputError: They are missing or damaged.
    """
    plan = package.record.plan
    name = layer_names(plan)[layer]
    parse = hits.parse_hits if package.submission.retrieval == "hits" else parse_neighbours
    file = answer_files(plan)[name].name
    return parse(answer_bytes(package, name), file, retrieval_units(plan.units))


def read_accuracies(package: Package, layers: Sequence[int] | None = None) -> dict[int, pa.Table]:
    """Read the stated accuracies of retrieval, which are not compared with the answers.

    Args:
        package: The submission.
        layers: The layers to read; all by default.

    Returns:
        Tables with the columns source, target and accuracy, by layer.

    Raises:
        InputError: A file is missing or damaged.
    """
    plan = package.record.plan
    wanted = plan.layers if layers is None else layers
    if not wanted:
        return {}
    codes = retrieval_units(plan.units)
    if has_accuracies(package.submission, plan):
        path = package.folder / ACCURACIES
        pairs, found = hits.read_accuracies(path, codes, len(plan.layers))
        sides = {
            name: pa.array([pair[side] for pair in pairs])
            for side, name in enumerate(("source", "target"))
        }
        places = {layer: plan.layers.index(layer) for layer in wanted}
        return {n: pa.table({**sides, "accuracy": found[:, i]}) for n, i in places.items()}
    tables = {}
    for layer in wanted:
        name = layer_names(plan)[layer]
        file = answer_files(plan)[name].name
        tables[layer] = parse_accuracies(answer_bytes(package, name), file, codes)
    return tables
