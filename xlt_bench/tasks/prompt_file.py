"""Reads a user's prompt for a task, for adapters that learned another one than the benchmark's.

A file is a Jinja template of the user's message. With a block `user`, a block `system` may give the
system's message too:

    {% block system %}Translate to {{ target_language }}.{% endblock %}
    {% block user %}{{ sentence }}{% endblock %}

VARIABLES lists what it can use. The name `native` stands for the file of the task in prompts/: the
benchmark's prompt, translated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES
from xlt_bench.results.record import UserPrompt
from xlt_bench.tasks.base import Item, TextTask

VARIABLES = {
    "sentence": "the utterance, segment or sentence that the item is about",
    "language": "the English name of the unit's language; of a direction, the one not English",
    "source_language": "the English name of the language that the sentence is in",
    "target_language": "that of the language of the answer",
    "unit": "the unit, such as `de` or `en-de`",
    "system": "the system's message of the benchmark's own prompt",
    "user": "the user's message of the benchmark's own prompt",
}


NATIVE = "native"
_SHIPPED = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class PromptFile:
    """A user's prompt for a task."""

    task: TextTask
    prompt: UserPrompt
    template: Any

    def messages(self, item: Item) -> list[dict[str, str]]:
        """Render the prompt of an item.

        Args:
            item: An item of the task.

        Returns:
            The chat: a system's message if the file has a block of that name, and a user's.

        Raises:
            InputError: The template fails, or a message is empty.
        """
        sides = item.unit.split("-") if len(self.task.languages_of(item.unit)) > 1 else [item.unit]
        values = {
            "sentence": self.task.sentence(item),
            "language": LANGUAGES[self.task.language_of(item.unit)].name,
            "source_language": LANGUAGES[sides[0]].name,
            "target_language": LANGUAGES[sides[-1]].name,
            "unit": item.unit,
            "system": item.system,
            "user": item.user,
        }
        try:
            texts = self._texts(values)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            if self.prompt.name == NATIVE:
                raise InputError(
                    f"--prompt {self.task.name}={NATIVE}: there is no prompt for {item.unit}; "
                    "leave it out of --languages, or give a file"
                ) from None
            raise InputError(
                f"{self.prompt.name} fails on item {item.id} of {item.unit}: {error}; it can use "
                f"{', '.join(VARIABLES)}"
            ) from None
        if not texts["user"].strip():
            raise InputError(f"{self.prompt.name} is empty for item {item.id} of {item.unit}")
        return [{"role": role, "content": text} for role, text in texts.items() if text.strip()]

    def _texts(self, values: Mapping[str, str]) -> dict[str, str]:
        blocks = self.template.blocks
        if "user" not in blocks:
            return {"user": self.template.render(values).strip()}
        context = self.template.new_context(dict(values))
        return {
            role: "".join(blocks[role](context)).strip()
            for role in ("system", "user")
            if role in blocks
        }


def read_prompts(given: Sequence[str], tasks: Mapping[str, TextTask]) -> dict[str, PromptFile]:
    """Read the files of `--prompt`.

    Args:
        given: `TASK=FILE`, or `FILE` if there is only one text task. FILE may be `native`.
        tasks: The text tasks that are evaluated, by name.

    Returns:
        The prompts by task.

    Raises:
        InputError: A task is unknown or named twice, or a file is missing or not a template.
    """
    found: dict[str, PromptFile] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or name not in tasks:
            if equals and not Path(text).exists():
                raise InputError(
                    f"--prompt {text}: {name!r} is not a text task of this evaluation; choose from "
                    f"{', '.join(tasks) or 'none'}"
                )
            if len(tasks) != 1:
                raise InputError(
                    f"--prompt {text} does not name its task; use TASK=FILE with one of "
                    f"{', '.join(tasks) or 'no text task'}"
                )
            name, file = next(iter(tasks)), text
        if name in found:
            raise InputError(f"--prompt names {name} twice; leave one out")
        path = _native(name) if file == NATIVE else Path(file)
        found[name] = _read(tasks[name], path)
    return found


def _native(task: str) -> Path:
    """The prompt that ships for a task, in the languages of its items."""
    path = _SHIPPED / f"{task}.jinja"
    if not path.is_file():
        there = ", ".join(sorted(one.stem for one in _SHIPPED.glob("*.jinja")))
        raise InputError(f"--prompt {task}={NATIVE}: only {there} have prompts in other languages")
    return path


def _read(task: TextTask, path: Path) -> PromptFile:
    try:
        source = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise InputError(f"--prompt {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"--prompt {path} is not UTF-8; save it as UTF-8") from None
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise InputError(f"{path} is not a Jinja template: {error}") from None
    if odd := sorted(set(template.blocks) - {"system", "user"}):
        raise InputError(f"{path}: block {odd[0]!r} is unknown; use `system` and `user`")
    if "system" in template.blocks and "user" not in template.blocks:
        raise InputError(f"{path}: a block `system` needs a block `user`")
    digest = hashlib.sha256(source.encode()).hexdigest()
    name = f"./{NATIVE}" if path.name == NATIVE else path.name  # a user's file of that name
    name = NATIVE if path.parent == _SHIPPED else name
    return PromptFile(task, UserPrompt(name=name, sha256=digest), template)
