"""Renders the paper's tables with measured rows beside its own, and its figures as charts."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast

from xlt_bench.data.root import data_root
from xlt_bench.languages import LANGUAGES
from xlt_bench.metrics.paired import ALPHA
from xlt_bench.reproduce.steps import Project, Step, languages_of, task_of
from xlt_bench.reproduce.tables import (
    BASE,
    Column,
    Curves,
    Panel,
    Reproduction,
    Row,
    Scatter,
    System,
    settings,
)
from xlt_bench.results.run_folder import layer_path, read_plan, read_record
from xlt_bench.results.tables import Table
from xlt_bench.submissions.compare import (
    ComparedSystem,
    Comparison,
    compare_systems,
    load_system,
)
from xlt_bench.tasks.registry import RETRIEVAL, get_task
from xlt_bench.tasks.retrieval import ACCURACY
from xlt_bench.training.recipe import load_recipe

Pairs = Mapping[tuple[str, str], float]
"""Retrieval accuracy by ordered pair."""
Point = dict[str, Any]

_PUBLISHED = Path(__file__).parents[1] / "store" / "published.csv"
_BESIDE = {"slot_f1": "slot_f1_midalign"}
"""The metric to compare with a published one: the scorer that repeats the authors' script."""
_WIDE = 12  # columns; a table with more is transposed
_Key = tuple[str, str, str, str, str, str, str]


@cache
def published() -> dict[_Key, float]:
    """The paper's numbers, by table, task, model, row, split, unit and metric."""
    names = ("paper_table", "task", "model", "row", "split", "unit", "metric")
    with _PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        cast(_Key, tuple(row[name] for name in names)): float(row["value"])
        for row in rows
        if row["usable"] == "yes"
    }


class Results:
    """The results of a project's finished steps; None for a step that is not finished."""

    def __init__(self, project: Project) -> None:
        self._project, self._settings = project, project.settings
        self.scores = cache(self._scores)
        self.layers = cache(self._layers)
        self.answers = cache(self._answers)

    def run(self, system: System, seed: int, task: str) -> Path | None:
        """The run folder of an evaluation; None if it is not finished."""
        folder = Step(system, seed, task).folder(self._settings.output)
        return folder if (folder / "record.json").exists() else None

    def _scores(self, system: System, seed: int, task: str) -> dict[tuple[str, str], float] | None:
        """Scores by metric and unit."""
        run = self.run(system, seed, task)
        rows = read_record(run).results.scores if run else []
        return {(row.metric, row.unit): row.value for row in rows} if run else None

    def _layers(self, system: System, seed: int) -> dict[int, Pairs] | None:
        """Retrieval accuracies by layer and pair."""
        if (run := self.run(system, seed, "retrieval")) is None:
            return None
        from xlt_bench.submissions.safe_read import read_accuracies

        plan = read_plan(run)
        found: dict[int, Pairs] = {}
        for layer in plan.layers:
            table = read_accuracies(layer_path(run, layer), plan.units[RETRIEVAL]).to_pydict()
            pairs = zip(table["source"], table["target"], strict=True)
            found[layer] = dict(zip(pairs, table["accuracy"], strict=True))
        return found

    def _answers(self, system: System, seed: int, task: str) -> ComparedSystem | None:
        """The counts of a run, for paired tests."""
        run = self.run(system, seed, task)
        root = data_root(self._settings.data_dir)
        return load_system(str(run), Path(), root) if run else None

    def value(self, panel: Panel, row: Row, column: Column, seed: int) -> float | None:
        """The value of a cell for one seed; None if it is missing or not shown in this row."""
        if row.metrics and column.metric not in row.metrics:
            return None
        if column.metric == ACCURACY:
            layers = self.layers(row.system, seed)
            return mean_retrieval(layers, languages_of(panel.task)) if layers else None
        ours = self._by_unit(panel, row.system, column, seed)
        if column.of == "score":
            names = split_units(panel.task, column, panel.aligned)
            return fmean(ours[name] for name in names) if set(names) <= set(ours) else None
        if panel.baseline is None or row.system == panel.baseline:
            return None
        theirs = self._by_unit(panel, panel.baseline, column, seed)
        names = split_units(panel.task, column, alignment_languages(row.system))
        if not names or not set(names) <= set(ours) & set(theirs):
            return None
        gains = [ours[name] - theirs[name] for name in names]
        return fmean(gains) if column.of == "gain" else stdev(gains)

    def _by_unit(self, panel: Panel, system: System, column: Column, seed: int) -> dict[str, float]:
        metric = _BESIDE.get(column.metric, column.metric)
        found = self.scores(system, seed, panel.task) or {}
        return {unit: value for (name, unit), value in found.items() if name == metric}


