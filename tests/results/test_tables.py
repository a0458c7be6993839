"""Tables in every format, with what strangers may write in their cells."""

import csv
import io

import pytest

from xlt_bench.errors import InputError
from xlt_bench.results.tables import Table, render

HOSTILE = '<b>|*x*_y_ [a](b) `c` & 100% $d$ #e {f} \\end{table} ~^ "q", \n new'
TABLE = Table("a title", ["unit", "gain"], [["sw", "+1.0"], [HOSTILE, "-2.0"]], ["a note"])


def test_csv_is_read_back_as_it_was():
    rows = list(csv.reader(io.StringIO(render([TABLE, TABLE], "csv"))))
    assert rows[0] == ["table", "unit", "gain"]
    assert rows[1:3] == [["a title", "sw", "+1.0"], ["a title", HOSTILE, "-2.0"]]
    assert len(rows) == 5  # the columns are named once


def test_markdown_keeps_cells_apart_and_marks_nothing_up():
    from html import unescape

    text = render([TABLE], "md")
    lines = text.splitlines()
    row = next(line for line in lines if "-2.0" in line)
    assert "<b>" not in text
    assert row.replace(r"\|", "").count("|") == 3
    for mark in "*_`[]|#~":
        assert mark not in row.replace("\\" + mark, "").strip("| ").replace(" | ", "")
    plain = unescape(row)
    assert r"\[a\](b)" in plain


def test_latex_escapes_every_special_character():
    text = render([TABLE], "latex")
    row = next(line for line in text.splitlines() if "-2.0" in line)
    assert r"\textless{}b\textgreater{}" in row
    assert r"\textbackslash{}end\{table\}" in row
    assert r"100\% \$d\$ \#e \{f\}" in row
    assert row.replace(r"\&", "").count("&") == 1
    assert text.count(r"\end{table}") == 1


def test_text_columns_line_up():
    lines = render([Table("t", ["unit", "gain"], [["sw", "1"], ["longer", "2"]])], "text").split(
        "\n"
    )
    assert [line.find("gain") for line in lines[1:2]] == [8]
    assert (lines[3][8], lines[4][8]) == ("1", "2")


def test_an_unknown_format():
    with pytest.raises(InputError, match="did you mean 'latex'"):
        render([TABLE], "latx")


def test_csv_cells_are_no_formulas():
    cells = ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", " =1", "-1.5", "+2", "-1e-3"]
    table = Table("=title", cells, [cells])
    row = list(csv.reader(io.StringIO(render([table], "csv"))))[1]
    assert row[0] == "'=title"
    assert row[1:7] == ["'" + cell for cell in cells[:6]]
    assert row[7:] == cells[6:]
