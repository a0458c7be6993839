"""COMET's segment scores as a run keeps them: RUN/comet/<direction>.json.

With them the system score and its significance are recomputed without COMET. They hold for the
answers and the checkpoint that they name, and are not counted for any other.
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
    """The scores of a direction, a segment each, about 0 to 1, and what they were made with.

    `model` is a hub name or the last part of a path, `version` that of unbabel-comet, `sha256` of
    the checkpoint file, `predictions` the digest of the answers that were scored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str
    version: str
    sha256: str
    predictions: str
    scores: list[float]

    @property
    def signature(self) -> str:
        """In the manner of sacreBLEU's: `model:...|version:...|sha256:...`."""
        return f"model:{self.model}|version:{self.version}|sha256:{self.sha256}"

    @property
    def counts(self) -> Counts:
        """(score, 1) of each segment, for `significance.percent`."""
        return np.stack([self.scores, np.ones(len(self.scores))], axis=1)


def segments_path(run: Path, unit: str) -> Path:
    """Where the scores of a direction lie."""
    return run / "comet" / f"{unit}.json"


def write_segments(run: Path, unit: str, segments: Segments) -> None:
    """Store the scores of a direction."""
    data = segments.model_dump_json(indent=1).encode() + b"\n"
    write_bytes(segments_path(run, unit), data)


def read_segments(run: Path, unit: str, answers: Sequence[Prediction]) -> Segments | None:
    """The scores of a direction's answers; None where there are none, or only of other answers.

    Raises InputError for a damaged file.
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
    """COMET's scores of the answers that a run has, by direction, all from one checkpoint.

    Raises InputError where they are from several: those are no one metric.
    """
    found: dict[str, Segments] = {}
    for unit in plan.units.get(TASK.name, []):
        answers = predictions_path(run, TASK.name, unit)
        if segments_path(run, unit).exists() and answers.exists():
            segments = read_segments(run, unit, read_predictions(answers))
            found |= {unit: segments} if segments else {}
    if len({segments.sha256 for segments in found.values()}) > 1:
        raise InputError(
            f"{run / 'comet'} holds scores of several checkpoints; score all with one: "
            f"xlt-bench score {run} --comet"
        )
    return found


def comet_signatures(scored: Mapping[str, Segments]) -> dict[str, str]:
    """The signatures of a record, under `en-de/comet`."""
    return {f"{unit}/{COMET}": segments.signature for unit, segments in scored.items()}


def without_comet(record: Record) -> Record:
    """The record of the same run, had it never been scored with COMET."""
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
