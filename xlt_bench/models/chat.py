"""Sets chat templates, renders chats with them, and turns chats and sentences into token ids.

A prompt depends on the template and its arguments only: the date is pinned, and thinking is off if
the template has a switch for it.

A template is the tokenizer's own, a file, or one of those that ship with the package:

plain             for base models without a template: "Input: ...", then "Output:"
llama3-midalign   the template of the Llama 3 adapters by the paper's authors: a line break after
                  each end-of-turn token, and no BOS in the text, since the tokenizer adds it
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError, one_line, unknown

_FOLDER = Path(__file__).with_name("templates")
# Characters that a template may add to two messages. Llama 3.1's, the longest in use, adds a few
# thousand for tools and dates.
_MOST_AROUND = 100_000
NAMED = sorted(path.stem for path in _FOLDER.glob("*.jinja"))

DATE = datetime(2024, 7, 26)
"""The date of templates that print today's; those of Llama 3 fall back to it."""
# It has nothing in common with DATE, not even the weekday.
_OTHER_DATE = datetime(1998, 12, 31, 23, 59, 58)

# Variables by which templates switch thinking, each with a value for on and one for off.
_THINKING: dict[str, tuple[Any, Any]] = {
    "enable_thinking": (True, False),  # Qwen 3, SmolLM 3, GLM 4.5, EXAONE 4, Hunyuan
    "thinking": (True, False),  # DeepSeek V3.1, Granite
    "thinking_budget": (512, 0),  # Seed-OSS
}
_SYSTEM, _USER = "What the system says.", "What the user says."

Args = Mapping[str, Any]
"""Variables of a chat template."""


@dataclass(frozen=True)
class Template:
    """How chats are rendered."""

    name: str
    """`tokenizer`, a name that ships with the package, or a file."""
    sha256: str
    args: dict[str, Any] = field(default_factory=dict)
    """Variables with which it is rendered: thinking switched off, and the user's."""
    date: str | None = None
    """The date that it prints; None if it prints none."""
    thinks: bool = False
    """Whether the prompt ends by opening a block of thinking, in spite of `args`."""


def template_file(choice: str) -> Path:
    """Find the file of a template.

    Args:
        choice: A name other than `tokenizer`, or a path.

    Returns:
        The file.

    Raises:
        InputError: If it is neither a known name nor a file.
    """
    path = _FOLDER / f"{choice}.jinja" if choice in NAMED else Path(choice)
    if not path.is_file():
        raise unknown("chat template", choice, ["tokenizer", *NAMED, "a file"])
    return path


def given_template(choice: str | None) -> str | None:
    """Read a template that is not the tokenizer's own.

    Args:
        choice: A name, a path, or None for the default.

    Returns:
        The template; None for `tokenizer` and the default.

    Raises:
        InputError: If it is neither a known name nor a text file.
    """
    return None if choice in (None, "tokenizer") else _read_template(str(choice))


def _read_template(choice: str) -> str:
    path = template_file(choice)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"chat template {path} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None


def parse_args(text: str | None) -> dict[str, Any]:
    """Read --chat-template-args.

    Args:
        text: A JSON object, or None for none.

    Returns:
        The variables by name.

    Raises:
        InputError: If it is not a JSON object of plain values.
    """
    try:
        args = json.loads(text or "{}")
    except (ValueError, RecursionError):
        args = None
    if not isinstance(args, dict) or not all(map(_is_plain, args.values())):
        raise InputError(
            "--chat-template-args must be a JSON object of strings, numbers and booleans, such as "
            f"'{{\"enable_thinking\": true}}', got {one_line(text, 80)}"
        )
    return args


def _is_plain(value: Any) -> bool:
    """Whether a value is a string, finite number, boolean or null."""
    number = isinstance(value, float)
    return math.isfinite(value) if number else isinstance(value, str | int | bool | None)


def _check_args(tokenizer: Any, args: Args) -> None:
    """Raise InputError for variables that the template does not have."""
    taken = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"}
    words = set(re.findall(r"\w+", str(tokenizer.chat_template))) - taken
    for name in args:
        if name not in words:
            raise InputError(
                f"--chat-template-args: the chat template has no variable {one_line(name, 40)}; "
                "leave it out"
            )


def set_chat_template(tokenizer: Any, choice: str | None, args: Args | None = None) -> Template:
    """Set the tokenizer's chat template and try it.

    Args:
        tokenizer: The tokenizer, which is changed.
        choice: `tokenizer`, a name, a path, or None: the tokenizer's own, `plain` if it has none.
        args: Variables of the template; they take precedence over thinking being off.

    Returns:
        How chats are rendered.

    Raises:
        InputError: If the template is unknown, cannot render a chat, or has no such variable.
    """
    if choice is None:
        choice = "tokenizer" if tokenizer.chat_template else "plain"
    if choice != "tokenizer":
        tokenizer.chat_template = _read_template(choice)
    _check_args(tokenizer, args or {})
    prompt = _try_template(tokenizer, choice, args or {})
    template = tokenizer.chat_template
    text = template if isinstance(template, str) else str(sorted(template.items()))
    return Template(
        choice,
        hashlib.sha256(text.encode()).hexdigest(),
        {**thinking_off(tokenizer), **(args or {})},
        DATE.date().isoformat() if _prints_date(tokenizer, args or {}) else None,
        thinks=re.search(r"<think(ing)?>\s*$", prompt) is not None,
    )


