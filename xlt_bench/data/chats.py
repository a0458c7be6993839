"""Reads a user's own task: chats with their languages, a JSON object on each line.

{"language": "sw", "messages": [{"role": "user", "content": "..."},
                                {"role": "assistant", "content": "the answer to learn"}]}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlt_bench.data.root import parse_line, read_lines
from xlt_bench.errors import InputError
from xlt_bench.languages import language

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Chat:
    """A chat without its last answer, and that answer.

    `language` is a code of the language table.
    """

    language: str
    messages: list[dict[str, str]]
    target: str


def load(path: Path) -> list[Chat]:
    """The chats of a file, in its order. Other keys of a line are ignored.

    Args:
        path: A `.jsonl` file, plain or with `.gz` appended.

    Raises:
        InputError: The file is missing, or a line is no chat that ends with an answer.
    """
    lines = enumerate(read_lines(path, None), start=1)
    return [_chat(parse_line(line, path, n), path, n) for n, line in lines if line.strip()]


def _chat(row: Any, path: Path, number: int) -> Chat:
    where = f"{path} line {number}"
    if not isinstance(row, dict) or not isinstance(row.get("language"), str):
        raise InputError(f'{where} needs a "language", such as "sw"')
    try:
        code = language(row["language"]).code
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        raise InputError(
            f'{where} needs "messages", a list of {{"role": "user", "content": "..."}} (roles: '
            f"{', '.join(_ROLES)})"
        )
    roles = [message["role"] for message in messages]
    if len(roles) < 2 or roles[-1] != "assistant" or roles[-2] != "user":
        raise InputError(f"{where}: the messages must end with one of the user and its answer")
    kept = [{key: message[key] for key in ("role", "content")} for message in messages]
    return Chat(code, kept[:-1], kept[-1]["content"])


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("role") in _ROLES
        and isinstance(value.get("content"), str)
    )
