"""Finds what ends an assistant's turn in a chat template, and encodes answers for training.

Training teaches the end of a turn, and decoding stops there: base models that were fine-tuned with
ChatML end their turns with `<|im_end|>` and keep `<|endoftext|>` as EOS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xlt_bench.errors import InputError
from xlt_bench.models.chat import Args, encode_prompt, render_chat

_CHAT = [{"role": "user", "content": "What the user says."}]
_ANSWER = "What the assistant says."


@dataclass(frozen=True)
class TurnEnd:
    """What a template writes after an assistant's message."""

    ids: tuple[int, ...]
    """As training teaches it."""
    mark: int | None = None
    """The first special or added token, which is the last of `ids`."""
    text: str | None = None
    """Ordinary text before that token, or instead of it."""


def turn_end(tokenizer: Any, args: Args | None = None) -> TurnEnd:
    """Find what ends an assistant's turn.

    Args:
        tokenizer: A tokenizer, with or without a chat template.
        args: Variables of the template.

    Returns:
        What the template writes after an assistant's message, up to the first special or added
        token; if it writes nothing, the tokenizer's EOS. Without ids if there is no EOS either.
    """
    variables = tuple((args or {}).items())
    return _turn_end(tokenizer, str(tokenizer.chat_template), variables, tokenizer.eos_token_id)


@lru_cache(maxsize=8)
def _turn_end(tokenizer: Any, _template: str, args: Any, eos: int | None) -> TurnEnd:
    """`_template` is in the key since that of the tokenizer may change."""
    closing = _closing(tokenizer, dict(args)).rstrip()
    ids = tokenizer(closing, add_special_tokens=False)["input_ids"] if closing else []
    marks = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    for i, id_ in enumerate(ids):
        if id_ in marks and tokenizer.decode([id_]).strip():
            text = tokenizer.decode(ids[:i]).strip()
            return TurnEnd(tuple(ids[: i + 1]) if text else (id_,), id_, text or None)
    if closing:
        return TurnEnd(tuple(ids), text=closing.strip())
    return TurnEnd(() if eos is None else (eos,), eos)


def _closing(tokenizer: Any, args: Args) -> str:
    """What the template writes after an answer; empty if there is no template."""
    chat = [*_CHAT, {"role": "assistant", "content": _ANSWER}]
    try:
        _, found, closing = render_chat(tokenizer, chat, **args).rpartition(_ANSWER)
    except Exception:  # there is no template, or one that renders no answers
        return ""
    return closing if found else ""


def encode_exchange(
    tokenizer: Any, messages: list[dict[str, str]], answer: str
) -> tuple[list[int], list[int]]:
    """Tokenize a prompt and the answer that the model should learn.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The chat before the answer.
        answer: The gold answer.

    Returns:
        Token ids of the prompt and of the answer, which ends as `turn_end` says.

    Raises:
        InputError: If nothing ends a turn.
    """
    end = turn_end(tokenizer).ids
    if not end:
        raise InputError(
            "nothing ends an answer: the tokenizer has no EOS, and its chat template writes "
            "nothing after an assistant's message; choose another with --chat-template"
        )
    prompt = render_chat(tokenizer, messages, add_generation_prompt=True)
    ids: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return encode_prompt(tokenizer, prompt), [*ids, *end]
