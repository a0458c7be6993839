"""Models that bring what must not be run or read."""

import json
from pathlib import Path

import pytest
import torch

from xlt_bench.errors import InputError
from xlt_bench.models.load import load_base, meta_model


def test_code_of_a_model_is_not_run(tiny_model: Path, tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}
    config |= {"model_type": "evil", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    for load in (meta_model, lambda name: load_base(name, "float32", "cpu")):
        with pytest.raises(InputError) as refused:
            load(str(folder))
        assert "\n" not in str(refused.value)
    assert not marker.exists()


def test_pickled_weights_are_not_read(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors") as refused:
        load_base(str(folder), "float32", "cpu")
    assert "\n" not in str(refused.value)
