"""Implements `xlt-bench submissions migrate`, which rewrites submissions in the current schema.

Ids, answers, scores and task versions stay. Migration is optional: records and counts of every
released schema are upgraded when they are read.
"""

from __future__ import annotations

from pathlib import Path

from xlt_bench.results.record import SCHEMA_VERSION
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.submissions.counts import read_counts, write_counts
from xlt_bench.submissions.safe_read import MAX_JSON, read_bytes, read_json
from xlt_bench.submissions.schema import COUNTS, RECORD
from xlt_bench.submissions.validate import open_package


def migrate(folder: Path) -> bool:
    """Rewrite a submission in the current schema.

    Returns:
        False if it has the current schema already.

    Raises:
        InputError: The submission is not valid; nothing is written.
    """
    record = open_package(folder).record
    stored = read_json(read_bytes(folder / RECORD, MAX_JSON), RECORD)
    if stored["schema_version"] == SCHEMA_VERSION:
        return False
    counts = read_counts(folder / COUNTS, record.plan)
    # Each file can be read in either schema, so an interruption here leaves a valid submission.
    write_counts(folder / COUNTS, counts)
    write_bytes(folder / RECORD, record.model_dump_json(indent=1).encode() + b"\n")
    return True
