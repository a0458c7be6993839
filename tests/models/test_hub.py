"""Models and adapters of a hub on this machine: commits, and errors that say what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from loopback_hub import Hub
from tiny import load_model
from xlt_bench.errors import InputError
from xlt_bench.models.adapters import base_of, find_adapter
from xlt_bench.models.load import commit_of, load_base

MISSING = "a" * 40


@pytest.fixture(scope="session")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with other weights, as its next commit."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: -weight for name, weight in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def is_model(model: torch.nn.Module, folder: Path) -> bool:
    """Whether a model has the weights of a folder, as transformers loads them."""
    wanted = load_model(folder).state_dict()
    return all(torch.equal(weight, wanted[name]) for name, weight in model.state_dict().items())


def test_each_name_of_a_commit_loads_its_weights(
    loopback_hub: Hub, tiny_model: Path, other_model: Path
) -> None:
    repository = loopback_hub.repository("org/tiny")
    old = repository.commit(tiny_model, "v1")
    new = repository.commit(other_model)
    names = {
        "org/tiny": (new, other_model, "org/tiny"),
        f"org/tiny@{new[:8]}": (new, other_model, "org/tiny"),
        "org/tiny@v1": (old, tiny_model, "org/tiny@v1"),
        f"org/tiny@{old}": (old, tiny_model, "org/tiny"),
    }
    for name, (commit, folder, title) in names.items():
        base = load_base(name, "float32", "cpu")
        assert (base.name, base.revision, base.sha256) == (title, commit, None)
        assert is_model(base.model, folder)


def test_a_commit_is_loaded_also_if_main_moves(
    loopback_hub: Hub, tiny_model: Path, other_model: Path
) -> None:
    repository = loopback_hub.repository("org/tiny")
    commit = repository.commit(tiny_model)
    assert commit_of("org/tiny") == commit
    repository.commit(other_model)
    base = load_base("org/tiny", "float32", "cpu", commit=commit)
    assert base.revision == commit
    assert is_model(base.model, tiny_model)


def test_offline_a_name_is_what_it_was_when_it_was_loaded(
    loopback_hub: Hub,
    tiny_model: Path,
    other_model: Path,
    tiny_adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = loopback_hub.repository("org/tiny")
    commit = repository.commit(tiny_model)
    adapter = loopback_hub.repository("org/lora").commit(tiny_adapter)
    load_base("org/tiny", "float32", "cpu")
    find_adapter("org/lora")
    repository.commit(other_model)
    asked = len(loopback_hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    base = load_base("org/tiny", "float32", "cpu")
    assert base.revision == commit
    assert is_model(base.model, tiny_model)
    assert find_adapter("org/lora").revision == adapter
    assert loopback_hub.requests[asked:] == []
    with pytest.raises(
        InputError, match=r"not in the cache .* HF_HUB_OFFLINE is set; unset it, or"
    ):
        commit_of("org/other")


def test_without_a_connection_the_cache_is_used(
    loopback_hub: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = loopback_hub.repository("org/tiny").commit(tiny_model)
    assert commit_of("org/tiny") == commit
    nowhere = "http://127.0.0.1:9"  # the port of `discard`, on which nothing listens
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # between attempts
    assert commit_of("org/tiny") == commit
    with pytest.raises(InputError, match=r"127.0.0.1:9\) cannot be reached, and it is not in the"):
        commit_of("org/other")


def test_an_adapter_has_its_commit(loopback_hub: Hub, tiny_adapter: Path) -> None:
    repository = loopback_hub.repository("org/lora")
    old = repository.commit(tiny_adapter)
    new = repository.commit(tiny_adapter, "v2")
    assert find_adapter("org/lora").revision == new
    assert find_adapter(f"org/lora@{old[:10]}").revision == old
    assert find_adapter(str(tiny_adapter)).revision is None


def _served(hub: Hub, model: Path, adapter: Path) -> None:
    hub.repository("org/tiny").commit(model)
    hub.repository("org/lora").commit(adapter)
    hub.repository("org/gated", gated=True).commit(model)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("org/gated", "access is restricted; accept its terms at {hub}/org/gated, then log in"),
        ("org/missing", "no such repository on the hub, or a private one; check the name"),
        ("org/tiny@nope", "it has no revision nope; see its branches and tags at {hub}/org/tiny"),
        (f"org/tiny@{MISSING}", f"it has no revision {MISSING}"),
    ],
)
@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_the_hub_s_reason_is_told(
    loopback_hub: Hub, tiny_model: Path, tiny_adapter: Path, kind: str, name: str, says: str
) -> None:
    _served(loopback_hub, tiny_model, tiny_adapter)
    find: Callable[[str], object] = commit_of if kind == "model" else find_adapter
    with pytest.raises(InputError) as raised:
        find(name)
    said = str(raised.value)
    assert said.startswith(f"{kind} {name}: ")
    assert says.format(hub=loopback_hub.address) in said
    assert "\n" not in said


def test_an_adapter_given_as_a_model_and_the_reverse(
    loopback_hub: Hub, tiny_model: Path, tiny_adapter: Path
) -> None:
    _served(loopback_hub, tiny_model, tiny_adapter)
    for name in ("org/lora", str(tiny_adapter)):
        with pytest.raises(InputError, match=r"is a PEFT adapter .* pass it as --adapter"):
            commit_of(name)
    for name in ("org/tiny", str(tiny_model)):
        with pytest.raises(InputError, match=r"is a model .* pass it as --model"):
            find_adapter(name)


def test_a_model_with_an_adapter_beside_it_is_refused(
    loopback_hub: Hub, tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(tiny_model, both)
    for path in tiny_adapter.iterdir():
        shutil.copy(path, both)
    loopback_hub.repository("org/both").commit(both)
    # transformers applies the adapter without a word.
    assert load_model(both)._hf_peft_config_loaded
    for name in (str(both), "org/both"):
        with pytest.raises(InputError, match="has an adapter beside its weights"):
            load_base(name, "float32", "cpu")


def test_a_cache_that_cannot_be_written(
    loopback_hub: Hub, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loopback_hub.repository("org/tiny").commit(tiny_model)
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"the cache cannot be written: .* set HF_HOME"):
        commit_of("org/tiny")


@pytest.fixture
def names(tiny_adapter: Path, tmp_path: Path) -> Callable[..., str]:
    """Adapters that name a base model; the folder of each."""

    def make(folder: str, **config: object) -> str:
        place = tmp_path / folder
        shutil.copytree(tiny_adapter, place)
        path = place / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return str(place)

    return make


def test_the_base_is_the_one_that_the_adapter_names(
    loopback_hub: Hub, names: Callable[..., str], tiny_model: Path
) -> None:
    local = names("local", base_model_name_or_path=str(tiny_model), revision="ignored")
    hub = names("hub", base_model_name_or_path="org/tiny")
    pinned = names("pinned", base_model_name_or_path="org/tiny", revision="v1")
    loopback_hub.repository("org/lora").commit(Path(pinned))
    assert base_of([local]) == str(tiny_model)
    assert base_of([hub]) == "org/tiny"
    assert base_of([pinned, "org/lora"]) == "org/tiny@v1"
    with pytest.raises(InputError, match=r"names the base model org/tiny, and .* org/tiny@v1"):
        base_of([hub, pinned])


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("/data/llama", "trained on /data/llama, which is not on this machine; give the base"),
        ("out/run/checkpoint", "trained on out/run/checkpoint, which is not on this machine"),
        ("a\nb", "trained on a b, which is not on this machine"),
        (None, "names no base model; give it with --model"),
        (7, "names no base model; give it with --model"),
    ],
)
def test_a_base_that_cannot_be_found(names: Callable[..., str], named: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        base_of([names("lora", base_model_name_or_path=named)])
