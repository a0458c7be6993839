"""Middleware that serves Streamlit's page, scripts and styles compressed, at any page's address.

Streamlit sends its scripts, megabytes of them, uncompressed. Each file is compressed when it is
first asked for, and kept. Opened at `/gains`, Streamlit's page looks for its server below `/gains`
first, and gets 404 for each request; here, the page is told where the server is.

Streamlit's page asks for the scripts of charts and tables when it has the first of them to draw,
and then for what these import, step by step. Here, the page names them all, so that they arrive
while the rest starts.
"""

from __future__ import annotations

import gzip
import mimetypes
import re
from collections.abc import Iterable
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
# The scripts by the starts of their names, which go on with a hash of their content.
_CONTROLS = "Html ButtonGroup Selectbox DownloadButton"
_CHART, _TABLE = f"{_CONTROLS} ArrowVegaLiteChart", f"{_CONTROLS} DataFrame"
_NEEDED = {
    "/": f"{_CONTROLS} BidiComponent",
    "/overview": f"{_CONTROLS} BidiComponent",
    "/systems": f"{_TABLE} TextInput",
    "/gains": f"{_CHART} Metric",
    "/transfer": f"{_CHART} DataFrame Metric",
    "/families": _CHART,
    "/size": _CHART,
    "/layers": f"{_CHART} Multiselect",
    "/correlation": f"{_CHART} Metric",
    "/compare": _CONTROLS,
    "/submission": _TABLE,
    "/how_to_submit": "Html",
    "/about": "Html DataFrame",
}
_IMPORTED = re.compile(r'(?:from|import)\s*"\./([^"]+\.js)"')
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
        page = page.replace(b"</head>", f"{_hints(path, page.decode())}</head>".encode(), 1)
        return _response(page, "text/html", "no-cache", packed)
    if path == _BASE:
        return _response(_BASE_SCRIPT, "text/javascript", "no-cache", packed)
    if packed and (file := _FILES.get(path)):
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return _response(file.read_bytes(), kind, _YEAR, packed)
    return None


def _hints(path: str, page: str) -> str:
    """Links by which a browser fetches what the view at a path will need and the page lacks."""
    folder = _FOLDER / "static" / "js"
    needed = _NEEDED.get(path, "").split()
    first = [file.name for start in needed for file in folder.glob(f"{start}.*.js")]
    return "".join(
        f'<link rel="modulepreload" crossorigin href="./static/js/{name}">'
        for name in _with_imports(folder, first)
        if name not in page
    )


def _with_imports(folder: Path, names: Iterable[str]) -> list[str]:
    """Scripts, and what they import, and so on."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name not in found and (folder / name).is_file():
            found[name] = None
            waiting += _IMPORTED.findall((folder / name).read_text(encoding="utf-8"))
    return list(found)


def _response(content: bytes, kind: str, kept: str, packed: bool) -> Response:
    headers = {"vary": "accept-encoding", "cache-control": kept}
    if packed:
        headers["content-encoding"] = "gzip"
        content = gzip.compress(content, 6)
    return Response(content, media_type=kind, headers=headers)
