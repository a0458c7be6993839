"""Moves the answers of submissions to an artifact store; `submissions move`."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from xlt_bench.errors import InputError
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.submissions import hits
from xlt_bench.submissions.answers import answer_bytes, read_accuracies
from xlt_bench.submissions.artifacts import Stores, checked_address, read_stores, write
from xlt_bench.submissions.rescore import check_digests
from xlt_bench.submissions.safe_read import read_model
from xlt_bench.submissions.schema import ACCURACIES, SUBMISSION, Submission, json_bytes
from xlt_bench.submissions.validate import Package, open_package

_FOLDERS = ("predictions", "retrieval")


def move(folder: Path, to: str, stores: Stores | None = None) -> int:
    """Move the answers of a submission to a store, or copy them there from another store.

    Each file is read back before any is deleted. After an interruption, the same call completes it.

    Args:
        folder: The submission.
        to: The address of the store.
        stores: Where its answers are, if they are in a store already; those of its parent folder by
            default.

    Returns:
        The number of files that are in the store now.

    Raises:
        InputError: The submission is not valid, a file is missing or damaged, or the store cannot
            be written.
    """
    to = checked_address(to)
    _complete(folder, to)
    asked = read_stores(folder.parent) if stores is None else stores
    package = open_package(folder, Stores((*asked.addresses, to)))
    about = package.submission
    check_digests(package)
    artifacts = {name: write(to, answer_bytes(package, name)) for name in about.contents}
    for name, artifact in artifacts.items():
        Stores((to,)).read(artifact, name)
    if about.artifacts is None:
        _write_accuracies(package)
        stored = about.model_copy(update={"artifacts": artifacts})
        write_bytes(folder / SUBMISSION, json_bytes(stored))
        _delete_answers(folder)
    return len(artifacts)


def _write_accuracies(package: Package) -> None:
    """Write the accuracies of retrieval, if they are in the files that are to be deleted."""
    path = package.folder / ACCURACIES
    if not package.record.plan.layers or path.exists():
        return
    by_layer = {
        layer: {(row["source"], row["target"]): row["accuracy"] for row in table.to_pylist()}
        for layer, table in read_accuracies(package).items()
    }
    hits.write_accuracies(path, by_layer)


def _complete(folder: Path, to: str) -> None:
    """Complete what an interrupted `move` left: a file too many, or answers that are stored."""
    with suppress(InputError):  # reported when the submission is opened
        about = read_model(folder / SUBMISSION, Submission)
        if about.artifacts is None:
            if about.retrieval == "neighbours":
                (folder / ACCURACIES).unlink(missing_ok=True)
        elif any((folder / name).exists() for name in _FOLDERS):
            for name, artifact in about.artifacts.items():
                Stores((to,)).read(artifact, name)
            _delete_answers(folder)


def _delete_answers(folder: Path) -> None:
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
