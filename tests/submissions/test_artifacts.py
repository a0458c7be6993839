"""Tests artifact stores: a folder, a loopback server and fsspec's memory in the place of S3."""

import hashlib
import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from retrieval_forms import with_neighbours
from xlt_bench.errors import InputError
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.store.build import build, connect
from xlt_bench.store.on_demand import answers
from xlt_bench.submissions.artifacts import Stores, checked_address, read_stores, write
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.move import move
from xlt_bench.submissions.preview import preview
from xlt_bench.submissions.report import list_submissions
from xlt_bench.submissions.rescore import check
from xlt_bench.submissions.schema import Artifact
from xlt_bench.submissions.validate import open_package

DATA = b"some answers"
OURS = Path(__file__).parents[2] / "submissions" / "artifacts"
ARTIFACT = Artifact(sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA))


@pytest.fixture(scope="module")
def made(make_run, made_up_root, tmp_path_factory):
    """Two submissions with hits and one with neighbours, and the run of the last."""
    folder = tmp_path_factory.mktemp("made")
    names = []
    for seed, adapter in ((1, "one"), (2, "two"), (3, "older")):
        run = make_run(folder / adapter, seed, adapter=adapter)
        names.append(submit(run, About(), folder / "submissions", made_up_root).folder.name)
    names[2] = with_neighbours(folder / "submissions" / names[2], run).name
    return folder / "submissions", names


@pytest.fixture
def submissions(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "submissions")


