import errno
import gzip
import hashlib
import io
import json
import random
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xlt_bench.data import fetch as module
from xlt_bench.data.catalog import Dataset, File
from xlt_bench.data.fetch import Fetched, fetch, progress_bar
from xlt_bench.errors import InputError

CHUNK = 1 << 13
BODY = random.Random(0).randbytes(62 * CHUNK + 77)
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `bodies`; each number in `break_after` cuts one answer off after that many bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.break_after, self.seen, self.failures = {}, [], [], []
        self.ranges, self.etags = True, {}
        self.base = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.seen.append((self.path, asked))
        if server.failures:
            return self.send_plain(server.failures.pop(0))
        if self.path not in server.bodies:
            return self.send_plain(404)
        body, start = server.bodies[self.path], 0
        condition = self.headers.get("If-Range")
        if asked and server.ranges and condition in (None, server.etags.get(self.path)):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_plain(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.path in server.etags:
            self.send_header("ETag", server.etags[self.path])
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + server.break_after.pop(0) if server.break_after else len(body)
        self.wfile.write(body[start:end])
        if end < len(body):
            self.close_connection = True
        return None

    def send_plain(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        running.bodies["/a.bin"] = BODY
        yield running
        running.shutdown()


def one(server, sha256=SHA, path="set/a.bin", url="/a.bin"):
    file = File(path, server.base + url, sha256)
    return {"set": Dataset("set", "Set", "none", "nobody", (file,))}


def get(root, table, **more):
    return fetch([], root, table=table, pause=0.001, **more)


def left(root):
    """The files in a folder, but not the list of archives that were seen."""
    files = [p for p in root.rglob("*") if p.is_file() and p.name != module.ARCHIVES]
    return sorted(str(p.relative_to(root)) for p in files)


def refused(root, table, match):
    with pytest.raises(InputError, match=match) as error:
        get(root, table)
    assert "\n" not in str(error.value)


def test_plain_download_and_skip(tmp_path, server):
    assert get(tmp_path, one(server)) == [Fetched("set", 1, 0)]
    assert (tmp_path / "set" / "a.bin").read_bytes() == BODY
    assert get(tmp_path, one(server)) == [Fetched("set", 0, 1)]
    assert len(server.seen) == 1
    assert left(tmp_path) == ["set/a.bin"]


def test_fetched_by_several_at_once_it_comes_once(tmp_path, server):
    together, found = threading.Barrier(4), []

    def fetches():
        together.wait(600)
        found.extend(get(tmp_path, one(server)))

    threads = [threading.Thread(target=fetches) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.downloaded for one in found) == [0, 0, 0, 1]
    assert (tmp_path / "set" / "a.bin").read_bytes() == BODY
    assert len(server.seen) == 1


def test_progress(tmp_path, server):
    with progress_bar() as bar:
        get(tmp_path, one(server), progress=bar)
        assert bar.task_ids == []


def test_a_broken_download_resumes_in_the_same_run(tmp_path, server):
    server.break_after = [12 * CHUNK, 20 * CHUNK]
    get(tmp_path, one(server))
    assert server.seen == [
        ("/a.bin", None),
        ("/a.bin", f"bytes={12 * CHUNK}-"),
        ("/a.bin", f"bytes={32 * CHUNK}-"),
    ]
    assert (tmp_path / "set" / "a.bin").read_bytes() == BODY
    assert left(tmp_path) == ["set/a.bin"]


def test_a_broken_download_resumes_in_the_next_run(tmp_path, server):
    server.break_after = [12 * CHUNK, 0, 0, 0, 0, 0]
    refused(tmp_path, one(server), "connection was lost.*run the same command again to resume")
    assert left(tmp_path) == ["set/a.bin.part"]
    server.break_after = []
    server.seen.clear()
    get(tmp_path, one(server))
    assert server.seen == [("/a.bin", f"bytes={12 * CHUNK}-")]
    assert (tmp_path / "set" / "a.bin").read_bytes() == BODY
    assert left(tmp_path) == ["set/a.bin"]


def test_a_server_without_ranges_starts_again(tmp_path, server):
    server.ranges = False
    server.break_after = [12 * CHUNK]
    get(tmp_path, one(server))
    assert [asked for _, asked in server.seen] == [None, f"bytes={12 * CHUNK}-"]
    assert (tmp_path / "set" / "a.bin").read_bytes() == BODY


def test_a_part_that_is_longer_than_the_file(tmp_path, server):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.bin.part").write_bytes(BODY + b"x")
    get(tmp_path, one(server))
    assert (tmp_path / "set" / "a.bin").read_bytes() == BODY


def test_interrupted_run(tmp_path, server, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with progress_bar() as bar:
        monkeypatch.setattr(bar, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, one(server), progress=bar)
    assert not (tmp_path / "set" / "a.bin").exists()
    get(tmp_path, one(server))
    assert (tmp_path / "set" / "a.bin").read_bytes() == BODY
    assert left(tmp_path) == ["set/a.bin"]


def test_wrong_sum(tmp_path, server):
    refused(tmp_path, one(server, "0" * 64), "a.bin is not the expected file .* and was deleted")
    assert left(tmp_path) == []


def test_not_found(tmp_path, server):
    refused(tmp_path, one(server, url="/b.bin"), "/b.bin: the server answered 404 Not Found")
    assert left(tmp_path) == []
    assert len(server.seen) == 1


def test_a_temporary_failure_is_tried_again(tmp_path, server):
    server.failures = [503, 429]
    get(tmp_path, one(server))
    assert (tmp_path / "set" / "a.bin").read_bytes() == BODY
    server.failures = [503] * 4
    refused(tmp_path / "x", one(server), "the server answered 503")


def test_no_network(tmp_path, server):
    table = one(server)
    server.shutdown()
    server.server_close()
    refused(tmp_path, table, r"127\.0\.0\.1 cannot be reached \(is there a network\?\)")
    assert left(tmp_path) == []


def test_full_disk_and_permission(tmp_path, server, monkeypatch):
    for code, message in ((errno.ENOSPC, "no space left"), (errno.EACCES, "Permission denied")):

        def fail(*_, code=code, **__):
            raise OSError(code, {errno.ENOSPC: "full"}.get(code, "Permission denied"))

        monkeypatch.setattr(module.Path, "mkdir", fail)
        refused(tmp_path, one(server), message)
    assert left(tmp_path) == []


def test_a_folder_that_is_a_file(tmp_path, server):
    (tmp_path / "set").touch()
    refused(tmp_path, one(server), "set.* cannot be read or written: ")


def test_unknown_name(tmp_path, server):
    with pytest.raises(InputError, match="unknown data set 'sett': did you mean 'set'"):
        fetch(["sett"], tmp_path, table=one(server))


def test_files_that_are_there(tmp_path, server):
    path = tmp_path / "set" / "a.bin"
    path.parent.mkdir()
    packed = path.with_name("a.bin.gz")
    packed.write_bytes(gzip.compress(BODY, 1))
    assert get(tmp_path, one(server)) == [Fetched("set", 0, 1)]
    packed.write_bytes(packed.read_bytes()[:-9])  # cut off: the plain file is fetched too
    assert get(tmp_path, one(server, None)) == [Fetched("set", 1, 0)]
    path.write_bytes(BODY[:-1])
    assert get(tmp_path, one(server)) == [Fetched("set", 1, 0)]
    assert path.read_bytes() == BODY


def archive(*members):
    """A tar.gz of (name, bytes), or of (name, link target as str)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def packed(server, body, *names, sha256=None):
    server.bodies["/set.tar.gz"] = body
    url = server.base + "/set.tar.gz"
    files = tuple(File(f"set/{name}", url, sha256, name) for name in names)
    return {"set": Dataset("set", "Set", "none", "nobody", files)}


def test_archive(tmp_path, server):
    body = archive(("./1.1/a", BODY), ("1.1/b", b"b"), ("1.1/c", b"c"))
    table = packed(server, body, "1.1/a", "1.1/b")
    assert get(tmp_path, table) == [Fetched("set", 2, 0)]
    assert left(tmp_path) == ["set/1.1/a", "set/1.1/b"]
    assert (tmp_path / "set" / "1.1" / "a").read_bytes() == BODY
    assert get(tmp_path, table) == [Fetched("set", 0, 2)]
    assert len(server.seen) == 1


def test_an_archive_that_changed_since_it_was_first_seen_is_refused(tmp_path, server):
    """The sha256 of the members is not known, so nothing else would tell."""
    first, second = (archive(("a", content)) for content in (b"first", b"second"))
    get(tmp_path, packed(server, first, "a"))
    (address,) = json.loads((tmp_path / "archives.json").read_text())
    seen = {address: hashlib.sha256(first).hexdigest()}
    assert address.startswith(server.base)
    (tmp_path / "set" / "a").unlink()
    refused(tmp_path, packed(server, second, "a"), "has another file than when it was first")
    assert not (tmp_path / "set" / "a").exists()
    assert json.loads((tmp_path / "archives.json").read_text()) == seen
    get(tmp_path, packed(server, first, "a"))
    (tmp_path / "set" / "a").unlink()
    (tmp_path / "archives.json").unlink()
    get(tmp_path, packed(server, second, "a"))
    assert (tmp_path / "set" / "a").read_bytes() == b"second"


def test_hostile_names_in_an_archive_have_no_effect(tmp_path, server):
    outside = str(tmp_path / "outside")
    body = archive(("../outside", b"x"), (outside, b"x"), ("a", b"a"), ("1.1", "/tmp"))
    root = tmp_path / "root"
    get(root, packed(server, body, "a"))
    assert left(tmp_path) == ["root/set/a"]


def test_a_link_in_place_of_a_file_is_refused(tmp_path, server):
    secret = tmp_path / "secret"
    secret.write_text("x")
    root = tmp_path / "root"
    refused(root, packed(server, archive(("a", str(secret))), "a"), "a is a link or a folder")
    assert left(root) == []


@pytest.mark.parametrize(
    ("body", "sha256", "message"),
    [
        (archive(("b", b"b")), None, r"set\.tar\.gz lacks a;"),
        (archive(("a", BODY))[:-200], None, r"set\.tar\.gz is corrupt"),
        (b"<html>", None, r"set\.tar\.gz is corrupt"),
        (archive(("a", b"a")), SHA, "a is not the expected file"),
    ],
    ids=["member", "cut", "page", "sum"],
)
def test_bad_archives_leave_nothing(tmp_path, server, body, sha256, message):
    refused(tmp_path, packed(server, body, "a", sha256=sha256), message)
    assert [name for name in left(tmp_path) if not name.endswith(".part")] == []
    good = packed(server, archive(("a", BODY)), "a", sha256=SHA)
    assert get(tmp_path, good) == [Fetched("set", 1, 0)]
    assert left(tmp_path) == ["set/a"]


def test_a_broken_archive_resumes(tmp_path, server):
    body = archive(("a", BODY))
    server.break_after = [30 * CHUNK]
    get(tmp_path, packed(server, body, "a"))
    assert [asked for _, asked in server.seen] == [None, f"bytes={30 * CHUNK}-"]
    assert (tmp_path / "set" / "a").read_bytes() == BODY


@pytest.mark.parametrize("etag", ['"one"', 'W/"one"', None])
def test_a_file_that_changed_meanwhile_is_not_joined_with_the_old_one(server, tmp_path, etag):
    """Where the publisher's sha256 is unknown, only a strong ETag shows that the file changed."""
    if etag:
        server.etags["/a.bin"] = etag
    server.break_after = [5 * CHUNK, 0, 0, 0, 0, 0]
    with pytest.raises(InputError, match="run the same command again"):
        get(tmp_path, one(server, None))
    kept = ["set/a.bin.part", "set/a.bin.part.etag"] if etag == '"one"' else ["set/a.bin.part"]
    assert left(tmp_path) == kept
    server.break_after = []
    server.bodies["/a.bin"] = bytes(len(BODY))
    if etag:
        server.etags["/a.bin"] = etag.replace("one", "two")
    get(tmp_path, one(server, None))
    found = (tmp_path / "set" / "a.bin").read_bytes()
    assert (found == bytes(len(BODY))) == (etag == '"one"')
    assert left(tmp_path) == ["set/a.bin"]
