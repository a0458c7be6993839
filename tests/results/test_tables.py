"""Tables in every format, with what strangers may write in their cells."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.results.tables import FORMATS, Column, Table, csv_cell, render

HOSTILE = '<b>|*x*_y_ [a](b) `c` & 100% $d$ #e {f} \\end{table} ~^ "q", \n new'
TABLE = Table("a title", ["unit", "gain"], [["sw", "+1.0"], [HOSTILE, "-2.0"]], ["a note"])
FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", " =1", "\tx"]
BROKEN = {"\rx": "'\nx", "a\r=1": "a\n=1", "a\r\nb": "a\nb", "a\nb": "a\nb"}  # by line ends
NUMBERS = ["-1.5", "+2", "-1e-3"]


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


def test_columns_line_up_words_on_the_left_and_numbers_on_the_right():
    rows = [["sw", "+1.0"], ["longer", "-12.5"], [], ["", ""]]
    assert render([Table("t", ["unit", "gain"], rows)], "table").split("\n") == [
        "t",
        "unit     gain",
        "------  -----",
        "sw       +1.0",
        "longer  -12.5",
        "",
        "",
        "",
    ]


def test_one_table_holds_for_every_format():
    """Typed cells: as a person reads them in some formats, as a program does in others."""
    rows = [["a", 12345, 0.125, True, ("x", "y"), None], [], ["b", 1, 2.0, False, (), "z"]]
    table = Table("", ["s", "i", "f", "b", "t", "n"], rows, ["a note"])
    assert json.loads(render([table], "json")) == [
        {"s": "a", "i": 12345, "f": 0.125, "b": True, "t": ["x", "y"], "n": None},
        {"s": "b", "i": 1, "f": 2.0, "b": False, "t": [], "n": "z"},
    ]
    assert list(csv.reader(io.StringIO(render([table], "csv")))) == [
        ["s", "i", "f", "b", "t", "n"],
        ["a", "12345", "0.125", "yes", "x y", ""],
        ["b", "1", "2.0", "no", "", "z"],
    ]
    for form in ("table", "md", "latex"):
        text = render([table], form)
        assert all(cell in text for cell in ("12,345", "0.125", "yes", "no", "x y", "a note"))


def test_json_rows_say_which_table_they_are_of():
    found = json.loads(render([TABLE, Table("b", ["n"], [[1]])], "json"))
    assert found[0] == {"table": "a title", "unit": "sw", "gain": "+1.0"}
    assert found[2] == {"table": "b", "n": 1}
    assert render([Table("", ["n"], [])], "json") == "[]\n"


WIDE = Table(
    "",
    ["name", Column("prose", wrap=True), Column("first", drop=2), Column("last", drop=1), "code"],
    [
        [
            "a-name-that-one-must-type",
            "some words that may be broken",
            "f" * 20,
            "l" * 9,
            "ces_Latn",
        ],
        ["b", "more", "f", "l", "x"],
    ],
    ["a note of several words below the table"],
)


@pytest.mark.parametrize("width", [None, 120, 100, 80, 70, 60, 50, 20])
def test_names_are_whole_whatever_the_width(width):
    text = render([WIDE], "table", width)
    lines = text.splitlines()
    rows = [line for line in lines if "a-name-that-one-must-type" in line]
    assert len(rows) == 1
    assert rows[0].endswith("ces_Latn")
    assert set("some words that may be broken".split()) <= set(text.split())
    least = len("a-name-that-one-must-type") + len("ces_Latn") + 12 + 4
    assert all(len(line) <= max(width or 1000, least) for line in lines)


def test_prose_wraps_first_and_then_columns_go_in_their_order():
    def gone(width):
        lines = render([WIDE], "table", width).splitlines()
        left_out = [line for line in lines if line.startswith("not shown in")]
        return left_out[0].split(": ")[1].split(", ") if left_out else []

    assert gone(None) == gone(200) == []
    natural = len(render([WIDE], "table").splitlines()[2])
    assert gone(natural) == gone(natural - 10) == []  # the prose gives 10 characters
    assert gone(natural - 30) == ["first"]
    assert gone(51) == ["first"]  # with one space between columns
    assert gone(50) == ["first", "last"]


def test_only_words_that_nobody_types_are_broken():
    names = ["a", Column("task", wrap=True, whole=True), Column("prose", wrap=True)]
    cells = [["x", "retrieval-devtest retrieval-ntrex", "w" * 20]]
    for width, parts in ((58, 1), (40, 1), (39, 2), (32, 2)):
        words = render([Table("", names, cells)], "table", width).split()
        assert {"retrieval-devtest", "retrieval-ntrex"} <= set(words)
        assert len([word for word in words if set(word) == {"w"}]) == parts


def test_a_cell_cannot_move_the_cursor():
    text = render([Table("t\x1b[2J", ["a"], [["x\x1b[31m\r\ny"]], ["n\x07"])], "table")
    assert text.replace("\n", "").isprintable()


def test_an_unknown_format():
    with pytest.raises(InputError, match="did you mean 'latex'"):
        render([TABLE], "latx")
    for form in FORMATS:
        assert render([TABLE], form)


def test_csv_cells_are_csv_cells():
    cells = [*FORMULAS, *NUMBERS, *BROKEN]
    table = Table("=title", cells, [cells])
    row = list(csv.reader(io.StringIO(render([table], "csv"), newline="")))[-1]
    assert row == ["'=title", *("'" + cell for cell in FORMULAS), *NUMBERS, *BROKEN.values()]


def test_all_three_writers_of_csv_defuse_the_same_cells(monkeypatch, tmp_path):
    """The tables, the downloads of the app and the export of the database."""
    import duckdb
    import pandas as pd

    from xlt_bench.store import export

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "leaderboard"))
    import widgets

    cells = [*FORMULAS, *NUMBERS, *BROKEN, "plain"]
    wanted = [csv_cell(cell) for cell in cells]
    assert wanted[: len(FORMULAS)] == ["'" + cell for cell in FORMULAS]

    def read(data: bytes) -> list[str]:
        return [row[0] for row in csv.reader(io.StringIO(data.decode(), newline=""))][1:]

    frame = pd.DataFrame({"text": cells, "number": range(len(cells))})
    assert read(widgets.csv(frame)) == wanted
    lists = pd.DataFrame({"words": [[cell, "x"] for cell in cells]})
    assert read(widgets.csv(lists)) == [csv_cell(f"{cell} x") for cell in cells]
    monkeypatch.setattr(export, "VIEWS", {"view": "SELECT * FROM made"})
    with duckdb.connect() as store:
        store.execute("CREATE TABLE made (number INTEGER, text VARCHAR, words VARCHAR[])")
        rows = [[i, cell, [cell, "x"]] for i, cell in enumerate([*cells, None])]
        store.executemany("INSERT INTO made VALUES (?, ?, ?)", rows)
        (path,) = export.export(store, "csv", tmp_path)
    found = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))[1:]
    assert [row[1] for row in found] == [*wanted, ""]
    assert [row[2] for row in found[:-1]] == [csv_cell(f"{cell} x") for cell in cells]


def test_the_module_is_light():
    code = "import sys, xlt_bench.results.tables; print(len({'rich', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
