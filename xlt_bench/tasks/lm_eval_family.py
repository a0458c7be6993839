"""Task families of lm-eval by language: its own definitions, read from a small YAML file.

`families/` holds those that ship, and $XLT_BENCH_FAMILIES may name a folder with others. Prompts,
filters and scores of single items are lm-eval's; the file names lm-eval's task of each language,
the metric that counts, and the settings. Families show what an adapter does to tasks that it was
not trained for.

An answer is stored as lm-eval's model gives it: the text or, for multiple choice, a JSON list with
the log-likelihood of each choice and whether it is the greedy continuation.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xlt_bench.data.root import MissingFileError
from xlt_bench.errors import InputError, first_fault, one_line, unknown
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.metrics.significance import Counts, percent
from xlt_bench.tasks.base import Item, Metric, Split, TextTask, text_metrics
from xlt_bench.tasks.test_set import PinnedUnit, TestSet

FOLDER = Path(__file__).with_name("families")
OWN = "XLT_BENCH_FAMILIES"
"""The environment variable that names a folder with families of the user's own."""
_FEWSHOT_SEED = 1234  # lm-eval's default for the choice of examples

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
WithCode = Annotated[str, Field(pattern=r"\{code\}")]


class LocalData(BaseModel):
    """Files of the data folder, which are read instead of lm-eval's data set on the hub.

    `files` are JSONL, or TSV without a header, whose `columns` are then named. `numbers` are the
    columns with whole numbers; `constants` are fields that the files lack.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[Literal["training", "validation", "test"], WithCode]
    columns: list[str] = []
    numbers: list[str] = []
    constants: dict[str, str | int | None] = {}


class Family(BaseModel):
    """A YAML file of a family.

    `lm_eval` is the name of lm-eval's task or group, with `{code}` for the language; `folder` the
    one in lm_eval/tasks that defines it; and `languages` maps our codes to lm-eval's. `metrics` are
    means over items from 0 to 1, the first of which is the primary one. With `chat`, prompts go
    through the chat template, as with lm-eval's --apply_chat_template. A changed file gets the next
    `version`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=60)]
    version: Annotated[int, Field(ge=1)] = 1
    lm_eval: WithCode
    folder: Annotated[str, Field(pattern=r"^[\w/-]+$")]
    languages: Annotated[dict[str, str], Field(min_length=1)]
    supervised: list[str] = []
    metrics: Annotated[list[str], Field(min_length=1)]
    filter: str = "none"
    chat: bool = False
    data: LocalData | None = None

    @model_validator(mode="after")
    def _has_its_languages(self) -> Family:
        for code in self.languages:
            if code not in LANGUAGES:
                raise ValueError(f"no language has the code {code} (see: xlt-bench languages)")
        if odd := [code for code in self.supervised if code not in self.languages]:
            raise ValueError(f"supervised: {odd[0]} is not in languages")
        return self


def read_family(path: Path) -> Family:
    """Read the YAML file of a family.

    Raises:
        InputError: The file is missing or not a family.
    """
    try:
        return Family.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise InputError(f"{path} is not a task family: {first_fault(error)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error, 200)}") from None


@cache
def families() -> Mapping[str, Family]:
    """The families by name: those that ship, and those in the folder $XLT_BENCH_FAMILIES.

    Raises:
        InputError: A file is not a family, or two have one name.
    """
    folders = [FOLDER]
    if own := os.environ.get(OWN):
        if not Path(own).is_dir():
            raise InputError(f"${OWN} is not a folder: {own}")
        folders.append(Path(own))
    found: dict[str, Family] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        family = read_family(path)
        if family.name in found:
            raise InputError(f"{path}: the name {family.name} is taken; rename the family")
        found[family.name] = family
    return found


@cache
def family_task(name: str) -> FamilyTask:
    """The task of a family.

    Raises:
        InputError: There is no such family.
    """
    if name not in families():
        raise unknown("task family", name, families())
    return make_task(families()[name])


def make_task(family: Family) -> FamilyTask:
    """The task of a family."""
    fields = {
        "family": family,
        "name": family.name,
        "title": f"Side effects: {family.title}",
        "primary": family.metrics[0],
        "metrics": text_metrics(**{name: Metric(percent, 2) for name in family.metrics}),
        "shown": tuple(family.metrics),
        "item_metric": family.metrics[0],
        "ranked_by": "transfer" if family.supervised else "all",
        "__module__": __name__,
    }
    return cast("FamilyTask", type("FamilyTask", (FamilyTask,), fields)())


