"""Tests the command line as a whole: few imports, and errors in one line."""

import errno
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xlt_bench.cli import main as cli


def test_version_is_the_packages() -> None:
    program = Path(sys.executable).with_name("xlt-bench")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"xlt-bench {importlib.metadata.version('xlt-bench')}\n"


def test_help_and_wrong_arguments_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from xlt_bench.cli.main import app\n"
        "for words in (['--help'], ['evaluate', '--nonsense'], ['train'], ['compare', '--help']):\n"
        "    CliRunner().invoke(app, words)\n"
        "heavy = {'torch', 'transformers', 'pandas', 'duckdb', 'lm_eval', 'pyarrow', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WRONG = [
    "evaluate --model embedded --output OUT --data-dir mini --tasks masive",
    "evaluate --model embedded --output OUT --data-dir mini --languages xx",
    "evaluate --model embedded --output OUT --data-dir mini --limit 0",
    "evaluate --model embedded --output OUT --data-dir mini --batch-size 0",
    "evaluate --model embedded --output OUT --data-dir mini --batch-size \u00b2",
    "evaluate --model embedded --output OUT --data-dir mini --dtype float8",
    "evaluate --model embedded --output OUT --data-dir mini --device gpu",
    "evaluate --model embedded --output OUT --data-dir mini --chat-template lama3",
    "evaluate --model embedded --output OUT --data-dir mini --adapter ./none",
    "evaluate --model ./none --output OUT --data-dir mini",
    "evaluate --model embedded --output OUT --data-dir none",
    "train massive-baseline --model ./none --output OUT",
    "train massive-baseline --model embedded --output OUT --chat-template lama3",
    "merge --task embedded:baseline --alignment embedded:aligned --output OUT --weight 3",
    "merge --task ./none --alignment embedded:aligned --output OUT",
    "evaluate --model embedded --output OUT --data-dir mini --tasks uner --comet",
    "evaluate --model embedded --output OUT --data-dir mini --comet --comet-model ./none",
    "score none",
    "score none --comet-model ./none",
    "compare none none",
    "join none --output OUT",
    "train massive-baseline --model embedded --output OUT --data-dir none",
    "train massive-baseline --model embedded --output /dev/null/OUT",
    "train massive-baseline --model a@@b --output OUT",
    "merge --task embedded:baseline --alignment embedded:aligned --output /dev/null",
    "evaluate --model embedded --output OUT --data-dir mini --layers 0",
    "evaluate --model embedded --output OUT --data-dir mini --adapter a@@b",
    "evaluate --model embedded --output OUT --data-dir mini --adapter ''",
    "evaluate --model '' --output OUT --data-dir mini",
    "evaluate --model embedded --output '' --data-dir mini",
    "evaluate --model embedded --output= --data-dir mini",
    "demo --output /dev/null",
    "submissions check ''",
    "languages --format xml",
    "recipes --format xml",
    "data check --format xml",
    "score none --format xml",
    "compare none none --format xml",
    "leaderboard build --submissions none",
    "leaderboard build --submissions . --db .",
    "leaderboard export --format csv --db .",
    "leaderboard serve --submissions none",
    "leaderboard serve --submissions . --run none",
    "leaderboard serve --submissions . --run .",
]


def test_an_error_is_printed_after_earlier_output():
    code = (
        "import sys; from xlt_bench.cli import main as cli; print('step 1'); "
        "sys.argv = ['xlt-bench', 'join', 'nowhere', '--output', 'run']; cli.main()"
    )
    words = [sys.executable, "-c", code]
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(words, env=buffered, text=True, **both)
    first, last = done.stdout.splitlines()
    assert first == "step 1"
    assert last.startswith("error: nowhere")


def test_errors_are_printed_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import shlex, sys\n"
        "from xlt_bench.cli import main as cli\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    sys.argv = ['xlt-bench', *shlex.split(line)]\n"
        "    try:\n"
        "        cli.main()\n"
        "    except SystemExit as stopped:\n"
        "        heavy = {'torch', 'transformers', 'lm_eval', 'peft', 'duckdb', 'pandas'}\n"
        "        print(stopped.code, sorted(heavy & set(sys.modules)), line)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(WRONG),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=1800,  # `leaderboard serve` would not end by itself
    )
    assert done.stdout.splitlines() == [f"2 [] {line}" for line in WRONG]
    assert done.stderr.count("error: ") == len(WRONG)


@pytest.mark.parametrize(
    ("number", "again"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EIO, True),
        (errno.ENOTDIR, False),
        (errno.EACCES, False),
    ],
)
def test_only_a_failing_disk_asks_to_run_it_again(number, again, monkeypatch, capsys) -> None:
    def fail(**_options: object) -> None:
        raise OSError(number, "What the system says", "OUT/plan.json")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: What the system says: OUT/plan.json")
    assert ("run it again" in line) == again
