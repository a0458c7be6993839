"""Tests artifact stores in data sets of the hub, against a hub on this machine."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from loopback_hub import Hub
from xlt_bench.errors import InputError
from xlt_bench.submissions.artifacts import Stores, write
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.schema import Artifact

pytest.importorskip("fsspec")
DATA = b"some answers"
ARTIFACT = Artifact(sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA))
TOKEN = "hf_" + "x" * 30
STORE = "hf://datasets/ada/answers"


@pytest.fixture
def hub(loopback_hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """A hub with the artifact, and a user who is logged in."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    write(str(tmp_path / "store"), DATA)
    loopback_hub.repository("datasets/ada/answers").commit(tmp_path / "store", "v1")
    return loopback_hub


def read(address: str = STORE, artifact: Artifact = ARTIFACT) -> bytes:
    return Stores((address,), pause=0).read(artifact, "massive/de")


def refusal(address: str = STORE, artifact: Artifact = ARTIFACT) -> str:
    with pytest.raises(InputError) as error:
        read(address, artifact)
    text = str(error.value)
    assert text.startswith(f"massive/de: artifact {artifact.sha256[:12]}: ")
    assert "\n" not in text
    assert TOKEN not in text
    assert "xyz" not in text
    return text


def test_an_artifact_is_read_from_a_data_set(hub: Hub) -> None:
    assert read() == read(f"{STORE}@v1") == DATA
    place = f"{ARTIFACT.sha256[:2]}/{ARTIFACT.sha256}"
    assert f"GET /datasets/ada/answers/resolve/main/{place}" in hub.requests
    assert f"GET /datasets/ada/answers/resolve/v1/{place}" in hub.requests


def test_a_submission_is_checked_with_answers_from_the_hub(
    loopback_hub: Hub,
    make_run: Callable[..., Path],
    made_up_root: Path,
    tmp_path: Path,
    run_cli: Callable[..., tuple[int, str, str]],
) -> None:
    run, store = make_run(tmp_path / "run", adapter="lora"), tmp_path / "store"
    folder = submit(run, About(), tmp_path / "to", made_up_root, artifacts=str(store)).folder
    loopback_hub.repository("datasets/ada/answers").commit(store)
    given = ("--artifacts", STORE, "--data-dir", made_up_root)
    code, out, _ = run_cli("submissions", "check", folder, *given)
    assert (code, "1 checked" in out) == (0, True)
    read = [one for one in loopback_hub.requests if "/resolve/" in one]
    assert len(read) == len([path for path in store.rglob("*") if path.is_file()])


def test_files_that_another_host_delivers(hub: Hub) -> None:
    """As the real hub does for large files; that host is not shown the token."""
    hub.delivery = hub.address.removeprefix("http://").replace("127.0.0.1", "localhost")
    assert read() == DATA
    asked = hub.address.removeprefix("http://")
    assert hub.told == {(asked, f"Bearer {TOKEN}"), (hub.delivery, None)}


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", b"x" * len(DATA)])
def test_other_bytes_are_refused(data: bytes, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "store" / ARTIFACT.sha256[:2] / ARTIFACT.sha256).write_bytes(data)
    hub.repository("datasets/ada/answers").commit(tmp_path / "store")
    fault = "it ended after" if len(data) < len(DATA) else f"{STORE} has other bytes"
    assert fault in refusal()


def test_what_is_missing(hub: Hub, tmp_path: Path) -> None:
    other = Artifact(sha256="a" * 64, size=len(DATA))
    assert f"it is missing in {STORE}" in refusal(artifact=other)
    write(str(tmp_path / "store"), b"more answers")
    assert "revision not found" in refusal(f"{STORE}@v2")
    hub.repository("datasets/ada/secret", gated=True)
    for name in ("none", "secret"):
        said = refusal(f"hf://datasets/ada/{name}")
        assert f"hf://datasets/ada/{name}: repository not found; if it is private" in said
        assert "hf auth login" in said


def test_an_artifact_that_was_missing_is_found_when_it_is_uploaded(
    hub: Hub, tmp_path: Path
) -> None:
    more = b"more answers"
    late = Artifact(sha256=hashlib.sha256(more).hexdigest(), size=len(more))
    assert "it is missing" in refusal(artifact=late)
    write(str(tmp_path / "store"), more)
    hub.repositories["datasets/ada/answers"].commit(tmp_path / "store")
    assert read(artifact=late) == more


@pytest.mark.parametrize("fault", ["500", "interrupted"])
def test_a_hub_that_fails(fault: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.delivery = hub.address.removeprefix("http://").replace("127.0.0.1", "localhost")
    hub.fault = fault
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert f"reading it from {STORE} failed" in refusal()
    hub.fault = ""
    assert read() == DATA


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert f"reading it from {STORE} failed (ConnectError: " in refusal()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"reading it from {STORE} failed (OfflineModeIsEnabled: " in refusal()


def test_nothing_is_written_to_the_hub(hub: Hub) -> None:
    with pytest.raises(InputError, match="hf upload USER/NAME FOLDER --repo-type dataset"):
        write(STORE, DATA)
    assert hub.requests == []