class FamilyTask(TextTask):
    """A family of lm-eval's tasks, one for each language.

    Attributes:
        family: The family's file.
    """

    family: ClassVar[Family]
    of_lm_eval = True
    max_new_tokens = 0  # lm-eval's tasks have their own limits

    def __init__(self) -> None:
        """Start with no task built; see `load`."""
        self._loaded: dict[tuple[Path, str], dict[str, Any]] = {}
        self._built: dict[str, dict[str, Any]] = {}

    def units(self) -> list[str]:
        """The family's languages, in the order of the language table."""
        return [code for code in LANGUAGES if code in self.family.languages]

    def unit_named(self, name: str) -> str:
        """The language that a user names."""
        if (unit := language(name).code) not in self.family.languages:
            raise unknown(f"language of {self.name}", name, self.units())
        return unit

    @property
    def lm_eval_name(self) -> str:
        """The names of lm-eval's tasks."""
        return self.family.lm_eval

    @property
    def versions(self) -> Sequence[int]:
        """The pinned versions; that of the file if nothing is pinned, as without the data."""
        return super().versions or [self.family.version]

    def test_set(self, version: int | None = None) -> TestSet:
        """A pinned version, or the languages of the file, whose items are then unknown."""
        if super().versions or version not in (None, self.family.version):
            return super().test_set(version)
        units = {
            unit: PinnedUnit(setting=self.family_setting(unit), items=0, digest="")
            for unit in self.units()
        }
        return TestSet(task=self.name, version=self.family.version, units=units)

    def family_setting(self, unit: str) -> Literal["supervised", "transfer"] | None:
        """The setting that the file gives to a language; None in a family without settings."""
        if not self.family.supervised:
            return None
        return "supervised" if unit in self.family.supervised else "transfer"

    def load(self, root: Path, unit: str, split: Split = "test") -> list[Item]:
        """The items of lm-eval's task of a language; there are no others than `test`.

        Raises:
            InputError: lm-eval lacks the task, or its data cannot be read.
        """
        if split != "test":
            return []
        tasks = self._tasks(root, unit)
        return [
            _item(task, self.family.chat, unit, f"{name}/{i}" if len(tasks) > 1 else str(i), doc)
            for name, task in tasks.items()
            for i, doc in enumerate(task.eval_docs)
        ]

    def splits(self, unit: str) -> tuple[Split, ...]:
        """Only the one that is evaluated."""
        return ("test",)

    def requests(self, item: Item, prompt: str) -> list[Any]:
        """lm-eval's requests for an item: one for each choice, or a single one."""
        task, doc = self._doc(item)
        found = task.construct_requests(
            doc=doc, ctx=prompt, apply_chat_template=self.family.chat, metadata=(None, 0, 1)
        )
        return found if isinstance(found, list) else [found]

    def count(
        self, items: Sequence[Item], hypotheses: Sequence[str], test_set: TestSet
    ) -> dict[str, Counts]:
        """lm-eval's scores of single items, each (score, 1)."""
        rows = [self._scores(*pair) for pair in zip(items, hypotheses, strict=True)]
        return {
            name: np.array([(row[name], 1) for row in rows], dtype=np.float64).reshape(-1, 2)
            for name in self.family.metrics
        }

    def _scores(self, item: Item, hypothesis: str) -> dict[str, float]:
        """The score of an answer under each metric; 0 for what is not an answer."""
        task, doc = self._doc(item)
        if task.OUTPUT_TYPE == "multiple_choice":
            answers = _likelihoods(hypothesis, len(self.requests(item, "")))
            if answers is None:
                return dict.fromkeys(self.family.metrics, 0.0)
            found = task.process_results(doc, answers)
        else:
            found = task.process_results(doc, [self._filtered(task, item, hypothesis)])
        return {name: self._checked(name, found) for name in self.family.metrics}

    def _checked(self, name: str, found: Mapping[str, Any]) -> float:
        value = found.get(name)
        if not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
            raise InputError(
                f"{self.name}: lm-eval's {name} of an item must be a number from 0 to 1, got "
                f"{value!r}; choose other metrics"
            )
        return float(value)

    def _filtered(self, task: Any, item: Item, answer: str) -> Any:
        chosen = [one for one in task._filters if one.name == self.family.filter]
        if not chosen:
            raise unknown(f"filter of {self.name}", self.family.filter, _names(task._filters))
        (request,) = self.requests(item, "")
        request.resps.append(answer)
        chosen[0].apply([request])
        return request.filtered_resps[self.family.filter]

    def _doc(self, item: Item) -> tuple[Any, dict[str, Any]]:
        """lm-eval's task and document of an item that `load` made."""
        return self._built[item.unit][item.id.rpartition("/")[0]], json.loads(item.gold)

    def _tasks(self, root: Path, unit: str) -> dict[str, Any]:
        """lm-eval's tasks of a language by name; more than one if it is a group."""
        if (root, unit) not in self._loaded:
            self._loaded[root, unit] = _build(self.family, root, unit)
        tasks = self._loaded[root, unit]
        self._built[unit] = {"": next(iter(tasks.values()))} if len(tasks) == 1 else tasks
        return tasks


