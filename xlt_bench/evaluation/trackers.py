"""Sends a finished run's scores, layer curve and gains to experiment trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError, unknown
from xlt_bench.results.record import Record

PROJECT = "xlt-bench"
_COLUMNS = ("task", "unit", "gain")
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""The trackers, which are the names of their packages too."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise InputError for a tracker that is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise InputError(f"--report-to {name} needs a package: pip install {name}")


def report(
    names: Sequence[str], run: Path, record: Record, gains: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Send a run to trackers.

    Each score is a number `<task>/<metric>/<unit>`, each mean `<task>/<metric>/mean_<split>`, the
    accuracy of a layer `retrieval/by_layer` at step <layer>, and a gain `gain/<task>/<unit>`.
    Offline modes are the trackers' own ($WANDB_MODE=offline, $MLFLOW_TRACKING_URI=file:...).

    Args:
        names: `tensorboard` (a folder in the run), `wandb`, `mlflow` or `trackio`.
        run: The run folder.
        record: Its record.
        gains: task, unit and gain of each row of a comparison; none without a baseline.

    Raises:
        InputError: A tracker is unknown or not installed.
    """
    check_trackers(names)
    adapter = record.adapter
    title = Path(adapter.name if adapter else record.model.name).name
    config = {
        "model": record.model.name,
        "adapter": adapter and adapter.name,
        "task_versions": record.plan.task_versions,
        "limit": record.plan.limit,
    }
    numbers = _numbers(record) | {f"gain/{row['task']}/{row['unit']}": row["gain"] for row in gains}
    layers = [(row.layer, row.value) for row in record.results.layers]
    table = {column: [row[column] for row in gains] for column in _COLUMNS} if gains else {}
    sent = _Sent(run, title, config, numbers, layers, table)
    for name in names:
        _SENDERS[name](sent)


def _numbers(record: Record) -> dict[str, float]:
    results = record.results
    units = {f"{row.task}/{row.metric}/{row.unit}": row.value for row in results.scores}
    means = {f"{row.task}/{row.metric}/mean_{row.split}": row.value for row in results.means}
    return units | means


_BY_LAYER = "retrieval/by_layer"


@dataclass(frozen=True)
class _Sent:
    """What a tracker is sent: `gains` by column, empty without a baseline."""

    run: Path
    title: str
    config: Mapping[str, Any]
    numbers: Mapping[str, float]
    layers: Sequence[tuple[int, float]]
    gains: Mapping[str, Sequence[Any]]


def _tensorboard(sent: _Sent) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(sent.run / "tensorboard")) as writer:
        writer.add_text("run", f"{sent.title}: {sent.config}")
        for name, value in sent.numbers.items():
            writer.add_scalar(name, value, 0)
        for layer, value in sent.layers:
            writer.add_scalar(_BY_LAYER, value, layer)
        if sent.gains:
            rows = zip(*sent.gains.values(), strict=True)
            lines = [f"|{task}|{unit}|{gain:+.1f}|" for task, unit, gain in rows]
            table = "\n".join(["|task|unit|gain|", "|---|---|---|", *lines])
            writer.add_text("gains", table)


def _wandb_like(module: str) -> Callable[[_Sent], None]:
    def send(sent: _Sent) -> None:
        tracker = import_module(module)
        tracker.init(project=PROJECT, name=sent.title, config=dict(sent.config))
        # Steps of W&B only rise, so the layer is a number of its own.
        for layer, value in sent.layers:
            tracker.log({"layer": layer, _BY_LAYER: value})
        tracker.log(dict(sent.numbers))
        if sent.gains:
            import pandas as pd

            tracker.log({"gains": tracker.Table(dataframe=pd.DataFrame(sent.gains))})
        tracker.finish()

    return send


def _mlflow(sent: _Sent) -> None:
    mlflow = import_module("mlflow")
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=sent.title):
        mlflow.log_params(dict(sent.config))
        mlflow.log_metrics(dict(sent.numbers))
        for layer, value in sent.layers:
            mlflow.log_metric(_BY_LAYER, value, step=layer)
        if sent.gains:
            mlflow.log_table(dict(sent.gains), "gains.json")


_SENDERS: Mapping[str, Callable[[_Sent], None]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb_like("wandb"),
    "trackio": _wandb_like("trackio"),
    "mlflow": _mlflow,
}
