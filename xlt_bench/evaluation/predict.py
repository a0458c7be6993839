"""Answers the units of a run in turn, small ones together, and stores each when it is done."""

from __future__ import annotations

import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from xlt_bench.errors import InputError
from xlt_bench.evaluation.costs import Meter, split_costs
from xlt_bench.evaluation.score import text_units
from xlt_bench.evaluation.sharding import Items, Unit
from xlt_bench.metrics.representation import (
    LEAST,
    MEXA_SENTENCES,
    centred,
    cka_of,
    cosine_margin,
    mexa,
)
from xlt_bench.metrics.retrieval import all_pairs
from xlt_bench.models.generation import NotFiniteError
from xlt_bench.models.lm import Generation, Progress, XltLM
from xlt_bench.results.record import Plan
from xlt_bench.results.run_folder import (
    Prediction,
    layer_path,
    predictions_path,
    write_bytes,
    write_json,
    write_layer,
    write_predictions,
)
from xlt_bench.tasks.base import WHOLE, Item, TextTask
from xlt_bench.tasks.few_shot import FewShot
from xlt_bench.tasks.lm_eval_family import FamilyTask, stored
from xlt_bench.tasks.prompt_file import PromptFile
from xlt_bench.tasks.registry import get_task, get_text_task, retrieval_in

_TOGETHER = 128
"""The most items of units that are answered together; a step takes as long for one row as for many.
"""
_PIVOT = "en"
"""The language that the states of the others are compared with, beside retrieval."""


class TextLM(Protocol):
    """A model that generates text: ours, vLLM's, or a server's."""

    def apply_chat_template(self, chat_history: list[dict[str, str]]) -> str:
        """Render a chat as a prompt."""

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, progress: Progress
    ) -> list[Generation]:
        """Greedy answers to prompts, in their order."""

    def noted(self) -> dict[str, Any]:
        """`batch_size`, `bos`, `truncated_prompts` and tokens since the last call."""


@contextmanager
def untracked(_name: str, _total: int) -> Iterator[Progress]:
    """No progress bar."""
    yield lambda _done: None


@dataclass
class Job:
    """A run in progress.

    Attributes:
        run: The run folder.
        plan: What is evaluated.
        items: The items of each unit.
        digests: The content digest of each unit's items.
        root: The data folder.
        text_lm: The model that answers the text tasks.
        lm: The model that retrieval takes hidden states from; None with a server.
        track: Reports progress; see `run.evaluate`.
        merged: Whether the adapter is currently merged into the weights.
        notes: Notes for the record.
        prompts: The prompts by task, if not the benchmark's.
    """

    run: Path
    plan: Plan
    items: Items
    digests: dict[str, str]
    root: Path
    text_lm: TextLM
    lm: XltLM | None = None
    track: Any = untracked
    merged: bool = False
    notes: list[str] = field(default_factory=list)
    prompts: Mapping[str, PromptFile | FewShot] = field(default_factory=dict)


def unanswered(job: Job) -> list[Unit]:
    """The units of the plan whose answers are not on disk yet, in its order."""
    todo: list[Unit] = [
        unit for unit in text_units(job.plan) if not predictions_path(job.run, *unit).exists()
    ]
    layers = all(layer_path(job.run, layer).exists() for layer in job.plan.layers)
    task = retrieval_in(job.plan.units)
    if task and (not layers or _states_folder(job).exists()):
        todo.append((task.name, WHOLE))
    return todo


def is_retrieval(unit: Unit) -> bool:
    """Whether a unit is retrieval, which is answered as a whole with hidden states."""
    return unit[1] == WHOLE


def answer(job: Job, units: Iterable[Unit]) -> None:
    """Answer units and store their answers, in the given order."""
    for group in _groups(job, units):
        if is_retrieval(group[0]):
            _retrieve(job, group[0][0])
        else:
            _predict(job, group)


