"""Implements `xlt-bench submissions migrate`, which rewrites submissions in the current form.

Records get the current schema, paths and inner addresses in them are shortened, and submission.json
gets the record's sha256. Ids, answers, scores and task versions stay. Migration is optional:
records and counts of every released schema are upgraded when they are read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from xlt_bench.results.record import SCHEMA_VERSION
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.submissions.counts import read_counts, write_counts
from xlt_bench.submissions.create import public
from xlt_bench.submissions.safe_read import MAX_JSON, read_bytes, read_json
from xlt_bench.submissions.schema import COUNTS, RECORD, SUBMISSION, VERIFIED, json_bytes
from xlt_bench.submissions.validate import open_package


def migrate(folder: Path) -> bool:
    """Rewrite a submission in the current form.

    Returns:
        False if it has the current form already.

    Raises:
        InputError: The submission is not valid; nothing is written.
    """
    package = open_package(folder)
    record, about = public(package.record), package.submission
    stored = read_json(read_bytes(folder / RECORD, MAX_JSON), RECORD)
    current = stored["schema_version"] == SCHEMA_VERSION and record == package.record
    if current and about.record_sha256:
        return False
    data = read_bytes(folder / RECORD, MAX_JSON) if current else json_bytes(record)
    digest = hashlib.sha256(data).hexdigest()
    if not current:
        (folder / VERIFIED).unlink(missing_ok=True)  # bound to the record as it was
    # Each file can be read in either schema, and a submission needs no sha256 of its record, so an
    # interruption between two of these leaves a valid submission.
    if not current:
        counts = read_counts(folder / COUNTS, record.plan)
        unbound = about.model_copy(update={"record_sha256": None})
        write_bytes(folder / SUBMISSION, json_bytes(unbound))
        write_counts(folder / COUNTS, counts)
        write_bytes(folder / RECORD, data)
    bound = about.model_copy(update={"record_sha256": digest})
    write_bytes(folder / SUBMISSION, json_bytes(bound))
    return True
