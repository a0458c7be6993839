"""Tests that an archive gives the submissions it was made of, and a hostile one does no harm."""

import gzip
import io
import os
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xlt_bench.errors import InputError
from xlt_bench.submissions import archive
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.move import move
from xlt_bench.submissions.rescore import check

NAME = "a-0123456789-0123456789"


@pytest.fixture(scope="module")
def shelf(make_run, made_up_root, tmp_path_factory):
    """A folder of two submissions."""
    folder = tmp_path_factory.mktemp("shelf")
    for seed in (0, 1):
        run = make_run(folder / f"run {seed}", seed, adapter=f"adapter {seed}")
        submit(run, About(), folder / "submissions", made_up_root)
    return folder / "submissions"


@pytest.fixture
def served():
    """Serves bytes; returns the URL of what it was given last."""
    content = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = content.get(self.path.split("?")[0])
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(data):
        content["/archive"] = data
        return f"http://user:secret@localhost:{server.server_port}/archive?token=secret"

    yield serve
    server.shutdown()
    server.server_close()


def _files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _zip(files, **options):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, **options) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return packed.getvalue()


def _tar(files, mode="w:gz", form=tarfile.PAX_FORMAT):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode, format=form) as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                out.addfile(info)
    return packed.getvalue()


def _plain_tar(files):
    return _tar(files, "w", tarfile.GNU_FORMAT)