def _item(task: Any, chat: bool, unit: str, item_id: str, doc: dict[str, Any]) -> Item:
    system, user = _prompt(task, chat, doc)
    target = task.doc_to_target(doc)
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        target = task.doc_to_choice(doc)[target]
    try:
        gold = json.dumps(doc, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(f"lm-eval's {task.config.task} has data that are not text") from None
    return Item(id=item_id, unit=unit, system=system, user=user, target=str(target), gold=gold)


def _prompt(task: Any, chat: bool, doc: dict[str, Any]) -> tuple[str, str]:
    """System and user message, or an empty one and the whole prompt."""
    seen: list[dict[str, str]] = []

    def take(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        seen.extend(messages)
        return ""

    prompt = task.fewshot_context(
        doc,
        num_fewshot=task.config.num_fewshot or 0,
        apply_chat_template=chat,
        chat_template=take if chat else None,
        gen_prefix=task.doc_to_prefix(doc),
    )
    if not isinstance(prompt, str):
        raise InputError(f"{task.config.task}: choices before the answer are not supported")
    if not chat:
        return "", prompt
    system = seen.pop(0)["content"] if seen[0]["role"] == "system" else ""
    if [one["role"] for one in seen] != ["user"]:
        raise InputError(f"{task.config.task} begins the answer itself; set chat: false")
    return system, seen[0]["content"]


def _likelihoods(text: str, n: int) -> list[tuple[float, bool]] | None:
    """The stored log-likelihoods of n choices; None if the text is something else."""
    try:
        rows = [(float(value), bool(greedy)) for value, greedy in json.loads(text)]
    except (ValueError, TypeError, RecursionError):
        return None
    return rows if len(rows) == n and all(np.isfinite(row[0]) for row in rows) else None


def stored(answers: Sequence[tuple[float, bool]]) -> str:
    """The text that stores the log-likelihoods of an item's choices."""
    return json.dumps([[float(value), bool(greedy)] for value, greedy in answers])


def _build(family: Family, root: Path, unit: str) -> dict[str, Any]:
    """lm-eval's tasks of a language by name."""
    import lm_eval.tasks

    code = family.languages[unit]
    name = family.lm_eval.format(code=code)
    folder = Path(lm_eval.tasks.__file__).parent / family.folder
    if not folder.is_dir():
        raise InputError(f"{family.name}: this lm-eval has no folder tasks/{family.folder}")
    local = family.data and _local(family.data, root, code)
    spec: Any = name
    if local:
        spec = {"group": "xlt", "task": [{"task": name, **_overrides(local)}]}
    manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of what its own files leave out
    try:
        built: dict[str, Any] = manager.load(spec)["tasks"]
    except KeyError:
        raise InputError(f"{family.name}: this lm-eval has no task {name}") from None
    except Exception as error:  # the hub and data sets raise many types
        reason = one_line(error, 200) or type(error).__name__
        raise MissingFileError(
            f"lm-eval's {name} cannot be loaded ({reason}); its data come from the hub, or from "
            "the data folder if the family names files"
        ) from None
    finally:
        log.setLevel(level)
    for task in built.values():
        if task.OUTPUT_TYPE not in ("multiple_choice", "generate_until"):
            raise InputError(f"{name}: {task.OUTPUT_TYPE} of lm-eval is not supported")
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    return built


def _overrides(local: dict[str, Any]) -> dict[str, Any]:
    splits = ("training", "validation", "test")
    return {f"{split}_split": split if split in local else None for split in splits} | {
        "custom_dataset": lambda **_: local
    }


def _local(data: LocalData, root: Path, code: str) -> dict[str, Any] | None:
    """The data sets of the data folder by split; None if it has no test file."""
    from datasets import Dataset

    paths = {split: root / name.format(code=code) for split, name in data.files.items()}
    if not paths["test"].exists():
        return None
    return {
        split: Dataset.from_list(_rows(data, path))
        for split, path in paths.items()
        if path.exists()
    }


def _rows(data: LocalData, path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if data.columns:
                lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
                rows: list[dict[str, Any]]
                rows = [dict(zip(data.columns, line, strict=True)) for line in lines]
            else:
                rows = [json.loads(line) for line in file]
        for row in rows:
            row |= {name: int(row[name].replace(",", "")) for name in data.numbers}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error, 200)}") from None
    return [row | data.constants for row in rows]


def _names(filters: Sequence[Any]) -> list[str]:
    return [one.name for one in filters]
