"""COMET's Python environment: finding one that works, and `xlt-bench comet setup`.

requirements.txt pins every package of it.
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
# In an environment of ours: {} from before its first file, its versions once it is whole.
_MARKER = "xlt-bench-comet.json"
_IMPORT = """
import json, comet
from importlib.metadata import version
names = "unbabel-comet torch transformers numpy".split()
print(json.dumps({name: version(name) for name in names}))
"""


def clean_environ() -> dict[str, str]:
    """The variables that another Python may see: none that lends it our packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def last_line(text: str) -> str:
    """The last line that says something, where libraries put what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def place() -> Path:
    """The environment: $XLT_BENCH_COMET, a folder or a Python, else one in the user's cache."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    import pooch  # with its HTTP client: a fifth of a second

    return Path(pooch.os_cache("xlt-bench")) / "comet"


def find_python() -> Path:
    """A Python that can import comet: $XLT_BENCH_COMET's, else our own, else that of `setup`.

    Raises InputError where there is none, or its making was broken off.
    """
    own = Path(sys.executable)
    if not os.environ.get(VARIABLE) and importlib.util.find_spec("comet") and _works(own):
        return own
    there = place()
    python, made = _python(there), _made(there)
    if made:
        return python
    if not python.exists():
        raise InputError(f"COMET has no environment at {there}; make it with: {SETUP}")
    if made is not None:
        raise InputError(f"the making of {there} was broken off; run it again: {SETUP}")
    versions(python)
    return python


def versions(python: Path) -> dict[str, str]:
    """The versions of COMET and what its scores depend on; InputError where comet does not run."""
    done = _run([str(python), "-I", "-c", _IMPORT])
    if done.returncode:
        raise InputError(
            f"{python} has no working comet ({last_line(done.stderr)}); name another in "
            f"${VARIABLE}, or unset it and run: {SETUP}"
        )
    return dict(json.loads(last_line(done.stdout)))


def setup(say: Callable[[str], None]) -> dict[str, str]:
    """Make the environment, or mend a half-made one; its versions. One that works is left alone.

    `say` is told of each step. Raises InputError where pip fails, or for a folder with other
    things in it.
    """
    there = place()
    if _made(there) is None and (there.is_file() or (there.is_dir() and any(there.iterdir()))):
        return versions(_python(there))
    with locked(there, lambda: say(f"waiting for another process that makes {there}")):
        if _made(there):
            with suppress(InputError):  # broken since: it is made again
                return versions(_python(there))
        return _make(there, say)


def _make(there: Path, say: Callable[[str], None]) -> dict[str, str]:
    say(f"making {there}")
    write_json(there / _MARKER, {})
    _empty(there)
    venv.create(there, with_pip=True, symlinks=os.name != "nt")
    say("installing COMET and what it needs, some minutes")
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
    """The interpreter of an environment, or the file itself that was named."""
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return there if there.is_file() else there / inside


def _made(there: Path) -> dict[str, Any] | None:
    """The versions of an environment of ours, {} of a half-made one; None: it is none of ours."""
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
    """Everything out but the marker, which says whose folder it is."""
    for path in there.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _MARKER:
            path.unlink()


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # -I in the commands: neither this folder nor the user's own packages are imported from.
    try:
        return subprocess.run(command, capture_output=True, text=True, env=clean_environ())
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", error.strerror or str(error))
