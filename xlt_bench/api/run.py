"""`Run`: the results of an evaluation as data frames and charts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_bench.api.quiet import quiet

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from xlt_bench.results.record import Record
    from xlt_bench.results.run_folder import Prediction


class Run:
    """A finished evaluation.

    Attributes:
        folder: The run folder.
        record: Everything in its record.json, as pydantic models.
    """

    def __init__(self, folder: Path, record: Record, data_dir: str | Path | None = None) -> None:
        """Take a run that has been read; see `load_run`."""
        self.folder = folder
        self.record = record
        self._data_dir = data_dir

    @property
    def name(self) -> str:
        """The model's name and, if there is one, the adapter's."""
        adapter = self.record.adapter
        return self.record.model.name + (f" + {adapter.name}" if adapter else "")

    def scores(self) -> pd.DataFrame:
        """Every metric of every unit, with its 95 % interval.

        Returns:
            task, unit, setting (`supervised`, `transfer` or None), aligned, metric, value, low and
            high (0 to 100), and n, the number of items.
        """
        import pandas as pd

        rows = [row.model_dump() for row in self.record.results.scores]
        return pd.DataFrame(rows, columns=_SCORES)

    def means(self) -> pd.DataFrame:
        """Means over the ranked units of each split (all, supervised, transfer, aligned).

        Returns:
            task, split, metric, value, low, high, units, and missing: units not evaluated, which
            are in no mean.
        """
        import pandas as pd

        rows = [row.model_dump() for row in self.record.results.means]
        columns = ["task", "split", "metric", "value", "low", "high", "units", "missing"]
        return pd.DataFrame(rows, columns=columns)

    def layers(self) -> pd.DataFrame:
        """Retrieval accuracy by layer: the mean over all ordered pairs of ranked languages.

        Returns:
            layer (from 1), value, low and high (0 to 100); empty without retrieval.
        """
        import pandas as pd

        rows = [row.model_dump() for row in self.record.results.layers]
        return pd.DataFrame(rows, columns=["layer", "value", "low", "high"])

    def alignment(self) -> pd.DataFrame:
        """How alike the hidden states of each language and of English are, by layer.

        Returns:
            layer (from 1), language, mexa_weighted and mexa_last (0 to 100, of the first 100
            sentences), cka (at most 1) and cosine_margin; empty without retrieval in English, and
            for older runs.
        """
        import pandas as pd

        rows = [row.model_dump() for row in self.record.alignment]
        columns = ["layer", "language", "mexa_weighted", "mexa_last", "cka", "cosine_margin"]
        return pd.DataFrame(rows, columns=columns)

    def mexa(self) -> pd.DataFrame:
        """MEXA with English of each language, as its authors report it: over the evaluated layers.

        Returns:
            language, pooling (`weighted`: tokens by their position; `last`: the last token), mean
            and max over layers (0 to 100), best_layer (the first of equal ones) and layers (their
            number); empty where `alignment` is.
        """
        import pandas as pd

        found = self.alignment()
        rows = []
        for language, by_layer in found.sort_values("layer").groupby("language", sort=False):
            for pooling in ("weighted", "last"):
                values = by_layer.set_index("layer")[f"mexa_{pooling}"]
                best, count = values.idxmax(), len(values)
                rows.append([language, pooling, values.mean(), values.max(), best, count])
        columns = ["language", "pooling", "mean", "max", "best_layer", "layers"]
        return pd.DataFrame(rows, columns=columns)

    def gains(self, other: Any) -> pd.DataFrame:
        """Compare with another run on the same items; see `xlt_bench.compare`.

        Args:
            other: The baseline: a Run, a run folder, a submission, or a list of seeds of them.
        """
        from xlt_bench.api.compare import compare

        return compare(self, other, data_dir=self._data_dir)

    def items(self, task: str, unit: str) -> pd.DataFrame:
        """Every item of a unit with its answer.

        Args:
            task: A task that is answered with text.
            unit: A language or direction, such as `sw` or `en-de`.

        Returns:
            id, text (the sentence), prompt, reference, answer, cut_off, and score: that of the
            answer alone by the task's item metric, 0 to 100.

        Raises:
            InputError: The run lacks the unit, or the data folder has other items.
        """
        import pandas as pd

        with quiet():
            return pd.DataFrame(_items(self, task, unit, self._data_dir), columns=_ITEMS)

    def plot(self, baseline: Any = None) -> alt.VConcatChart:
        """Draw the primary metric of each unit with its interval, and retrieval by layer.

        Args:
            baseline: Draw gains over it instead; what `gains` takes.

        Returns:
            A chart, which notebooks show; `.save("gains.html")` writes it.
        """
        from xlt_bench.api.plot import drawn

        if baseline is not None:
            found = self.gains(baseline)
            return drawn(found[found.kind == "unit"].rename(columns={"gain": "value"}), "gain")
        scores = self.scores()
        return drawn(scores[_is_primary(scores)], "score", self.layers())

    def report(self, *names: str, baseline: Any = None) -> None:
        """Send scores, layer curve and gains to experiment trackers.

        Args:
            names: `tensorboard` (a folder in the run), `wandb`, `mlflow` or `trackio`.
            baseline: Also send the gains over it; what `gains` takes.

        Raises:
            InputError: A tracker is unknown or not installed.
        """
        from xlt_bench.evaluation.trackers import report

        gains = [] if baseline is None else self.gains(baseline).to_dict("records")
        with quiet():
            report(names, self.folder, self.record, gains)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        """Show the name, the folder and the primary means."""
        rows = [f"  {task:<10} {split:<10} {text}" for task, split, text in self._summary()]
        return "\n".join([f"Run({self.name}, folder={str(self.folder)!r})", *rows])

    def _repr_html_(self) -> str:
        """Show the same in a notebook, with the record's notes."""
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._summary()
        )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.record.notes)
        return (
            f"<h4>{escape(self.name)}</h4><table><thead><tr><th>task</th><th>mean</th>"
            f"<th>score (95 %)</th></tr></thead><tbody>{rows}</tbody></table>"
            + (f"<ul>{notes}</ul>" if notes else "")
            + f"<p><code>{escape(str(self.folder))}</code></p>"
        )

    def _summary(self) -> list[tuple[str, str, str]]:
        from xlt_bench.tasks.registry import get_task

        return [
            (
                mean.task,
                f"{mean.split} ({_share(mean.units, mean.missing)})",
                f"{mean.metric} {mean.value:.1f} ({mean.low:.1f}–{mean.high:.1f})",
            )
            for mean in self.record.results.means
            if mean.metric == get_task(mean.task).primary
        ]


