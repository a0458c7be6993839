"""Tests `languages`, `recipes` and `data check`: uncut names at any width, and CSV and JSON."""

import csv
import fcntl
import io
import json
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from xlt_bench.languages import LANGUAGES
from xlt_bench.training import recipe

WIDTHS = [None, 200, 80, 64]


@pytest.fixture
def print_at(monkeypatch, run_cli):
    """Run a command with $COLUMNS set, or piped without it; returns the lines."""

    def run(width, *words):
        monkeypatch.delenv("COLUMNS", raising=False)
        if width is not None:
            monkeypatch.setenv("COLUMNS", str(width))
        code, out, _ = run_cli(*words)
        assert code == 0
        return out.splitlines()

    return run


@pytest.mark.parametrize("width", WIDTHS)
def test_the_codes_of_a_language_are_whole(print_at, width):
    lines = print_at(width, "languages")
    assert max(map(len, lines)) <= (width or 1000)
    rows = {line.split()[0]: line.split() for line in lines if line[:1].islower()}
    for code, row in LANGUAGES.items():
        assert row.flores in rows[code]
        assert row.massive is None or row.massive in rows[code]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_names_of_the_tasks_are_whole(print_at, width):
    lines = print_at(width, "languages")
    words = set(" ".join(lines).split())
    assert {"massive", "intents", "wmt23", "uner"} <= words
    # 64 columns have no room for those of retrieval, and the last line says so.
    corpora = {"retrieval", "retrieval-devtest", "retrieval-ntrex"}
    assert words & corpora == (set() if width == 64 else corpora)
    assert {word for word in words if word.startswith("retri")} == words & corpora
    if width == 64:
        assert "ranked" in lines[-1] or "ranked" in lines[-2]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_name_of_a_recipe_is_whole(print_at, width):
    lines = print_at(width, "recipes")
    assert max(map(len, lines)) <= (width or 1000)
    assert set(recipe.names()) <= {line.split()[0] for line in lines if line[:1].isalpha()}
    words = set(" ".join(lines).split())
    for name in recipe.names():
        for row in recipe.load_recipe(name).paper:
            if width != 64:  # 64 columns break words longer than their column
                assert {*row.row.split(), *row.note.split()} <= words


def test_piped_tables_have_one_line_per_row(print_at):
    assert len(print_at(None, "languages")) == len(LANGUAGES) + 2
    # A recipe that is not the paper's has one row, with its title.
    rows = sum(len(recipe.load_recipe(name).paper) or 1 for name in recipe.names())
    assert len(print_at(None, "recipes")) == rows + 3


@pytest.mark.parametrize("columns", [80, 132])
def test_a_terminal_is_filled_and_not_overrun(columns):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    program = Path(sys.executable).with_name("xlt-bench")
    environ = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    with subprocess.Popen([program, "languages"], stdout=theirs, env=environ) as process:
        os.close(theirs)
        out = b""
        try:
            while part := os.read(ours, 4096):
                out += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    lines = out.decode().split("\r\n")
    assert all(len(line) <= columns for line in lines)
    assert ("Indo-European" in out.decode()) == (columns == 132)
    assert any(len(line) > columns - 20 for line in lines)


def test_languages_for_programs(run_cli):
    code, out, _ = run_cli("languages", "--format", "json")
    assert code == 0
    rows = {row["code"]: row for row in json.loads(out)}
    assert list(rows) == list(LANGUAGES)
    for code, row in LANGUAGES.items():
        assert (rows[code]["flores"], rows[code]["locale"]) == (row.flores, row.massive)
    assert rows["sw"]["transfer"] == ["massive", "intents"]
    assert rows["sw"]["ranked"] == ["retrieval", "retrieval-devtest", "retrieval-ntrex"]
    assert rows["jv"]["ranked"] == ["retrieval", "retrieval-devtest"]
    assert rows["yo"]["beyond"] == ["retrieval", "retrieval-devtest", "retrieval-ntrex"]
    assert rows["ko"]["beyond"] == ["massive", "intents"]
    assert rows["cs"]["supervised"] == ["wmt23"]
    code, out, _ = run_cli("languages", "--format", "csv")
    (zh,) = [row for row in csv.DictReader(io.StringIO(out)) if row["code"] == "zh"]
    assert (zh["name"], zh["supervised"]) == ("Chinese (Simplified)", "massive wmt23 uner intents")


def test_recipes_for_programs(run_cli):
    code, out, _ = run_cli("recipes", "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert [row["recipe"] for row in rows] == [
        name for name in recipe.names() for _ in recipe.load_recipe(name).paper or [None]
    ]
    beside = {row["recipe"]: row["row"] for row in rows if row["table"] is None}
    assert beside["massive-oracle"] == "Control: slot filling, supervised in all languages"
    assert "intents-baseline" in beside


def test_data_check_for_programs(run_cli, tmp_path):
    code, out, _ = run_cli("data", "check", "massive", "--data-dir", tmp_path, "--format", "json")
    (row,) = json.loads(out)
    assert (code, row["name"], row["state"], row["units"]) == (1, "massive", "missing", 0)
    assert "xlt-bench data fetch massive" in row["detail"]
    code, out, _ = run_cli("data", "check", "massive", "--data-dir", tmp_path)
    assert code == 1
    assert out.splitlines()[-1] == f"massive: {row['detail']}"


@pytest.mark.parametrize("words", [["languages"], ["recipes"], ["data", "check"], ["score", "x"]])
def test_an_unknown_format_comes_before_any_work(run_cli, words):
    code, _, err = run_cli(*words, "--format", "jsn")
    assert (code, err) == (
        2,
        "error: unknown format 'jsn': did you mean 'json'? (choices: table, csv, json)\n",
    )
