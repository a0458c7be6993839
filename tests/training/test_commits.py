"""Trainings and merges on a model of a hub whose main branch moves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from loopback_hub import Hub
from xlt_bench.errors import InputError
from xlt_bench.models.adapters import base_of
from xlt_bench.training.merge import MergeOptions, merge
from xlt_bench.training.recipe import load_recipe
from xlt_bench.training.run import TrainOptions, train

CHANGES = [
    "task.units=[en]", "training.batch_size=2", "training.micro_batch_size=2",
    "training.max_steps=1", "training.eval_steps=1",
]  # fmt: skip


@pytest.fixture
def options(tmp_path: Path) -> Callable[[str], TrainOptions]:
    recipe = load_recipe("massive-baseline", CHANGES)

    def make(model: str) -> TrainOptions:
        return TrainOptions("massive-baseline", recipe, model, tmp_path / "lora", data_dir="mini")

    return make


def head_of(adapter: Path) -> dict[str, object]:
    """The metadata of an adapter's card."""
    return dict(yaml.safe_load((adapter / "README.md").read_text().split("---")[1]))


def test_an_adapter_names_the_commit_that_it_was_trained_on(
    loopback_hub: Hub, tiny_model: Path, tmp_path: Path, options: Callable[[str], TrainOptions]
) -> None:
    repository = loopback_hub.repository("org/tiny")
    old = repository.commit(tiny_model, "v1")
    adapter = train(options("org/tiny@v1"))
    head = head_of(adapter)
    assert head["base_model"] == "org/tiny"
    assert head["xlt_bench"]["base_revision"] == old  # type: ignore[index]
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", old)
    assert base_of([str(adapter)]) == f"org/tiny@{old}"

    changed = tmp_path / "changed"
    shutil.copytree(tiny_model, changed)
    weights = load_file(changed / "model.safetensors")
    negated = {name: -weight for name, weight in weights.items()}
    save_file(negated, changed / "model.safetensors", metadata={"format": "pt"})
    new = repository.commit(changed)
    with pytest.raises(InputError) as raised:
        train(options("org/tiny"))
    assert str(raised.value) == (
        f"{adapter} was started on commit {old} of org/tiny, and would continue on commit {new}; "
        f"pass --model org/tiny@{old}, or choose another --output"
    )
    assert train(options(f"org/tiny@{old}")) == adapter

    merged = tmp_path / "merged"
    merge(MergeOptions(str(adapter), str(adapter), merged))
    assert base_of([str(merged)]) == f"org/tiny@{old}"
    assert head_of(merged)["base_model"] == "org/tiny"
    merge(MergeOptions(str(adapter), str(adapter), tmp_path / "other", model="org/tiny"))
    assert base_of([str(tmp_path / "other")]) == f"org/tiny@{new}"
