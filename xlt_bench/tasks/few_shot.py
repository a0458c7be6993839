"""Puts solved items of the train split before a prompt, as turns of the chat.

The same examples, drawn with a fixed seed, are before all items of a unit. Where the items of the
train split are parallel (MASSIVE), they are translations of each other in all languages.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError
from xlt_bench.results.record import SHOT_SEED, ShotLanguage, ShotPrompt, shots_sha256, shots_text
from xlt_bench.tasks.base import Item, TextTask
from xlt_bench.tasks.prompt_file import PromptFile


@dataclass(frozen=True)
class FewShot:
    """The prompt of a task with examples.

    Attributes:
        prompt: What the record says of it.
        examples: The examples by unit.
        own: The user's own prompt, for the examples too; None for the benchmark's.
    """

    prompt: ShotPrompt
    examples: Mapping[str, Sequence[Item]]
    own: PromptFile | None

    def messages(self, item: Item) -> list[dict[str, str]]:
        """Render the prompt of an item.

        Args:
            item: An item of the task.

        Returns:
            The chat: the item's system message, a turn of the user and of the assistant for each
            example, and the item's user message.
        """
        *system, user = self._ask(item)
        turns = []
        for example in self.examples[item.unit]:
            turns += [self._ask(example)[-1], {"role": "assistant", "content": example.target}]
        return [*system, *turns, user]

    def _ask(self, item: Item) -> list[dict[str, str]]:
        return self.own.messages(item) if self.own else item.messages


def few_shot(
    task: TextTask,
    units: Sequence[str],
    root: Path,
    shots: int,
    language: ShotLanguage,
    own: PromptFile | None,
) -> FewShot:
    """Draw examples for the units of a task.

    Args:
        task: The task.
        units: Its units that are evaluated.
        root: The data folder.
        shots: The number of examples, at least 1.
        language: `en` for English examples, `same` for examples in the unit of the item.
        own: The user's own prompt of the task.

    Raises:
        InputError: Units have too few training items, or the task has no English unit.
    """
    sources = {unit: "en" if language == "en" else unit for unit in units}
    drawn = _draw(task, sorted(set(sources.values())), root, shots)
    examples = {unit: drawn[source] for unit, source in sources.items()}
    what = shots_text(shots, language)
    prompt = ShotPrompt(
        name=f"{own.prompt.name[:60]} with {what}" if own else what,
        sha256=shots_sha256(own.prompt.sha256 if own else None, shots, language),
        shots=shots,
        language=language,
        examples={unit: content_digest(rows) for unit, rows in examples.items()},
    )
    return FewShot(prompt, examples, own)


def _draw(
    task: TextTask, sources: Sequence[str], root: Path, shots: int
) -> dict[str, Sequence[Item]]:
    if not set(sources) <= set(task.units()):
        raise InputError(f"{task.name} has no items in English; use --fewshot-language same")
    rows = {
        source: task.load(root, source, "train") if "train" in task.splits(source) else []
        for source in sources
    }
    if short := [source for source in sources if len(rows[source]) < shots]:
        english = " or --fewshot-language en" if "en" in task.units() and short != ["en"] else ""
        counts = ", ".join(f"{source} ({len(rows[source])})" for source in short)
        raise InputError(
            f"--num-fewshot {shots} is more than the training items that {task.name} has here in "
            f"{counts}; choose other --languages{english}"
        )
    return {source: random.Random(SHOT_SEED).sample(rows[source], shots) for source in sources}
