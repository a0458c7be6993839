"""Tests that a command without its packages says in one line which extra to install."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from xlt_bench.cli.extras import EXTRAS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
# Stands in for an environment without these packages.
BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def _modules(requirements):
    named = [re.match(r"[\w-]+", line)[0] for line in requirements]
    return [name for name in named if name != "xlt-bench"]


def _run_without(extras, line, folder):
    """Run a command line where the packages of these extras cannot be imported."""
    core = set(_modules(PROJECT["dependencies"]))
    names = {name for extra in extras for name in EXTRAS[extra]} - core
    code = BLOCKED.format(names={name.replace("-", "_") for name in names})
    code += "from xlt_bench.cli.main import main\n"
    code += f"sys.argv = ['xlt-bench', *{shlex.split(line)!r}]\nmain()\n"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ, timeout=600
    )


def test_the_extras_are_those_of_the_package():
    stated = PROJECT["optional-dependencies"]
    assert {extra: _modules(stated[extra]) for extra in EXTRAS} == EXTRAS
    assert stated["all"] == ["xlt-bench[artifacts,eval,leaderboard]"]
    assert "xlt-bench[all]" in stated["dev"]


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("demo --output OUT", "eval"),
        ("evaluate --model embedded --output OUT --data-dir mini", "eval"),
        ("train massive-baseline --model embedded --output OUT --data-dir mini", "eval"),
        ("merge --task embedded:baseline --alignment embedded:aligned --output OUT", "eval"),
        ("reproduce table2 --model embedded --output OUT --data-dir mini --yes", "eval"),
        ("leaderboard build --submissions .", "leaderboard"),
        ("leaderboard export --format csv", "leaderboard"),
        ("leaderboard serve --submissions .", "leaderboard"),
    ],
)
def test_a_command_names_the_extra_that_it_needs_and_writes_nothing(line, extra, tmp_path):
    done = _run_without(["eval", "leaderboard"], line, tmp_path)
    package = done.stderr.split("needs ")[-1].split(",")[0]
    expected = (
        f"error: this command needs {package}, which `pip install 'xlt-bench[{extra}]'` installs\n"
    )
    assert done.stderr == expected
    assert package.replace("_", "-") in EXTRAS[extra]
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])


def test_the_core_submits_checks_scores_and_compares(make_run, made_up_root, tmp_path):
    for name, seed in (("bare", 0), ("mine", 1)):
        make_run(tmp_path / name, seed, adapter=name if seed else None)
    for line in (
        "submit bare", "submit mine", "submissions check", "score mine", "compare mine bare",
        "languages", "recipes", "stubs --path",
    ):  # fmt: skip
        data = f" --data-dir {made_up_root}" if line.split()[0] not in WITHOUT_DATA else ""
        done = _run_without(["eval", "leaderboard"], line + data, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), line
        assert done.stdout


WITHOUT_DATA = ("languages", "recipes", "stubs")


def test_another_missing_module_is_a_traceback(tmp_path, monkeypatch):
    """It is a broken installation or a defect, and no extra helps."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED.format(names={"numpy"}))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    done = _run_without([], "score none", tmp_path)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'numpy'" in done.stderr