class Handler(BaseHTTPRequestHandler):
    """Serves `server.folder`; `server.fault` makes it fail, `server.asked` has the paths."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        path = self.server.folder / self.path.lstrip("/")
        fault = self.server.fault
        if fault == "500" or not path.is_file():
            self.send_response(500 if fault else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "interrupted":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif fault == "wrong":
            self.wfile.write(bytes(len(data)))
        else:
            self.wfile.write(data)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    found = ThreadingHTTPServer(("localhost", 0), Handler)
    found.folder, found.fault, found.asked = tmp_path / "store", None, []
    threading.Thread(target=found.serve_forever, daemon=True).start()
    found.address = f"http://localhost:{found.server_port}"
    yield found
    found.shutdown()
    found.server_close()


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def rows(db, view):
    with connect(db) as store:
        return store.execute(f"SELECT * FROM {view} ORDER BY ALL").fetchall()


def test_nothing_is_lost_when_answers_are_moved(submissions, made, made_up_root, tmp_path):
    """Every file is in the store by its sha256; ids, records, scores and the board stay."""
    folder, names = made
    assert build(submissions, tmp_path / "before").loaded == 3
    for name in names:
        before = files(folder / name)
        moved = {n: data for n, data in before.items() if "/" in n}
        assert move(submissions / name, str(tmp_path / "store")) == len(moved) == 7
        for data in moved.values():
            digest = hashlib.sha256(data).hexdigest()
            assert (tmp_path / "store" / digest[:2] / digest).read_bytes() == data
        after = files(submissions / name)
        assert after.keys() == before.keys() - moved.keys() | {"accuracies.parquet"}
        assert after["record.json"] == before["record.json"]
        about, was = (json.loads(one["submission.json"]) for one in (after, before))
        assert about["record_sha256"] == was["record_sha256"]
        assert about["contents"] == was["contents"]
    (submissions / "stores.txt").write_text("../store\n")
    for name in names:
        assert check(submissions / name, made_up_root).state == "checked"
    assert build(submissions, tmp_path / "after").loaded == 3
    for view in ("scores", "split_means", "layer_curves", "pair_accuracies", "gain_means"):
        assert rows(tmp_path / "after", view) == rows(tmp_path / "before", view)


def test_a_store_beside_the_submissions_that_a_clone_leaves_out(
    submissions, made, made_up_root, tmp_path, run_cli
):
    asked = (*made[1][:2], "massive", "de", str(made_up_root))
    before = answers(submissions, *asked)
    store = submissions / "artifacts"
    code, out, _ = run_cli("submissions", "move", store, submissions)
    assert (code, out.count(" files are in ")) == (0, 3)
    (submissions / "stores.txt").write_text("artifacts\n")
    names = sorted(made[1])
    assert [path.name for path in list_submissions([submissions])] == names
    code, out, _ = run_cli("submissions", "check", submissions, "--data-dir", made_up_root)
    assert (code, out.splitlines()[-1]) == (0, "3 checked")
    assert answers(submissions, *asked) == before
    # The copy with unsubmitted runs reads from it, and has no copy of it.
    preview([], submissions, tmp_path / "copy", made_up_root)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [*names, "stores.txt"]
    assert answers(tmp_path / "copy", *asked) == before
    shutil.rmtree(store)
    built = build(submissions, tmp_path / "db")
    assert (built.loaded, built.refused) == (3, [])
    with pytest.raises(InputError) as error:
        answers(submissions, *asked)
    line = str(error.value)
    assert line.startswith("massive/de: artifact ")
    assert line.endswith(
        f"it is missing in {store}; if this clone leaves it out, get it with: "
        "git sparse-checkout disable"
    )
    report = check(submissions / names[0], made_up_root)
    assert (report.state, "git sparse-checkout disable" in report.detail) == ("refused", True)


@pytest.mark.skipif(not OURS.is_dir(), reason="this clone leaves the answers out")
def test_the_store_of_this_repository_has_what_its_submissions_name():
    named = {
        f"{one['sha256'][:2]}/{one['sha256']}": one["sha256"]
        for path in OURS.parent.glob("*/submission.json")
        for one in (json.loads(path.read_text())["artifacts"] or {}).values()
    }
    there = {
        path.relative_to(OURS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in OURS.rglob("*")
        if path.is_file()
    }
    assert there == named
    assert read_stores(OURS.parent).addresses == (str(OURS),)


def test_the_same_answers_side_by_side(submissions, made, made_up_root, tmp_path, server):
    asked = (*made[1][:2], "massive", "de", str(made_up_root))
    before = answers(submissions, *asked)
    for name in made[1]:
        move(submissions / name, str(server.folder))
    (submissions / "stores.txt").write_text(f"{server.address}\n")
    assert answers(submissions, *asked) == before
    assert len(server.asked) == 2  # and no other file


def test_a_check_reads_from_a_server(submissions, made, made_up_root, server, run_cli):
    folder = submissions / made[1][0]
    move(folder, str(server.folder))
    given = ("--artifacts", server.address, "--data-dir", made_up_root)
    code, out, _ = run_cli("submissions", "check", folder, *given)
    assert (code, "1 checked" in out) == (0, True)
    assert sorted(server.asked) == sorted(
        f"/{one.sha256[:2]}/{one.sha256}"
        for one in open_package(folder).submission.artifacts.values()
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("wrong", "localhost:PORT has other bytes under this digest"),
        ("interrupted", "failed"),
        ("500", "failed"),
        (None, "it is missing in http://localhost:PORT"),
    ],
)
def test_a_store_that_fails_is_one_line(fault, message, server):
    server.fault = fault
    if fault:
        write(str(server.folder), DATA)
    with pytest.raises(InputError) as error:
        Stores((server.address,), pause=0).read(ARTIFACT, "massive/de")
    text = str(error.value)
    assert text.startswith(f"massive/de: artifact {ARTIFACT.sha256[:12]}: ")
    assert message.replace("PORT", str(server.server_port)) in text
    assert "\n" not in text
    assert len(server.asked) == (3 if fault in ("interrupted", "500") else 1)


def test_an_interrupted_download_succeeds_when_it_is_tried_again(server, monkeypatch):
    write(str(server.folder), DATA)
    server.fault = "interrupted"
    monkeypatch.setattr("time.sleep", lambda _: setattr(server, "fault", None))
    assert Stores((server.address,)).read(ARTIFACT, "massive/de") == DATA


def test_the_next_store_is_asked(server, tmp_path):
    """One that lacks the artifact or has other bytes does not stand in the way."""
    write(str(tmp_path / "second"), DATA)
    stores = Stores((server.address, str(tmp_path / "second")), pause=0)
    assert stores.read(ARTIFACT, "massive/de") == DATA
    write(str(server.folder), DATA)
    server.fault = "wrong"
    assert stores.read(ARTIFACT, "massive/de") == DATA


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", b"x" * len(DATA)])
def test_wrong_bytes_in_a_folder(data, tmp_path):
    path = tmp_path / ARTIFACT.sha256[:2] / ARTIFACT.sha256
    write_bytes(path, data)
    with pytest.raises(InputError, match="has other bytes under this digest"):
        Stores((str(tmp_path),)).read(ARTIFACT, "massive/de")


def test_a_link_in_a_folder_is_not_followed(tmp_path):
    path = tmp_path / ARTIFACT.sha256[:2] / ARTIFACT.sha256
    path.parent.mkdir()
    (tmp_path / "elsewhere").write_bytes(DATA)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is not a regular file"):
        Stores((str(tmp_path),)).read(ARTIFACT, "massive/de")


def _artifact(**changed):
    return lambda about: about["artifacts"]["massive/de"].update(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_artifact(sha256="../../../etc/passwd"), "artifacts.massive/de.sha256"),
        (_artifact(sha256="A" * 64), "artifacts.massive/de.sha256"),
        (_artifact(sha256="a" * 63), "artifacts.massive/de.sha256"),
        (_artifact(size=0), "artifacts.massive/de.size"),
        (_artifact(size=1 << 40), "artifacts.massive/de.size"),
        (_artifact(url="http://10.0.0.1/"), "artifacts.massive/de.url"),
        (_artifact(size=1 << 20), "has other bytes under this digest"),
        (_artifact(sha256="a" * 64), "artifact aaaaaaaaaaaa: it is missing in"),
        (lambda about: about["artifacts"].pop("massive/de"), "artifacts: massive/de is missing"),
        (
            lambda about: about["artifacts"].update({"a/b": about["artifacts"]["massive/de"]}),
            "artifacts: a/b is missing, or not in the plan",
        ),
        (
            lambda about: [one.update(size=16 << 20) for one in about["artifacts"].values()],
            "has other bytes",
        ),
        (lambda about: about.update(stores=["http://10.0.0.1/"]), "stores"),
    ],
)
def test_hostile_submissions(change, message, submissions, made, made_up_root, tmp_path, edit):
    folder = submissions / made[1][0]
    move(folder, str(tmp_path / "store"))
    (submissions / "stores.txt").write_text("../store\n")
    edit(folder / "submission.json", change)
    report = check(folder, made_up_root)
    assert report.state == "refused"
    assert message in report.detail
    assert "\n" not in report.detail


def test_all_artifacts_of_a_submission_have_a_limit(submissions, made, monkeypatch, tmp_path):
    folder = submissions / made[1][0]
    move(folder, str(tmp_path / "store"))
    size = sum(one.size for one in open_package(folder).submission.artifacts.values())
    monkeypatch.setattr("xlt_bench.submissions.validate.MAX_STORED", size - 1)
    with pytest.raises(InputError, match=f"artifacts have {size:,} bytes; the limit is"):
        open_package(folder)


def test_another_submissions_answers_are_not_taken(submissions, made, made_up_root, tmp_path):
    """Bytes that a store has, but not those that `contents` digests."""
    first, second = (submissions / name for name in made[1][:2])
    for folder in (first, second):
        move(folder, str(tmp_path / "store"))
    (submissions / "stores.txt").write_text("../store\n")
    about, other = (json.loads((f / "submission.json").read_text()) for f in (first, second))
    about["artifacts"]["massive/de"] = other["artifacts"]["massive/de"]
    (first / "submission.json").write_text(json.dumps(about))
    assert "massive/de has digest" in check(first, made_up_root).detail


def test_answers_without_a_store(submissions, made, made_up_root, tmp_path):
    folder = submissions / made[1][0]
    move(folder, str(tmp_path / "store"))
    report = check(folder, made_up_root)
    assert report.state == "refused"
    assert "is in an artifact store: name the store in stores.txt" in report.detail
    assert build(submissions, tmp_path / "db").loaded == 3  # it needs no answers


@pytest.mark.parametrize(
    "address",
    ["", " ", "ftp://x/y", "file:///etc", "https://u:p@x/y", "https://x/y?token=1", "s3://a::zip://b",
     "hf://datasets/a b", "python://x", "a\nb", "x" * 301],
)  # fmt: skip
def test_addresses_that_are_not_of_a_store(address, tmp_path):
    with pytest.raises(InputError, match="is not the address of an artifact store") as error:
        checked_address(address)
    assert "u:p" not in str(error.value)
    (tmp_path / "stores.txt").write_text("https://x/y\nftp://x\n")
    with pytest.raises(InputError, match=r"stores\.txt line 2"):
        read_stores(tmp_path)


def test_folders_in_stores_are_relative_and_what_is_given_comes_first(tmp_path):
    (tmp_path / "stores.txt").write_text("../here/\nhttps://example.org/x/\n\n")
    found = read_stores(tmp_path, ["given"]).addresses
    assert found == ("given", f"{tmp_path}/../here", "https://example.org/x")
    assert read_stores(tmp_path / "none").addresses == ()


@pytest.mark.parametrize("end", ["accuracies.parquet", "submission.json"])
def test_an_interrupted_move_is_completed(
    end, submissions, made, made_up_root, tmp_path, monkeypatch
):
    folder = submissions / made[1][2]

    def stop(path, data):
        write_bytes(path, data)
        if path.name == end:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for module in ("submissions.move", "results.run_folder"):
            patch.setattr(f"xlt_bench.{module}.write_bytes", stop)
        with pytest.raises(KeyboardInterrupt):
            move(folder, str(tmp_path / "store"))
    assert files(folder).keys() > {"predictions/massive/de.jsonl.zst"}
    move(folder, str(tmp_path / "store"))
    (submissions / "stores.txt").write_text("../store\n")
    assert check(folder, made_up_root).state == "checked"


def test_damaged_answers_are_not_moved(submissions, made, tmp_path):
    folder = submissions / made[1][0]
    names = ("uner/da", "massive/sw")
    first, second = (folder / "predictions" / f"{name}.jsonl.zst" for name in names)
    second.write_bytes(first.read_bytes())
    before = files(folder)
    with pytest.raises(InputError, match="massive/sw has digest"):
        move(folder, str(tmp_path / "store"))
    assert files(folder) == before
    assert not (tmp_path / "store").exists()


def test_a_run_is_submitted_to_a_store(make_run, made_up_root, tmp_path, run_cli):
    run = make_run(tmp_path / "run", adapter="lora")
    given = ("--submissions", tmp_path / "submissions", "--data-dir", made_up_root)
    code, _, _ = run_cli("submit", run, *given, "--artifacts", tmp_path / "store")
    assert code == 0
    (folder,) = (tmp_path / "submissions").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "submission.json", "record.json", "counts.parquet", "accuracies.parquet",
    }  # fmt: skip
    assert check(folder, made_up_root, stores=Stores((str(tmp_path / "store"),))).state == "checked"
    code, out, _ = run_cli("submit", run, *given, "--artifacts", tmp_path / "store")
    assert (code, "already holds these answers" in " ".join(out.split())) == (0, True)


@pytest.mark.parametrize("store", ["https://example.org/x", "hf://datasets/ada/answers"])
def test_a_store_that_cannot_be_written_to(store, make_run, made_up_root, tmp_path, run_cli):
    run = make_run(tmp_path / "run", adapter="lora")
    given = ("--submissions", tmp_path / "submissions", "--data-dir", made_up_root)
    code, _, err = run_cli("submit", run, *given, "--artifacts", store)
    assert (code, "nothing can be written to" in err) == (2, True)
    assert list((tmp_path / "submissions").iterdir()) == []


def test_another_file_system_of_fsspec(submissions, made, made_up_root, monkeypatch):
    """Its memory, registered as S3, whose package is not a dependency."""
    registry = pytest.importorskip("fsspec.registry")
    from fsspec.implementations.memory import MemoryFileSystem

    class Memory(MemoryFileSystem):
        protocol = "s3"

    monkeypatch.setattr(Memory, "store", {})
    monkeypatch.setitem(registry._registry, "s3", Memory)
    folder = submissions / made[1][0]
    move(folder, "s3://bucket/answers")
    assert check(folder, made_up_root, stores=Stores(("s3://bucket/answers",))).state == "checked"
    with pytest.raises(InputError, match="it is missing in s3://other"):
        Stores(("s3://other",)).read(ARTIFACT, "massive/de")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match=r"pip install 'xlt-bench\[artifacts\]'"):
        Stores(("https://example.org/x",)).read(ARTIFACT, "massive/de")


def test_answers_are_copied_from_store_to_store(submissions, made, tmp_path, run_cli):
    folder = submissions / made[1][0]
    move(folder, str(tmp_path / "theirs"))
    before = files(folder)
    asked = ("submissions", "move", tmp_path / "ours", folder)
    code, out, _ = run_cli(*asked, "--artifacts", tmp_path / "theirs")
    assert (code, "7 files are in" in " ".join(out.split())) == (0, True)
    assert files(folder) == before
    stored = {p.name for p in Path(tmp_path / "ours").rglob("*") if p.is_file()}
    assert stored == {p.name for p in Path(tmp_path / "theirs").rglob("*") if p.is_file()}
