"""Vectors against plain transformers and numpy; what is written, and every refusal."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoTokenizer

import xlt_bench
from steered import DEVTEST, with_devtest
from tiny import load_model, save_model
from xlt_bench.errors import InputError
from xlt_bench.models.adapters import find_adapter
from xlt_bench.training.steer import SteerOptions, parse_layer, steer

CODES = {"de": "deu_Latn", "en": "eng_Latn", "sw": "swh_Latn"}


@pytest.fixture(scope="module")
def root(made_up_root, tmp_path_factory):
    """The made-up data with devtest, and NTREX in English and German."""
    folder = with_devtest(made_up_root, tmp_path_factory.mktemp("steer") / "data")
    place = folder / "ntrex" / "NTREX-128"
    place.mkdir(parents=True)
    for name in ("src.eng", "ref.deu"):
        (place / f"newstest2019-{name}.txt").write_text(f"{name} one\n{name} and two\n")
    return folder


def options(model, root, output, **more):
    usual = {"languages": ["de", "sw"], "dtype": "float32", "device": "cpu"}
    return SteerOptions(output, str(model), data_dir=str(root), **usual | more)


def means(model, folder, root, layer):
    """The mean over sentences of the mean state over tokens, by plain transformers, in float64."""
    tokenizer, found = AutoTokenizer.from_pretrained(folder), {}
    for code, name in CODES.items():
        path = root / "flores200_dataset" / "devtest" / f"{name}.devtest"
        rows = []
        for line in path.read_text().splitlines():
            ids = torch.tensor([tokenizer(line)["input_ids"]])
            with torch.no_grad():
                states = model(input_ids=ids, output_hidden_states=True).hidden_states[layer]
            rows.append(states[0].double().numpy().mean(axis=0))
        found[code] = np.mean(rows, axis=0)
    return found


def test_a_vector_is_the_difference_of_means(tiny_model, root, tmp_path):
    made = steer(options(tiny_model, root, tmp_path / "s", layer=3, scale=2.0))
    assert (made.languages, made.layer, made.notes) == (["de", "sw"], 3, [])
    wanted = means(load_model(tiny_model).eval(), tiny_model, root, 3)
    vectors = load_file(tmp_path / "s" / "steering.safetensors")
    assert set(vectors) == {"de", "sw"}
    for code, vector in vectors.items():
        assert vector.dtype == np.float32
        difference = wanted["en"] - wanted[code]
        np.testing.assert_allclose(vector, difference, atol=1e-5 * abs(difference).max())
    config = json.loads((tmp_path / "s" / "steering_config.json").read_text())
    assert (config["layer"], config["scale"], config["sentences"]) == (3, 2.0, 6)
    card = (tmp_path / "s" / "README.md").read_text()
    assert "alignment_languages:\n- de\n- sw\n" in card
    assert "6 English sentences of FLORES devtest" in card


def test_a_steered_adapter_is_copied(tiny_model, tiny_adapter, root, tmp_path):
    asked = options(None, root, tmp_path / "s", adapter=str(tiny_adapter))
    asked = SteerOptions(**{**vars(asked), "model": None})  # the one that the adapter names
    assert steer(asked).layer == 2  # half of four
    adapted = PeftModel.from_pretrained(load_model(tiny_model), str(tiny_adapter)).eval()
    wanted = means(adapted, tiny_model, root, 2)
    for code, vector in load_file(tmp_path / "s" / "steering.safetensors").items():
        difference = wanted["en"] - wanted[code]
        np.testing.assert_allclose(vector, difference, atol=1e-5 * abs(difference).max())
    found = find_adapter(str(tmp_path / "s"))
    assert found.under is not None
    assert found.under.sha256 == find_adapter(str(tiny_adapter)).sha256
    assert (found.under.folder / "README.md").read_text() == (
        tiny_adapter / "README.md"
    ).read_text()
    with pytest.raises(InputError, match="is a steering folder; give the adapter in it"):
        steer(options(tiny_model, root, tmp_path / "t", adapter=str(tmp_path / "s")))


def test_what_the_corpus_lacks_is_told(tiny_model, root, tmp_path, run_cli):
    argv = ["steer", "--model", tiny_model, "--corpus", "ntrex", "--languages", "de,jv,en"]
    argv += ["--data-dir", root, "--device", "cpu", "--output", tmp_path / "s"]
    code, out, err = run_cli(*argv)
    assert (code, "note: NTREX-128 has no jv: without a vector" in err) == (0, True)
    assert "vectors of 1 language at layer 2" in out
    assert "NTREX-128 has no jv: not steered" in (tmp_path / "s" / "README.md").read_text()
    with pytest.warns(UserWarning, match="NTREX-128 has no jv"):
        xlt_bench.steer(
            tmp_path / "t", tiny_model, corpus="ntrex", languages="de,jv", data_dir=root
        )
    assert find_adapter(str(tmp_path / "t")).sha256 == find_adapter(str(tmp_path / "s")).sha256


REFUSED = {
    "retrieval is measured on FLORES dev; choose flores-devtest or": {"corpus": "flores"},
    "unknown corpus 'devtest': did you mean 'flores-devtest'": {"corpus": "devtest"},
    "--scale must be a number up to 1,000,000, got nan": {"scale": float("nan")},
    "--layer must be a block from 1, or a share above 0 and up to 1.0, got 0": {"layer": 0},
    "a share above 0 and up to 1.0, got 16.0": {"layer": 16.0},
    "a share above 0 and up to 1.0, got nan": {"layer": float("nan")},
    "--layer must be between 1 and 4 for this model, got 5": {"layer": 5},
    "English has no vector; give another language": {"languages": ["en", "eng_Latn"]},
    "unknown language 'xx'": {"languages": ["xx"]},
    "--languages: NTREX-128 has no jv": {"languages": ["jv"], "corpus": "ntrex"},
    "jpn_Jpan.devtest is missing; get it with": {"languages": ["ja"]},
    "--batch-size must be 'auto' or at least 1, not '0'": {"batch_size": "0"},
    "unknown dtype 'int8'": {"dtype": "int8"},
    "no such folder": {"adapter": "/nowhere/at/all"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_wrong_option_is_one_line_and_leaves_no_folder(message, tiny_model, root, tmp_path):
    with pytest.raises(InputError) as told:
        steer(options(tiny_model, root, tmp_path / "s", **REFUSED[message]))
    assert message in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tiny_model, root, tmp_path):
    (tmp_path / "mine").write_text("text")
    with pytest.raises(InputError, match="is not empty; choose another --output"):
        steer(options(tiny_model, root, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_states_that_overflow_are_told(root, tmp_path):
    model = load_model(save_model(tmp_path / "model"))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(torch.inf)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="hidden states of en are not finite in float32"):
        steer(options(tmp_path / "model", root, tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_sentences_must_be_parallel(tiny_model, root, tmp_path):
    other = shutil.copytree(root, tmp_path / "data")
    path = other / "flores200_dataset" / "devtest" / f"{next(iter(DEVTEST))}.devtest"
    path.write_text("one line\n")
    with pytest.raises(InputError, match="FLORES devtest is not parallel"):
        steer(options(tiny_model, other, tmp_path / "s"))


def test_a_layer_is_a_block_or_a_share():
    assert [parse_layer(text) for text in ("16", "1", "0.5", "1.0")] == [16, 1, 0.5, 1.0]
    assert isinstance(parse_layer("1"), int)
    with pytest.raises(InputError, match=r"--layer must be a number such as 16 or 0.5, got 'mid'"):
        parse_layer("mid")
