"""A Hugging Face hub on this machine: the parts of its API that loading needs, and its errors."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repository:
    """The commits of a repository, from old to new, and what its branches and tags name."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, folder: Path, *tags: str) -> str:
        """Commit the files of a folder to `main`; returns the commit."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        digests = [hashlib.sha1(data).hexdigest() for _, data in sorted(files.items())]
        name = hashlib.sha1(f"{len(self.commits)} {digests}".encode()).hexdigest()
        self.commits[name] = files
        self.refs |= dict.fromkeys(("main", *tags), name)
        return name

    def find(self, revision: str) -> str | None:
        """The commit of a branch, tag, commit or abbreviated commit."""
        if revision in self.refs:
            return self.refs[revision]
        found = [name for name in self.commits if name.startswith(revision)]
        return found[0] if len(found) == 1 and len(revision) >= 7 else None


@dataclass
class Hub:
    """The repositories by name, the address, and every request: its method and path.

    Those of data sets are named `datasets/owner/name`. With `delivery`, another host delivers files
    by a signed address. `fault` is 500 or interrupted. `told` has the token that each host got.
    """

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    delivery: str = ""
    fault: str = ""
    told: set[tuple[str | None, str | None]] = field(default_factory=set)

    def repository(self, name: str, *, gated: bool = False) -> Repository:
        """A new, empty repository."""
        self.repositories[name] = Repository(gated=gated)
        return self.repositories[name]


_API = re.compile(
    r"/api/(models/)?(?P<repo>(datasets/)?[^/]+/[^/]+)(/(?P<what>revision|tree)/(?P<rev>[^/]+)"
    r"(/(?P<folder>.+))?)?/?"
)
_FILE = re.compile(r"/(?P<repo>(datasets/)?[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<file>.+)")


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.told.add((self.headers["Host"], self.headers["Authorization"]))
        found = _API.fullmatch(path) or _FILE.fullmatch(path)
        if not found:
            return self._send(404, b"no such page")
        repository = self.hub.repositories.get(found["repo"])
        if repository is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if repository.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        commit = repository.find(unquote(found["rev"] or "main"))
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[commit]
        head = {"X-Repo-Commit": commit}
        if "file" not in found.groupdict():
            inside = unquote(found["folder"] or "")
            files = {name: data for name, data in files.items() if name.startswith(inside)}
            if not files:
                return self._send(404, b"", head | {"X-Error-Code": "EntryNotFound"})
            return self._send(200, self._api(found["repo"], commit, files, found["what"]), head)
        data = files.get(unquote(found["file"]))
        if data is None:
            return self._send(404, b"", head | {"X-Error-Code": "EntryNotFound"})
        head |= {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        if self.hub.delivery and self.headers["Host"] != self.hub.delivery:
            return self._send(
                302, b"", {"Location": f"http://{self.hub.delivery}{path}?Signature=xyz"}
            )
        if self.hub.fault == "500":
            return self._send(500, b"")
        if self.hub.fault == "interrupted":
            head |= {"Content-Length": str(2 * len(data))}
            self.close_connection = True
        self._send(200, data, head)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _api(self, repo: str, commit: str, files: Files, what: str | None) -> bytes:
        tree = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
        about = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        return json.dumps(tree if what == "tree" else about).encode()

    def _send(self, status: int, data: bytes, head: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(head or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that answers while the body runs; its repositories are added to it."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
