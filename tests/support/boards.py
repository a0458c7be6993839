"""Queries of the leaderboard's database."""

from pathlib import Path
from typing import Any

import pandas as pd

from xlt_bench.store.build import connect


def frame(board: tuple[Path, Any], query: str, **given: Any) -> pd.DataFrame:
    """The rows of a query, with `given` as its parameters; a board is a folder with a file `db`."""
    with connect(board[0] / "db") as store:
        store.execute("USE leaderboard")
        return store.sql(query, params=given).df()
