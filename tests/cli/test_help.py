"""Tests that help texts are complete, fit narrow terminals and agree with docs/cli.md."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from xlt_bench.cli import train
from xlt_bench.cli.main import app
from xlt_bench.cli.reference import commands, page, shown
from xlt_bench.reproduce.tables import REPRODUCTIONS, Panel, Scatter
from xlt_bench.tasks.registry import BY_DEFAULT, selectable, text_tasks

PANELS = {
    part.task
    for table in REPRODUCTIONS.values()
    for part in table.parts
    if isinstance(part, Panel | Scatter)
}
ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {words: command for _, words, command in commands()}


def _texts(command):
    return [shown(text) for text in [command.help, *(param.help for param in command.params)]]


def _help(*words):
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_every_option_has_a_help_text(words):
    command = COMMANDS[words]
    assert command.help
    assert [param.name for param in command.params if not param.help] == []


def test_every_command_is_in_the_readme_or_a_page_other_than_the_reference():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "".join(path.read_text() for path in pages if path.name != "cli.md")
    assert [words for words in COMMANDS if words not in text] == []


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs" / "cli.md").read_text() == page(), (
        "run: python -m xlt_bench.cli.reference > docs/cli.md"
    )
    # Outside of code, Markdown would read `<id>` as a tag.
    assert "<" not in re.sub(r"`[^`]*`", "", page())
    assert "\\[" not in page()


@pytest.mark.parametrize("words", COMMANDS)
def test_brackets_are_not_taken_for_markup(words):
    seen = re.sub(r"[\s│]", "", _help(*words.split()[1:]))
    for text in _texts(COMMANDS[words]):
        for literal in re.findall(r"\[[^\]]*\]", text):
            assert re.sub(r"\s", "", literal) in seen


@pytest.mark.parametrize("words", COMMANDS)
def test_paragraphs_fill_the_terminal(words):
    """Typer keeps the line breaks of the source in all paragraphs but the first."""
    about = _help(*words.split()[1:]).partition("╭")[0].partition("Usage:")[2]
    lines = [line.strip() for line in about.splitlines()]
    for line, following in pairwise(lines[1:]):
        if line and following:
            assert len(f"{line} {following.split()[0]}") > 78, line


def test_some_help_texts_have_brackets():
    """Otherwise the test above checks nothing."""
    for words in ("evaluate", "train", "merge", "reproduce"):
        texts = " ".join(_texts(COMMANDS[f"xlt-bench {words}"]))
        assert "name[@revision]" in texts


def test_the_help_of_reproduce_lists_every_table():
    assert ", ".join(REPRODUCTIONS) == train.REPRODUCIBLE


@pytest.mark.parametrize(
    ("words", "name", "tasks"),
    [
        ("xlt-bench merge", "select_on", selectable()),
        ("xlt-bench reproduce", "tasks", PANELS),
    ],
)
def test_tasks_in_help_texts_are_those_of_the_registry(words, name, tasks):
    """They are written there by hand, as `--help` does not load the registry."""
    (text,) = [param.help for param in COMMANDS[words].params if param.name == name]
    assert {task for task in text_tasks() if re.search(rf"\b{task}\b", text)} == set(tasks)


def test_the_default_tasks_of_evaluate_are_those_of_the_registry():
    (param,) = [p for p in COMMANDS["xlt-bench evaluate"].params if p.name == "tasks"]
    assert param.default == ",".join(BY_DEFAULT)


def test_the_groups_are_panels_with_evaluate_first():
    lines = _help().splitlines()
    panels = [line.split()[1] for line in lines if line.startswith("╭")]
    assert panels == ["Options", "Evaluate", "Train", "Share", "Leaderboard", "Data"]
    first = lines[next(i for i, line in enumerate(lines) if "─ Evaluate ─" in line) + 1]
    assert first.split()[:2] == ["│", "evaluate"]


def test_the_folder_of_submissions_has_one_name():
    named = {
        words
        for words, command in COMMANDS.items()
        if any("--submissions" in param.opts for param in command.params)
    }
    reading = (
        "submit",
        "compare",
        "leaderboard build",
        "leaderboard serve",
        "submissions accept",
        "submissions verify",
    )
    assert named == {f"xlt-bench {words}" for words in reading}
    options = {opt for command in COMMANDS.values() for one in command.params for opt in one.opts}
    assert not options & {"--into", "--folder"}