@pytest.mark.parametrize("pack", [_zip, _tar, _plain_tar])
@pytest.mark.parametrize("above", ["", "submissions/", "repository-main/submissions/", "./main/"])
def test_an_archive_holds_the_submissions_of_a_folder(pack, above, shelf, served, tmp_path):
    wanted = _files(shelf)
    others = {
        "README.md": b"no submission",
        "repository-main/setup.py": b"no submission",
        "repository-main/tests/fixtures/" + next(iter(wanted)): b"not in submissions/",
    }
    packed = pack(others | {above + name: data for name, data in wanted.items()})
    place = tmp_path / "board.submissions"
    for _ in range(2):  # the second replaces the first
        assert archive.fetch_submissions(served(packed), place) == 2
        assert _files(place) == wanted
    assert sorted(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_the_store_beside_the_submissions_is_unpacked(pack, shelf, served, made_up_root, tmp_path):
    moved = shutil.copytree(shelf, tmp_path / "submissions")
    for folder in sorted(moved.iterdir()):
        move(folder, str(moved / "artifacts"))
    (moved / "stores.txt").write_text("artifacts\n")
    wanted, digest = _files(moved), 64 * "a"
    others = {
        f"artifacts/{name}": b"no artifact"
        for name in ("README.md", digest, f"ab/{digest}", f"aa/{digest}a", f"aa/b/{digest}")
    }
    files = {f"main/submissions/{name}": data for name, data in (wanted | others).items()}
    place = tmp_path / "board.submissions"
    for _ in range(2):
        packed = pack(files | {f"main/tests/artifacts/aa/{digest}": b"elsewhere"})
        assert archive.fetch_submissions(served(packed), place) == 2
        assert _files(place) == wanted
    for name in {path.split("/")[0] for path in _files(shelf)}:
        assert check(place / name, made_up_root).state == "checked"


LINK, HARD, DEVICE = (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "x"), (tarfile.CHRTYPE, "")
GOOD = f"{NAME}/submission.json"


def _zip_link():
    info = zipfile.ZipInfo(GOOD)
    info.external_attr = 0o120777 << 16
    return _zip({info: "/etc/passwd"})


def _zip_encrypted():
    data = bytearray(_zip({GOOD: b"{}"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def _huge_header():
    """A tar whose extended header claims, and compresses, 200 MB."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 200 << 20
    return gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(200 << 20), 1)


def _broken_header():
    first, second = (_plain_tar({f"{NAME}/{name}": b"x"}) for name in ("record.json", "no.json"))
    return first[:1024] + b"?" * 512 + second


HOSTILE = {
    "symbolic link": (_tar({GOOD: LINK}), "not a regular file"),
    "hard link": (_tar({"x": b"1", GOOD: HARD}), "not a regular file"),
    "device": (_tar({GOOD: DEVICE}), "not a regular file"),
    "zip link": (_zip_link(), "not a regular file"),
    "zip encrypted": (_zip_encrypted(), "not a regular file"),
    "twice": (_tar({GOOD: b"{}", f"submissions/{GOOD}": b"{}"}), "occurs twice"),
    "bomb": (_tar({GOOD: bytes(17 << 20)}), "limit: 16,777,216"),
    "zip bomb": (_zip({GOOD: bytes(17 << 20)}), "limit: 16,777,216"),
    "huge header": (_huge_header(), "too large"),
    "broken header": (_broken_header(), "ends early"),
    "cut off": (_tar({GOOD: os.urandom(9000)})[:-4000], "damaged"),
    "zip cut off": (_zip({GOOD: os.urandom(9000)})[:-4000], "damaged"),
    "html": (b"<html>sign in</html>", "damaged"),
    "linked artifact": (
        _tar({GOOD: b"{}", f"submissions/artifacts/aa/{64 * 'a'}": LINK}),
        "not a regular file",
    ),
    "empty": (b"", "damaged"),
    "none": (_tar({"README.md": b"hello"}), "no submissions"),
    "upwards": (_tar({f"../{GOOD}": b"{}", f"a/../../{GOOD}": b"{}"}), "no submissions"),
    "absolute": (_zip({f"/{GOOD}": b"{}", f"C:\\{GOOD}": b"{}"}), "no submissions"),
    "other file": (_zip({f"{NAME}/run.py": b"1", f"{NAME}/.git/config": b"1"}), "no submissions"),
    "newline": (_tar({f"{NAME}/predictions/a\n/b.jsonl.zst": b"1"}), "no submissions"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_changes(kind, served, tmp_path):
    packed, said = HOSTILE[kind]
    place = tmp_path / "below" / "board.submissions"
    (place / NAME).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as refused:
        archive.fetch_submissions(served(packed), place)
    line = str(refused.value)
    assert said in line
    assert "secret" not in line
    assert len(line) < 500
    assert sorted(tmp_path.rglob("*")) == before


def test_limits_on_all_files_together(served, tmp_path, monkeypatch):
    packed = {f"{i}.txt": bytes(1000) for i in range(20)}
    monkeypatch.setattr(archive, "MAX_UNPACKED", 15_000)
    for form in (_zip, _tar):
        with pytest.raises(InputError, match="unpacks to more than 15,000 bytes"):
            archive.fetch_submissions(served(form(packed)), tmp_path / "x")
    monkeypatch.setattr(archive, "MAX_FILES", 19)
    for form in (_zip, _tar):
        with pytest.raises(InputError, match="more than 19 files"):
            archive.fetch_submissions(
                served(form({str(i): b"" for i in range(20)})), tmp_path / "x"
            )
    monkeypatch.setattr(archive, "MAX_DOWNLOAD", 100)
    with pytest.raises(InputError, match="more than 100 bytes"):
        archive.fetch_submissions(served(bytes(101)), tmp_path / "x")


def test_a_folder_of_something_else_is_not_replaced(served, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"'thesis\.tex', which is not a submission"):
        archive.fetch_submissions(served(_zip({GOOD: b"{}"})), tmp_path / "x")


@pytest.mark.parametrize("url", ["http://localhost:1/x", "http://[", "https:///x"])
def test_a_server_that_does_not_answer(url, tmp_path):
    with pytest.raises(InputError, match="the download failed"):
        archive.fetch_submissions(url, tmp_path / "x")


def test_a_missing_archive(served, tmp_path):
    with pytest.raises(InputError, match="the server answered 404"):
        archive.fetch_submissions(served(b"").replace("archive", "other"), tmp_path / "x")


def test_the_board_is_built_from_a_url_and_refuses_what_it_holds(shelf, served, run_cli, tmp_path):
    files, db = _files(shelf), tmp_path / "b.db"
    wrong = next(name for name in files if name.endswith("record.json"))
    url = served(_tar(files | {wrong: b"{}"}))
    code, out, err = run_cli("leaderboard", "build", "--submissions", url, "--db", db)
    assert (code, out) == (1, f"1 submissions in {db}\n")
    assert f"{wrong.split('/')[0]}: left out: record.json" in err
    url = served(_tar(files))
    done = run_cli("leaderboard", "build", "--submissions", url, "--db", db)
    assert done == (0, f"2 submissions in {db}\n", "")
    assert _files(tmp_path / "b.db.submissions") == files


def test_serve_says_where_submissions_come_from_and_outlives_a_failed_download(
    shelf, served, run_cli, tmp_path, monkeypatch
):
    started = []

    def start(_program, command, environment):
        started.append((command, environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", start)
    db, folder = tmp_path / "b.db", tmp_path / "b.db.submissions"
    serve = ("leaderboard", "serve", "--db", db, "--submissions")
    gone = "http://localhost:1/submissions.zip"
    code, out, err = run_cli(*serve, gone)
    assert (code, out, started) == (2, "", [])
    assert err.startswith(f"error: {gone}: the download failed")
    code, out, err = run_cli(*serve, served(_zip(_files(shelf))))
    told = f"submissions: {folder}, database: {db}\n"
    assert (code, out, err) == (0, f"2 submissions in {db}\n{told}", "")
    code, out, err = run_cli(*serve, gone)
    assert (code, out) == (0, told)
    assert err.endswith("serving the database as it was\n")
    for command, environment in started:
        assert command[1:4] == ["-m", "streamlit", "run"]
        assert environment["XLT_BENCH_SUBMISSIONS"] == str(folder)
    assert run_cli(*serve, shelf)[1] == f"submissions: {shelf}, database: {db}\n"
