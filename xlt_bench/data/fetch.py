"""Downloads data sets from their publishers into the layout that the readers expect.

A file gets its final name only when it is complete and, if its sha256 is known, correct. Until then
it is `<name>.part`, which the next run resumes.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import logging
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from xlt_bench.data.catalog import Dataset, File, catalog
from xlt_bench.data.download import Report, Resumable
from xlt_bench.data.root import MINI
from xlt_bench.errors import InputError, unknown
from xlt_bench.results.atomic_write import locked
from xlt_bench.results.run_folder import file_digest, write_json

ARCHIVES = "archives.json"
"""The sha256 of each archive that was downloaded to a data folder, by its address."""


@dataclass(frozen=True)
class Fetched:
    """How many files of a data set were downloaded, and how many were present already."""

    name: str
    downloaded: int
    present: int


def progress_bar() -> Progress:
    """A progress bar for `fetch`: the file, bytes, speed and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        transient=True,
    )


def fetch(
    names: Sequence[str],
    root: Path,
    progress: Progress | None = None,
    table: Mapping[str, Dataset] | None = None,
    pause: float = 1.0,
) -> list[Fetched]:
    """Download the missing files of data sets.

    A file that is present, plain or as .gz, is kept. One that is broken or does not have the
    publisher's sha256 is replaced.

    Args:
        names: The data sets; all of them if empty.
        root: The data folder.
        progress: A bar from `progress_bar`.
        table: Data sets by name; the catalog by default.
        pause: Seconds to wait after the first failed attempt; doubles with each one.

    Returns:
        One row per data set.

    Raises:
        InputError: A name is unknown, the network or a server fails, a checksum is wrong, the disk
            is full or the folder cannot be written. Files that are finished stay.
    """
    if root == MINI:
        raise InputError(
            "the mini suite ships with the package, so there is nothing to download; choose "
            "another --data-dir"
        )
    table = catalog() if table is None else table
    for name in names:
        if name not in table:
            raise unknown("data set", name, table)
    done = []
    with requests.Session() as session:
        for name in names or list(table):
            worker = _Worker(root, session, progress, pause)
            done.append(_guarded(worker, table[name]))
    return done


def _guarded(worker: _Worker, dataset: Dataset) -> Fetched:
    """Download a data set; an error of the system becomes one line."""
    try:
        return worker.dataset(dataset)
    except OSError as error:
        where = error.filename or worker.root
        if error.errno == errno.ENOSPC:
            message = (
                f"no space left on the disk at {where}; free some and run the same command again"
            )
        else:
            message = f"{where} cannot be read or written: {error.strerror or error}"
        raise InputError(message) from None


