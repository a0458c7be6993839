"""The command line as a whole: documented, and quick to answer."""

import subprocess
import sys
from pathlib import Path

import typer

from xlt_bench.cli import app

ROOT = Path(__file__).resolve().parents[1]


def _commands() -> list[str]:
    group = typer.main.get_command(app)
    found = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found += [f"{name} {sub}" for sub in below] if below else [name]
    return found


def test_every_command_is_documented() -> None:
    text = (ROOT / "README.md").read_text()
    text += "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    missing = [name for name in _commands() if f"xlt-bench {name}" not in text]
    assert not missing


def test_help_and_wrong_arguments_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from xlt_bench.cli import app\n"
        "for words in (['--help'], ['evaluate', '--nonsense'], ['train'], ['compare', '--help']):\n"
        "    CliRunner().invoke(app, words)\n"
        "heavy = {'torch', 'transformers', 'pandas', 'duckdb', 'lm_eval', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
