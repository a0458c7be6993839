"""Test that constraints-hashed.txt pins the versions of constraints.txt by digests alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HASHED = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.]+) --hash=sha256:[0-9a-f]{64}")


def _pins(name, pattern):
    lines = (ROOT / name).read_text().splitlines()
    found = [re.fullmatch(pattern, line) for line in lines if not line.startswith("#")]
    assert all(found), "a line is not a pin"
    pins = {(canonicalize_name(one[1]), one[2]) for one in found}
    assert len(pins) == len(dict(pins)), "a package is pinned to two versions"
    return pins


def test_the_hashed_constraints_have_the_same_versions():
    plain = _pins("constraints.txt", r"([\w.-]+)==([\w.]+)")
    assert _pins("constraints-hashed.txt", HASHED) == plain


def test_a_report_of_pip_becomes_lines_without_addresses():
    def item(name, version, *needs):
        info = {"url": "https://index.example/a.whl", "archive_info": {"hashes": {"sha256": "ab"}}}
        about = {"name": name, "version": version, "requires_dist": [*needs]}
        return {"metadata": about, "download_info": info}

    needs = ["numpy[fast]>2", "numpy[never]; extra == 'more'"]
    report = {"install": [item("torch", "2.13.0+cpu", *needs), item("Numpy", "2.4.6")]}
    out = subprocess.run(
        [sys.executable, ROOT / ".github" / "hash_constraints.py"],
        input=json.dumps(report),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line for line in out.splitlines() if not line.startswith("#")]
    assert lines == [
        "Numpy==2.4.6 --hash=sha256:ab",
        "Numpy[fast]==2.4.6 --hash=sha256:ab",
        "torch==2.13.0 --hash=sha256:ab",
    ]
