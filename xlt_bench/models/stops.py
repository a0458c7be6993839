"""Collects what ends an answer: EOS, the end of a turn in the chat template, stop strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xlt_bench.models.chat import Args
from xlt_bench.models.generation_config import stop_strings
from xlt_bench.models.hidden_states import base_model
from xlt_bench.models.turn_end import turn_end


@dataclass(frozen=True)
class Stops:
    """What ends an answer."""

    ids: tuple[int, ...]
    """Token ids, each of which ends an answer."""
    texts: tuple[str, ...]
    """Texts, each of which ends an answer: several tokens that end a turn, stop strings."""
    names: list[str]
    """All of these as text, for the record."""


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
    found = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id, end.mark}
    found |= {tokens[text] for text in strings if text in tokens}
    ids = tuple(sorted(id_ for id_ in found if id_ is not None))
    texts = tuple(dict.fromkeys([*([end.text] if end.text else []), *strings]))
    names = [tokenizer.convert_ids_to_tokens(id_) or str(id_) for id_ in ids]
    return Stops(ids, texts, list(dict.fromkeys([*names, *texts])))
