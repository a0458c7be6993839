"""Takes rows from an earlier build, for submissions whose files have not changed since.

What a build computes from a submission alone, and the gains of a method none of whose systems and
baselines changed, are copied. Whatever relates submissions to each other is computed again. An
earlier build by other code is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from xlt_bench.store.baselines import Baseline
from xlt_bench.store.places import Test
from xlt_bench.store.rows import Entry
from xlt_bench.tasks.registry import tasks

_PACKAGE = Path(__file__).parent.parent
_SOURCES = {".py", ".sql", ".csv", ".json", ".tsv"}
_OF_A_SUBMISSION = (
    "unit_scores",
    "mean_scores",
    "layer_scores",
    "pair_scores",
    "language_layers",
    "alignments",
    "records",
)


@cache
def code_digest() -> str:
    """Digest what the rows of a build depend on beside the submissions: code and task versions."""
    digest = hashlib.sha256(np.__version__.encode())
    digest.update(repr([(name, task.versions) for name, task in tasks().items()]).encode())
    for path in sorted(_PACKAGE.rglob("*")):
        if path.suffix in _SOURCES:
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


class Earlier:
    """An earlier build, attached to the database that is being built.

    Args:
        store: The database that is being built.
        db: The earlier file; there may be none.
    """

    def __init__(self, store: duckdb.DuckDBPyConnection, db: Path | None) -> None:
        self._store = store
        self._known: dict[str, tuple[int, str]] = {}
        self._taken: dict[int, int] = {}
        self._attached = False
        if db is None:
            return
        try:
            path = str(db.resolve()).replace("'", "''")
            store.execute(f"ATTACH '{path}' AS earlier (READ_ONLY)")
        except duckdb.Error:  # missing, damaged, or not a database
            return
        self._attached = True
        try:
            build = store.execute("SELECT code FROM earlier.build").fetchall()
            if build == [(code_digest(),)]:
                rows = store.execute("SELECT id, number, fingerprint FROM earlier.sources")
                self._known = {name: (number, found) for name, number, found in rows.fetchall()}
        except duckdb.Error:  # another schema
            pass

    def fingerprint(self, name: str) -> str | None:
        """The fingerprint of a submission whose rows the earlier build has, else None.

        Args:
            name: Its id.
        """
        return self._known[name][1] if name in self._known else None

    def take(self, name: str, number: int) -> None:
        """Note that the rows of a submission are to be copied.

        Args:
            name: Its id, of which the earlier build has a fingerprint.
            number: Its number in the database that is being built.
        """
        self._taken[number] = self._known[name][0]

    def copy_rows(self) -> None:
        """Copy what was computed from the submissions that were taken, each alone."""
        if not self._taken:
            return
        self._store.execute("CREATE TEMP TABLE taken (new INTEGER, old INTEGER)")
        self._store.executemany("INSERT INTO taken VALUES (?, ?)", list(self._taken.items()))
        for table in _OF_A_SUBMISSION:
            self._store.execute(
                f"INSERT INTO {table} BY NAME SELECT t.* REPLACE (new AS number) "
                f"FROM earlier.{table} t JOIN taken ON t.number = old ORDER BY new"
            )

    def unchanged_methods(
        self, entries: Sequence[Entry], chosen: Sequence[Baseline]
    ) -> frozenset[str]:
        """Find the methods whose gains are those of the earlier build.

        Args:
            entries: All submissions, with `superseded_by` filled in, by number.
            chosen: Their baselines.

        Returns:
            The methods whose systems, and all submissions from which their gains are counted, were
            taken, and whose baselines are the same.
        """
        if not self._taken:
            return frozenset()
        before = self._pairs_before()
        now: dict[str, set[tuple[Any, ...]]] = {}
        changed = set()
        for one in chosen:
            entry = entries[one.number]
            method, old = entry.trained.method, self._taken.get(one.number)
            if old is None or one.baseline not in self._taken:
                changed.add(method)
                continue
            is_superseded = any(
                run["task"] == one.task and run["superseded_by"] is not None for run in entry.runs
            )
            pair = (old, one.task, self._taken[one.baseline], is_superseded)
            now.setdefault(method, set()).add((*pair, one.kind, one.is_default, tuple(one.units)))
        same = (m for m, pairs in now.items() if m not in changed and pairs == before.get(m))
        return frozenset(same)

    def _pairs_before(self) -> Mapping[str, set[tuple[Any, ...]]]:
        rows = self._store.execute(
            "SELECT method, b.number, b.task, baseline, r.superseded_by IS NOT NULL, kind, "
            "is_default, b.units FROM earlier.task_baselines b "
            "JOIN earlier.submissions s ON s.number = b.number "
            "JOIN earlier.runs r ON r.number = b.number AND r.task = b.task"
        ).fetchall()
        found: dict[str, set[tuple[Any, ...]]] = {}
        for method, *pair, units in rows:
            found.setdefault(method, set()).add((*pair, tuple(units)))
        return found

    def copy_gains(self, methods: Collection[str]) -> None:
        """Copy the gains of methods and of their systems.

        Args:
            methods: What `unchanged_methods` returned.
        """
        if not methods:
            return
        given = {"methods": sorted(methods)}
        for table in ("unit_gains", "mean_gains", "unit_measures", "mean_measures"):
            self._store.execute(
                f"INSERT INTO {table} BY NAME SELECT t.* REPLACE (a.new AS number, b.new AS "
                f"baseline) FROM earlier.{table} t JOIN taken a ON t.number = a.old "
                "JOIN taken b ON t.baseline = b.old JOIN earlier.submissions s "
                "ON s.number = t.number WHERE s.method IN (SELECT unnest($methods))",
                given,
            )
        for table in ("method_unit_gains", "method_mean_gains"):
            lists = ", ".join(
                f"list_transform(t.{column}, lambda old: renumbered[old]) AS {column}"
                for column in ("systems", "baselines")
            )
            self._store.execute(
                f"INSERT INTO {table} BY NAME SELECT t.* REPLACE ({lists}) FROM earlier.{table} t, "
                "(SELECT map(list(old), list(new)) AS renumbered FROM taken) "
                "WHERE t.method IN (SELECT unnest($methods))",
                given,
            )

    def place_tests(self, task: str, split: str) -> dict[Test, float]:
        """The p values of the tests that gave places in a mean, between submissions taken over."""
        if not self._taken:
            return {}
        new = {old: new for new, old in self._taken.items()}
        rows = self._store.execute(
            "SELECT [number], [tested_against], p FROM earlier.places "
            "WHERE task = $task AND split = $split AND tested_against IS NOT NULL UNION ALL "
            "SELECT systems, tested_against, p FROM earlier.method_places "
            "WHERE task = $task AND split = $split AND tested_against IS NOT NULL",
            {"task": task, "split": split},
        ).fetchall()
        return {
            (tuple(new[n] for n in ours), tuple(new[n] for n in theirs)): p
            for ours, theirs, p in rows
            if new.keys() >= {*ours, *theirs}
        }

    def close(self) -> None:
        """Let go of the earlier file."""
        if self._attached:
            self._store.execute("DROP TABLE IF EXISTS taken; DETACH earlier")