def mean_retrieval(layers: Mapping[int, Pairs], languages: Sequence[str]) -> float:
    """The paper's aggregate: the mean over even layers and all ordered pairs of some languages."""
    return fmean(among(pairs, languages) for layer, pairs in layers.items() if layer % 2 == 0)


def among(pairs: Pairs, languages: Sequence[str]) -> float:
    """The mean accuracy over all ordered pairs of some languages."""
    chosen = set(languages)
    return fmean(value for pair, value in pairs.items() if set(pair) <= chosen)


def of_language(pairs: Pairs, code: str, languages: Sequence[str]) -> float:
    """The mean accuracy of a language over its pairs with the others, in both directions."""
    chosen = set(languages)
    return fmean(v for pair, v in pairs.items() if code in pair and set(pair) <= chosen)


def alignment_languages(system: System) -> list[str]:
    """The languages that a system was aligned on."""
    recipes = [load_recipe(name) for name in (system.recipe, system.merged_with) if name]
    return [code for one in recipes if one.alignment for code in one.alignment.languages]


def split_units(task: str, column: Column, aligned: Sequence[str]) -> list[str]:
    """The units that a column is the mean over."""
    if column.unit:
        return [column.unit]
    if column.split == "aligned":
        return [unit for unit in settings(task) if unit in aligned]
    setting, _, side = column.split.partition(" ")
    found = [unit for unit, one in settings(task).items() if one == setting]
    if side:
        found = [unit for unit in found if unit.endswith("-en") == (side == "into English")]
    return found


def report(name: str, wanted: Reproduction, project: Project) -> tuple[list[Table], list[Any]]:
    """Render a table or figure of the paper.

    Args:
        name: Its name, such as `table2`.
        wanted: What it consists of.
        project: Where its evaluations are.

    Returns:
        Tables to print, and the altair charts of a figure.
    """
    results, seeds = Results(project), range(1, project.settings.seeds + 1)
    tables: list[Table] = []
    charts: list[Any] = []
    for part in wanted.parts:
        if isinstance(part, Panel):
            tables.append(panel_table(name, wanted, part, results, project))
            tables += gain_tables(part, results, seeds)
        elif isinstance(part, Curves):
            points = list(curve_points(part, results, seeds))
            tables.append(_curve_table(wanted, points, project))
            charts += [_curve_chart(points)] if points else []
        else:
            points = list(scatter_points(part, results, seeds))
            tables.append(_scatter_table(wanted, part, points))
            charts += [_scatter_chart(points)] if points else []
    return tables, charts


def panel_table(
    name: str, wanted: Reproduction, panel: Panel, results: Results, project: Project
) -> Table:
    """A panel as a table: each row as published, for each model, and as measured."""
    seeds = range(1, project.settings.seeds + 1)
    number, figures = name.removeprefix("table"), published()
    model = Path(project.settings.model).name
    rows = []
    for row in panel.rows:
        for other, title in row.published.items():
            keys = [(number, panel.task, other, title, *c.published) for c in panel.columns]
            rows.append(
                [row.label, f"{other}, published", *(_cell([figures.get(k)]) for k in keys)]
            )
        cells = [
            _cell([results.value(panel, row, column, seed) for seed in seeds])
            for column in panel.columns
        ]
        rows.append([row.label, f"{model}, measured", *cells])
    columns = ["", "", *(column.title for column in panel.columns)]
    if len(columns) > _WIDE:
        columns, *rows = [list(line) for line in zip(*[columns, *rows], strict=True)]
        columns = [" ".join(pair).strip() for pair in zip(columns, rows[0], strict=True)]
        rows = rows[1:]
    return Table(
        f"{wanted.title}: {panel.task}", columns, rows, [*wanted.notes, *_notes(panel, project)]
    )


