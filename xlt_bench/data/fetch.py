"""Download data sets from their publishers into the layout that the loaders read.

A file lies under its final name only when it is whole and, where its sha256 is known, right: until
then it is `<name>.part`, which the next run goes on with.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
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
from xlt_bench.results.run_folder import file_digest


@dataclass(frozen=True)
class Fetched:
    """What was done for one data set, in files."""

    name: str
    downloaded: int
    present: int


def progress_bar() -> Progress:
    """A bar for `fetch(progress=...)`: the file, bytes, speed and time left."""
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
    """Download what is missing of the named data sets (none: all) and return a row each.

    A file that is there, plain or as .gz, is kept; one that is broken or has another sha256 than
    the publisher's is replaced. `pause` is the wait in seconds before the second try, doubling.
    Raises InputError, in one line, for an unknown name, a network or server that fails, a wrong
    sum, a full disk or a folder that may not be written; what is finished stays.
    """
    if root == MINI:
        raise InputError("the mini suite ships with the package: there is nothing to download")
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
    """Turn the system's errors into one line."""
    try:
        return worker.dataset(dataset)
    except OSError as error:
        where = error.filename or worker.root
        if error.errno == errno.ENOSPC:
            message = f"no space left on the disk at {where}; free some and run it again"
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
        """Files first by their own addresses, then whole archives."""
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
                extract(path, files, self.root)
            except InputError:  # a next run must not meet the same bad archive
                shutil.rmtree(path.parent)
                raise
            shutil.rmtree(path.parent)
        return Fetched(dataset.name, len(wanted), len(dataset.files) - len(wanted))

    def download(self, url: str, path: Path, sha256: str | None, label: str) -> None:
        """One address to one path, by way of `<path>.part` and pooch's check of the sum."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        report, close = self._report(label)
        try:
            _quietly(url, path, sha256, Resumable(part, self.session, report, pause=self.pause))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{url} is not the file that was expected (its sha256 is not {sha256}); nothing "
                "was kept: try again, and if it stays so, the publisher has changed it"
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
    """pooch.retrieve without its advice to note down an unknown sum."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, sha256, fname=path.name, path=path.parent, downloader=downloader)
    finally:
        logger.setLevel(level)


def _finished(root: Path, file: File) -> bool:
    """Whether a file is there, plain or .gz, and readable, with the publisher's sha256 if known."""
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
    """Take the given members out of a tar.gz, each written beside its final name, then renamed.

    Only members asked for by name are touched and only our own paths are written, so a `..` or an
    absolute name in the archive has no effect; a link in place of a member is refused. Raises
    InputError for that, a missing member, a wrong sum, and a broken archive.
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
            f"{archive.name} is corrupt ({error}) and was deleted; run it again"
        ) from None
    if wanted:
        names = ", ".join(sorted(str(name) for name in wanted))
        raise InputError(f"{archive} has no {names}")


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
