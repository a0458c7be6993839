"""Renders tables for a terminal or as Markdown, LaTeX, CSV or JSON, with every cell escaped.

Cells may hold text written by submitters.
"""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from xlt_bench.errors import one_line, unknown

Format = Literal["table", "csv", "json", "md", "latex"]
FORMATS: tuple[Format, ...] = get_args(Format)
DATA_FORMATS: tuple[Format, ...] = ("csv", "json")
"""The formats that programs read: full precision, every column, notes left out."""
Cell = str | int | float | bool | tuple[str, ...] | None

_GAPS = "  ", " "  # between columns: as a rule, and where a terminal is narrow
_NARROW = 12  # words of a column that wraps are broken down to this
_MAX_LINE = 100_000
_NUMBER = re.compile(r"[-+]?[0-9][0-9,]*(\.[0-9]+)?%?")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class Column:
    """A column that may give way where a terminal is narrow; a plain name never does.

    `wrap` breaks its cells between words and, unless they are `whole`, within long ones. If that
    is not enough, the columns with the largest `drop` are left out, then those with the next.
    """

    name: str
    wrap: bool = False
    whole: bool = False
    drop: int = 0


@dataclass(frozen=True)
class Table:
    """A title (may be empty), columns, rows of cells, and notes below.

    A row without cells separates groups of rows: an empty line on a terminal, nothing elsewhere.
    """

    title: str
    columns: Sequence[str | Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [_column(column).name for column in self.columns]

    @property
    def records(self) -> list[Sequence[Cell]]:
        """The rows that have cells."""
        return [row for row in self.rows if row]


def render(tables: Sequence[Table], form: str, width: int | None = None) -> str:
    """Render tables one after another.

    CSV and JSON are one list of rows. Where tables have titles, the title is the first column.
    Notes are left out.

    Args:
        tables: What to render.
        form: One of `FORMATS`.
        width: Characters of a line for the format `table`; None: no limit.

    Returns:
        The text, ending in a line break.

    Raises:
        InputError: `form` is unknown.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if form in DATA_FORMATS:
        return _csv(tables) if form == "csv" else _json(tables)
    if form == "table":
        return "\n".join(_text(table, width) for table in tables)
    one = _markdown if form == "md" else _latex
    return "\n".join(map(one, tables))


def csv_cell(text: str) -> str:
    r"""A text as a cell of a CSV file; every CSV file that the project writes has its texts here.

    What a spreadsheet would run as a formula gets an apostrophe in front; numbers do not. Line
    ends become `\n`: Python's csv module leaves a bare `\r` unquoted, which would end the row.

    >>> csv_cell("=1+1"), csv_cell("-1.5"), csv_cell("a-b")
    ("'=1+1", '-1.5', 'a-b')
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith(("\t", "\n")) or text.lstrip().startswith(("=", "+", "-", "@")):
        try:
            float(text)
        except ValueError:
            return "'" + text
    return text


def _column(column: str | Column) -> Column:
    return column if isinstance(column, Column) else Column(column)


def _shown(cell: Cell) -> str:
    """A cell as a person reads it, on one line."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return one_line(_plain(cell), _MAX_LINE)


def _plain(cell: Cell) -> str:
    """A cell as a program reads it."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return " ".join(cell) if isinstance(cell, tuple) else str(cell)


def _titled(tables: Sequence[Table]) -> bool:
    return any(table.title for table in tables)


def _csv(tables: Sequence[Table]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    titled = _titled(tables)
    header: list[str] | None = None
    for table in tables:
        if table.names != header:
            header = table.names
            writer.writerow(["table", *header] if titled else header)
        for row in table.records:
            cells = [table.title, *row] if titled else row
            writer.writerow([csv_cell(_plain(cell)) for cell in cells])
    return out.getvalue()


def _json(tables: Sequence[Table]) -> str:
    lines = []
    for table in tables:
        title = {"table": table.title} if _titled(tables) else {}
        for row in table.records:
            cells = dict(zip(table.names, row, strict=True))
            lines.append(json.dumps(title | cells, ensure_ascii=False))
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def _text(table: Table, width: int | None) -> str:
    cells = [[_shown(cell) for cell in row] for row in table.rows]
    shown, widths, gap = _layout(table, [row for row in cells if row], width)
    numeric = [_is_numeric([row[i] for row in cells if row]) for i in shown]

    def lines(row: Sequence[str]) -> list[str]:
        parts = [_wrap(row[i], w) for i, w in zip(shown, widths, strict=True)]
        depth = max((len(part) for part in parts), default=1)
        filled = [part + [""] * (depth - len(part)) for part in parts]
        return [
            gap.join(
                part[n].rjust(w) if right else part[n].ljust(w)
                for part, w, right in zip(filled, widths, numeric, strict=True)
            ).rstrip()
            for n in range(depth)
        ]

    out = [one_line(table.title, _MAX_LINE)] if table.title else []
    out += [*lines(table.names), gap.join("-" * w for w in widths)]
    for row in cells:
        out += lines(row) if row else [""]
    notes = [*table.notes]
    if absent := [name for i, name in enumerate(table.names) if i not in shown]:
        notes.append(f"not shown in {width} columns: {', '.join(absent)}")
    for note in notes:
        out += _wrap(one_line(note, _MAX_LINE), width or _MAX_LINE)
    return "\n".join(out) + "\n"


def _layout(
    table: Table, cells: Sequence[Sequence[str]], width: int | None
) -> tuple[list[int], list[int], str]:
    """The indices of the columns that a line of `width` characters holds, their widths, the gap."""
    columns = [_column(column) for column in table.columns]
    shown = list(range(len(columns)))
    while True:
        widths, gap = _widths(columns, cells, shown, width)
        drop = max((columns[i].drop for i in shown), default=0)
        if width is None or not drop or _total(widths, gap) <= width:
            return shown, widths, gap
        shown = [i for i in shown if columns[i].drop != drop]


def _widths(
    columns: Sequence[Column],
    cells: Sequence[Sequence[str]],
    shown: Sequence[int],
    width: int | None,
) -> tuple[list[int], str]:
    """Widths and a gap that make a line as short as wanted, as far as the columns give way."""
    wide, narrow = _GAPS
    full = [max([0, *(len(row[i]) for row in cells)]) for i in shown]
    widths = [max(w, len(columns[i].name)) for i, w in zip(shown, full, strict=True)]
    if width is None:
        return widths, wide
    headings = [_longest_word(columns[i].name) for i in shown]
    words = [max([0, *(_longest_word(row[i]) for row in cells)]) for i in shown]
    parts = [w if columns[i].whole else min(w, _NARROW) for i, w in zip(shown, words, strict=True)]
    # Headings give way first, then the columns that wrap, between words, then gaps, then words.
    for wrapped, gap in ((full, wide), (words, wide), (words, narrow), (parts, narrow)):
        least = [
            max(headings[n], wrapped[n] if columns[i].wrap else full[n])
            for n, i in enumerate(shown)
        ]
        _shrink(widths, least, width, gap)
        if _total(widths, gap) <= width:
            break
    return widths, gap


def _shrink(widths: list[int], least: Sequence[int], width: int, gap: str) -> None:
    """Take characters from the widest columns, down to `least`, until a line fits."""
    while _total(widths, gap) > width:
        spare = [w if w > low else 0 for w, low in zip(widths, least, strict=True)]
        if not any(spare):
            return
        widths[spare.index(max(spare))] -= 1


def _total(widths: Sequence[int], gap: str) -> int:
    return sum(widths) + len(gap) * (len(widths) - 1)


def _longest_word(text: str) -> int:
    return max((len(word) for word in text.split()), default=0)


def _wrap(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, which are aligned on the right."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled)


def _markdown(table: Table) -> str:
    def line(cells: Sequence[Cell]) -> str:
        return "| " + " | ".join(_escaped_markdown(_shown(cell)) for cell in cells) + " |"

    head = [f"### {_escaped_markdown(table.title)}", ""] if table.title else []
    rule = "|" + "---|" * len(table.columns)
    notes = ["", *(_escaped_markdown(note) for note in table.notes)] if table.notes else []
    return "\n".join([*head, line(table.names), rule, *map(line, table.records), *notes]) + "\n"


def _escaped_markdown(text: str) -> str:
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def _latex(table: Table) -> str:
    def escape(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))

    def line(cells: Sequence[Cell]) -> str:
        return " & ".join(escape(_shown(cell)) for cell in cells) + r" \\"

    title = [table.title + "."] if table.title else []
    caption = escape(" ".join([*title, *table.notes]))
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
            line(table.names) + r" \hline",
            *map(line, table.records),
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