def _notes(panel: Panel, project: Project) -> list[str]:
    settings = project.settings
    notes = []
    if panel.task == "massive" and any(column.metric == "slot_f1" for column in panel.columns):
        notes.append("F1 is slot_f1_midalign, the authors' scorer; the gains below are in slot_f1.")
    if settings.limit:
        notes.append(f"Measured on the first {settings.limit} items of each unit.")
    if settings.steps:
        notes.append(f"Trained for {settings.steps} updates of each objective.")
    if settings.seeds > 1:
        notes.append(f"Mean ± standard deviation of {settings.seeds} seeds.")
    return notes


def _cell(values: Sequence[float | None]) -> str:
    """The mean over seeds, with the standard deviation of several; empty if a value is missing."""
    there = [value for value in values if value is not None]
    if not there or len(there) < len(values):
        return ""
    spread = f" ± {stdev(there):.1f}" if len(there) > 1 else ""
    return f"{fmean(there):.1f}{spread}"


def gain_tables(panel: Panel, results: Results, seeds: Sequence[int]) -> Iterator[Table]:
    """Yield tables of paired gains over the panel's baseline, one per evaluation."""
    if panel.baseline is None:
        return
    label = next(row.label for row in panel.rows if row.system == panel.baseline)
    for task in dict.fromkeys(task_of(panel, column.metric) for column in panel.columns):
        rows = []
        for row in panel.rows:
            for seed in seeds if row.system not in (panel.baseline, BASE) else ():
                ours = results.answers(row.system, seed, task)
                theirs = results.answers(panel.baseline, seed, task)
                for one in compare_systems(ours, theirs)[0] if ours and theirs else ():
                    rows.append([row.label, str(seed), one.metric, *_gain_cells(one)])
        if rows:
            columns = ["", "seed", "metric", *_SPLITS]
            note = f"95 % interval of a paired bootstrap; * p < {ALPHA:g}. Significant by language "
            note += "after Holm's correction: gains + losses."
            yield Table(f"Gains over {label}: {task}", columns, rows, [note])


_SPLITS = ("supervised", "transfer", "aligned", "all", "significant by language")


def _gain_cells(one: Comparison) -> list[str]:
    means = {mean.split: mean.gain for mean in one.means}
    cells = []
    for split in _SPLITS[:-1]:
        found = means.get(split)
        cells.append(
            f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
            + (" *" if found.p < ALPHA else "")
            if found
            else ""
        )
    clear = [row.gain.value for row in one.units if row.p_holm < ALPHA]
    up = sum(value > 0 for value in clear)
    return [*cells, f"{up} + {len(clear) - up} of {len(one.units)}"]


def curve_points(part: Curves, results: Results, seeds: Sequence[int]) -> Iterator[Point]:
    """Yield `line`, `layer` and `accuracy` (mean over seeds) of each line that is finished."""
    for label, system in part.systems.items():
        runs = [results.layers(system, seed) for seed in (seeds if system != BASE else [1])]
        there = [run for run in runs if run is not None]
        for group in part.groups if there and len(there) == len(runs) else ():
            line = label if len(part.groups) == 1 else f"{label}, {group}"
            for layer in there[0]:
                value = fmean(_group_accuracy(run[layer], group) for run in there)
                yield {"line": line, "layer": layer, "accuracy": value}


