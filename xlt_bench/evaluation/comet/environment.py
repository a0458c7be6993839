"""Finds COMET's Python environment, and creates it for `xlt-bench comet setup`.

requirements.txt pins all of its packages.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError
from xlt_bench.results.atomic_write import locked
from xlt_bench.results.run_folder import write_json

VARIABLE = "XLT_BENCH_COMET"
SETUP = "xlt-bench comet setup"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Marks an environment that `setup` created: {} while it is incomplete, then its versions.
_MARKER = "xlt-bench-comet.json"
_IMPORT = """
import json, comet
from importlib.metadata import version
names = "unbabel-comet torch transformers numpy".split()
print(json.dumps({name: version(name) for name in names}))
"""


def clean_environ() -> dict[str, str]:
    """Copy the environment variables, without those that would give another Python our packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def last_line(text: str) -> str:
    """Find the error message in the output of a program.

    Args:
        text: The output.

    Returns:
        Its last line that is not blank, at most 500 characters.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def place() -> Path:
    """Locate COMET's environment, which may not exist yet.

    Returns:
        $XLT_BENCH_COMET (a folder or a Python interpreter), else a folder in the user's cache.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    import pooch  # here, since importing it takes a fifth of a second

    return Path(pooch.os_cache("xlt-bench")) / "comet"


def find_python() -> Path:
    """Find a Python that can import comet.

    Returns:
        That of $XLT_BENCH_COMET, else our own, else the one that `setup` created.

    Raises:
        InputError: If there is none, or `setup` was interrupted.
    """
    own = Path(sys.executable)
    if not os.environ.get(VARIABLE) and importlib.util.find_spec("comet") and _works(own):
        return own
    there = place()
    python, made = _python(there), _made(there)
    if made:
        return python
    if not python.exists():
        raise InputError(f"COMET's environment {there} does not exist; create it with: {SETUP}")
    if made is not None:
        raise InputError(f"COMET's environment {there} is incomplete; finish it with: {SETUP}")
    versions(python)
    return python


def versions(python: Path) -> dict[str, str]:
    """Import comet in an environment, and read the versions that its scores depend on.

    Args:
        python: The environment's interpreter.

    Returns:
        Versions of unbabel-comet, torch, transformers and numpy.

    Raises:
        InputError: If comet cannot be imported.
    """
    done = _run([str(python), "-I", "-c", _IMPORT])
    if done.returncode:
        raise InputError(
            f"{python} cannot import comet ({last_line(done.stderr)}); set ${VARIABLE} to another "
            f"environment, or unset it and run: {SETUP}"
        )
    return dict(json.loads(last_line(done.stdout)))


def setup(say: Callable[[str], None]) -> dict[str, str]:
    """Create COMET's environment, or complete one; an environment that works is left as it is.

    Args:
        say: Called with a description of each step.

    Returns:
        The versions of its packages.

    Raises:
        InputError: If pip fails, or the folder has other files in it.
    """
    there = place()
    if _made(there) is None and (there.is_file() or (there.is_dir() and any(there.iterdir()))):
        return versions(_python(there))
    with locked(there, lambda: say(f"waiting for another process that creates {there}")):
        if _made(there):
            with suppress(InputError):  # broken since: it is created again
                return versions(_python(there))
        return _make(there, say)


def _make(there: Path, say: Callable[[str], None]) -> dict[str, str]:
    say(f"creating {there}")
    write_json(there / _MARKER, {})
    _empty(there)
    venv.create(there, with_pip=True, symlinks=os.name != "nt")
    say("installing COMET and its dependencies (takes a few minutes)")
    python = _python(there)
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = _run([*pip, "-r", str(_REQUIREMENTS)])
    if done.returncode:
        raise InputError(
            f"pip could not install COMET ({last_line(done.stderr)}); run it again: {SETUP}"
        )
    say("importing it")
    found = versions(python)
    write_json(there / _MARKER, found)
    return found


def _python(there: Path) -> Path:
    """The interpreter of an environment, or the file itself if an interpreter was named."""
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return there if there.is_file() else there / inside


def _made(there: Path) -> dict[str, Any] | None:
    """The versions in the marker, {} if incomplete; None for an environment without a marker."""
    try:
        return dict(json.loads((there / _MARKER).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):
        return {}


def _works(python: Path) -> bool:
    try:
        return bool(versions(python))
    except InputError:
        return False


def _empty(there: Path) -> None:
    """Delete everything but the marker."""
    for path in there.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _MARKER:
            path.unlink()


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # The commands have -I, so that modules of this folder and of the user are not imported.
    try:
        return subprocess.run(command, capture_output=True, text=True, env=clean_environ())
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", error.strerror or str(error))
