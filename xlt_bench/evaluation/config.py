"""Checks the options of `xlt-bench evaluate` and reads the items, before torch is imported.

A missing or broken file thus stops a run before the model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from xlt_bench.data.flores import Corpus
from xlt_bench.data.root import MINI, MissingFileError, data_root
from xlt_bench.distributed import check_launcher, world_size
from xlt_bench.errors import InputError, unknown
from xlt_bench.evaluation.sharding import Items, Unit, divide, parse_share, unit_costs
from xlt_bench.languages import language
from xlt_bench.models.adapters import check_hub_name, check_local, split_revision
from xlt_bench.models.chat import given_template, parse_args
from xlt_bench.models.model_args import answer_settings
from xlt_bench.models.validate_names import (
    check_device,
    check_dtype,
    check_model,
    parse_batch_size,
)
from xlt_bench.results.record import MOST_SHOTS, ShotLanguage
from xlt_bench.results.run_folder import check_free
from xlt_bench.tasks.base import WHOLE, Task
from xlt_bench.tasks.registry import (
    BY_DEFAULT,
    RETRIEVAL,
    get_task,
    get_text_task,
    retrieval_in,
    tasks,
    text_tasks,
)

if TYPE_CHECKING:
    from xlt_bench.models.loaded import Loaded
    from xlt_bench.tasks.few_shot import FewShot
    from xlt_bench.tasks.prompt_file import PromptFile

Chosen = dict[str, list[str]]
"""The units of each task, by its name."""

BACKENDS = {
    "hf": None,
    "vllm": ("vllm", "xlt-bench[vllm]"),
    "openai": ("tenacity", "lm_eval[api]"),
}
"""The backends: the package that each needs besides `eval`, and what installs it."""


@dataclass(frozen=True)
class Options:
    """The command line of `xlt-bench evaluate`.

    From Python, `loaded` is a model in memory, whose name is `model`, and `tokenizer` may be one.
    """

    model: str
    output: Path
    adapters: Sequence[str] = ()
    tasks: Sequence[str] = BY_DEFAULT
    languages: Sequence[str] = ()
    limit: int | None = None
    layers: Sequence[int] = ()
    dtype: str = "auto"
    device: str | None = None
    batch_size: str = "auto"
    tokenizer: Any = None
    chat_template: str | None = None
    chat_template_args: str | None = None
    prompts: Sequence[str] = ()
    num_fewshot: int = 0
    fewshot_language: str = "same"
    data_dir: str | None = None
    corpus: str | None = None
    shard: str | None = None
    backend: str = "hf"
    model_args: str | None = None
    trust_remote_code: bool = False
    loaded: Loaded | None = None


def check(options: Options) -> None:
    """Raise InputError for the first invalid option."""
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit must be at least 1, not {options.limit}")
    parse_batch_size(options.batch_size)
    if odd := [layer for layer in options.layers if layer < 1]:
        raise InputError(f"--layers must be at least 1, not {odd[0]}")
    if options.shard is not None:
        parse_share(options.shard)
    _check_shots(options)
    check_backend(options)
    plan_units(options)
    check_dtype(options.dtype)
    check_device(options.device)
    given_template(options.chat_template)
    parse_args(options.chat_template_args)
    if options.loaded:
        _check_loaded(options)
    named = isinstance(options.tokenizer, str)
    if named and not Path(split_revision(options.tokenizer)[0]).is_dir():
        check_hub_name("tokenizer", options.tokenizer)
    if options.backend != "openai" and not options.loaded:
        check_model(options.model)
    for name in options.adapters:
        check_local(name)
    if len({_folder_name(name) for name in options.adapters}) < len(options.adapters):
        raise InputError("two adapters share a folder name, which would name both runs; rename one")
    for run in [run_folder(options, name) for name in options.adapters] or [options.output]:
        check_free(run)


def _check_shots(options: Options) -> None:
    if not 0 <= options.num_fewshot <= MOST_SHOTS:
        raise InputError(
            f"--num-fewshot must be between 0 and {MOST_SHOTS:,}, got {options.num_fewshot}"
        )
    if options.fewshot_language not in get_args(ShotLanguage):
        raise unknown("--fewshot-language", options.fewshot_language, get_args(ShotLanguage))
    if options.num_fewshot:
        for name in options.tasks:
            if name in tasks() and name not in text_tasks():
                what = "no prompts" if retrieval_in([name]) else "lm-eval's own examples"
                rest = ",".join(one for one in options.tasks if one in text_tasks())
                raise InputError(
                    f"--num-fewshot does not apply to {name}, which has {what}; choose --tasks "
                    f"{rest or ','.join(text_tasks())}"
                )


def check_backend(options: Options) -> None:
    """Raise InputError for an unknown or missing backend, and for options that it cannot take."""
    if options.backend not in BACKENDS:
        raise unknown("backend", options.backend, BACKENDS)
    if needed := BACKENDS[options.backend]:
        package, requirement = needed
        if find_spec(package) is None:
            raise InputError(
                f"--backend {options.backend} needs {package}: pip install '{requirement}'"
            )
    elif options.model_args:
        raise InputError("--model-args needs --backend vllm or openai")
    answer_settings(options.backend, options.model_args)
    if options.backend == "vllm" and world_size() > 1:
        raise InputError(
            "vLLM starts its own processes: run it without torchrun, with --model-args "
            "tensor_parallel_size=N or data_parallel_size=N"
        )
    if options.backend == "openai":
        _check_served(options)


def _check_loaded(options: Options) -> None:
    given = {
        "--backend": options.backend != "hf",
        "--device": options.device,
        "--dtype": options.dtype != "auto",
        "--adapter": options.loaded and options.loaded.adapter and options.adapters,
    }
    if odd := [name for name, value in given.items() if value]:
        raise InputError(
            f"{odd[0]} cannot be used with a model that is in memory: leave it out, or give the "
            "model's name or folder"
        )


def _check_served(options: Options) -> None:
    given = {
        "--adapter": options.adapters,
        "--layers": options.layers,
        "--dtype": options.dtype != "auto",
        "--device": options.device,
        "--tokenizer": options.tokenizer,
        "--chat-template": options.chat_template,
        "--chat-template-args": options.chat_template_args,
        "--trust-remote-code": options.trust_remote_code,
    }
    if odd := [name for name, value in given.items() if value]:
        raise InputError(
            f"{odd[0]} cannot be used with --backend openai: the server decides it; leave it out"
        )


@dataclass(frozen=True)
class Request:
    """Options that have been checked, with the units and items that they ask for.

    `left_out` tells which of the tasks and languages asked for are not evaluated.
    """

    options: Options
    units: Chosen
    corpus: Corpus
    items: Items
    left_out: Sequence[str] = ()
    prompts: Mapping[str, PromptFile | FewShot] = field(default_factory=dict)


def prepare(options: Options) -> Request:
    """Check the options and read all items.

    Raises:
        InputError: An option is invalid, or data are missing or broken.
    """
    check_launcher()
    check(options)
    chosen, corpus = plan_units(options), corpus_of(options)
    items = load_items(corpus, chosen, options.limit)
    prompts = _prompts(options, chosen, items)
    if task := retrieval_in(chosen):
        task.check(corpus, chosen[task.name])
    notes = _left_out(options, chosen)  # of the whole command, also where it is one of many shards
    if options.shard is not None:
        chosen = _share(options.shard, unit_costs(items), chosen)
        items = {unit: rows for unit, rows in items.items() if unit[1] in chosen.get(unit[0], [])}
    own = {task: prompt for task, prompt in prompts.items() if task in chosen}
    asked = _with_examples(options, chosen, corpus.root, own) if options.num_fewshot else own
    return Request(options, chosen, corpus, items, notes, asked)


def _with_examples(
    options: Options, chosen: Chosen, root: Path, own: Mapping[str, PromptFile]
) -> dict[str, FewShot]:
    """The prompts of all tasks with examples before them."""
    from xlt_bench.tasks.few_shot import few_shot

    shots, language = options.num_fewshot, cast(ShotLanguage, options.fewshot_language)
    return {
        name: few_shot(get_text_task(name), units, root, shots, language, own.get(name))
        for name, units in chosen.items()
    }


def _prompts(options: Options, chosen: Chosen, items: Items) -> dict[str, PromptFile]:
    """The user's own prompts by task, each tried on all items."""
    if not options.prompts:
        return {}
    from xlt_bench.tasks.prompt_file import read_prompts

    texts = {name: get_text_task(name) for name in chosen if name in text_tasks()}
    prompts = read_prompts(options.prompts, texts)
    for (name, unit), rows in items.items():
        if name in prompts and len(rows) > 1:
            messages = [prompts[name].messages(item) for item in rows]
            if all(one == messages[0] for one in messages):
                raise InputError(
                    f"{prompts[name].prompt.name} gives every item of {name} {unit} the same "
                    "prompt; use {{ sentence }} in it"
                )
    return prompts