@dataclass
class _Worker:
    root: Path
    session: requests.Session
    progress: Progress | None
    pause: float

    def dataset(self, dataset: Dataset) -> Fetched:
        """Download what is missing, one process at a time: two would write to the same `.part`."""
        with locked(self.root, self._waits):
            return self._dataset(dataset)

    def _waits(self) -> None:
        if self.progress:
            self.progress.console.print(f"waiting for another download to {self.root}")

    def _dataset(self, dataset: Dataset) -> Fetched:
        """Download single files first, then archives."""
        wanted = [file for file in dataset.files if not _finished(self.root, file)]
        archives: dict[str, list[File]] = {}
        for i, file in enumerate(wanted, start=1):
            if file.member:
                archives.setdefault(file.url, []).append(file)
            else:
                label = f"{dataset.name} {i}/{len(wanted)}"
                self.download(file.url, self.root / file.path, file.sha256, label)
        for url, files in archives.items():
            name = url.rsplit("/", 1)[1]
            path = self.root / f".{dataset.name}" / name
            if not path.exists():
                self.download(url, path, None, f"{dataset.name} {name}")
            try:
                known = self._compared(url, path)
                extract(path, files, self.root)
                write_json(self.root / ARCHIVES, known)
            except InputError:  # a next run must not meet the same bad archive
                shutil.rmtree(path.parent)
                raise
            shutil.rmtree(path.parent)
        return Fetched(dataset.name, len(wanted), len(dataset.files) - len(wanted))

    def _compared(self, url: str, path: Path) -> dict[str, str]:
        """Compare an archive with the one that its address had before: publishers state no sha256.

        Returns:
            What to write to `ARCHIVES` if the archive turns out to be whole.

        Raises:
            InputError: It has changed.
        """
        seen = self.root / ARCHIVES
        try:
            known = dict(json.loads(seen.read_bytes())) if seen.exists() else {}
            before = known.get(url)
        except (ValueError, TypeError):
            raise InputError(f"{seen} is damaged; delete it") from None
        found = file_digest(path)
        if before not in (None, found):
            raise InputError(
                f"{url} has another file than when it was first downloaded (sha256 {found[:12]}, "
                f"it was {str(before)[:12]}): the publisher has changed it, or it was tampered "
                f"with. To accept it, delete the address in {seen}"
            )
        return known | {url: found}

    def download(self, url: str, path: Path, sha256: str | None, label: str) -> None:
        """Download one file by way of `<path>.part`; pooch checks its sha256."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        report, close = self._report(label)
        try:
            _quietly(url, path, sha256, Resumable(part, self.session, report, pause=self.pause))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{url} is not the expected file (its sha256 is not {sha256}) and was deleted; run "
                "the same command again: if that fails too, the publisher has changed the file"
            ) from None
        finally:
            close()

    def _report(self, label: str) -> tuple[Report, Callable[[], None]]:
        if (bar := self.progress) is None:
            return (lambda done, total: None), (lambda: None)
        task = bar.add_task(label, total=None)
        return (
            lambda done, total: bar.update(task, completed=done, total=total),
            lambda: bar.remove_task(task),
        )


def _quietly(url: str, path: Path, sha256: str | None, downloader: Resumable) -> None:
    """Call pooch.retrieve without its advice to write down an unknown checksum."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, sha256, fname=path.name, path=path.parent, downloader=downloader)
    finally:
        logger.setLevel(level)


def _finished(root: Path, file: File) -> bool:
    """Whether a file is present, plain or .gz, and intact, as far as its sha256 is known."""
    path = root / file.path
    packed = path.with_name(path.name + ".gz")
    try:
        if path.exists():
            return file.sha256 in (None, file_digest(path))
        data = gzip.decompress(packed.read_bytes())
    except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return file.sha256 in (None, hashlib.sha256(data).hexdigest())


def extract(archive: Path, files: Sequence[File], root: Path) -> None:
    """Extract files from a tar.gz, each to `<path>.part`, which is then renamed.

    Only members asked for by name are read and only our own paths are written, so a `..` or an
    absolute name in the archive has no effect.

    Args:
        archive: The tar.gz.
        files: What to extract: the `member` of each.
        root: The data folder.

    Raises:
        InputError: The archive is broken, or a member is missing, a link, a folder, or without the
            expected sha256.
    """
    wanted = {file.member: file for file in files}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                file = wanted.pop(member.name.removeprefix("./"), None)
                if file:
                    _unpack(tar, member, archive, root / file.path, file.sha256)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{archive.name} is corrupt ({error}) and was deleted; run the same command again"
        ) from None
    if wanted:
        names = ", ".join(sorted(str(name) for name in wanted))
        raise InputError(f"{archive} lacks {names}; the publisher has changed the archive")


def _unpack(
    tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, path: Path, sha256: str | None
) -> None:
    source = tar.extractfile(member) if member.isfile() else None
    if source is None:
        raise InputError(f"{archive}: {member.name} is a link or a folder, not a file; refused")
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source, part.open("wb") as target:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            target.write(chunk)
    if sha256 not in (None, digest.hexdigest()):
        part.unlink()
        raise InputError(f"{archive}: {member.name} is not the expected file (sha256 differs)")
    part.replace(path)
