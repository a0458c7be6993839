"""Turns answers into HTML in which scripts of both directions keep their order.

The browser takes the direction of a text from its first strong letter (`dir="auto"`). In an answer
such as `slot: value; slot: value` or JSON, names are left to right and values may be right to left:
without isolation, a browser would swap a slot and an Arabic value. Each of them is a `<bdi>`.
"""

from __future__ import annotations

import re
from html import escape

STYLE = """\
.answer {white-space: pre-wrap; overflow-wrap: anywhere; text-align: start; padding: .5rem .75rem;
    border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .5rem}
.answer .pair {unicode-bidi: isolate}
"""
_PAIR = re.compile(r"\s*([A-Za-z_-]+): (.+)", re.DOTALL)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def as_html(text: str) -> str:
    """A text as a block of HTML; nothing in it is markup."""
    if text.lstrip().startswith(("{", "[")):
        # JSON runs from left to right, whatever its strings hold.
        return f'<div class="answer" dir="ltr">{_json(text)}</div>'
    parts = text.split("; ")
    pairs = [_PAIR.fullmatch(part) for part in parts]
    if all(pairs):
        shown = "; ".join(_pair(found[1], found[2]) for found in pairs if found)
        return f'<div class="answer" dir="ltr">{shown}</div>'
    return f'<div class="answer" dir="auto">{escape(text)}</div>'


def _pair(slot: str, value: str) -> str:
    return f'<span class="pair"><bdi>{escape(slot)}</bdi>: <bdi>{escape(value)}</bdi></span>'


def _json(text: str) -> str:
    shown, end = [], 0
    for found in _STRING.finditer(text):
        shown.append(f'{escape(text[end : found.start()])}"<bdi>{escape(found[1])}</bdi>"')
        end = found.end()
    return "".join([*shown, escape(text[end:])])
