"""Merging: the exact weighted sum of the two weight changes, chosen on dev."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tiny import byte_tokenizer, load_model, save_adapter
from xlt_bench.data.root import MINI
from xlt_bench.errors import InputError
from xlt_bench.models.adapter_card import alignment_languages
from xlt_bench.models.adapters import find_adapter
from xlt_bench.models.chat import set_chat_template
from xlt_bench.training.merge import MergeOptions, merge


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A task LoRA of rank 2 and an alignment LoRA of rank 3, with another scale."""
    task = save_adapter(tiny_model, tmp_path_factory.mktemp("task"), seed=2, r=2, lora_alpha=4)
    alignment = save_adapter(
        tiny_model, tmp_path_factory.mktemp("alignment"), seed=3, r=3, lora_alpha=12
    )
    (task / "README.md").write_text("---\nalignment_languages: [ja, sw]\n---\n")
    (alignment / "README.md").write_text("---\nalignment_languages: [sw, cy]\n---\n")
    return task, alignment


def _changed(model: Path, adapter: Path) -> dict[str, torch.Tensor]:
    base = load_model(model, torch.float64)
    whole = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    return {name: value.clone() for name, value in whole.state_dict().items()}


def _off_the_sum(model: Path, task: Path, alignment: Path, merged: Path, weight: float) -> float:
    """The largest difference of a merged weight from the base plus the weighted changes."""
    base = load_model(model, torch.float64).state_dict()
    t, a, m = (_changed(model, folder) for folder in (task, alignment, merged))
    return max(
        float(
            (m[n] - base[n] - weight * (t[n] - base[n]) - (1 - weight) * (a[n] - base[n]))
            .abs()
            .max()
        )
        for n in base
    )


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
        # "svd" reduces the sum, of rank 5, to rank 3: close, not equal.
        worst = _off_the_sum(tiny_model, task, alignment, out, 0.7)
        assert (worst < 1e-5) == (combination == "cat")
        assert alignment_languages(find_adapter(str(out))) == ["sw", "cy", "ja"]