def _share(shard: str, costs: dict[Unit, float], chosen: Chosen) -> Chosen:
    """The units of a shard, by task."""
    share = parse_share(shard)
    mine = divide(costs, share.of)[share.number - 1]
    if not mine:
        raise InputError(
            f"--shard {shard} has no work: there are more shards than units (a unit is a language "
            f"or direction of a task, or retrieval as a whole); use i/n with n at most {len(costs)}"
        )
    kept = {
        task: [
            name for name in names if (task, name) in mine or get_task(task).work([name]) == [WHOLE]
        ]
        for task, names in chosen.items()
        if any((task, part) in mine for part in get_task(task).work(names))
    }
    return {task: names for task, names in kept.items() if names}


def load_items(corpus: Corpus, chosen: Chosen, limit: int | None) -> Items:
    """The items of all chosen units; those of retrieval are sentences."""
    return {
        (task, name): get_task(task).load_from(corpus, name)[:limit]
        for task, names in chosen.items()
        for name in names
    }


def corpus_of(options: Options) -> Corpus:
    """The corpus of retrieval: the user's folder, or the task's own.

    Raises:
        InputError: --corpus is not a folder.
    """
    if options.corpus is None:
        return Corpus(data_root(options.data_dir))
    folder = Path(options.corpus).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"--corpus {options.corpus} is not a folder; give a folder with one file per language"
        )
    return Corpus(data_root(options.data_dir), folder)


