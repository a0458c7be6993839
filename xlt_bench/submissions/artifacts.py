"""Artifact stores: files of answers outside of git, named by their sha256.

A store is a folder or an address that fsspec reads; the file of digest abc... is ab/abc... in it.
The maintainers name the stores, in stores.txt of the folder of submissions or by `--artifacts`; a
submission only has digests and sizes. What a store returns is compared with both, so that whoever
serves it can withhold an answer but not change it.
"""

from __future__ import annotations

import hashlib
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from xlt_bench.errors import InputError, one_line
from xlt_bench.results.redact import shown_address, without_secrets
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.submissions.safe_read import read_bytes
from xlt_bench.submissions.schema import ARTIFACTS, STORES, Artifact

SCHEMES = ("http", "https", "hf", "s3")
_MAX_STORES = 20
_MAX_BYTES = 1 << 14  # of stores.txt
_TRIES = 3
_TIMEOUT = 30.0  # seconds without a byte


class _Missing(Exception):  # noqa: N818  # the next store may have it
    """A store does not have an artifact."""


@dataclass(frozen=True)
class Stores:
    """Artifact stores, in the order in which they are asked.

    Attributes:
        addresses: Folders, or addresses whose scheme is one of `SCHEMES`.
        pause: Seconds to wait after the first failed attempt; doubles with each one.
    """

    addresses: Sequence[str] = ()
    pause: float = field(default=0.5, compare=False)

    def read(self, artifact: Artifact, name: str) -> bytes:
        """Read an artifact from the first store that has it.

        Args:
            artifact: Its digest and size.
            name: What it is, for messages.

        Raises:
            InputError: No store has it, or what a store returned has another digest.
        """
        if not self.addresses:
            raise InputError(
                f"{name} is in an artifact store: name the store in {STORES}, or pass --artifacts"
            )
        fault = ""
        for address in self.addresses:
            try:
                return self._read(address, artifact)
            except _Missing:
                continue
            except InputError as error:
                fault = fault or str(error)
        where = ", ".join(map(shown_address, self.addresses))
        fault = fault or f"it is missing in {where}{self._left_out()}"
        raise InputError(f"{name}: artifact {artifact.sha256[:12]}: {fault}")

    def _left_out(self) -> str:
        """What to do if a clone has left out the store beside the submissions."""
        places = [Path(one) for one in self.addresses if not _scheme(one)]
        if not any(place.name == ARTIFACTS and not place.is_dir() for place in places):
            return ""
        return "; if this clone leaves it out, get it with: git sparse-checkout disable"

    def _read(self, address: str, artifact: Artifact) -> bytes:
        for attempt in range(_TRIES):
            try:
                data = _fetch(address, artifact)
            except (InputError, _Missing):
                raise
            except FileNotFoundError as error:
                raise _absence(address, error) from None
            except Exception as error:  # of any of fsspec's file systems
                answered = getattr(getattr(error, "response", None), "status_code", None)
                if answered == 404:
                    raise _Missing from None
                about = without_secrets(str(error))
                fault = f"{type(error).__name__}: {about}" if about else type(error).__name__
                # huggingface_hub, whose errors have the response, has tried again itself.
                if answered or attempt + 1 == _TRIES:
                    raise InputError(
                        f"reading it from {shown_address(address)} failed "
                        f"({one_line(fault, 100)}); try again"
                    ) from None
                time.sleep(self.pause * 2**attempt)
                continue
            if len(data) != artifact.size or hashlib.sha256(data).hexdigest() != artifact.sha256:
                raise InputError(f"{shown_address(address)} has other bytes under this digest")
            return data
        raise AssertionError("unreachable")


def read_stores(submissions: Path, more: Sequence[str] = ()) -> Stores:
    """The stores of a folder of submissions.

    Args:
        submissions: The folder. Each line of its stores.txt, if it has one, is an address; a folder
            is relative to it.
        more: Addresses that are asked first.

    Raises:
        InputError: An address is not valid.
    """
    found = [checked_address(one) for one in more]
    path = submissions / STORES
    if path.exists():
        lines = read_bytes(path, _MAX_BYTES).decode("utf-8", errors="replace").split("\n")
        for number, line in enumerate(filter(None, lines), start=1):
            try:
                address = checked_address(line)
            except InputError as error:
                raise InputError(f"{STORES} line {number}: {error}") from None
            found.append(address if _scheme(address) else str(submissions / address))
    return Stores(tuple(dict.fromkeys(found[:_MAX_STORES])))