def _group_accuracy(pairs: Pairs, group: str) -> float:
    everyone = list(settings(RETRIEVAL))
    if group == "low-resource languages":
        low = [code for code in everyone if LANGUAGES[code].resource == "low"]
        return fmean(of_language(pairs, code, everyone) for code in low)
    return among(pairs, everyone if group == "35 languages" else languages_of("massive"))


def scatter_points(part: Scatter, results: Results, seeds: Sequence[int]) -> Iterator[Point]:
    """Yield points of `language`, `setting`, `retrieval` (bare model, middle layer) and `score`."""
    layers = results.layers(BASE, 1)
    runs = [results.scores(part.system, seed, part.task) for seed in seeds]
    there = [run for run in runs if run is not None]
    if layers is None or len(there) < len(runs):
        return
    middle, metric = layers[max(layers) // 2], get_task(part.task).primary
    for unit, setting in settings(part.task).items():
        yield {
            "language": unit,
            "setting": str(setting),
            "retrieval": of_language(middle, unit, list(settings(RETRIEVAL))),
            "score": fmean(run[metric, unit] for run in there),
        }


def correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float, float]:
    """Correlate two columns of points.

    Args:
        x: One value a point, at least four.
        y: As many values.

    Returns:
        Pearson's r, the ends of its 95 % interval (Fisher's), and Spearman's rho; all NaN if x or y
        is constant.
    """
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        pearson, rho = stats.pearsonr(x, y), stats.spearmanr(x, y).statistic
    low, high = pearson.confidence_interval()
    return float(pearson.statistic), float(low), float(high), float(rho)


def _curve_table(wanted: Reproduction, points: Sequence[Point], project: Project) -> Table:
    lines = list(dict.fromkeys(point["line"] for point in points))
    layers = sorted({point["layer"] for point in points})
    values = {(point["layer"], point["line"]): f"{point['accuracy']:.1f}" for point in points}
    rows = [[str(layer), *(values[layer, line] for line in lines)] for layer in layers]
    notes = [*wanted.notes, "Measured; the paper prints no numbers for its figures."]
    if project.settings.limit:
        notes.append(f"Measured on the first {project.settings.limit} sentences.")
    return Table(f"{wanted.title}: retrieval accuracy by layer", ["layer", *lines], rows, notes)


def _scatter_table(wanted: Reproduction, part: Scatter, points: Sequence[Point]) -> Table:
    notes = ["Measured; the paper prints no numbers for its figures."]
    for split in ("transfer", "all"):
        chosen = [p for p in points if split in ("all", p["setting"])]
        if len(chosen) > 3:
            r, low, high, rho = correlation(
                [p["retrieval"] for p in chosen], [p["score"] for p in chosen]
            )
            notes.append(
                f"{split} ({len(chosen)}): Pearson {r:.2f} ({low:.2f} to {high:.2f}), "
                f"Spearman {rho:.2f}."
            )
    rows = [
        [p["language"], p["setting"], f"{p['retrieval']:.1f}", f"{p['score']:.1f}"] for p in points
    ]
    columns = ["language", "setting", "retrieval, bare model, middle layer", f"score, {part.task}"]
    return Table(f"{wanted.title}: retrieval and transfer", columns, rows, notes)


def _curve_chart(points: Sequence[Point]) -> Any:
    import altair as alt
    import pandas as pd

    return (
        alt.Chart(pd.DataFrame(points))
        .mark_line(point=True)
        .encode(
            x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("accuracy:Q", title="retrieval accuracy (%)"),
            color=alt.Color("line:N", title=None),
            strokeDash=alt.StrokeDash("line:N", title=None),
        )
    )


def _scatter_chart(points: Sequence[Point]) -> Any:
    import altair as alt
    import pandas as pd

    base = alt.Chart(pd.DataFrame(points)).encode(
        x=alt.X("retrieval:Q", title="retrieval accuracy of the bare model, middle layer (%)"),
        y=alt.Y("score:Q", title="score after fine-tuning"),
    )
    dots = base.mark_point(filled=True).encode(color=alt.Color("setting:N", title=None))
    return dots + base.mark_text(dx=10).encode(text="language:N")
