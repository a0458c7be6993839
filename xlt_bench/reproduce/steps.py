"""Plans a reproduction, finds out which of its steps are done, and runs the others.

With `authors_adapters` nothing is trained: the adapters are those that the authors published.

OUTPUT/reproduction.json              the settings; a command with other settings is refused
OUTPUT/adapters/<system>.seed<n>/     trainings and merges, shared by all tables
OUTPUT/evaluations/<system>.seed<n>/<task>/    run folders; `base` has no seed
OUTPUT/<table>.md                     the table, published and measured
"""

from __future__ import annotations

import gc
import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from xlt_bench.data.flores import Corpus
from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError, unknown
from xlt_bench.evaluation.config import Options, load_items, plan_units, prepare
from xlt_bench.models.adapters import WEIGHTS
from xlt_bench.reproduce.tables import (
    AUTHORS_BASES,
    BASE,
    REPRODUCTIONS,
    Curves,
    Panel,
    Reproduction,
    System,
    authors_adapter,
    settings,
    with_authors_adapters,
)
from xlt_bench.results.run_folder import write_json
from xlt_bench.tasks.registry import RETRIEVAL, get_task
from xlt_bench.tasks.retrieval import ACCURACY
from xlt_bench.training.recipe import Recipe, load_recipe

EVALUATIONS = 5
"""How often a training with `--steps` is evaluated: as often as the paper's patience allows."""


@dataclass(frozen=True)
class Settings:
    """The options of `xlt-bench reproduce`; `steps` counts the updates of each objective."""

    model: str
    output: Path
    seeds: int = 1
    limit: int | None = None
    steps: int | None = None
    changes: Sequence[str] = ()
    dtype: str = "auto"
    device: str | None = None
    batch_size: str = "auto"
    chat_template: str | None = None
    data_dir: str | None = None
    comet: str | None = None
    """The COMET checkpoint to score translations with; None for no COMET."""
    trust_remote_code: bool = False
    authors_adapters: bool = False
    """Evaluate the adapters that the authors published instead of training any."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that all tables in one OUTPUT must share."""
        names = ("model", "limit", "steps", "changes", "dtype", "chat_template", "data_dir")
        chosen = {name: value for name, value in asdict(self).items() if name in names}
        if self.authors_adapters:  # a folder from before has no such setting
            chosen["authors_adapters"] = True
        return dict(json.loads(json.dumps(chosen)))  # as reading it back gives it


@dataclass(frozen=True)
class Step:
    """A training or a merge (`task` is None), or the evaluation of a system on a task."""

    system: System
    seed: int
    task: str | None = None

    @property
    def name(self) -> str:
        """The system with its seed; the bare model has no seed."""
        return "base" if self.system == BASE else f"{self.system.name}.seed{self.seed}"

    @property
    def what(self) -> str:
        """The action as the plan shows it: `train`, `merge` or `evaluate TASK`."""
        if self.task:
            return f"evaluate {self.task}"
        return "merge" if self.system.merged_with else "train"

    def folder(self, output: Path) -> Path:
        """The folder of its result."""
        if self.task is None:
            return output / "adapters" / self.name
        return output / "evaluations" / self.name / self.task


def reproduction(
    name: str, tasks: Sequence[str] = (), authors_adapters: bool = False
) -> Reproduction:
    """A table or figure of the paper.

    Args:
        name: Its name, such as `table2`.
        tasks: Keep only the panels of these tasks; all panels if empty.
        authors_adapters: Keep only systems whose adapters the authors published.

    Raises:
        InputError: The name is unknown, the table has no panel of a task, or the authors published
            none of its adapters.
    """
    if name not in REPRODUCTIONS:
        raise unknown("table", name, REPRODUCTIONS)
    whole = REPRODUCTIONS[name]
    if authors_adapters and not (whole := with_authors_adapters(whole)).parts:
        there = [key for key, one in REPRODUCTIONS.items() if with_authors_adapters(one).parts]
        raise InputError(
            f"the authors published no adapter of {name}; they did for {', '.join(there)}"
        )
    there = [part.task for part in whole.parts if isinstance(part, Panel)]
    for task in tasks:
        if task not in there:
            raise unknown(f"task of {name}", task, there)
    parts = [part for part in whole.parts if not tasks or getattr(part, "task", None) in tasks]
    return replace(whole, parts=parts)