def checked_address(address: str) -> str:
    """The address of a store without a slash at its end.

    Raises:
        InputError: It is neither a folder nor an address of a known scheme.
    """
    scheme = _scheme(address)
    odd = scheme and (scheme not in SCHEMES or re.search(r"[\s?#]|::|//[^/]*@", address))
    if odd or not address.strip() or not address.isprintable() or len(address) > 300:
        raise InputError(
            f"{one_line(shown_address(address), 80)!r} is not the address of an artifact store: "
            "give a folder, https://, hf://datasets/USER/NAME or s3://BUCKET, without a password "
            "or query"
        )
    return address.rstrip("/") or address


def write(address: str, data: bytes) -> Artifact:
    """Write a file to a store, unless it has it.

    Raises:
        InputError: Nothing can be written there.
    """
    artifact = Artifact(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    if not _scheme(address):
        path = Path(address) / _place(artifact)
        if not path.exists() or path.read_bytes() != data:
            write_bytes(path, data)
        return artifact
    if _scheme(address) != "s3":
        raise InputError(
            f"nothing can be written to {shown_address(address)}: give a folder, and upload it as "
            "a whole (for hf://: hf upload USER/NAME FOLDER --repo-type dataset)"
        )
    try:
        system, path_ = _file_system(address, _place(artifact))
        system.pipe_file(path_, data)
    except InputError:
        raise
    except Exception as error:  # of any of fsspec's file systems
        fault = one_line(f"{type(error).__name__}: {without_secrets(str(error))}", 120)
        raise InputError(f"writing to {shown_address(address)} failed ({fault})") from None
    return artifact


def _scheme(address: str) -> str:
    return address.partition("://")[0] if "://" in address else ""


def _place(artifact: Artifact) -> str:
    return f"{artifact.sha256[:2]}/{artifact.sha256}"


def _fetch(address: str, artifact: Artifact) -> bytes:
    """What a store has under a digest, but at most a byte more than its size."""
    if not _scheme(address):
        path = Path(address) / _place(artifact)
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError(f"{path} is not a regular file")
        with path.open("rb") as file:
            return file.read(artifact.size + 1)
    system, path_ = _file_system(address, _place(artifact))
    with system.open(path_, "rb", **_streaming(address, artifact)) as file:
        data = _read_up_to(file, artifact.size + 1)
    if len(data) < artifact.size:
        raise ConnectionError(f"it ended after {len(data):,} of {artifact.size:,} bytes")
    return data


def _streaming(address: str, artifact: Artifact) -> dict[str, int]:
    """How to open a file as a stream.

    Not every server has ranges, and the size is known. huggingface_hub would remember which files a
    folder lacked, until the program ends.
    """
    if _scheme(address).startswith("http"):
        return {"block_size": 0, "size": artifact.size}
    return {"block_size": 0} if _scheme(address) == "hf" else {}


def _absence(address: str, error: FileNotFoundError) -> Exception:
    """What is missing: an artifact, or its whole repository."""
    about = str(error)
    for what in ("repository", "revision"):
        if _scheme(address) == "hf" and f"({what} not found)" in about:
            return InputError(
                f"{shown_address(address)}: {what} not found; if it is private or gated, log "
                "in with: hf auth login"
            )
    return _Missing()


def _read_up_to(file: IO[bytes], most: int) -> bytes:
    data = b""
    while len(data) < most and (chunk := file.read(most - len(data))):
        data += chunk
    return data


def _file_system(address: str, place: str) -> tuple[Any, str]:
    """The file system of a store, as fsspec has it, and the path of a file in it."""
    scheme = _scheme(address)
    try:
        import fsspec

        options: dict[str, Any] = {}
        if scheme.startswith("http"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(sock_connect=_TIMEOUT, sock_read=_TIMEOUT)
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        system, path = fsspec.core.url_to_fs(f"{address}/{place}", **options)
    except ImportError as error:
        needs = {"hf": "huggingface_hub", "s3": "s3fs"}.get(scheme, "'xlt-bench[artifacts]'")
        raise InputError(
            f"reading {scheme}:// needs another package ({one_line(error, 80)}): pip install "
            f"{needs}"
        ) from None
    return system, path
