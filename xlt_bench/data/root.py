"""Finds the data folder, and reads and digests its files, plain or .gz."""

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
    """A file of a data set is missing, both plain and with `.gz` appended."""


# The mini suite: a few hand-written rows of every data set, in the publishers' layouts.
MINI = Path(__file__).resolve().with_name("mini")


def data_root(data_dir: str | Path | None = None) -> Path:
    """The data folder.

    Args:
        data_dir: A folder, or `mini` for the suite that ships with the package. By default
            $XLT_BENCH_DATA or, if that is not set, a folder in the user's cache.
    """
    chosen = data_dir or os.environ.get("XLT_BENCH_DATA")
    if str(chosen) == "mini":
        return MINI
    if chosen:
        return Path(chosen).expanduser()
    import pooch  # imported here, since its HTTP client takes a fifth of a second

    return Path(pooch.os_cache("xlt-bench")) / "data"


def read_lines(path: Path, dataset: str) -> list[str]:
    r"""The lines of a UTF-8 file, plain or with `.gz` appended, without their line ends.

    Only `\n` ends a line: U+2028 and the like occur within sentences.

    Args:
        path: The plain file. It takes precedence over the packed one.
        dataset: The data set that the error message says to fetch.

    Raises:
        MissingFileError: Neither file exists.
        InputError: The file is unreadable, truncated or not UTF-8.
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
            f"{path} is truncated or corrupt ({error}); download it again with: {fetch}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start}); delete it, then: {fetch}"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return text.removesuffix("\n").split("\n") if text else []


def read_json(text: str, path: Path, line: int, dataset: str) -> Any:
    """Parse a JSON value of a data file.

    Args:
        text: The JSON.
        path: The file, for the error message.
        line: The line, from 1, for the error message.
        dataset: The data set that the error message says to fetch.

    Raises:
        InputError: It is not JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{path} line {line} is not JSON ({error}); delete it, then: "
            f"xlt-bench data fetch {dataset}"
        ) from None


def content_digest(rows: Iterable[Any]) -> str:
    """Digest of parsed rows, in order.

    It depends on what was parsed and not on the bytes of a file, so plain and .gz files have the
    same digest, as have MASSIVE's original and rebuilt files.

    Args:
        rows: Dataclasses, strings or other JSON values.

    Returns:
        The first 16 hex digits of a sha256.
    """
    digest = hashlib.sha256()
    for row in rows:
        value = astuple(row) if is_dataclass(row) and not isinstance(row, type) else row
        digest.update(json.dumps(value, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]