def steps(wanted: Reproduction, seeds: int, train: bool = True) -> list[Step]:
    """All steps, each once: first the trainings, then the merges, then the evaluations.

    Args:
        wanted: The table or figure.
        seeds: Each recipe is trained with seeds 1 to this.
        train: Whether there are trainings and merges.
    """
    found: dict[Step, None] = {}
    for seed in range(1, seeds + 1):
        for system, task in needs(wanted):
            making = _making(system, seed) if train else ()
            for step in (*making, Step(system, seed if system != BASE else 1, task)):
                found[step] = None
    return sorted(found, key=lambda step: (step.task is not None, bool(step.system.merged_with)))


def _making(system: System, seed: int) -> Iterator[Step]:
    for recipe in (system.recipe, system.merged_with):
        if recipe:
            yield Step(System(recipe), seed)
    if system.merged_with:
        yield Step(system, seed)


def needs(wanted: Reproduction) -> Iterator[tuple[System, str]]:
    """Yield the evaluations as (system, task); some occur more than once."""
    for part in wanted.parts:
        if isinstance(part, Panel):
            for row in part.rows:
                for column in part.columns:
                    if not row.metrics or column.metric in row.metrics:
                        yield row.system, task_of(part, column.metric)
        elif isinstance(part, Curves):
            yield from ((system, "retrieval") for system in part.systems.values())
        else:
            yield BASE, "retrieval"
            yield part.system, part.task


def task_of(panel: Panel, metric: str) -> str:
    """The task whose evaluation gives a metric of a panel."""
    return RETRIEVAL if metric == ACCURACY else panel.task


def languages_of(task: str) -> list[str]:
    """The languages that retrieval covers for a task: 20 for slot filling, 9 for translation."""
    found = [get_task(task).languages_of(unit) for unit in settings(task)]
    return list(dict.fromkeys(code for codes in found for code in codes[::-1]))


def base_name(model: str) -> str:
    """The last part of a base model's name, without a revision."""
    return Path(model.partition("@")[0]).name


def _with_template(settings: Settings) -> Settings:
    """Check settings for the authors' adapters, and add the template that these were trained with.

    Raises:
        InputError: The authors published no adapters of the model, or a training is described.
    """
    name = base_name(settings.model)
    if name not in AUTHORS_BASES:
        known = " and ".join(AUTHORS_BASES)
        raise InputError(f"the authors published adapters of {known}, not of {settings.model}")
    if settings.seeds > 1 or settings.steps or settings.changes:
        raise InputError("--authors-adapters trains nothing; leave out --seeds, --steps and --set")
    return replace(settings, chat_template=settings.chat_template or AUTHORS_BASES[name])