def _groups(job: Job, units: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Group consecutive units of a task: one, or several of at most `_TOGETHER` items in all.

    An answer must not depend on which units are left to do. In half precision it depends on its
    batch, and so do the last digits of a family's log-likelihoods. A steered model answers in one
    language at a time.
    """
    steered = job.lm is not None and job.lm.steering is not None
    group: list[Unit] = []
    room = 0
    for unit in units:
        size = len(job.items.get(unit, ()))
        if group and (unit[0] != group[0][0] or size > room):
            yield group
            group = []
        if not group:
            inexact = job.plan.dtype != "float32" or get_task(unit[0]).of_lm_eval
            room = 0 if steered or inexact else _TOGETHER
        group.append(unit)
        room -= size
    if group:
        yield group


def _predict(job: Job, units: Sequence[Unit]) -> None:
    """Answer units of a text task together, and store their answers."""
    task, name = units[0]
    _steer(job, units[0])
    text_task = get_text_task(task)
    ask = _ask_as_lm_eval if text_task.of_lm_eval else _ask
    items = [item for unit in units for item in job.items[unit]]
    meter, started = Meter(), time.perf_counter()
    several = f" to {units[-1][1]}" if len(units) > 1 else ""
    try:
        with job.track(f"{task} {name}{several}", len(items)) as progress:
            answers = iter(ask(job, text_task, items, progress))
    except NotFiniteError as error:
        if not several:
            raise InputError(f"{task} {name}: {error}") from None
        job.text_lm.noted()  # resets the counts
        for unit in units:  # to keep the answers of those before it, and to name it
            _predict(job, [unit])
        return
    sizes = [len(job.items[unit]) for unit in units]
    costs = split_costs(_statistics(job, job.text_lm, started, meter), sizes)
    for unit, row in zip(units, costs, strict=True):
        # The statistics come before the answers, which mark the unit as done.
        write_json(job.run / "progress" / f"{'_'.join(unit)}.json", row)
        of_unit = [(item.id, next(answers)) for item in job.items[unit]]
        predictions = [Prediction(key, one.text, one.cut_off) for key, one in of_unit]
        write_predictions(predictions_path(job.run, *unit), predictions)


def _steer(job: Job, unit: Unit) -> None:
    """Have a steered model answer in the language of a unit; of a direction, the non-English one.

    From English, the language's vector is subtracted.
    """
    if job.lm is not None and job.lm.steering is not None:
        task, name = get_task(unit[0]), unit[1]
        language = task.language_of(name)
        job.lm.steering.use(language, away=task.source_of(name) != language)


def _ask(job: Job, task: TextTask, items: Sequence[Item], progress: Progress) -> list[Generation]:
    own = job.prompts.get(task.name)
    chats = [own.messages(item) if own else item.messages for item in items]
    prompts = [job.text_lm.apply_chat_template(chat) for chat in chats]
    return job.text_lm.generate(prompts, task.max_new_tokens, progress)


def _ask_as_lm_eval(
    job: Job, task: TextTask, items: Sequence[Item], progress: Progress
) -> list[Generation]:
    """The answers that lm-eval's own model gives to a family's requests."""
    assert isinstance(task, FamilyTask)
    assert job.lm is not None
    groups = []
    for item in items:
        chat = task.family.chat
        prompt = job.lm.apply_chat_template(item.messages) if chat else item.user
        groups.append(task.requests(item, prompt))
    found = iter(job.lm.answer_requests([request for group in groups for request in group]))
    progress(len(items))
    answers = [[next(found) for _ in group] for group in groups]
    if groups[0][0].request_type == "loglikelihood":
        return [Generation(stored(one), cut_off=None) for one in answers]
    return [Generation(text, cut_off=None) for (text,) in answers]


def _finished(
    job: Job, lm: TextLM, name: str, started: float, meter: Meter, **more: object
) -> None:
    """Write a part's statistics to RUN/progress, before its answers, which mark it as done."""
    row = _statistics(job, lm, started, meter) | more
    write_json(job.run / "progress" / f"{name}.json", row)


def _statistics(job: Job, lm: TextLM, started: float, meter: Meter) -> dict[str, Any]:
    """What the answers since `started` took."""
    seconds = round(time.perf_counter() - started, 3)
    return {"seconds": seconds, **lm.noted(), **meter.read(), "merged": job.merged}


def _retrieve(job: Job, task: str) -> None:
    """Write the states of each language, then the neighbours of each layer; delete the states.

    Only one layer, of all languages, is in memory at a time.
    """
    assert job.lm is not None
    folder, codes = _states_folder(job), job.plan.units[task]
    todo = [layer for layer in job.plan.layers if not layer_path(job.run, layer).exists()]
    if todo:
        for code in codes:
            if not (folder / f"{code}.safetensors").exists():
                _states(job, job.lm, (task, code), folder)
        for layer in todo:
            meter, started = Meter(), time.perf_counter()
            states = {code: _layer_states(folder, code, layer) for code in codes}
            table = all_pairs(states)
            others = {code: _layer_states(folder, code, f"{layer}.mexa") for code in codes}
            found = alignments(layer, states, others)
            _finished(job, job.lm, f"{task}_layer_{layer}", started, meter, alignment=found)
            write_layer(layer_path(job.run, layer), {k: v.tolist() for k, v in table.items()})
    shutil.rmtree(folder, ignore_errors=True)


def alignments(
    layer: int, states: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]
) -> list[dict[str, str | int | float]]:
    """Measure how alike the states of each language and of English are at a layer.

    Args:
        layer: The layer.
        states: Mean states (n, d) by language.
        others: States of the first sentences, pooled as MEXA does, (few, 2, d), by language.

    Returns:
        The rows of `results.record.Alignment`; none without English or with too few sentences.
    """
    if _PIVOT not in states or min(len(states[_PIVOT]), len(others[_PIVOT])) < LEAST:
        return []
    pivot = centred(states[_PIVOT])
    return [
        {
            "layer": layer,
            "language": code,
            "mexa_weighted": mexa(others[code][:, 0], others[_PIVOT][:, 0]),
            "mexa_last": mexa(others[code][:, 1], others[_PIVOT][:, 1]),
            # Without variance, there is nothing alike; by rounding it may exceed 1.
            "cka": min(1.0, float(cka_of(centred(states[code]), pivot).nan_to_num(nan=0.0))),
            "cosine_margin": cosine_margin(states[code], states[_PIVOT]),
        }
        for code in states
        if code != _PIVOT
    ]


