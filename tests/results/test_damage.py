"""Run folders of killed processes, a full disk, and files in which a byte has changed."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from xlt_bench.errors import InputError
from xlt_bench.evaluation.build_record import read_progress
from xlt_bench.evaluation.predict import _checksums, _layer_states
from xlt_bench.results.atomic_write import part_file
from xlt_bench.results.record import Plan
from xlt_bench.results.run_folder import (
    Prediction,
    check_free,
    open_run,
    read_digests,
    read_layer,
    read_plan,
    read_predictions,
    write_bytes,
    write_layer,
    write_predictions,
)

PLAN = Plan(
    model="base", model_revision=None, model_sha256=None, adapter=None, adapter_sha256=None,
    dtype="float32", template="plain", template_sha256="0", limit=None, layers=[],
    units={"massive": ["de"]}, task_versions={"massive": 1},
)  # fmt: skip


def test_a_run_killed_before_or_between_its_first_files_resumes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    handle, _ = part_file(run / "plan.json")
    os.close(handle)  # as the system does when a process is killed
    check_free(run)
    open_run(run, PLAN, {"massive/de": "ab"})
    (run / "items.json").unlink()
    open_run(run, PLAN, {"massive/de": "ab"})
    assert read_digests(run) == {"massive/de": "ab"}
    with pytest.raises(InputError, match="other items of massive/de"):
        open_run(run, PLAN, {"massive/de": "cd"})
    # A run that had answers before digests were stored stays without them.
    (run / "items.json").unlink()
    (run / "predictions").mkdir()
    open_run(run, PLAN, {"massive/de": "cd"})
    assert read_digests(run) == {}


DIFFERENCES = {
    "was started with version 1 of massive, the current version is 2; choose another --output": {
        "task_versions": {"massive": 2}, "units": {"massive": ["de", "ko"]},
    },
    "was started with other units: de of massive only there, ko of massive only now": {
        "units": {"massive": ["ko"]},
    },
    "was started with other units: de en of retrieval only now": {
        "units": {"massive": ["de"], "retrieval": ["de", "en"]},
        "task_versions": {"massive": 1, "retrieval": 1},
    },
    "was started with other layers: [] there, [2, 4] now": {"layers": [2, 4]},
    "was started with another dtype: \"float32\" there, \"bfloat16\" now": {"dtype": "bfloat16"},
}  # fmt: skip


@pytest.mark.parametrize("told", DIFFERENCES)
def test_the_difference_from_the_plan_of_a_run_is_named(told: str, tmp_path: Path) -> None:
    open_run(tmp_path / "run", PLAN, {})
    with pytest.raises(InputError) as found:
        open_run(tmp_path / "run", PLAN.model_copy(update=DIFFERENCES[told]), {})
    assert told in str(found.value)
    assert read_plan(tmp_path / "run") == PLAN


def test_of_two_evaluations_started_at_once_one_sees_the_other(tmp_path: Path) -> None:
    def start(model: str) -> None:
        together.wait(600)
        try:
            open_run(run, PLAN.model_copy(update={"model": model}), {"massive/de": model})
        except InputError as error:
            refused[model] = str(error)

    for i in range(20):
        run, together = tmp_path / str(i), threading.Barrier(2)
        refused: dict[str, str] = {}
        threads = [threading.Thread(target=start, args=(model,)) for model in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ((loser, said),) = refused.items()
        winner = "two" if loser == "one" else "one"
        assert "was started with another model" in said
        assert (read_plan(run).model, read_digests(run)) == (winner, {"massive/de": winner})


@pytest.mark.parametrize("call", ["mkstemp", "fsync"])
def test_a_full_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkstemp" if call == "mkstemp" else "os.fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_bytes(tmp_path / "answers", b"x")
    assert error.value.filename == str(tmp_path / "answers")
    assert list(tmp_path.iterdir()) == []


def changed(data: bytes) -> list[bytes]:
    """The data with one byte changed, or cut off, at every position."""
    flips = [data[:i] + bytes([data[i] ^ 0x55]) + data[i + 1 :] for i in range(len(data))]
    return flips + [data[:i] for i in range(len(data))]


def assert_damage_is_reported(path: Path, read: Callable[[Path], Any], whole: Any) -> None:
    """Check that reading damaged data gives what was written or, mostly, an InputError."""
    data = path.read_bytes()
    reported = []
    for bad in changed(data):
        path.write_bytes(bad)
        try:
            assert read(path) == whole
        except InputError as error:
            reported.append(str(error))
    assert len(reported) > len(data)
    assert all(line.startswith(f"{path} is damaged") for line in reported)


def test_damaged_answers_are_never_taken_for_answers(tmp_path: Path) -> None:
    path = tmp_path / "de.jsonl.zst"
    answers = [Prediction(str(i), f"song : {i * 7919 % 1000}", False) for i in range(20)]
    write_predictions(path, answers)
    assert_damage_is_reported(path, read_predictions, answers)


def test_damaged_neighbours_are_never_taken_for_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "layer-002.parquet"
    table = {("de", "en"): [i * 7919 % 50 for i in range(50)], ("en", "de"): [*range(50)]}
    write_layer(path, table)
    assert_damage_is_reported(path, read_layer, table)


@pytest.mark.parametrize("read", [read_predictions, read_layer])
def test_missing_answers_are_reported_as_missing(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    path = tmp_path / "de"
    with pytest.raises(InputError, match=f"{path} is missing; run the same evaluate command again"):
        read(path)


def test_damaged_states_are_never_taken_for_states(tmp_path: Path) -> None:
    path = tmp_path / "de.safetensors"
    layers = {"2": torch.arange(12.0).reshape(3, 4)}
    write_bytes(path, save(layers, _checksums(layers)))
    assert_damage_is_reported(
        path, lambda path: _layer_states(path.parent, "de", 2).tolist(), layers["2"].tolist()
    )


def test_a_damaged_progress_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "progress" / "massive_de.json"
    write_bytes(path, b'{"seconds": 1.0, "ba')
    with pytest.raises(InputError, match=r"massive_de\.json is damaged"):
        read_progress(tmp_path)
