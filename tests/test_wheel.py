"""Test that the wheel works in an environment of its own, away from a checkout.

It installs about 2 GB by pip, from pip's cache or the package index, so it is slow.
"""

import functools
import http.server
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
SMALL = "--data-dir mini --tasks massive,retrieval --languages en,de,sw --limit 2"
HANG = 1800  # seconds after which an installation or a server is considered to hang

pytestmark = pytest.mark.slow


def _run(*words, cwd, ok=True):
    """The output of a command that sees nothing of the checkout."""
    hidden = ("PYTHONPATH", "XLT_BENCH_DATA", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert not ok or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    told = _run(
        *pip, "download", "-q", "--no-deps", "-d", folder, "hatchling", cwd=folder, ok=False
    )
    if not list(folder.glob("hatchling*")):
        pytest.skip(f"no package index: {told.strip()[-200:]}")
    _run(*pip, "wheel", "-q", "--no-deps", "-w", folder / "dist", ROOT, cwd=folder)
    (built,) = (folder / "dist").glob("xlt_bench-*.whl")
    return built


def _installed(wheel, folder, extra):
    """The `bin` of a new environment with the wheel."""
    _run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "-c", CONSTRAINTS]
    if extra != "[leaderboard]":  # a resolver left alone takes a CUDA build
        pinned = next(line for line in CONSTRAINTS.read_text().splitlines() if "torch==" in line)
        _run(*pip, pinned, cwd=folder)
    _run(*pip, f"{wheel}{extra}", cwd=folder)
    return python.parent


@pytest.fixture(scope="module")
def everything(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    return _installed(wheel, folder, "[all]"), folder


@pytest.fixture(scope="module")
def submitted(everything):
    """A folder with `submissions/`, made from a run with the installed program."""
    programs, folder = everything
    program = programs / "xlt-bench"
    words = ["evaluate", "--model", "embedded", "--adapter", "embedded:baseline"]
    _run(program, *words, *SMALL.split(), "--output", "run", cwd=folder)
    told = _run(program, "submit", "run", "--data-dir", "mini", cwd=folder)
    assert "all scores were recomputed and agree" in told
    return folder


@pytest.mark.parametrize("page", ["--help", "--version", "recipes", "stubs --path"])
def test_the_installed_program_starts(everything, page):
    programs, folder = everything
    assert _run(programs / "xlt-bench", *page.split(), cwd=folder).strip()
    place = _run(programs / "python", "-c", "import xlt_bench; print(xlt_bench)", cwd=folder)
    assert str(folder) in place


def test_the_light_install_serves_submissions_from_a_url(wheel, submitted, tmp_path):
    programs = _installed(wheel, tmp_path, "[leaderboard]")
    program = programs / "xlt-bench"
    assert not list((tmp_path / "venv" / "lib").glob("python*/site-packages/torch"))
    told = _run(program, "demo", cwd=tmp_path, ok=False)
    assert "xlt-bench[eval]" in told
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(submitted / "submissions", "submissions")
    (name,) = (path.name for path in (submitted / "submissions").iterdir() if path.is_dir())
    with _web(tmp_path) as address:
        url = f"{address}/all.tar.gz"
        told = _run(program, "leaderboard", "build", "--submissions", url, cwd=tmp_path)
        assert "1 submission" in told
        folder = submitted / "submissions" / name
        _run(program, "submissions", "check", folder, "--data-dir", "mini", cwd=tmp_path)
        log = _served(program, url, tmp_path)
    assert "submissions: build/leaderboard.duckdb.submissions" in log


@contextmanager
def _web(folder):
    """The files of a folder at an address on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _served(program, url, folder):
    """What the leaderboard prints until it is healthy."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [program, "leaderboard", "serve", "--submissions", url, "--port", str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        until = time.monotonic() + HANG
        while True:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, "the leaderboard hangs"
            try:
                address = f"http://localhost:{port}/_stcore/health"
                with urllib.request.urlopen(address, timeout=10) as answer:
                    assert answer.status == 200
                    return (folder / "log").read_text()
            except OSError:
                time.sleep(1)
    finally:
        server.terminate()
        server.wait(60)
