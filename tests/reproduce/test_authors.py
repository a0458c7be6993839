"""`xlt-bench reproduce --authors-adapters` with stand-ins behind a hub on this machine.

They have the names, the architectures and the numbers of layers of the real ones.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from loopback_hub import Hub
from tiny import byte_tokenizer, save_adapter
from xlt_bench.errors import InputError
from xlt_bench.reproduce.steps import Project, Settings, reproduction, steps
from xlt_bench.results.run_folder import read_record
from xlt_bench.tasks.registry import get_text_task

LLAMA, QWEN = "meta-llama/Meta-Llama-3-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
LAYERS = {LLAMA: 32, QWEN: 28}
RunCli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(loopback_hub: Hub, tmp_path: Path) -> Hub:
    """Both base models and their eight adapters."""
    for seed, (name, layers) in enumerate(LAYERS.items()):
        sizes = {
            "vocab_size": 259, "hidden_size": 16, "intermediate_size": 16, "eos_token_id": 1,
            "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1,
            "bos_token_id": 0, "max_position_embeddings": 4096,
        }  # fmt: skip
        folder = tmp_path / "models" / name
        model = (
            LlamaForCausalLM(LlamaConfig(**sizes))
            if name == LLAMA
            else Qwen2ForCausalLM(Qwen2Config(**sizes))
        )
        model.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        loopback_hub.repository(name).commit(folder)
        base = name.rpartition("/")[2]
        for task in ("SF", "MT"):
            for kind in ("baseline", "mid-align"):
                lora = f"danniliu/{base}-{task}-{kind}-LoRA"
                saved = save_adapter(folder, tmp_path / "adapters" / lora, seed=seed)
                loopback_hub.repository(lora).commit(saved)
    return loopback_hub


@pytest.mark.slow
@pytest.mark.parametrize("model", [LLAMA, QWEN])
def test_the_published_adapters_are_evaluated_and_nothing_is_trained(
    model: str, hub: Hub, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("massive", "wmt23"):
        monkeypatch.setattr(get_text_task(task), "max_new_tokens", 2)
    out = tmp_path / "out"
    words = ["--model", model, "--output", out, "--limit", 1, "--data-dir", "mini", "--yes"]
    code, said, error = run_cli("reproduce", "table2", "--authors-adapters", *words)
    assert code == 0, error
    assert not (out / "adapters").exists()
    base, records = model.rpartition("/")[2], {}
    for path in sorted(out.glob("evaluations/*/*/record.json")):
        record = read_record(path.parent)
        assert record.plan.model == model
        records[f"{path.parts[-3]}/{path.parts[-2]}"] = (record.plan.adapter, record.plan.template)
    template = "llama3-midalign" if model == LLAMA else "plain"
    assert records == {f"base/{task}": (None, template) for task in ("retrieval", "wmt23")} | {
        f"{recipe}.seed1/{task}": (f"danniliu/{base}-{name}-LoRA", template)
        for recipe, name, own in (
            ("massive-baseline", "SF-baseline", "massive"),
            ("massive-align-middle", "SF-mid-align", "massive"),
            ("wmt23-baseline", "MT-baseline", "wmt23"),
            ("wmt23-align-middle", "MT-mid-align", "wmt23"),
        )
        for task in (own, "retrieval")
    }
    layers = json.loads((out / "evaluations/base/retrieval/plan.json").read_text())["layers"]
    assert layers == list(range(2, LAYERS[model] + 1, 2))
    page = (out / "table2.md").read_text()
    measured = [line for line in page.splitlines() if f"{base}, measured" in line]
    assert len(measured) == 6
    assert "61.7" in page  # published: Llama 3, aligned, transfer
    # Once done, nothing is left to do.
    code, said, _ = run_cli("reproduce", "table2", "--authors-adapters", *words)
    assert "0 steps to do" in said


def test_an_evaluation_names_the_hubs_adapter_and_the_template(tmp_path: Path) -> None:
    wanted = reproduction("table12", authors_adapters=True)
    for model, template in ((f"{LLAMA}@main", ["--chat-template", "llama3-midalign"]), (QWEN, [])):
        project = Project(Settings(model, tmp_path / "out", authors_adapters=True))
        commands = [project.command(step) for step in steps(wanted, 1, train=False)]
        base = model.partition("@")[0].rpartition("/")[2]
        for command, kind in zip(commands, ("baseline", "mid-align"), strict=True):
            words = command.split()
            assert words[:4] == ["xlt-bench", "evaluate", "--model", model]
            assert f"--adapter danniliu/{base}-MT-{kind}-LoRA" in command
            assert [w for w in words if w in ("--chat-template", "llama3-midalign")] == template


def test_rows_without_a_published_adapter_are_left_out() -> None:
    whole, kept = reproduction("table11"), reproduction("table11", authors_adapters=True)
    assert [row.label for row in whole.parts[0].rows] == ["SFT", "align (middle)", "align (top)"]
    assert [row.label for row in kept.parts[0].rows] == ["SFT", "align (middle)"]
    assert {step.what for step in steps(kept, 1, train=False)} == {"evaluate massive"}
    with pytest.raises(InputError, match="no adapter of table8; they did for table2, table3"):
        reproduction("table8", authors_adapters=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "embedded"}, "adapters of Meta-Llama-3-8B-Instruct and Qwen2.5-7B-Instruct"),
        ({"model": LLAMA, "seeds": 2}, "leave out --seeds, --steps and --set"),
        ({"model": LLAMA, "steps": 5}, "leave out --seeds, --steps and --set"),
        ({"model": LLAMA, "changes": ("lora.r=2",)}, "leave out --seeds, --steps and --set"),
    ],
)
def test_what_makes_no_sense_without_training_is_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Project(Settings(output=tmp_path, authors_adapters=True, **settings))
