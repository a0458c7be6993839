"""The command line and the Python interface have the same commands and options, or a reason."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import xlt_bench
from xlt_bench.cli.reference import commands

COMMANDS = {words.removeprefix("xlt-bench "): command for _, words, command in commands()}

# What only one of the two has, and why.
ONLY_COMMANDS = {
    "score": "load_run reads the scores; recomputing them checks a folder",
    "join": "for the parts of a job that a scheduler started",
    "demo": "a page for a terminal",
    "recipes": "a list for a terminal",
    "languages": "a list for a terminal",
    "reproduce": "plans hours of work, asks, and starts it",
    "stubs": "writes files of this repository",
    "export": "writes a file of another tool from a run folder",
    "card": "writes into a folder of an adapter",
    "comet setup": "installs into an environment of its own",
    "data": "prepares the machine",
    "submissions": "for those who accept submissions",
    "leaderboard": "load_leaderboard reads what these write, export and serve",
}
ONLY_OPTIONS = {
    ("compare", "form"): "the result is a data frame",
}
ONLY_FUNCTIONS = {
    "InputError": "what the command line prints",
    "Run": "what evaluate returns",
    "TransferCallback": "an object for another Trainer; train has recipes that select by dev loss",
    "load_run": "reads what evaluate wrote",
    "load_leaderboard": "reads what `leaderboard build` reads",
}
ONLY_ARGUMENTS = {
    ("evaluate", "progress"): "a terminal always has the bars",
}


def test_every_command_is_a_function_or_has_a_reason():
    lacking = set(COMMANDS) - set(xlt_bench.__all__)
    told = {words for words in lacking if {words, words.split()[0]} & set(ONLY_COMMANDS)}
    assert lacking == told
    assert {words.split()[0] for words in ONLY_COMMANDS} <= {words.split()[0] for words in lacking}


def test_every_function_is_a_command_or_has_a_reason():
    assert set(xlt_bench.__all__) - set(COMMANDS) == set(ONLY_FUNCTIONS)


def test_options_and_arguments_have_the_same_names():
    both = set(COMMANDS) & set(xlt_bench.__all__)
    assert both == {"evaluate", "compare", "train", "merge", "steer", "submit"}
    options = {(name, one.name) for name in both for one in COMMANDS[name].params}
    arguments = {
        (name, one)
        for name in both
        for one in inspect.signature(getattr(xlt_bench, name)).parameters
    }
    assert options - arguments == set(ONLY_OPTIONS)
    assert arguments - options == set(ONLY_ARGUMENTS)


def test_a_default_is_the_same_in_both():
    # A list that is not given is empty in Python, the text of all tasks is None, and a run without
    # a name gets one.
    other = {("evaluate", "tasks"), ("evaluate", "output"), ("submit", "submissions")}
    for name in set(COMMANDS) & set(xlt_bench.__all__):
        parameters = inspect.signature(getattr(xlt_bench, name)).parameters
        for option in COMMANDS[name].params:
            if (name, option.name) in {*ONLY_OPTIONS, *other}:
                continue
            default = parameters[option.name].default
            if default is inspect.Parameter.empty:
                assert option.required, (name, option.name)
            elif default != ():
                assert str(default) == str(option.default), (name, option.name)


def test_every_argument_is_described():
    for name in xlt_bench.__all__:
        one = getattr(xlt_bench, name)
        assert one.__doc__, name
        if inspect.isfunction(one):
            for argument in inspect.signature(one).parameters:
                assert f"\n        {argument}: " in one.__doc__, (name, argument)


def test_importing_the_package_imports_no_library():
    code = "import sys; import xlt_bench; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    there = {name.partition(".")[0] for name in done.stdout.split()}
    assert "xlt_bench" in there
    assert not there & {"torch", "transformers", "pandas", "numpy", "pydantic", "altair", "typer"}


def test_the_names_are_typed_as_they_are_imported():
    tree = ast.parse(Path(xlt_bench.__file__).read_text())
    typed = {
        (alias.name, node.module)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {(name, f"xlt_bench.{home}") for name, home in xlt_bench._HOMES.items()}
    assert typed == homes
    assert xlt_bench.__all__ == sorted(xlt_bench._HOMES)
    assert set(xlt_bench.__all__) <= set(dir(xlt_bench))


def test_every_name_is_in_the_page():
    page = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text()
    methods = [name for name in vars(xlt_bench.Run) if not name.startswith("_")]
    for name in [*xlt_bench.__all__, *methods]:
        assert name in page, name