def _states_folder(job: Job) -> Path:
    return job.run / "retrieval" / "states"


def _states(job: Job, lm: XltLM, unit: Unit, folder: Path) -> None:
    sentences, (task, code) = job.items[unit], unit
    _steer(job, unit)
    meter, started = Meter(), time.perf_counter()
    with job.track(f"{task} {code}", len(sentences)) as progress:
        states, others = lm.pooled_states(sentences, job.plan.layers, progress, MEXA_SENTENCES)
    if not torch.isfinite(states).all():
        raise NotFiniteError(f"hidden states of {code}", job.plan.dtype)
    layers = {str(layer): states[:, i].contiguous() for i, layer in enumerate(job.plan.layers)}
    layers |= {
        f"{layer}.mexa": others[:, i].contiguous() for i, layer in enumerate(job.plan.layers)
    }
    _finished(job, lm, f"{task}_{code}", started, meter)
    # Not save_file, which does not raise OSError on a full disk.
    write_bytes(folder / f"{code}.safetensors", save(layers, _checksums(layers)))


def _layer_states(folder: Path, code: str, layer: int | str) -> torch.Tensor:
    """The states of a language at a layer. Raises InputError if the file is damaged."""
    path, name = folder / f"{code}.safetensors", str(layer)
    try:
        with safe_open(path, framework="pt") as file:
            states: torch.Tensor = file.get_tensor(name)
            stated = (file.metadata() or {}).get(name)
    except SafetensorError:
        stated = None
    if stated is None or stated != _checksums({name: states})[name]:
        raise InputError(f"{path} is damaged; delete it and run the same evaluate command again")
    return states


def _checksums(layers: dict[str, torch.Tensor]) -> dict[str, str]:
    """The CRC-32 of each layer, since safetensors has no checksums."""
    return {name: str(zlib.crc32(states.numpy().tobytes())) for name, states in layers.items()}
