"""A table of text cells as plain text, Markdown, LaTeX or CSV, each cell escaped for its format.

Cells may hold what strangers wrote.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from xlt_bench.errors import unknown

Format = Literal["text", "md", "latex", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class Table:
    """A title, column names, rows of cells, and notes below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def render(tables: Sequence[Table], form: str) -> str:
    """The tables one after another. Raises InputError for an unknown format.

    CSV has no titles: the title is the first column, and notes are left out.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if form == "csv":
        return _csv(tables)
    one = {"text": _text, "md": _markdown, "latex": _latex}[form]
    return "\n".join(one(table) for table in tables)


def _csv(tables: Sequence[Table]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: Sequence[str] | None = None
    for table in tables:
        if table.columns != header:
            header = table.columns
            writer.writerow(["table", *header])
        writer.writerows([*map(_no_formula, [table.title, *row])] for row in table.rows)
    return out.getvalue()


def _no_formula(cell: str) -> str:
    """The cell, behind an apostrophe where a spreadsheet would run it."""
    if not cell.lstrip().startswith(("=", "+", "-", "@")):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell


def _text(table: Table) -> str:
    rows = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    rule = "  ".join("-" * w for w in widths)
    return "\n".join([table.title, lines[0], rule, *lines[1:], *table.notes]) + "\n"


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_escaped_markdown(cell) for cell in cells) + " |"

    head = [f"### {_escaped_markdown(table.title)}", "", line(table.columns)]
    rule = "|" + "---|" * len(table.columns)
    notes = ["", *(_escaped_markdown(note) for note in table.notes)] if table.notes else []
    return "\n".join([*head, rule, *map(line, table.rows), *notes]) + "\n"


def _escaped_markdown(text: str) -> str:
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def _latex(table: Table) -> str:
    def escape(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))

    head = " & ".join(map(escape, table.columns)) + r" \\ \hline"
    body = [" & ".join(map(escape, row)) + r" \\" for row in table.rows]
    caption = escape(" ".join([table.title + ".", *table.notes]))
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
            head,
            *body,
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
