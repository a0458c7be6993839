"""Adapters with files that cannot be read are refused in one line, without a traceback."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from xlt_bench.errors import InputError
from xlt_bench.evaluation.config import Options, run_folder
from xlt_bench.models.adapter_card import alignment_languages
from xlt_bench.models.adapters import find_adapter


@pytest.fixture
def adapter(tiny_adapter, tmp_path):
    return shutil.copytree(tiny_adapter, tmp_path / "adapter")


@pytest.mark.parametrize("text", ["[]", "null", "5"])
def test_a_configuration_that_is_no_object(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match=r"adapter_config\.json is not a JSON object"):
        find_adapter(str(adapter))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"r": ' + "9" * 9000 + "}"])
def test_a_configuration_that_json_chokes_on(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read") as refused:
        find_adapter(str(adapter))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["adapter_config.json", "README.md"])
def test_a_file_that_is_far_too_large(adapter, name):
    (adapter / name).write_text(" " * 5_000_000)
    with pytest.raises(InputError, match=f"{name} is larger than 4 MB"):
        alignment_languages(find_adapter(str(adapter)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(adapter, value):
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors[min(tensors)][0, 0] = value
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match="has NaN or infinite values"):
        find_adapter(str(adapter))


def test_pickled_weights_are_not_opened(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    with pytest.raises(InputError, match="only pickled weights") as refused:
        find_adapter(str(adapter))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["..", ".", "adapters/..", "other/../..", "not there/.."])
def test_an_adapter_by_dots_is_written_within_the_output(name, tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    (folder / "adapters").mkdir(parents=True)
    (folder / "other").mkdir()
    monkeypatch.chdir(folder)
    options = Options(model="embedded", adapters=[name, "x/second"], output=tmp_path / "out")
    assert run_folder(options, name).resolve().parent == tmp_path / "out"