def _pinned(template: str, day: datetime) -> str:
    """A template in which `strftime_now` formats this day.

    It is a macro, since transformers passes no functions to templates.
    """
    if "strftime_now" not in template:
        return template
    # The empty expression at the end keeps a line break with which the template starts.
    return _strftime_macro(day) + "{{ '' }}" + template


@lru_cache(maxsize=2)
def _strftime_macro(day: datetime) -> str:
    """A macro that formats `day` as strftime does, with the flags of the GNU C library."""
    letters = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZ"  # not %s, which depends on the time zone
    flags = "-_0^#"
    codes = [flag + letter for letter in letters for flag in ("", *flags)]
    texts = json.dumps({code: day.strftime(f"%{code}") for code in codes})
    return (
        "{% macro strftime_now(format) %}{% set texts = " + texts + " %}"
        "{% filter replace('\x00', '%') %}"  # it stands for %%
        "{% for part in format.replace('%%', '\x00').split('%') %}"
        "{% set code = part[:2] if part[:1] in '" + flags + "' else part[:1] %}"
        "{{ part if loop.first else texts.get(code, '%' ~ code) ~ part[code|length:] }}"
        "{% endfor %}{% endfilter %}{% endmacro %}"
    )


def _prints_date(tokenizer: Any, args: Args) -> bool:
    first, second = (_render_sample(tokenizer, args, day) for day in (DATE, _OTHER_DATE))
    return first != second


def thinking_off(tokenizer: Any) -> dict[str, Any]:
    """Find the variables that switch thinking off.

    Args:
        tokenizer: A tokenizer with a chat template.

    Returns:
        The variables of the template that have an effect, with their values for off.
    """
    return dict(_switches(tokenizer, str(tokenizer.chat_template)))


@lru_cache(maxsize=8)
def _switches(tokenizer: Any, template: str) -> tuple[tuple[str, Any], ...]:
    """The switches of a template; `template` is in the key since the tokenizer's may change."""
    return tuple(
        (name, off)
        for name, (on, off) in _THINKING.items()
        if name in template
        and _render_sample(tokenizer, {name: on}) != _render_sample(tokenizer, {name: off})
    )


def _render_sample(tokenizer: Any, args: Args, day: datetime = DATE) -> str | None:
    """A prompt for comparing arguments; None if the template refuses them."""
    chat = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    try:
        return _render(tokenizer, chat, {"add_generation_prompt": True, **args}, day)
    except Exception:  # a template is a program, and may raise anything
        return None


def _try_template(tokenizer: Any, choice: str, args: Args) -> str:
    """Render one chat, so that a broken template fails at the start. Raises InputError."""
    said = {"system": _SYSTEM, "user": _USER}
    chat = [{"role": role, "content": text} for role, text in said.items()]
    try:
        prompt = render_chat(tokenizer, chat, add_generation_prompt=True, **args)
    except Exception as error:  # a template is a program, and may raise anything
        line = one_line(error, 300)
        number = getattr(error, "lineno", None)
        where = f" line {number}" if number else ""
        raise InputError(
            f"chat template {choice}{where} cannot render a system and a user message: {line}; "
            "fix it, or choose another with --chat-template"
        ) from None
    if left_out := [role for role, text in said.items() if text not in prompt]:
        raise InputError(
            f"chat template {choice} drops the {left_out[0]} message; "
            "fix it, or choose another with --chat-template"
        )
    if len(prompt) > _MOST_AROUND:
        raise InputError(
            f"chat template {choice} renders two short messages as {len(prompt):,} characters, "
            f"at most {_MOST_AROUND:,} are allowed; choose another with --chat-template"
        )
    return prompt


def render_chat(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    """Render a chat as a prompt, with thinking off.

    If the template refuses the system role, the system message is put before the user's. lm-eval's
    own wrapper drops it, and with it the task.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The chat: a `role` and a `content` for each message.
        **options: What `apply_chat_template` takes, and variables of the template.

    Returns:
        The prompt.
    """
    return _render(tokenizer, messages, {**thinking_off(tokenizer), **options})


def _render(
    tokenizer: Any, messages: list[dict[str, str]], options: Args, day: datetime = DATE
) -> str:
    import jinja2

    template = _pinned(tokenizer.get_chat_template(), day)

    def render(chat: list[dict[str, str]]) -> str:
        given = {"tokenize": False, "chat_template": template, **options}
        return str(tokenizer.apply_chat_template(chat, **given))

    try:
        return render(messages)
    except jinja2.exceptions.TemplateError:
        if messages[0]["role"] != "system":
            raise
        system, user, *rest = messages
        merged = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        return render([merged, *rest])


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """Tokenize a rendered prompt, with at most one BOS.

    Args:
        tokenizer: The tokenizer.
        text: The prompt, perhaps with a BOS that the template wrote.

    Returns:
        Token ids: without a second BOS, and without an EOS that the tokenizer appended.
    """
    ids: list[int] = list(tokenizer(text)["input_ids"])
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        ids = ids[1:]
    # An EOS that the tokenizer appends would end the conversation before the answer.
    if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token):
        ids = ids[:-1]
    return ids


def encode_sentence(tokenizer: Any, sentence: str) -> list[int]:
    """Tokenize a bare sentence for retrieval and alignment: no chat template, no EOS.

    Args:
        tokenizer: The tokenizer.
        sentence: The sentence.

    Returns:
        Token ids; a BOS included if the tokenizer adds one.
    """
    ids: list[int] = list(tokenizer(sentence)["input_ids"])
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids
