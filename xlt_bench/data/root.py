"""Where the data sets lie, and reading a file of theirs, plain or .gz."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import astuple, is_dataclass
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError


class MissingFileError(InputError):
    """A file of a data set is not there, neither plain nor with `.gz` appended."""


# A few hand-written rows of everything, in the publishers' layouts.
MINI = Path(__file__).resolve().with_name("mini")


def data_root(data_dir: str | Path | None = None) -> Path:
    """The data folder: the argument, else $XLT_BENCH_DATA, else the user's cache.

    `mini` is the suite that ships with the package.
    """
    chosen = data_dir or os.environ.get("XLT_BENCH_DATA")
    if str(chosen) == "mini":
        return MINI
    if chosen:
        return Path(chosen).expanduser()
    import pooch  # with its HTTP client: a fifth of a second

    return Path(pooch.os_cache("xlt-bench")) / "data"


def read_lines(path: Path, dataset: str) -> list[str]:
    r"""The lines of a UTF-8 file, plain or with `.gz` appended, without their line ends.

    Lines end at `\n` alone: U+2028 and its like occur within sentences. Raises InputError for a
    missing, unreadable, truncated or wrongly encoded file.
    """
    packed = path.with_name(path.name + ".gz")
    fetch = f"xlt-bench data fetch {dataset}"
    try:
        if path.exists() or not packed.exists():
            raw = path.read_bytes()
        else:
            path = packed
            raw = gzip.decompress(path.read_bytes())
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path} is missing; get it with: {fetch}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path} is truncated or corrupt ({error}); get it with: {fetch}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start}); delete it, then: {fetch}"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return text.removesuffix("\n").split("\n") if text else []


def read_json(text: str, path: Path, line: int, dataset: str) -> Any:
    """One JSON value of a data file; InputError with file and line where it is broken."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{path} line {line} is not JSON ({error}); delete it, then: "
            f"xlt-bench data fetch {dataset}"
        ) from None


def content_digest(rows: Iterable[Any]) -> str:
    """sha256 (first 16 hex digits) of parsed rows, dataclasses or strings, in order.

    Taken from what was parsed and not from bytes, so that plain and .gz files, and MASSIVE's
    upstream and rebuilt files, have one digest.
    """
    digest = hashlib.sha256()
    for row in rows:
        value = astuple(row) if is_dataclass(row) and not isinstance(row, type) else row
        digest.update(json.dumps(value, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]
