"""Downloads submissions: a zip or tar archive, such as GitHub's of a branch, into a folder.

An archive may be hostile. Only files with the names of a submission's, or of artifacts in the store
beside them, are unpacked, as new regular files below one folder; links are refused, and so is
whatever is too large. What the files hold is checked later, as that of any submission.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import requests

from xlt_bench.errors import InputError, one_line
from xlt_bench.results.atomic_write import part_folder
from xlt_bench.results.redact import shown_address
from xlt_bench.submissions.report import list_submissions
from xlt_bench.submissions.safe_read import MAX_PACKED, MB
from xlt_bench.submissions.schema import (
    ACCURACIES,
    ARTIFACTS,
    COUNTS,
    ID,
    MAX_ID,
    RECORD,
    REGISTER,
    SUBMISSION,
    VERIFIED,
)

MAX_DOWNLOAD = 4096 * MB
MAX_UNPACKED = 4096 * MB  # of all files, also of those that are left out
MAX_FILES = 500_000
_MAX_DIRECTORY = 32 * MB  # bytes of a zip's table of contents
_MAX_HEADER = MB  # bytes of a tar's header
_CHUNK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte
# A folder above, as GitHub adds, and `submissions/` may be missing.
_MEMBER = re.compile(
    rf"(?:\./)?(?:[^/.][^/]*/)?(?:submissions/)?(?P<id>{ID.pattern})/(?P<file>"
    rf"{re.escape(SUBMISSION)}|{re.escape(RECORD)}|{re.escape(COUNTS)}|{re.escape(VERIFIED)}"
    rf"|{re.escape(ACCURACIES)}"
    r"|predictions/\w{1,60}/[\w-]{1,60}\.jsonl\.zst|retrieval/layer-\d{3,4}\.parquet)",
    re.ASCII,
)
# What may lie beside submissions.
_BESIDE = re.compile(
    rf"(?:\./)?(?:[^/.][^/]*/)?submissions/({'|'.join(map(re.escape, REGISTER))}"
    rf"|{ARTIFACTS}/([0-9a-f]{{2}})/\2[0-9a-f]{{62}})"
)
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError,
    NotImplementedError, RuntimeError, UnicodeError, ValueError,
)  # fmt: skip


def fetch_submissions(url: str, folder: Path) -> int:
    """Download an archive of submissions and unpack them; they replace those in the folder.

    Args:
        url: A zip, tar or tar.gz archive. It holds `<id>/` or `submissions/<id>/`, at its top or
            below one folder; anything else in it is ignored.
        folder: Where to put them. If anything fails, it stays as it was.

    Returns:
        The number of submissions.

    Raises:
        InputError: The download fails, or the archive is damaged, too large or without submissions.
    """
    _check_replaceable(folder)
    with part_folder(folder) as staging, tempfile.TemporaryFile(dir=staging) as file:
        _download(url, file)
        new = staging / "new"
        new.mkdir()
        try:
            _unpack(file, new)
        except InputError:
            raise
        except _DAMAGED as error:
            raise InputError(f"{_shown(url)} is damaged: {one_line(error, 200)}") from None
        found = len(list_submissions([new]))
        if not found:
            raise InputError(
                f"{_shown(url)} holds no submissions: they must be in submissions/<id>/"
            )
        if folder.exists():
            folder.rename(staging / "old")
        new.rename(folder)
    return found


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but submissions."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: move it, or choose another --db")
    names = [path.name for path in folder.iterdir()]
    beside = (ARTIFACTS, *REGISTER)
    odd = [name for name in names if not ID.fullmatch(name) and name not in beside]
    if odd:
        raise InputError(
            f"{folder} holds {odd[0][:60]!r}, which is not a submission, and would be replaced: "
            "move it, or choose another --db"
        )


def _shown(url: str) -> str:
    return one_line(shown_address(url), 200)


def _download(url: str, file: IO[bytes]) -> None:
    done = 0
    try:
        plain = {"Accept-Encoding": "identity"}  # the bytes are those of the file
        with requests.get(url, headers=plain, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code != 200:
                raise InputError(
                    f"{_shown(url)}: the server answered {answer.status_code} {answer.reason}"
                )
            for chunk in answer.iter_content(_CHUNK):
                done += len(chunk)
                if done > MAX_DOWNLOAD:
                    raise InputError(f"{_shown(url)} has more than {MAX_DOWNLOAD:,} bytes")
                file.write(chunk)
    except (requests.RequestException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{_shown(url)}: the download failed ({type(error).__name__})") from None


class _Bounded:
    """A binary file that refuses to read much at a time, or far.

    zipfile and tarfile read a table of contents or a header at once, of whatever size it claims;
    and a tar's headers lie behind what is compressed before them.
    """

    def __init__(self, inner: Any, most: int) -> None:
        self.inner, self.most = inner, most

    def read(self, size: int = -1) -> bytes:
        wanted = size if 0 <= size <= self.most else self.most + 1
        data: bytes = self.inner.read(wanted)
        if len(data) > self.most:
            raise InputError("the archive has a header or table of contents that is too large")
        self._check(self.inner.tell())
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:  # before it is decompressed
            self._check(offset)
        place: int = self.inner.seek(offset, whence)
        return place

    def tell(self) -> int:
        place: int = self.inner.tell()
        return place

    def seekable(self) -> bool:
        return True

    def _check(self, place: int) -> None:
        if place > MAX_UNPACKED:
            raise InputError(f"the archive unpacks to more than {MAX_UNPACKED:,} bytes")


def _unpack(file: IO[bytes], folder: Path) -> None:
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x03\x04":
        members = _zip_members(_Bounded(file, _MAX_DIRECTORY))
    else:
        inner = gzip.GzipFile(fileobj=file) if head[:2] == b"\x1f\x8b" else file
        members = _tar_members(_Bounded(inner, _MAX_HEADER))
    total = 0
    for name, size, member in members:
        total += size
        if total > MAX_UNPACKED:
            raise InputError(f"the archive unpacks to more than {MAX_UNPACKED:,} bytes")
        if (shown := _wanted(name)) is None:
            continue
        if member is None:
            raise InputError(f"{shown} in the archive is not a regular file")
        if size > MAX_PACKED:
            raise InputError(f"{shown} in the archive has {size:,} bytes; limit: {MAX_PACKED:,}")
        _write(folder / shown, shown, member)


def _wanted(name: str) -> str | None:
    """Where a member belongs in the folder of submissions; None if it is ignored."""
    if beside := _BESIDE.fullmatch(name):
        return beside[1]
    found = _MEMBER.fullmatch(name)
    if found is None or len(found["id"]) > MAX_ID:
        return None
    return f"{found['id']}/{found['file']}"


def _write(path: Path, shown: str, member: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    try:
        with path.open("xb") as out:
            while chunk := member.read(_CHUNK):
                done += len(chunk)
                if done > MAX_PACKED:
                    raise InputError(f"{shown} in the archive has more than {MAX_PACKED:,} bytes")
                out.write(chunk)
    except FileExistsError:
        raise InputError(f"{shown} occurs twice in the archive") from None


def _zip_members(file: Any) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """The name, size and content of each file; None in place of content that is not plain."""
    with zipfile.ZipFile(file) as archive:
        _check_count(len(archive.infolist()))
        for info in archive.infolist():
            plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if info.is_dir():
                continue
            if not plain or link or info.flag_bits & 1 or not _wanted(info.filename):
                yield info.filename, info.file_size, None
                continue
            with archive.open(info) as member:
                yield info.filename, info.file_size, member


def _tar_members(file: Any) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """As `_zip_members`."""
    opened: Any = tarfile.TarFile(fileobj=file)
    with opened as archive:
        count = 0
        while info := archive.next():
            _check_count(count := count + 1)
            archive.members = []  # it keeps all, which nothing here needs
            if not info.isdir():
                yield info.name, info.size, archive.extractfile(info) if info.isreg() else None
        # It also ends, without an error, at a header that it cannot read.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends early, or a header is wrong")


def _check_count(count: int) -> None:
    if count > MAX_FILES:
        raise InputError(f"the archive has more than {MAX_FILES:,} files")
