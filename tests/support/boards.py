"""Queries of the leaderboard's database, and rows that are verified without a model."""

from pathlib import Path
from typing import Any

import pandas as pd

from xlt_bench.store.build import connect
from xlt_bench.submissions.schema import VERIFIED, Verified, contents_sha256, json_bytes
from xlt_bench.submissions.validate import open_package


def frame(board: tuple[Path, Any], query: str, **given: Any) -> pd.DataFrame:
    """The rows of a query, with `given` as its parameters; a board is a folder with a file `db`."""
    with connect(board[0] / "db") as store:
        store.execute("USE leaderboard")
        return store.sql(query, params=given).df()


def verify(folder: Path) -> None:
    """Write what `submissions verify` writes for a model that gave all of the answers."""
    package = open_package(folder)
    found = Verified(
        id=folder.name,
        record_sha256=package.record_sha256,
        contents_sha256=contents_sha256(package.submission),
        by="a maintainer",
        on="2026-01-01",
        version="1",
        basis="weights",
        seed=0,
        layer=None,
        languages=[],
        agreement=[],
    )
    (folder / VERIFIED).write_bytes(json_bytes(found))
