"""Merging: the exact weighted sum of the two weight changes, chosen on dev."""

from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from xlt_bench.data.root import MINI
from xlt_bench.errors import InputError
from xlt_bench.merge import MergeOptions, merge
from xlt_bench.models.adapters import alignment_languages, find_adapter


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A task LoRA of rank 2 and an alignment LoRA of rank 3, with another scale."""
    folders = []
    for name, rank, alpha in (("task", 2, 4), ("alignment", 3, 12)):
        torch.manual_seed(rank)
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=["q_proj", "up_proj"],
            task_type="CAUSAL_LM", init_lora_weights=False,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp(name)
        get_peft_model(base, config).save_pretrained(folder)
        folders.append(folder)
    (folders[1] / "README.md").write_text("---\nalignment_languages: [sw, cy]\n---\n")
    return folders[0], folders[1]


def _changed(model: Path, adapter: Path) -> dict[str, torch.Tensor]:
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    whole = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    return {name: value.clone() for name, value in whole.state_dict().items()}


def test_the_merged_change_is_the_weighted_sum(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    task, alignment = adapters
    for combination in ("cat", "svd"):
        out = tmp_path / combination
        options = MergeOptions(
            str(task), str(alignment), out, weights=[0.7], combination=combination,
            model=str(tiny_model),
        )  # fmt: skip
        assert merge(options) == {}
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).state_dict()
        t, a, merged = (_changed(tiny_model, folder) for folder in (task, alignment, out))
        worst = max(
            (merged[n] - base[n] - 0.7 * (t[n] - base[n]) - 0.3 * (a[n] - base[n])).abs().max()
            for n in base
        )
        # "svd" keeps rank 2 or 3 of a sum of rank 5: close, not equal.
        assert (worst < 1e-5) == (combination == "cat")
        assert alignment_languages(find_adapter(str(out))) == ["sw", "cy"]


def test_the_weight_is_chosen_on_dev(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    task, alignment = adapters
    options = MergeOptions(
        str(task), str(alignment), tmp_path / "out", weights=[0.5, 0.9], select_on="massive",
        model=str(tiny_model), limit=1, data_dir=str(MINI), device="cpu",
    )  # fmt: skip
    scores = merge(options)
    assert scores.keys() == {0.5, 0.9}
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert head["xlt_bench"]["merged"]["weight"] == max(scores, key=lambda w: scores[w])
    assert head["xlt_bench"]["dev_scores"] == {f"{w:g}": s for w, s in scores.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": [1.5]}, "weight 1.5 is not between 0 and 1"),
        ({"weights": [0.5, 0.9]}, "several weights need --select-on"),
        ({"select_on": "wmt23"}, "unknown task to select on 'wmt23'"),
        ({"combination": "ties"}, "unknown combination 'ties'"),
        ({"alignment": "/nowhere"}, "/nowhere"),
    ],
)
def test_bad_input_is_one_line(
    tiny_model: Path,
    adapters: tuple[Path, Path],
    tmp_path: Path,
    change: dict[str, object],
    said: str,
) -> None:
    given = {"task": str(adapters[0]), "alignment": str(adapters[1]), "output": tmp_path / "out"}
    with pytest.raises(InputError) as error:
        merge(MergeOptions(**(given | {"model": str(tiny_model)} | change)))  # type: ignore[arg-type]
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()
