"""Models with code or files that must not be loaded."""

import json
import shutil
import uuid
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from xlt_bench.cli.main import app
from xlt_bench.errors import InputError
from xlt_bench.evaluation.build_record import answering_model
from xlt_bench.models.load import load_base, meta_model


@pytest.fixture
def with_code(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose code writes a file `ran` next to its folder."""
    # transformers keeps modules by their folder's name, and runs one once.
    folder = tmp_path / f"model-{uuid.uuid4().hex}"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    config |= {"model_type": "own", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "class OwnConfig(LlamaConfig):\n"
        "    model_type = 'own'\n"
        "class Own(LlamaForCausalLM):\n"
        "    config_class = OwnConfig\n"
    )
    return folder


def test_code_of_a_model_is_not_run_unless_asked(with_code: Path) -> None:
    ran = with_code.with_name("ran")
    for load in (meta_model, lambda name: load_base(name, "float32", "cpu")):
        with pytest.raises(InputError, match="add --trust-remote-code to run it") as refused:
            load(str(with_code))
        assert "\n" not in str(refused.value)
    assert not ran.exists()
    assert type(meta_model(str(with_code), True)).__name__ == "Own"
    base = load_base(str(with_code), "float32", "cpu", True)
    assert type(base.model).__name__ == "Own"
    assert base.trust_remote_code
    assert ran.exists()


def test_the_record_says_that_code_of_the_model_was_trusted(
    with_code: Path, tmp_path: Path
) -> None:
    words = ["evaluate", "--model", str(with_code), "--output", str(tmp_path / "run")]
    words += ["--data-dir", "mini", "--tasks", "massive", "--languages", "sw", "--limit", "2"]
    words += ["--chat-template", "plain"]
    without = CliRunner().invoke(app, words)
    assert isinstance(without.exception, InputError)
    done = CliRunner().invoke(app, [*words, "--trust-remote-code"])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["plan"]["trust_remote_code"] is True
    assert any("--trust-remote-code" in note for note in record["notes"])


def _changed(tiny_model: Path, folder: Path, **config: object) -> str:
    shutil.copytree(tiny_model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return str(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 5}, "lack 9 of the weights .* model.layers.4"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers.*many"),
        ({"hidden_size": 64}, "size mismatch|mismatched"),
        ({"model_type": "no-such"}, "no-such"),
    ],
)
def test_a_config_that_the_weights_do_not_fit(
    tiny_model: Path, tmp_path: Path, config: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said) as refused:
        load_base(_changed(tiny_model, tmp_path / "model", **config), "float32", "cpu")
    assert "\n" not in str(refused.value)


def test_names_of_architectures_are_not_needed(tiny_model: Path, tmp_path: Path) -> None:
    for i, odd in enumerate((5, [], None, [5])):
        base = load_base(_changed(tiny_model, tmp_path / str(i), architectures=odd), "auto", "cpu")
        assert answering_model(base).model.architecture == "LlamaForCausalLM"


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
