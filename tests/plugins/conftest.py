"""The example package, installed beside xlt-bench as pip would do it, without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from packages import CAPITALS, install

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder on the path of a new process that holds the example package."""
    folder = tmp_path_factory.mktemp("site")
    install(CAPITALS, folder)
    return folder


@pytest.fixture(scope="module")
def with_package(site):
    """Runs Python in a new process that sees the example package; its output, or its error."""

    def run(*words, ok=True, cwd=ROOT):
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        )
        assert (done.returncode == 0) == ok, done.stderr
        return done.stdout if ok else done.stderr

    return run
