"""One file over HTTP, for pooch: kept as `.part` while it is not whole, and gone on with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from xlt_bench.errors import InputError

_CHUNK = 1 << 13  # bytes: what a broken connection loses at most
_TIMEOUT = 30.0  # seconds without a byte
# Answers that may be otherwise in a moment.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

# Bytes had so far and bytes in all, None where the server does not say.
Report = Callable[[int, int | None], None]


class _Again(Exception):  # noqa: N818  # a signal between two functions, never seen outside
    """One try came to nothing; the next may not."""


class Resumable:
    """A pooch downloader: writes `part`, goes on with it by a Range request, then hands it over.

    `tries` without a new byte in a row are made, `pause` seconds apart and doubling.
    """

    def __init__(
        self,
        part: Path,
        session: requests.Session,
        report: Report = lambda done, total: None,
        tries: int = 4,
        pause: float = 1.0,
    ) -> None:
        self.part, self.session, self.report = part, session, report
        self.tries, self.pause = tries, pause

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download `url` and rename it to `output_file`. Raises InputError when all tries fail."""
        failed = 0
        while True:
            before = self._size()
            try:
                self._transfer(url, before)
                break
            except (_Again, requests.RequestException) as error:
                failed = 1 if self._size() > before else failed + 1
                if failed >= self.tries:
                    raise InputError(_explain(url, error, self.part)) from None
            time.sleep(self.pause * 2 ** (failed - 1))
        self.part.replace(output_file)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _transfer(self, url: str, start: int) -> None:
        # Ranges count the bytes of the file itself only where the server does not compress.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with self.session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code in (206, 416) and not _continues(answer, start):
                self.part.unlink(missing_ok=True)
                raise _Again("the server's file is another one")
            _refuse(answer, url)
            resumed = answer.status_code == 206
            done = start if resumed else 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length else None
            self.report(done, total)
            with self.part.open("ab" if resumed else "wb") as file:
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    self.report(done, total)
        if total is not None and done < total:
            raise _Again(f"the connection broke off after {done} of {total} bytes")


def _continues(answer: requests.Response, start: int) -> bool:
    return answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _refuse(answer: requests.Response, url: str) -> None:
    code = answer.status_code
    if code in _PASSING:
        raise _Again(f"the server answers {code} {answer.reason}")
    if code not in (200, 206):
        raise InputError(f"{url}: the server answers {code} {answer.reason}")


def _explain(url: str, error: Exception, part: Path) -> str:
    if isinstance(error, _Again):
        why = str(error)
    elif isinstance(error, requests.exceptions.SSLError):
        why = "its certificate is not trusted here"
    elif isinstance(error, requests.ConnectionError) and not part.exists():
        why = f"{urlsplit(url).hostname} cannot be reached (is there a network?)"
    elif isinstance(error, requests.Timeout):
        why = f"no answer within {_TIMEOUT:g} s"
    else:
        why = f"the connection broke off ({type(error).__name__})"
    return f"{url}: {why}; the same command goes on from here"
