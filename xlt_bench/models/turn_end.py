"""Finds what ends an answer: EOS, and what the chat template writes after an assistant's turn.

Training teaches the end of a turn, and decoding stops there: base models that were fine-tuned with
ChatML end their turns with `<|im_end|>` and keep `<|endoftext|>` as EOS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xlt_bench.errors import InputError
from xlt_bench.models.chat import Args, encode_prompt, render_chat
from xlt_bench.models.generation_config import stop_strings
from xlt_bench.models.hidden_states import base_model

_CHAT = [{"role": "user", "content": "What the user says."}]
_ANSWER = "What the assistant says."


@dataclass(frozen=True)
class Stops:
    """What ends an answer."""

    ids: tuple[int, ...]
    """Token ids, each of which ends an answer."""
    texts: tuple[str, ...]
    """Texts, each of which ends an answer: several tokens that end a turn, stop strings."""
    names: list[str]
    """All of these as text, for the record."""


@dataclass(frozen=True)
class TurnEnd:
    """What a template writes after an assistant's message."""

    ids: tuple[int, ...]
    """As training teaches it: one special or added token, or the tokens of `text`."""
    text: str | None = None
    """The text, if no special or added token ends the turn."""


def turn_end(tokenizer: Any, args: Args | None = None) -> TurnEnd:
    """Find what ends an assistant's turn.

    Args:
        tokenizer: A tokenizer, with or without a chat template.
        args: Variables of the template.

    Returns:
        The first special or added token that the template writes after an assistant's message; if
        there is none, the text that it writes, without the white space around it; if there is
        none, the tokenizer's EOS. Without ids if there is no EOS either.
    """
    variables = tuple((args or {}).items())
    return _turn_end(tokenizer, str(tokenizer.chat_template), variables, tokenizer.eos_token_id)


@lru_cache(maxsize=8)
def _turn_end(tokenizer: Any, _template: str, args: Any, eos: int | None) -> TurnEnd:
    """`_template` is in the key since that of the tokenizer may change."""
    closing = _closing(tokenizer, dict(args)).strip()
    ids = tokenizer(closing, add_special_tokens=False)["input_ids"] if closing else []
    marks = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    for id_ in ids:
        if id_ in marks and tokenizer.decode([id_]).strip():
            return TurnEnd((id_,))
    if closing:
        return TurnEnd(tuple(ids), closing)
    return TurnEnd(() if eos is None else (eos,))


def _closing(tokenizer: Any, args: Args) -> str:
    """What the template writes after an answer; empty if there is no template."""
    chat = [*_CHAT, {"role": "assistant", "content": _ANSWER}]
    try:
        _, found, closing = render_chat(tokenizer, chat, **args).rpartition(_ANSWER)
    except Exception:  # there is no template, or one that renders no answers
        return ""
    return closing if found else ""


def stops(model: Any, tokenizer: Any, args: Args | None = None) -> Stops:
    """Collect what ends an answer.

    Args:
        model: The model, wrapped or not; its generation config may name several EOS and strings.
        tokenizer: The tokenizer, with its chat template set.
        args: Variables of the template.

    Returns:
        EOS and stop strings of the generation config, EOS of the tokenizer, and the end of a turn.
    """
    named = base_model(model).generation_config.eos_token_id
    end, strings = turn_end(tokenizer, args), stop_strings(model)
    # The text of a special token is not in a decoded answer.
    tokens = tokenizer.get_vocab() if strings else {}
    found = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id}
    found |= {tokens[text] for text in strings if text in tokens}
    found |= set(end.ids) if end.text is None else set()
    ids = tuple(sorted(id_ for id_ in found if id_ is not None))
    texts = tuple(dict.fromkeys([*([end.text] if end.text else []), *strings]))
    names = [tokenizer.convert_ids_to_tokens(id_) or str(id_) for id_ in ids]
    return Stops(ids, texts, list(dict.fromkeys([*names, *texts])))


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
