"""Finds the data folder, and reads and digests its files, plain or .gz."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import fields
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


def read_lines(path: Path, dataset: str | None) -> list[str]:
    r"""The lines of a UTF-8 file, plain or with `.gz` appended, without their line ends.

    A line ends at `\n` or `\r\n`: U+2028, U+0085 and the like occur within sentences. Byte order
    marks, also those of files that were joined, are left out.

    Args:
        path: The plain file. It takes precedence over the packed one.
        dataset: The data set that the error message says to fetch; None for the user's own file.

    Raises:
        MissingFileError: Neither file exists.
        InputError: The file is unreadable, truncated, not UTF-8, or has a NUL character.
    """
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and packed.exists():
        path = packed
    again = "pack it again" if dataset is None else f"download it again with: {_fetch(dataset)}"
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except FileNotFoundError:
        remedy = "" if dataset is None else f"; get it with: {_fetch(dataset)}"
        raise MissingFileError(f"{path} is missing{remedy}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is truncated or corrupt ({error}); {again}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); {_replace(dataset)}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    rows = text.removesuffix("\n").split("\n") if text else []
    lines = [row.removeprefix("\ufeff").rstrip("\r") for row in rows]
    if "\0" in text:  # UTF-16 without a byte order mark is valid UTF-8
        number = next(n for n, line in enumerate(lines, start=1) if "\0" in line)
        raise InputError(f"{path} line {number} has a NUL character; {_replace(dataset)}")
    return lines


def read_sentences(path: Path, dataset: str | None) -> list[str]:
    """The lines of a file that has a sentence on every line.

    Args:
        path: As for `read_lines`.
        dataset: As for `read_lines`.

    Raises:
        MissingFileError: The file is missing.
        InputError: As for `read_lines`; or a line is blank, or has a carriage return inside.
    """
    lines = read_lines(path, dataset)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            own = "put its sentence there, or delete the line from every language's file"
            raise InputError(f"{path} line {number} is blank; {_replace(dataset, own)}")
        if "\r" in line:
            own = "end lines with a line feed"
            raise InputError(
                f"{path} line {number} has a carriage return inside; {_replace(dataset, own)}"
            )
    return lines


def _fetch(dataset: str) -> str:
    return f"xlt-bench data fetch {dataset}"


def _replace(dataset: str | None, own: str = "save it as UTF-8") -> str:
    """What to do about a broken file: fetch it, or what the owner of the file can do."""
    return own if dataset is None else f"delete it, then: {_fetch(dataset)}"


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
        raise InputError(f"{path} line {line} is not JSON ({error}); {_replace(dataset)}") from None


def parse_line(text: str, path: Path, line: int) -> Any:
    """Parse a JSON value of a user's own file.

    Args:
        text: The JSON.
        path: The file, for the error message.
        line: The line, from 1, for the error message.

    Raises:
        InputError: It is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} line {line} is not JSON ({error})") from None


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
        digest.update(_ENCODER.encode(row).encode() + b"\n")
    return digest.hexdigest()[:16]


def _values(row: Any) -> list[Any]:
    """The values of a dataclass; its own `astuple` copies each of them, which takes far longer."""
    return [getattr(row, field.name) for field in fields(row)]


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=_values)
