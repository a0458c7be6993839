"""Scores a run with COMET: sends its segments to the worker and stores the scores in the run."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError
from xlt_bench.evaluation.comet.environment import clean_environ, find_python, last_line
from xlt_bench.evaluation.comet.stored import (
    Segments,
    comet_signatures,
    read_comet,
    read_segments,
    segments_path,
    without_comet,
    write_segments,
)
from xlt_bench.evaluation.score import items_answered, rescore_run
from xlt_bench.models.adapters import looks_local
from xlt_bench.results.atomic_write import in_use
from xlt_bench.results.record import Record, Scores
from xlt_bench.results.run_folder import (
    Prediction,
    predictions_path,
    read_digests,
    read_plan,
    read_predictions,
    read_record,
    write_bytes,
)

MODEL = "Unbabel/wmt22-comet-da"
"""COMET-22, the checkpoint of the paper."""
_WORKER = Path(__file__).with_name("worker.py")
_STOPPED = "the run keeps its other scores and the directions that COMET has finished"


def check(model: str, tasks: Sequence[str]) -> None:
    """Check everything that COMET needs before answers are generated.

    Args:
        model: A hub name, a .ckpt file or a folder with one.
        tasks: The tasks of the run.

    Raises:
        InputError: If there are no translations, no environment, or no such checkpoint.
    """
    if "wmt23" not in tasks:
        raise InputError("--comet scores translations: add wmt23 to --tasks")
    find_python()
    _local_checkpoint(model)


def score_segments(run: Path, root: Path, model: str, track: Any) -> None:
    """Score the directions of a run that have answers and no scores by this checkpoint yet.

    Args:
        run: The run folder.
        root: The data folder.
        model: A hub name, a .ckpt file or a folder with one.
        track: Reports progress, as for `evaluate`.

    Raises:
        InputError: If the run has no translations, COMET has no environment, or the checkpoint
            cannot be loaded; directions that are finished keep their scores.
    """
    plan = read_plan(run)
    paths = {unit: predictions_path(run, "wmt23", unit) for unit in plan.units.get("wmt23", [])}
    answers = {unit: read_predictions(path) for unit, path in paths.items() if path.exists()}
    if not answers:
        raise InputError(
            f"{run} has no translations to score; generate them with: xlt-bench evaluate --tasks "
            "wmt23"
        )
    checkpoint, python = _local_checkpoint(model), find_python()
    kept = {unit: read_segments(run, unit, answers[unit]) for unit in answers}
    with tempfile.TemporaryDirectory(prefix="xlt-bench-comet-") as name:
        folder = Path(name)
        for unit in answers:
            (folder / unit).write_text(json.dumps(_segments(run, root, unit, answers[unit])))
        request = {
            "model": model,
            "checkpoint": checkpoint and str(checkpoint),
            "directions": [
                {
                    "unit": unit,
                    "segments": str(folder / unit),
                    "scores": str(folder / f"{unit}.scores"),
                    "kept": one and one.sha256,
                }
                for unit, one in kept.items()
            ],
        }
        with _worker(python, folder, request, offline=checkpoint is not None) as steps:
            with track(
                "comet checkpoint", 1
            ) as progress:  # the download takes long and reports nothing
                made = {"model": _shown(model, checkpoint), **next(steps)}
                progress(1)
            todo = [unit for unit, one in kept.items() if not one or one.sha256 != made["sha256"]]
            # First of all, so that a run never has scores of two checkpoints.
            for unit in todo:
                segments_path(run, unit).unlink(missing_ok=True)
            for unit in todo:
                with track(f"comet {unit}", len(answers[unit])) as progress:
                    while "finished" not in (step := next(steps)):
                        progress(step["scored"])
                found = _read_scores(unit, folder / f"{unit}.scores", len(answers[unit]))
                digest = content_digest(answers[unit])
                segments = Segments(**made, predictions=digest, scores=found)
                write_segments(run, unit, segments)


def score_with(run: Path, root: Path, model: str, track: Any) -> tuple[Scores, Record | None]:
    """Score a run's translations with COMET, and add the scores to its record.

    Args:
        run: The run folder.
        root: The data folder.
        model: A hub name, a .ckpt file or a folder with one.
        track: Reports progress; see `run.evaluate`.

    Returns:
        All scores of the run's files, and the record as `with_comet` returns it; None without one.

    Raises:
        InputError: The run is in use, or COMET stops.
    """
    record = read_record(run) if (run / "record.json").exists() else None
    with in_use(run):
        score_segments(run, root, model, track)
        scores = rescore_run(run, root, record)
        return scores, record and with_comet(run, record, scores)


def with_comet(run: Path, record: Record, scores: Scores) -> Record:
    """Add COMET's scores to a record and write it to the run.

    Args:
        run: The run folder.
        record: Its record.
        scores: The scores as computed from the run's files now.

    Returns:
        The new record; the old one, not written, if the scores differ in more than COMET.
    """
    bare = without_comet(record)
    if bare.results != without_comet(record.model_copy(update={"results": scores})).results:
        return record
    signatures = bare.signatures | comet_signatures(read_comet(record.plan, run))
    updated = record.model_copy(update={"results": scores, "signatures": signatures})
    write_bytes(run / "record.json", updated.model_dump_json(indent=1).encode() + b"\n")
    return updated


def _local_checkpoint(model: str) -> Path | None:
    """The .ckpt file of a path; None for a hub name. Raises InputError if there is none."""
    given = Path(model).expanduser()
    if not given.exists():
        if looks_local(model) or model.endswith(".ckpt"):
            raise InputError(f"--comet-model {model}: no such file or folder")
        return None
    path = given / "checkpoints" / "model.ckpt" if given.is_dir() else given
    if not path.is_file() or path.suffix != ".ckpt":
        raise InputError(
            f"--comet-model {model}: not a checkpoint; give a .ckpt file, or a folder with "
            "checkpoints/model.ckpt and hparams.yaml"
        )
    path = path.resolve()
    if not (path.parents[1] / "hparams.yaml").is_file():
        raise InputError(f"--comet-model {model}: {path.parents[1] / 'hparams.yaml'} is missing")
    return path


def _shown(model: str, checkpoint: Path | None) -> str:
    """The hub name, or the last part of a path: the checksum identifies the checkpoint."""
    return Path(model).expanduser().resolve().name if checkpoint else model


def _segments(
    run: Path, root: Path, unit: str, answers: Sequence[Prediction]
) -> list[dict[str, str]]:
    """The segments of a direction as COMET takes them; hypotheses are stripped, as for BLEU."""
    digest = read_digests(run).get(f"wmt23/{unit}")
    items = items_answered(root, read_plan(run), "wmt23", unit, answers, digest)
    return [
        {"src": item.user, "mt": answer.hypothesis.strip(), "ref": item.gold}
        for item, answer in zip(items, answers, strict=True)
    ]


@contextmanager
def _worker(
    python: Path, folder: Path, request: Any, offline: bool
) -> Iterator[Iterator[dict[str, Any]]]:
    """Start the worker and yield its reports. Raises InputError if it stops too early."""
    path, errors = folder / "request.json", folder / "stderr"
    path.write_text(json.dumps(request), encoding="utf-8")
    # A local checkpoint needs nothing from the hub, whose requests could only time out.
    environ = clean_environ() | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    # -I, so that the libraries do not import modules of the worker's folder.
    command = [str(python), "-I", str(_WORKER), str(path)]
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environ) as process,
    ):
        assert process.stdout is not None
        try:
            yield _steps(process, errors)
        finally:
            process.kill()


def _steps(process: subprocess.Popen[bytes], errors: Path) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)
    code = process.wait()
    said = last_line(errors.read_text(encoding="utf-8", errors="replace"))
    if code < 0:
        said = f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    raise InputError(f"COMET stopped: {said or f'exit code {code}'}; {_STOPPED}")


def _read_scores(unit: str, path: Path, n: int) -> list[float]:
    scores: list[float] = json.loads(path.read_text(encoding="utf-8"))
    odd = next((i for i, value in enumerate(scores) if not math.isfinite(value)), None)
    if len(scores) != n or odd is not None:
        raise InputError(f"COMET returned no finite score for segment {odd} of {unit}; {_STOPPED}")
    return scores
