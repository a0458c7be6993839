"""Replaces COMET's environment: our worker runs, on a fake `comet` that is quick."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

_COMET = """
import json, os, pathlib
HERE = pathlib.Path(__file__).parent

def download_model(name, local_files_only=False):
    try:
        raise ConnectionError("the hub is far away")
    except ConnectionError:
        raise KeyError("Model not supported by COMET.")

class Model:
    def predict(self, samples, **_options):
        left = json.loads((HERE / "left.json").read_text())
        if left == 0:
            os.kill(os.getpid(), 9)
        (HERE / "left.json").write_text(json.dumps(left and left - 1))
        with (HERE / "log.jsonl").open("a") as log:
            log.write(json.dumps(samples) + "\\n")
        print("noise")
        wrong = (HERE / "nan").exists()
        return {"scores": [float("nan") if wrong else len(s["mt"]) / 64 for s in samples]}

def load_from_checkpoint(path, local_files_only=False):
    assert local_files_only and os.environ["HF_HUB_OFFLINE"] == "1"
    if "junk" in pathlib.Path(path).read_text():
        raise ValueError("no such\\nkey")
    return Model()
"""
_TORCH = "class cuda:\n    is_available = staticmethod(lambda: False)\n"


class FakeComet:
    """Scores a hypothesis by its length over 64, and logs each call of `predict`."""

    def __init__(self, folder: Path) -> None:
        self.modules = folder / "modules"
        info = self.modules / "unbabel_comet-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unbabel-comet\nVersion: 0.1\n")
        (self.modules / "comet.py").write_text(_COMET)
        (self.modules / "torch.py").write_text(_TORCH)
        self.python = folder / "python"
        paths = [str(self.modules), *sys.path]
        environ = f"PYTHONPATH={shlex.quote(os.pathsep.join(filter(None, paths)))}"
        self.python.write_text(
            f'#!/bin/sh\nshift\nexec env {environ} {shlex.quote(sys.executable)} "$@"\n'
        )
        self.python.chmod(0o755)
        self.dies_after(None)

    def dies_after(self, calls: int | None) -> None:
        """Have the worker killed after this many calls; None: never."""
        (self.modules / "left.json").write_text(json.dumps(calls))

    def gives_nan(self) -> None:
        (self.modules / "nan").touch()

    @property
    def calls(self) -> list[list[dict[str, str]]]:
        path = self.modules / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def fake_comet(tmp_path, monkeypatch) -> FakeComet:
    fake = FakeComet(tmp_path / "fake")
    monkeypatch.setenv("XLT_BENCH_COMET", str(fake.python))
    return fake


@pytest.fixture
def make_checkpoint(tmp_path):
    """Writes a folder in the form of COMET's checkpoints."""

    def make(name: str, text: str) -> Path:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "model.ckpt").write_text(text)
        (folder / "hparams.yaml").write_text("class_identifier: regression_metric\n")
        return folder

    return make


@pytest.fixture
def checkpoint(make_checkpoint):
    return make_checkpoint("checkpoint", "weights")