_SCORES = ["task", "unit", "setting", "aligned", "metric", "value", "low", "high", "n"]
_ITEMS = ["id", "text", "prompt", "reference", "answer", "cut_off", "score"]


def load_run(run: str | Path, *, data_dir: str | Path | None = None) -> Run:
    """Read a finished run.

    Args:
        run: A run folder, or the folder of a submission.
        data_dir: The data that it was evaluated on, which `items` and `gains` read. None:
            $XLT_BENCH_DATA, or the user's cache.

    Raises:
        InputError: The folder is not a finished run.
    """
    from xlt_bench.results.run_folder import read_record

    with quiet():
        folder = Path(run)
        return Run(folder, read_record(folder), data_dir)


def _share(units: Sequence[str], missing: Sequence[str]) -> str:
    return f"{len(units)} of {len(units) + len(missing)}" if missing else str(len(units))


def _is_primary(scores: pd.DataFrame) -> pd.Series[bool]:
    from xlt_bench.tasks.registry import get_task

    primary = {task: get_task(task).primary for task in scores.task.unique()}
    return scores.metric == scores.task.map(primary)


def _answers(folder: Path, task: str, unit: str) -> list[Prediction]:
    """The answers of a run, or of a submission, which may have them in an artifact store."""
    from xlt_bench.results.run_folder import predictions_path, read_predictions
    from xlt_bench.submissions.answers import read_unit
    from xlt_bench.submissions.schema import SUBMISSION
    from xlt_bench.submissions.validate import open_package

    if (folder / SUBMISSION).exists():
        return read_unit(open_package(folder.resolve()), task, unit)
    return read_predictions(predictions_path(folder, task, unit))


def _items(run: Run, task: str, unit: str, data_dir: str | Path | None) -> list[list[Any]]:
    from xlt_bench.data.root import data_root
    from xlt_bench.errors import unknown
    from xlt_bench.evaluation.score import count_items, items_answered
    from xlt_bench.results.run_folder import read_digests
    from xlt_bench.tasks.registry import get_text_task

    text_task, plan = get_text_task(task), run.record.plan
    if unit not in (there := plan.units.get(task, [])):
        raise unknown(f"unit of {task}", unit, there)
    given = _answers(run.folder, task, unit)
    digest = read_digests(run.folder).get(f"{task}/{unit}")
    items = items_answered(data_root(data_dir), plan, task, unit, given, digest)
    counts = count_items(plan, task, items, given)
    values = text_task.item_scores(counts[text_task.item_metric])
    return [
        [
            item.id,
            text_task.sentence(item),
            item.user,
            item.target,
            answer.hypothesis,
            answer.cut_off,
            float(value),
        ]
        for item, answer, value in zip(items, given, values, strict=True)
    ]
