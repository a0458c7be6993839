"""Middleware that serves Streamlit's page, scripts and styles compressed, at any page's address.

Streamlit sends its scripts, megabytes of them, uncompressed. Each file is compressed when it is
first asked for, and kept. Opened at `/gains`, Streamlit's page looks for its server below `/gains`
first, and gets 404 for each request; here, the page is told where the server is.
"""

from __future__ import annotations

import gzip
import mimetypes
from functools import cache
from pathlib import Path

import streamlit
from pages import DESCRIPTIONS
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_FOLDER = Path(streamlit.__file__).with_name("static")
_FILES = {
    f"/{path.relative_to(_FOLDER).as_posix()}": path
    for path in (_FOLDER / "static").rglob("*")
    if path.suffix in (".js", ".css", ".svg")
}
_VIEWS = {"/": DESCRIPTIONS["overview"]} | {f"/{name}": t for name, t in DESCRIPTIONS.items()}
# A file of its own, because a content security policy may forbid scripts in the page.
_BASE = "/static/base.js"
_BASE_SCRIPT = b'window.__streamlit = {BACKEND_BASE_URL: new URL(".", location.href).href};\n'
_YEAR = "public, immutable, max-age=31536000"  # the files' names have a hash of their content


class StaticFiles:
    """Middleware for the files of Streamlit's page."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        answer = None
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            packed = "gzip" in Headers(scope=scope).get("accept-encoding", "")
            answer = _answer(scope["path"], packed)
        await (answer or self.inner)(scope, receive, send)


@cache
def _answer(path: str, packed: bool) -> Response | None:
    """The file at a path; None if Streamlit has to answer."""
    if path in _VIEWS:
        page = (_FOLDER / "index.html").read_bytes()
        head = f'<meta name="description" content="{_VIEWS[path]}"><script src=".{_BASE}"></script>'
        page = page.replace(b"<head>", f"<head>{head}".encode(), 1)
        return _response(page, "text/html", "no-cache", packed)
    if path == _BASE:
        return _response(_BASE_SCRIPT, "text/javascript", "no-cache", packed)
    if packed and (file := _FILES.get(path)):
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return _response(file.read_bytes(), kind, _YEAR, packed)
    return None


def _response(content: bytes, kind: str, kept: str, packed: bool) -> Response:
    headers = {"vary": "accept-encoding", "cache-control": kept}
    if packed:
        headers["content-encoding"] = "gzip"
        content = gzip.compress(content, 6)
    return Response(content, media_type=kind, headers=headers)