def plan_units(options: Options) -> Chosen:
    """The units of each chosen task: the ranked ones, or those of the chosen languages.

    Raises:
        InputError: A name is unknown, or nothing is left to evaluate.
    """
    if not options.tasks:
        raise InputError(f"--tasks names no task; choose from {', '.join(tasks())}")
    for task in map(get_task, options.tasks):
        if task.of_lm_eval and options.backend != "hf":
            raise InputError(
                f"{task.name} is a task of lm-eval's, which needs --backend hf: leave it out"
            )
    if len(several := [name for name in dict.fromkeys(options.tasks) if retrieval_in([name])]) > 1:
        raise InputError(
            f"--tasks: a run has one task of retrieval; give {' and '.join(several)} an evaluation "
            "with another --output each"
        )
    corpus = corpus_of(options)
    found = {name: _units(get_task(name), options, corpus) for name in options.tasks}
    chosen = {name: units for name, units in found.items() if units}
    if options.corpus and RETRIEVAL not in chosen:
        raise InputError(
            f"--corpus {options.corpus} needs the task retrieval and at least two languages; name "
            "the files eng_Latn.txt, swh_Latn.txt, ..."
        )
    if not chosen:
        reasons = [f"{name} {_why_not(get_task(name), options)}" for name in found]
        remedy = "change --languages (the list: xlt-bench languages)"
        raise InputError("; ".join([*reasons, remedy] if options.languages else reasons))
    return chosen


def _left_out(options: Options, chosen: Chosen) -> list[str]:
    """Notes on tasks that are left out, and on languages that a task does not have."""
    notes = []
    for task in map(get_task, dict.fromkeys(options.tasks)):
        if task.name in chosen:
            if lacking := _lacking(task, options.languages):
                notes.append(f"{task.name} has no unit for {' '.join(lacking)}")
        elif not _needs_states(task, options):  # the server's own note says that
            notes.append(f"{task.name} is left out: it {_why_not(task, options)}")
    return notes


def _why_not(task: Task, options: Options) -> str:
    """Why none of a task's units can be evaluated: the words that follow its name."""
    if _needs_states(task, options):
        return "needs hidden states, which a server does not return"
    if not options.languages:
        return "has no data in the mini suite"
    if there := task.choose(options.languages):
        return f"needs at least two languages, and has only {there[0]} of those chosen"
    return f"has no unit for {' '.join(_codes(options.languages))}"


def _lacking(task: Task, languages: Sequence[str]) -> list[str]:
    """The chosen languages that occur in no unit of a task, not even as one side of a direction."""
    there = {code for unit in task.units() for code in task.languages_of(unit)}
    return [code for code in _codes(languages) if code not in there]


def _codes(languages: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(language(name).code for name in languages))


def _needs_states(task: Task, options: Options) -> bool:
    return task.answers == "neighbours" and options.backend == "openai"


def _units(task: Task, options: Options, corpus: Corpus) -> list[str]:
    """The units of a task that a command asks for; none if they cannot be evaluated."""
    if options.languages:
        units = task.choose(options.languages)
    else:
        units = [unit for unit in task.test_set().units if _is_there(task, unit, corpus)]
    if task.answers == "text":
        return units
    return [] if len(units) < 2 or _needs_states(task, options) else units


def _is_there(task: Task, unit: str, corpus: Corpus) -> bool:
    """Whether a ranked unit should have data: the mini suite and a user's corpus may lack some."""
    if task.answers == "neighbours" and not corpus.holds(unit):
        return False
    if corpus.root != MINI:
        return True
    try:
        task.load_from(corpus, unit)
    except MissingFileError:
        return False
    return True


def run_folder(options: Options, adapter: str | None) -> Path:
    """OUTPUT itself or, if there are several adapters, OUTPUT/<adapter name>."""
    if adapter is None or len(options.adapters) <= 1:
        return options.output
    return options.output / _folder_name(adapter)


def _folder_name(adapter: str) -> str:
    """The last part of an adapter's name; for a name like `..`, that of the folder it refers to."""
    name = Path(adapter).name
    if name in ("", ".", ".."):
        name = Path(adapter).expanduser().resolve().name
    return name.replace(":", "-") or "adapter"
