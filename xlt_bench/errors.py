"""`InputError`, which the command line prints as one line with exit code 2, and its wording."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def one_line(text: object, most: int) -> str:
    r"""Put any text on one line: white space collapsed, control characters escaped.

    Args:
        text: Any object; its `str` is used.
        most: The length limit in characters; a longer line ends in an ellipsis.

    >>> one_line("a\n\x1b[2Jb", 80), one_line("abcdef", 4)
    ('a \\x1b[2Jb', 'abc…')
    """
    line = " ".join(str(text).split())
    if not line.isprintable():
        shown = (c if c.isprintable() else ascii(c)[1:-1] for c in line[:most])
        line = "".join(shown) + line[most:]
    return line if len(line) <= most else line[: most - 1] + "…"


def first_fault(error: ValidationError) -> str:
    """The place and message of the first error that pydantic found: `lora.r: Input should ...`."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))[:120]
    said = one_line(first["msg"].removeprefix("Value error, "), 200)
    return f"{where}: {said}" if where else said


class InputError(ValueError):
    """Bad input. The message says in one line what is wrong, where, and what to do."""


_SHOWN = 30


def unknown(kind: str, value: str, choices: Iterable[str]) -> InputError:
    """Build the InputError for an unknown name, with the nearest choice and, if few, all choices.

    Args:
        kind: What the name stands for ("language").
        value: The unknown name.
        choices: The known names.

    >>> str(unknown("language", "sv-SE", ["sv", "sw"]))
    "unknown language 'sv-SE': did you mean 'sv'? (choices: sv, sw)"
    """
    choices = list(choices)
    near = difflib.get_close_matches(value, choices, n=3, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else ""
    if len(choices) <= _SHOWN:
        listed = ", ".join(choices)
        hint = f"{hint} (choices: {listed})" if hint else f"choose from {listed}"
    elif not near:
        hint = f"there are {len(choices)} choices, such as {', '.join(choices[:5])}"
    return InputError(f"unknown {kind} {one_line(repr(value), 80)}: {hint}")
