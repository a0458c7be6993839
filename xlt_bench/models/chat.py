"""Chat templates: the tokenizer's own, one that ships with the package, or a file.

plain             for base models without a template: "Input: ...", then "Output:"
llama3-midalign   what the Llama 3 adapters of the paper's authors were trained with: a line break
                  after each end-of-turn token and no BOS in the text (the tokenizer adds one)
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError, one_line, unknown

_FOLDER = Path(__file__).with_name("templates")
# Llama 3.1's, the longest in use, writes a few thousand for tools and dates.
_MOST_AROUND = 100_000
NAMED = sorted(path.stem for path in _FOLDER.glob("*.jinja"))


def template_file(choice: str) -> Path:
    """The file of a template other than `tokenizer`. Raises InputError for an unknown name."""
    path = _FOLDER / f"{choice}.jinja" if choice in NAMED else Path(choice)
    if not path.is_file():
        raise unknown("chat template", choice, ["tokenizer", *NAMED, "a file"])
    return path


def check_template(choice: str | None) -> None:
    """Raise InputError, without a tokenizer, for what `set_chat_template` would refuse."""
    if choice not in (None, "tokenizer"):
        _read_template(str(choice))


def _read_template(choice: str) -> str:
    path = template_file(choice)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"chat template {path} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None


def set_chat_template(tokenizer: Any, choice: str | None) -> tuple[str, str]:
    """Give the tokenizer its chat template; returns the template's name and sha256.

    `choice` is a name, a file, or None: the tokenizer's own, or `plain` where it has none.
    Raises InputError for an unknown name, and for a template that cannot render a chat.
    """
    if choice is None:
        choice = "tokenizer" if tokenizer.chat_template else "plain"
    if choice != "tokenizer":
        tokenizer.chat_template = _read_template(choice)
    _try_template(tokenizer, choice)
    template = tokenizer.chat_template
    text = template if isinstance(template, str) else str(sorted(template.items()))
    return choice, hashlib.sha256(text.encode()).hexdigest()


def _try_template(tokenizer: Any, choice: str) -> None:
    """Render one chat, so that a broken template fails here and not after hours of work."""
    said = {"system": "What the system says.", "user": "What the user says."}
    chat = [{"role": role, "content": text} for role, text in said.items()]
    try:
        prompt = render_chat(tokenizer, chat, add_generation_prompt=True)
    except Exception as error:  # a template runs what it likes, and may raise anything
        line = one_line(error, 300)
        number = getattr(error, "lineno", None)
        where = f" line {number}" if number else ""
        raise InputError(
            f"chat template {choice}{where} cannot render a system and a user message: {line}; "
            "mend it, or choose another with --chat-template"
        ) from None
    if left_out := [role for role, text in said.items() if text not in prompt]:
        raise InputError(
            f"chat template {choice} leaves out the {left_out[0]} message, and with it the task; "
            "mend it, or choose another with --chat-template"
        )
    if len(prompt) > _MOST_AROUND:
        raise InputError(
            f"chat template {choice} writes {len(prompt):,} characters around two short messages; "
            f"at most {_MOST_AROUND:,} are taken"
        )


def render_chat(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    """The prompt of a chat. A template that refuses the system role gets it before the user's turn.

    lm-eval's own wrapper drops the system message in that case, and with it the task.
    """
    import jinja2

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    except jinja2.exceptions.TemplateError:
        if messages[0]["role"] != "system":
            raise
        system, user, *rest = messages
        merged = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        return str(tokenizer.apply_chat_template([merged, *rest], tokenize=False, **options))


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered prompt, with at most one BOS.

    Where the template writes a BOS and the tokenizer adds another, one is taken away.
    """
    ids: list[int] = list(tokenizer(text)["input_ids"])
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        ids = ids[1:]
    # An EOS that a tokenizer puts behind everything would end the conversation before the answer.
    if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token):
        ids = ids[:-1]
    return ids


def encode_sentence(tokenizer: Any, sentence: str) -> list[int]:
    """Token ids of a bare sentence as the tokenizer makes them, a BOS included, without EOS."""
    ids: list[int] = list(tokenizer(sentence)["input_ids"])
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def encode_exchange(
    tokenizer: Any, messages: list[dict[str, str]], answer: str
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt of `messages`, and of what a model should write: answer, turn's end.

    The end of the turn is what the template closes an assistant's turn with, up to its first
    special token; a template that does not continue its own prompt gets the tokenizer's EOS.
    """
    prompt = render_chat(tokenizer, messages, add_generation_prompt=True)
    turn = [*messages, {"role": "assistant", "content": answer}]
    whole = render_chat(tokenizer, turn, add_generation_prompt=False)
    closing = whole.removeprefix(prompt + answer) if whole.startswith(prompt + answer) else ""
    special = set(tokenizer.all_special_ids)
    ends = tokenizer(closing, add_special_tokens=False)["input_ids"] if closing else []
    end = next((id_ for id_ in ends if id_ in special), tokenizer.eos_token_id)
    ids: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return encode_prompt(tokenizer, prompt), [*ids, end]