@pytest.mark.parametrize(
    ("of_task", "of_alignment"),
    [
        ({"use_rslora": True}, {}),
        ({}, {"use_rslora": True}),
        ({"layers_to_transform": [0]}, {}),
        ({"layers_to_transform": [1]}, {"layers_to_transform": [1]}),
        ({"exclude_modules": ["up_proj"]}, {}),
        ({"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"up_proj": 7}}, {"use_rslora": True}),
    ],
    ids=str,
)
def test_what_the_task_s_configuration_says_does_not_bend_the_sum(
    tiny_model: Path, tmp_path: Path, of_task: dict[str, Any], of_alignment: dict[str, Any]
) -> None:
    task = save_adapter(tiny_model, tmp_path / "task", seed=2, r=2, lora_alpha=4, **of_task)
    alignment = save_adapter(
        tiny_model, tmp_path / "alignment", seed=3, r=3, lora_alpha=12, **of_alignment
    )
    out = tmp_path / "out"
    merge(MergeOptions(str(task), str(alignment), out, model=str(tiny_model)))
    assert _off_the_sum(tiny_model, task, alignment, out, 0.9) < 1e-5


@pytest.mark.parametrize(
    "more", [{"use_dora": True}, {"lora_bias": True}, {"modules_to_save": ["lm_head"]}], ids=str
)
def test_what_is_no_sum_is_refused(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path, more: dict[str, Any]
) -> None:
    other = save_adapter(tiny_model, tmp_path / "other", seed=2, r=2, lora_alpha=4, **more)
    for task, alignment in ((other, adapters[1]), (adapters[0], other)):
        options = MergeOptions(str(task), str(alignment), tmp_path / "out", model=str(tiny_model))
        with pytest.raises(InputError, match=f"uses {next(iter(more))}: .* cannot be merged"):
            merge(options)


def _with_embeddings(folder: Path, shift: float) -> Path:
    """Add the embeddings of the base to the file of an adapter, changed by `shift`."""
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    own = load_model(Path(base)).get_input_embeddings().weight.detach() + shift
    weights = folder / "adapter_model.safetensors"
    save_file(load_file(weights) | {"base_model.model.model.embed_tokens.weight": own}, weights)
    return folder


def test_embeddings_of_the_base_in_the_file_change_nothing(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    task = _with_embeddings(save_adapter(tiny_model, tmp_path / "task", seed=2), shift=0)
    merge(MergeOptions(str(task), str(adapters[1]), tmp_path / "out", model=str(tiny_model)))
    assert _off_the_sum(tiny_model, task, adapters[1], tmp_path / "out", 0.9) < 1e-5


@pytest.mark.parametrize("change", ["embeddings", "pissa"])
def test_what_changes_the_base_is_refused(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path, change: str
) -> None:
    if change == "pissa":
        other = save_adapter(tiny_model, tmp_path / "other", seed=2, init_lora_weights="pissa")
    else:
        other = _with_embeddings(save_adapter(tiny_model, tmp_path / "other", seed=2), shift=0.1)
    for task, alignment in ((other, adapters[1]), (adapters[0], other)):
        options = MergeOptions(str(task), str(alignment), tmp_path / "out", model=str(tiny_model))
        with pytest.raises(InputError, match="changes the base model's own weights"):
            merge(options)


def test_the_weight_is_chosen_on_dev(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    task, alignment = adapters
    options = MergeOptions(
        str(task), str(alignment), tmp_path / "out", weights=[0.5, 0.9], select_on="massive",
        model=str(tiny_model), limit=1, data_dir=str(MINI), device="cpu",
    )  # fmt: skip
    scores = merge(options)
    assert scores.keys() == {"0.5", "0.9"}
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert head["xlt_bench"]["merged"]["weight"] == float(max(scores, key=lambda w: scores[w]))
    assert head["xlt_bench"]["dev_scores"] == scores


def test_blocks_are_swapped_with_a_transition(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    """Against plain arithmetic on the whole weights, block by block."""
    base = load_model(tiny_model, torch.float64).state_dict()
    task, alignment = (_changed(tiny_model, folder) for folder in adapters)
    # The alignment adapter's share of the four blocks; the rest is the task's.
    for inner, blocks, transition, expected in (
        ("alignment", "2-3", 0, [0, 1, 1, 0]),
        ("alignment", "4", 2, [0, 1 / 3, 2 / 3, 1]),
        ("task", "2", 1, [0.5, 0, 0.5, 1]),
    ):
        out = tmp_path / f"{inner}-{blocks}"
        options = MergeOptions(
            str(adapters[0]), str(adapters[1]), out, model=str(tiny_model),
            transition=transition, **{f"{inner}_blocks": [blocks]},  # type: ignore[arg-type]
        )  # fmt: skip
        merge(options)
        merged = _changed(tiny_model, out)
        for name, own in base.items():
            if ".layers." in name:
                share = expected[int(name.split(".layers.")[1][0])]
                change = (1 - share) * (task[name] - own) + share * (alignment[name] - own)
            else:
                change = torch.zeros_like(own)
            torch.testing.assert_close(merged[name], own + change, rtol=0, atol=1e-6)
        head = yaml.safe_load((out / "README.md").read_text().split("---")[1])["xlt_bench"]
        assert head["merged"][f"{inner}_blocks"] in (blocks, f"{blocks}-{blocks}")
        assert head["merged"]["transition"] == transition


def test_the_weight_is_chosen_on_a_user_s_chats(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    """By the loss, against transformers' own on each chat; the languages weigh the same."""
    rows = [("de", "Eins?", "Zwei und drei."), ("de", "Vier?", "5"), ("sw", "Moja?", "Mbili.")]
    dev = tmp_path / "dev.jsonl"
    dev.write_text("".join(
        json.dumps({"language": code, "messages": [
            {"role": "user", "content": question}, {"role": "assistant", "content": answer},
        ]}) + "\n"
        for code, question, answer in rows
    ))  # fmt: skip
    out = tmp_path / "out"
    scores = merge(MergeOptions(
        str(adapters[0]), str(adapters[1]), out, weights=[0.2, 0.9], select_on=str(dev),
        model=str(tiny_model), device="cpu",
    ))  # fmt: skip
    model = PeftModel.from_pretrained(load_model(tiny_model), str(out)).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    set_chat_template(tokenizer, None)
    sums = {"de": [0.0, 0], "sw": [0.0, 0]}
    for code, question, answer in rows:
        asked = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        learned = [*tokenizer(answer, add_special_tokens=False)["input_ids"], 1]  # </s>
        ids = torch.tensor([[*prompt, *learned]])
        labels = torch.tensor([[-100] * len(prompt) + learned])
        with torch.no_grad():
            sums[code][0] += model(input_ids=ids, labels=labels).loss.item() * len(learned)
        sums[code][1] += len(learned)
    expected = -sum(total / tokens for total, tokens in sums.values()) / 2
    assert max(scores.values()) == pytest.approx(expected, rel=1e-4)
    dev.write_text("{}\n")
    with pytest.raises(InputError, match=r"dev\.jsonl line 1 needs a .language."):
        merge(MergeOptions(str(adapters[0]), str(adapters[1]), out, select_on=str(dev)))


def test_blocks_are_chosen_on_dev(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    """Each is scored with its own blocks: scoring one alone gives the same."""
    given: dict[str, Any] = {
        "select_on": "intents", "model": str(tiny_model), "limit": 1, "data_dir": str(MINI),
        "device": "cpu",
    }  # fmt: skip
    task, alignment = map(str, adapters)
    blocks = ["1-2", "3-4"]
    both = merge(MergeOptions(task, alignment, tmp_path / "a", alignment_blocks=blocks, **given))
    assert list(both) == blocks
    head = yaml.safe_load((tmp_path / "a" / "README.md").read_text().split("---")[1])
    chosen = head["xlt_bench"]["merged"]["alignment_blocks"]
    alone = tmp_path / "b"
    merge(MergeOptions(task, alignment, alone, alignment_blocks=[chosen], model=str(tiny_model)))
    one, other = (load_file(f / "adapter_model.safetensors") for f in (tmp_path / "a", alone))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_difference_of_a_reference_task_is_added(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    """AdaMergeX, against plain arithmetic on the whole weights."""
    target = save_adapter(tiny_model, tmp_path / "target", seed=4, r=2, lora_alpha=8)
    base = load_model(tiny_model, torch.float64).state_dict()
    task, there, here = (
        _changed(tiny_model, folder) for folder in (adapters[0], target, adapters[1])
    )
    for weights, weight in (((), 1.0), ((0.3,), 0.3)):
        out = tmp_path / f"out{weight}"
        options = MergeOptions(
            str(adapters[0]), None, out, weights, str(adapters[1]), str(target),
            model=str(tiny_model),
        )  # fmt: skip
        assert merge(options) == {}
        merged = _changed(tiny_model, out)
        for name, own in base.items():
            expected = task[name] + weight * (there[name] - here[name])
            torch.testing.assert_close(merged[name], expected, rtol=0, atol=1e-6)
            assert ".layers." in name or torch.equal(merged[name], own)
        head = yaml.safe_load((out / "README.md").read_text().split("---")[1])
        assert head["xlt_bench"]["merged"] == {
            "task": str(adapters[0]), "reference_source": str(adapters[1]),
            "reference_target": str(target), "weight": weight,
        }  # fmt: skip


@pytest.mark.parametrize("given", [None, "plain"])
def test_the_prompts_are_those_of_the_task_adapter(
    tiny_model: Path,
    adapters: tuple[Path, Path],
    tmp_path: Path,
    given: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from xlt_bench.models.lm import XltLM

    task = shutil.copytree(adapters[0], tmp_path / "task")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "<its own>{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(task)
    prompts: list[str] = []
    generate = XltLM.generate

    def noted(self: XltLM, texts: list[str], *args: Any) -> Any:
        prompts.extend(texts)
        return generate(self, texts, 1)

    monkeypatch.setattr(XltLM, "generate", noted)
    merge(MergeOptions(
        str(task), str(adapters[1]), tmp_path / "out", weights=[0.5], select_on="massive",
        model=str(tiny_model), limit=1, data_dir="mini", chat_template=given,
    ))  # fmt: skip
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json"} <= files
    own = AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert own.startswith("<its own>") == (given is None)
    assert prompts
    assert {text.startswith("<its own>") for text in prompts} == {given is None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": [1.5]}, "weight must be between 0 and 1, got 1.5"),
        ({"weights": [0.5, 0.9]}, "several weights need --select-on"),
        ({"select_on": "wmt23"}, "unknown task to select on 'wmt23'"),
        ({"combination": "ties"}, "unknown combination 'ties'"),
        ({"alignment": "/nowhere"}, "/nowhere"),
        ({"alignment": None}, "give --alignment, or both --reference-source and"),
        ({"reference_source": "x"}, "give --alignment, or both --reference-source and"),
        ({"alignment_blocks": ["3-2"]}, "blocks must be a range from 1 such as 5-12, got '3-2'"),
        ({"alignment_blocks": ["2-9"]}, "blocks must be between 1 and 4 for this model, got 2-9"),
        ({"alignment_blocks": ["1-2", "2-3"]}, "several ranges of blocks need --select-on"),
        ({"alignment_blocks": ["1"], "task_blocks": ["2"]}, "the other adapter has the rest"),
        ({"alignment_blocks": ["1"], "weights": [0.5]}, "and no weight: a block is one adapter's"),
        ({"alignment_blocks": ["1"], "combination": "linear"}, "use cat"),
        ({"transition": 1}, "--transition needs --alignment-blocks or --task-blocks"),
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