class Project:
    """An OUTPUT folder and its settings: tells which steps are done, their cost, and runs them."""

    def __init__(self, settings: Settings) -> None:
        """Check the settings before any work.

        Raises:
            InputError: A setting is wrong, or OUTPUT was started with other settings.
        """
        from xlt_bench.models.chat import given_template
        from xlt_bench.models.validate_names import check_device, check_dtype, check_model

        self.settings = settings
        for name in ("seeds", "limit", "steps"):
            value = getattr(settings, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1, not {value}")
        check_model(settings.model)
        check_dtype(settings.dtype)
        check_device(settings.device)
        given_template(settings.chat_template)
        if settings.authors_adapters:
            self.settings = _with_template(settings)
        self._check_identity()

    def _check_identity(self) -> None:
        path = self.settings.output / "reproduction.json"
        if not path.exists():
            return
        try:
            old = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise InputError(f"{path} is damaged; choose another --output") from None
        for key, value in self.settings.identity.items():
            if old.get(key) != value:
                raise InputError(
                    f"{self.settings.output} was started with other settings ({key}: "
                    f"{old.get(key)}, now {value}); choose another --output"
                )

    def recipe(self, step: Step) -> Recipe:
        """The recipe of a training step, with the changes of the settings."""
        return load_recipe(str(step.system.recipe), self._changes(step))

    def _changes(self, step: Step) -> list[str]:
        """The changes to a recipe; those of `task` or `alignment` only if it has that section."""
        plain = load_recipe(str(step.system.recipe))
        changes = [f"training.seed={step.seed}"]
        if self.settings.steps:
            stride = plain.updates_a_task_batch
            every = max(1, self.settings.steps // EVALUATIONS) * stride
            changes += [f"training.max_steps={self.settings.steps * stride}"]
            changes += [f"training.eval_steps={every}"]
        for change in self.settings.changes:
            section = change.partition(".")[0]
            if section not in ("task", "alignment") or getattr(plain, section):
                changes.append(change)
        return changes

    def command(self, step: Step) -> str:
        """A step as a shell command with the same result, for a scheduler or torchrun."""
        settings, folder = self.settings, str(step.folder(self.settings.output))
        named: dict[str, Any] = {"--model": settings.model, "--output": folder}
        common = {"--data-dir": settings.data_dir, "--chat-template": settings.chat_template}
        if step.what == "merge":
            words, (task, alignment) = ["merge"], self._parts(step)
            named |= {"--task": task, "--alignment": alignment}
        elif step.task is None:
            words = ["train", str(step.system.recipe)]
            words += [word for change in self._changes(step) for word in ("--set", change)]
            named |= common
        else:
            words, options = ["evaluate"], self.options(step)
            if step.task == "wmt23" and settings.comet:
                named |= {"--comet-model": settings.comet}
                words.append("--comet")
            for name in ("limit", "dtype", "device", "batch_size"):
                named[f"--{name.replace('_', '-')}"] = getattr(options, name)
            named |= common | {
                "--tasks": step.task,
                "--adapter": next(iter(options.adapters), None),
            }
            named["--languages"] = ",".join(options.languages)
            named["--layers"] = ",".join(map(str, options.layers))
        if settings.trust_remote_code:
            words.append("--trust-remote-code")
        given = [word for name, value in named.items() if value for word in (name, str(value))]
        return shlex.join(["xlt-bench", *words, *given])

    def is_done(self, step: Step) -> bool:
        """Whether a step's result is complete.

        Raises:
            InputError: The folder holds a training with another recipe, or a damaged one.
        """
        folder = step.folder(self.settings.output)
        if step.task:
            return (folder / "record.json").exists() and self._has_comet(step)
        if step.what == "train" and (folder / "training.json").exists():
            try:
                old = json.loads((folder / "training.json").read_text(encoding="utf-8"))["recipe"]
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{folder / 'training.json'} is damaged; delete {folder}"
                ) from None
            if old != self.recipe(step).identity:
                raise InputError(
                    f"{folder} was not trained by {step.system.recipe} with these settings; "
                    "choose another --output"
                )
        return (folder / WEIGHTS).exists()

    def _has_comet(self, step: Step) -> bool:
        """Whether all translations have COMET scores, or none were asked for."""
        if step.task != "wmt23" or self.settings.comet is None:
            return True
        from xlt_bench.evaluation.comet.stored import read_comet
        from xlt_bench.results.run_folder import read_plan

        run = step.folder(self.settings.output)
        plan = read_plan(run)
        return set(read_comet(plan, run)) == set(plan.units["wmt23"])

    def is_begun(self, step: Step) -> bool:
        """Whether a step that is not done was started and will resume."""
        folder = step.folder(self.settings.output)
        return step.what != "merge" and folder.is_dir() and any(folder.iterdir())

    def options(self, step: Step) -> Options:
        """The options of `evaluate` for an evaluation step."""
        settings, languages = self.settings, list[str]()
        if step.task == "retrieval" and step.system.recipe:
            task = load_recipe(step.system.recipe).task
            languages = languages_of(task.name if task else "massive")
        return Options(
            model=settings.model,
            output=step.folder(settings.output),
            adapters=[] if step.system == BASE else [self._adapter(step)],
            tasks=[str(step.task)],
            languages=languages,
            limit=settings.limit,
            layers=self.layers if step.task == "retrieval" else [],
            dtype=settings.dtype,
            device=settings.device,
            batch_size=settings.batch_size,
            chat_template=settings.chat_template,
            data_dir=settings.data_dir,
            trust_remote_code=settings.trust_remote_code,
        )

    def _adapter(self, step: Step) -> str:
        """The folder of a step's adapter, or the hub's name of the one that the authors published.

        Raises:
            InputError: The authors published none.
        """
        if not self.settings.authors_adapters:
            return str(Step(step.system, step.seed).folder(self.settings.output))
        found = authors_adapter(step.system, base_name(self.settings.model))
        if found is None:
            raise InputError(f"the authors published no adapter for {step.system.name}")
        return found

    @cached_property
    def layers(self) -> list[int]:
        """The layers of retrieval: the even ones and the middle one."""
        from xlt_bench.metrics.retrieval import even_layers
        from xlt_bench.models.hidden_states import count_layers

        n_layers = count_layers(self._skeleton)
        return sorted({*even_layers(n_layers), max(1, n_layers // 2)})

    @cached_property
    def _skeleton(self) -> Any:
        from xlt_bench.models.load import meta_model

        return meta_model(self.settings.model, self.settings.trust_remote_code)

    def run(self, step: Step, track: Any) -> None:
        """Run or resume a step; `track` is as for `evaluate`."""
        write_json(self.settings.output / "reproduction.json", self.settings.identity)
        do: dict[str, Callable[[Step, Any], None]] = {"train": self._train, "merge": self._merge}
        do.get(step.what, self._evaluate)(step, track)
        gc.collect()  # a trainer is in a reference cycle and keeps its model alive

    def _train(self, step: Step, _track: Any) -> None:
        from xlt_bench.training.run import TrainOptions, train

        train(
            TrainOptions(
                recipe_name=str(step.system.recipe),
                recipe=self.recipe(step),
                model=self.settings.model,
                output=step.folder(self.settings.output),
                data_dir=self.settings.data_dir,
                chat_template=self.settings.chat_template,
                trust_remote_code=self.settings.trust_remote_code,
            )
        )

    def _merge(self, step: Step, _track: Any) -> None:
        from xlt_bench.training.merge import MergeOptions, merge

        folder = step.folder(self.settings.output)
        shutil.rmtree(folder, ignore_errors=True)  # not done: at most a card without weights
        task, alignment = self._parts(step)
        merge(
            MergeOptions(
                task=task,
                alignment=alignment,
                output=folder,
                model=self.settings.model,
                trust_remote_code=self.settings.trust_remote_code,
            )
        )

    def _parts(self, step: Step) -> list[str]:
        """The folders of the two adapters of a merge."""
        parts = (step.system.recipe, step.system.merged_with)
        return [str(Step(System(name), step.seed).folder(self.settings.output)) for name in parts]

    def _evaluate(self, step: Step, track: Any) -> None:
        from xlt_bench.evaluation.run import evaluate
        from xlt_bench.evaluation.score import rescore_run

        run, root = step.folder(self.settings.output), data_root(self.settings.data_dir)
        for _, record in evaluate(prepare(self.options(step)), track):
            if step.task == "wmt23" and self.settings.comet:
                from xlt_bench.evaluation.comet.score import score_segments, with_comet

                score_segments(run, root, self.settings.comet, track)
                with_comet(run, record, rescore_run(run, root, record))

    def cost(self, step: Step) -> tuple[str, int]:
        """The size of a step in words, and an estimate of the bytes that it leaves on disk."""
        if step.task is None:
            return self._training_cost(step)
        options = self.options(step)
        chosen = plan_units(options)
        if step.task == "retrieval":
            n, layers = len(chosen[RETRIEVAL]), len(self.layers)
            sentences = min(997, self.settings.limit or 997)
            pairs = n * (n - 1)
            words = f"{n} languages, {pairs:,} pairs, {layers} layers, {sentences} sentences"
            return words, 2 * pairs * layers * sentences
        items = self._items(str(step.task))
        return f"{items:,} items", 60 * items

    @cache  # noqa: B019  # one project per process
    def _items(self, task: str) -> int:
        root, limit = data_root(self.settings.data_dir), self.settings.limit
        chosen = {task: list(get_task(task).test_set().units)}
        return sum(map(len, load_items(Corpus(root), chosen, limit).values()))

    def _training_cost(self, step: Step) -> tuple[str, int]:
        recipe = self.recipe(step)
        if step.system.merged_with:
            return "0.9 task + 0.1 alignment", 2 * self._adapter_bytes(recipe)
        return f"at most {self._updates(recipe):,} updates", self._adapter_bytes(recipe)

    def _updates(self, recipe: Recipe) -> int:
        """The updates of a training without early stopping; reads the data if no limit is set."""
        if recipe.training.max_steps:
            return recipe.training.max_steps
        from xlt_bench.training.dataset import load_items as load_task
        from xlt_bench.training.pairs import load_pairs

        root = data_root(self.settings.data_dir)
        if recipe.task:
            return recipe.updates(len(load_task(root, recipe.task, "train")))
        assert recipe.alignment
        return recipe.updates(sum(map(len, load_pairs(root, recipe.alignment).values())))

    def _adapter_bytes(self, recipe: Recipe) -> int:
        """The bytes of a float32 LoRA on all linear layers except the head."""
        from torch import nn

        sizes = [
            module.in_features + module.out_features
            for name, module in self._skeleton.named_modules()
            if isinstance(module, nn.Linear) and not name.endswith("lm_head")
        ]
        return 4 * recipe.lora.r * sum(sizes)
