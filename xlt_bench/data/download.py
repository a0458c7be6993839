"""Downloads a file for pooch; an interrupted download is kept as `.part` and resumed.

The server's ETag is kept beside it as `.part.etag`. A server that has another file by then sends it
from the start, so that two files are never joined.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from xlt_bench.errors import InputError

_CHUNK = 1 << 13  # bytes: the most that a lost connection costs
_TIMEOUT = 30.0  # seconds without a byte
# Status codes of temporary failures.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

# Called with the bytes so far and the total, which is None if the server does not state it.
Report = Callable[[int, int | None], None]


class _Again(Exception):  # noqa: N818  # a signal between two functions, never seen outside
    """An attempt failed; the next one may succeed."""


class Resumable:
    """A pooch downloader that resumes `part` with a Range request and renames it when complete.

    Args:
        part: The file that holds an unfinished download.
        session: The HTTP session to use.
        report: Called with the bytes so far and the total.
        tries: Number of attempts in a row that may bring no new byte.
        pause: Seconds to wait after the first failed attempt; doubles with each one.
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
        self.etag = part.with_name(part.name + ".etag")

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download `url` to `output_file`.

        Raises:
            InputError: The server refuses, or all attempts fail.
        """
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
        self.etag.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _transfer(self, url: str, start: int) -> None:
        # Ranges count the bytes of the file itself only where the server does not compress.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.etag.exists():
                headers["If-Range"] = self.etag.read_text(encoding="latin-1")
        with self.session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code in (206, 416) and not _continues(answer, start):
                self.part.unlink(missing_ok=True)
                raise _Again("the file on the server has changed")
            _refuse(answer, url)
            resumed = answer.status_code == 206
            done = start if resumed else 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length else None
            self.report(done, total)
            if not resumed:
                self._keep_etag(answer.headers.get("ETag", ""))
            with self.part.open("ab" if resumed else "wb") as file:
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    self.report(done, total)
        if total is not None and done < total:
            raise _Again(f"the connection was lost after {done} of {total} bytes")

    def _keep_etag(self, etag: str) -> None:
        """Note what the server calls the file; a weak ETag does not vouch for its bytes."""
        self.part.unlink(missing_ok=True)
        self.etag.unlink(missing_ok=True)
        if etag.startswith('"'):
            self.etag.write_text(etag, encoding="latin-1")


def _continues(answer: requests.Response, start: int) -> bool:
    return answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _refuse(answer: requests.Response, url: str) -> None:
    code = answer.status_code
    if code in _PASSING:
        raise _Again(f"the server answered {code} {answer.reason}")
    if code not in (200, 206):
        raise InputError(
            f"{url}: the server answered {code} {answer.reason}; the publisher may have moved the "
            "file"
        )


def _explain(url: str, error: Exception, part: Path) -> str:
    if isinstance(error, _Again):
        why = str(error)
    elif isinstance(error, requests.exceptions.SSLError):
        why = "the server's certificate is not trusted on this machine"
    elif isinstance(error, requests.ConnectionError) and not part.exists():
        why = f"{urlsplit(url).hostname} cannot be reached (is there a network?)"
    elif isinstance(error, requests.Timeout):
        why = f"no answer within {_TIMEOUT:g} s"
    else:
        why = f"the connection was lost ({type(error).__name__})"
    return f"{url}: {why}; run the same command again to resume"
