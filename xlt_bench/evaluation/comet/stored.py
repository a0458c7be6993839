"""Reads and writes COMET's segment scores in a run: RUN/comet/<direction>.json.

The system score and its significance are computed from them, without COMET. They name the answers
and the checkpoint that they belong to, and are ignored if the run has other answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError, first_fault
from xlt_bench.metrics.significance import Counts
from xlt_bench.results.record import Plan, Record
from xlt_bench.results.run_folder import Prediction, predictions_path, read_predictions, write_bytes
from xlt_bench.tasks.wmt23 import COMET, TASK


class Segments(BaseModel):
    """The segment scores of a direction, and how they were made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str
    """A hub name, or the last part of a path."""
    version: str
    """The version of unbabel-comet."""
    sha256: str
    """Digest of the checkpoint file."""
    predictions: str
    """Digest of the answers that were scored."""
    scores: list[float]
    """One for each segment, about 0 to 1."""

    @property
    def signature(self) -> str:
        """How the scores were made, like sacreBLEU's: `model:...|version:...|sha256:...`."""
        return f"model:{self.model}|version:{self.version}|sha256:{self.sha256}"

    @property
    def counts(self) -> Counts:
        """Counts (segments, 2) of score and 1, for `significance.percent`."""
        return np.stack([self.scores, np.ones(len(self.scores))], axis=1)


def segments_path(run: Path, unit: str) -> Path:
    """Return the file for the scores of a direction.

    Args:
        run: The run folder.
        unit: The direction (`en-de`).
    """
    return run / "comet" / f"{unit}.json"


def write_segments(run: Path, unit: str, segments: Segments) -> None:
    """Write the scores of a direction.

    Args:
        run: The run folder.
        unit: The direction.
        segments: The scores.
    """
    data = segments.model_dump_json(indent=1).encode() + b"\n"
    write_bytes(segments_path(run, unit), data)


def read_segments(run: Path, unit: str, answers: Sequence[Prediction]) -> Segments | None:
    """Read the scores of a direction.

    Args:
        run: The run folder.
        unit: The direction.
        answers: The run's answers.

    Returns:
        The scores of these answers; None if there are none.

    Raises:
        InputError: If the file is damaged.
    """
    path = segments_path(run, unit)
    try:
        found = Segments.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged ({first_fault(error)}); delete it, then: "
            f"xlt-bench score {run} --comet"
        ) from None
    fits = found.predictions == content_digest(answers) and len(found.scores) == len(answers)
    return found if fits else None


def read_comet(plan: Plan, run: Path) -> dict[str, Segments]:
    """Read all COMET scores of a run.

    Args:
        plan: The run's plan.
        run: The run folder.

    Returns:
        The scores of the run's answers, by direction.

    Raises:
        InputError: If they are from several checkpoints, and cannot be compared.
    """
    found: dict[str, Segments] = {}
    for unit in plan.units.get(TASK.name, []):
        answers = predictions_path(run, TASK.name, unit)
        if segments_path(run, unit).exists() and answers.exists():
            segments = read_segments(run, unit, read_predictions(answers))
            found |= {unit: segments} if segments else {}
    if len({segments.sha256 for segments in found.values()}) > 1:
        raise InputError(
            f"{run / 'comet'} has scores of several checkpoints; score all with one: "
            f"xlt-bench score {run} --comet"
        )
    return found


def comet_signatures(scored: Mapping[str, Segments]) -> dict[str, str]:
    """List the signatures for the record.

    Args:
        scored: Scores by direction.

    Returns:
        Signatures under keys such as `en-de/comet`.
    """
    return {f"{unit}/{COMET}": segments.signature for unit, segments in scored.items()}


def without_comet(record: Record) -> Record:
    """Remove COMET from a record.

    Args:
        record: The record of a run.

    Returns:
        The record without COMET's scores, means and signatures.
    """
    results = record.results
    kept = results.model_copy(
        update={
            "scores": [row for row in results.scores if row.metric != COMET],
            "means": [row for row in results.means if row.metric != COMET],
        }
    )
    signatures = {
        name: text for name, text in record.signatures.items() if not name.endswith("/" + COMET)
    }
    return record.model_copy(update={"results": kept, "signatures": signatures})
