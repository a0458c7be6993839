"""Fixtures that several folders of tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets: $XLT_BENCH_DATA, else shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("XLT_BENCH_DATA", beside))
    if not (root / "massive").is_dir():
        pytest.skip(f"no real data at {root}: set XLT_BENCH_DATA or run `xlt-bench data fetch`")
    return root
