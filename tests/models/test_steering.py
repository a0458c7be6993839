"""What steers adds its vector to one block's states and is gone afterwards; damaged folders."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steered import config_of, random_vectors, save_steering
from tiny import load_model, save_adapter
from xlt_bench.errors import InputError
from xlt_bench.models.adapter_fit import check_adapter
from xlt_bench.models.adapter_switch import AdapterSwitch
from xlt_bench.models.adapters import base_of, find_adapter
from xlt_bench.models.load import commit_of, load_base, meta_model

IDS = torch.tensor([[0, 5, 9, 40, 78, 6]])


def switch_for(model, *folders):
    """A switch with the adapters in these folders, and their files."""
    found = [find_adapter(str(folder)) for folder in folders]
    fits = {one.name: check_adapter(one, meta_model(str(model)), "tiny") for one in found}
    return AdapterSwitch(load_model(model).eval(), "tiny", fits), found


def states(model):
    """What blocks 1 to 4 read, so that item i is the output of block i, and the logits."""
    read = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
        for name, module in model.named_modules()
        if name.rpartition("layers.")[2] in "0123" and "layers." in name
    ]
    read.append(logits(model))
    for hook in hooks:
        hook.remove()
    return read


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_the_vector_is_added_to_the_output_of_its_block_alone(tiny_model, tmp_path):
    vectors = random_vectors("de", "sw")
    folder = save_steering(tmp_path / "s", tiny_model, vectors, scale=0.5)
    switch, (found,) = switch_for(tiny_model, folder)
    bare = states(switch.use(None))
    model = switch.use(found)
    assert all(torch.equal(a, b) for a, b in zip(states(model), bare, strict=True))  # no language
    for code, away, sign in (("de", False, 1), ("sw", False, 1), ("sw", True, -1)):
        switch.steering.use(code, away)
        moved = states(model)
        for layer in (0, 1, 2):
            assert torch.equal(moved[layer], bare[layer])
        assert torch.equal(moved[3], bare[3] + sign * 0.5 * vectors[code])
        assert not torch.allclose(moved[4], bare[4])
    switch.steering.use("ja")  # has no vector
    assert torch.equal(states(model)[4], bare[4])


def test_the_hook_is_gone_with_the_adapter(tiny_model, tiny_adapter, tmp_path):
    folder = save_steering(tmp_path / "s", tiny_model, random_vectors("de"))
    switch, (steering, lora) = switch_for(tiny_model, folder, tiny_adapter)
    bare, adapted = logits(switch.use(None)), logits(switch.use(lora))
    model = switch.use(steering)
    switch.steering.use("de")
    assert not torch.equal(logits(model), bare)
    assert torch.equal(logits(switch.use(lora)), adapted)
    assert torch.equal(logits(switch.use(None)), bare)
    assert switch.steering is None
    model = switch.use(steering)
    switch.steering.use("de")
    assert torch.equal(logits(switch.use(steering)), bare)  # it begins without a language


def test_an_adapter_below_is_loaded_too(tiny_model, tmp_path):
    vectors, folder = random_vectors("de"), tmp_path / "s"
    save_steering(folder, tiny_model, vectors)
    save_adapter(tiny_model, folder / "adapter", seed=4)
    below = find_adapter(str(folder / "adapter"))
    config = config_of(tiny_model, adapter_sha256=below.sha256)
    (folder / "steering_config.json").write_text(json.dumps(config))
    switch, (found, alone) = switch_for(tiny_model, folder, folder / "adapter")
    adapted = states(switch.use(alone))
    model = switch.use(found)
    switch.steering.use("de")
    assert torch.equal(states(model)[3], adapted[3] + vectors["de"])


def test_the_digest_is_of_all_that_changes_answers(tiny_model, tmp_path):
    changes = {
        "same": {},
        "note": {"sentences": 7},
        "layer": {"layer": 2},
        "scale": {"scale": 2.0},
    }
    digests = {}
    for name, change in changes.items():
        folder = save_steering(tmp_path / name, tiny_model, random_vectors("de"), **change)
        digests[name] = find_adapter(str(folder)).sha256
    folder = save_steering(tmp_path / "vectors", tiny_model, random_vectors("de", size=2.0))
    digests["vectors"] = find_adapter(str(folder)).sha256
    assert digests["same"] == digests["note"]
    assert len(set(digests.values())) == 4


def test_the_folder_names_its_base_model(tiny_model, tmp_path):
    folder = save_steering(tmp_path / "s", tiny_model, random_vectors("de"))
    assert base_of([str(folder)]) == str(tiny_model)
    with pytest.raises(InputError, match=r"is a steering folder .* pass it as --adapter"):
        commit_of(str(folder))


def test_a_folder_of_the_hub_steers(loopback_hub, tiny_model, tmp_path):
    below = save_adapter(tiny_model, tmp_path / "s" / "adapter", seed=4)
    stated = {"adapter_sha256": find_adapter(str(below)).sha256}
    folder = save_steering(tmp_path / "s", tiny_model, random_vectors("de"), **stated)
    commit = loopback_hub.repository("org/steered").commit(folder)
    found = find_adapter("org/steered")
    assert (found.revision, found.sha256) == (commit, find_adapter(str(folder)).sha256)
    assert found.under.config["peft_type"] == "LORA"
    assert base_of(["org/steered"]) == str(tiny_model)
    with pytest.raises(InputError, match=r"is a steering folder .* pass it as --adapter"):
        load_base("org/steered", "float32", "cpu")


ONE = random_vectors("de")
# What the folder holds, and what the error says.
DAMAGED = {
    "no scale": ({"scale": None}, ONE, "steering_config.json: scale: Field required"),
    "no layer": ({"layer": None}, ONE, "steering_config.json: layer: Field required"),
    "layer of text": ({"layer": "3"}, ONE, "steering_config.json: layer: Input should be a valid"),
    "layer 0": ({"layer": 0}, ONE, "layer: Input should be greater than or equal to 1"),
    "scale NaN": ({"scale": float("nan")}, ONE, "scale: Input should be a finite number"),
    "scale of 1e9": ({"scale": 1e9}, ONE, "scale: Input should be less than or equal to 1000000"),
    "sentences": ({"sentences": 10**12}, ONE, "sentences: Input should be less than or equal to"),
    "another key": ({"bias": 1}, ONE, "bias: Extra inputs are not permitted"),
    "another corpus": ({"corpus": "flores"}, ONE, "corpus: Input should be 'flores-devtest' or"),
    "layer above": ({"layer": 5}, ONE, "it steers layer 5, and the model has layers 1 to 4"),
    "width": ({}, random_vectors("de", width=33), "its vectors have 33 values, "),
    "widths": ({}, {**ONE, "sw": torch.ones(31)}, "sw in steering.safetensors has 31 values"),
    "NaN": ({}, {"de": torch.full((32,), torch.nan)}, "de .* values that are not finite numbers"),
    "integers": ({}, {"de": torch.ones(32, dtype=torch.int64)}, "not finite numbers"),
    "matrix": ({}, {"de": torch.ones(32, 2)}, r"has shape \[32, 2\] and is not a vector"),
    "a number": ({}, {"de": torch.tensor(1.0)}, r"has shape \[\] and is not a vector"),
    "no language": ({}, {"../x\n": torch.ones(32)}, r"\.\./x in .* is not the code of a language"),
    "no vectors": ({}, {}, "steering.safetensors has no vectors"),
    "too long": ({}, {"de": torch.full((32,), 1e30)}, "vectors are longer than 1e[+]12, scaled"),
    "another adapter": ({"adapter_sha256": "a" * 64}, ONE, "does not hold the weights that"),
}


def _use(model, folder):
    switch, (found,) = switch_for(model, folder)
    switch.use(found)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_folder_is_one_line(name, tiny_model, tmp_path):
    change, vectors, message = DAMAGED[name]
    folder = save_steering(tmp_path / "s", tiny_model, vectors, **change)
    config = config_of(tiny_model, **change)
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "steering_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message) as told:
        _use(tiny_model, folder)
    assert "\n" not in str(told.value)


def _cut(folder: Path) -> None:
    path = folder / "steering.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _itself(folder: Path) -> None:
    (folder / "adapter").symlink_to(folder)


def _as_peft(folder: Path) -> None:
    (folder / "steering_config.json").rename(folder / "adapter_config.json")
    (folder / "steering.safetensors").rename(folder / "adapter_model.safetensors")


FILES = {
    "cut": (_cut, "cannot be read: .*"),
    "no vectors": (lambda f: (f / "steering.safetensors").unlink(), "has no steering.safetensors"),
    "a list": (
        lambda f: (f / "steering_config.json").write_text("[]"),
        "steering_config.json is not a JSON object",
    ),
    "no JSON": (lambda f: (f / "steering_config.json").write_text("{"), "cannot be read"),
    "deep": (lambda f: (f / "steering_config.json").write_text("[" * 100_000), "cannot be read"),
    "huge": (
        lambda f: (f / "steering_config.json").write_text(" " * 5_000_000),
        "larger than 4 MB",
    ),
    "a kind of peft": (_as_peft, "unknown peft_type of adapter"),
    "two kinds": (lambda f: (f / "adapter_config.json").write_text("{}"), "peft would not steer"),
    "itself": (_itself, "is a steering folder itself"),
    "an empty adapter": (lambda f: (f / "adapter").mkdir(), "has no adapter_config.json"),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_one_line(name, tiny_model, tmp_path):
    damage, message = FILES[name]
    folder = save_steering(tmp_path / "s", tiny_model, ONE)
    damage(folder)
    with pytest.raises(InputError, match=message) as told:
        _use(tiny_model, folder)
    assert "\n" not in str(told.value)


def test_a_vector_of_gigabytes_is_refused_unread(tiny_model, tmp_path):
    folder = save_steering(tmp_path / "s", tiny_model, ONE)
    save_file({"de": torch.zeros(1_000_001)}, folder / "steering.safetensors")
    with pytest.raises(InputError, match=r"has shape \[1000001\] and is not a vector"):
        find_adapter(str(folder))
