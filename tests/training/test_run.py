"""Trainings of a tiny model: killed and resumed, on several processes, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    MixtralConfig,
    OlmoeConfig,
    PhiConfig,
    Qwen2Config,
)

import tiny
from forked import run_forked, run_ranks
from xlt_bench.errors import InputError
from xlt_bench.models.adapter_card import alignment_languages
from xlt_bench.models.adapter_fit import check_adapter
from xlt_bench.models.adapter_switch import AdapterSwitch
from xlt_bench.models.adapters import find_adapter
from xlt_bench.models.chat import set_chat_template
from xlt_bench.models.load import meta_model
from xlt_bench.models.tokenizer import choose_chat
from xlt_bench.training import run
from xlt_bench.training.batches import encode_data
from xlt_bench.training.objectives import objectives_of, read_texts
from xlt_bench.training.recipe import parse_recipe
from xlt_bench.training.run import TrainOptions, _last_checkpoint, train
from xlt_bench.training.trainer import seal

PROGRAM = str(Path(sys.executable).with_name("xlt-bench"))
MINI = Path(__file__).resolve().parents[2] / "xlt_bench" / "data" / "mini"
RECIPE = {
    "title": "A tiny training",
    "task": {"name": "massive", "units": ["en", "es"]},
    "alignment": {"data": "massive", "pairs": ["ru-en", "zh-en"]},
    "training": {"batch_size": 8, "micro_batch_size": 4, "epochs": 2, "eval_steps": 4},
}
Killed = Callable[..., dict[str, str]]  # a fixture of conftest.py
RunCli = Callable[..., tuple[int, str, str]]  # another


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def _command(recipe: Path, model: Path, output: Path, *more: str) -> list[str]:
    options = ["--model", str(model), "--output", str(output), "--data-dir", str(MINI), *more]
    return ["train", str(recipe), *options]


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    quiet = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    # Fails if a process waits for another forever; on a busy machine a run takes minutes.
    return subprocess.run(
        words,
        env=os.environ | quiet | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )


def _losses(output: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    names = ("task_loss", "alignment_loss", "eval_task_loss", "eval_alignment_loss")
    return [{k: v for k, v in row.items() if k in names} for row in rows]


def test_a_chat_template_that_is_given_stays_with_the_adapter(
    recipe_file: Path, tiny_model: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    own, given = tmp_path / "own", tmp_path / "given"
    quick = ("--set", "training.max_steps=1")
    assert run_cli(*_command(recipe_file, tiny_model, own, *quick))[0] == 0
    assert not (own / "chat_template.jinja").exists()
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}<{{ m.content }}>\r\n{% endfor %}", newline="")
    words = _command(recipe_file, tiny_model, given, *quick, "--chat-template", str(template))
    assert run_cli(*words)[0] == 0
    trained = json.loads((given / "training.json").read_text())["template_sha256"]
    chat = choose_chat(str(tiny_model), find_adapter(str(given)), None, None, {})
    assert (chat.template.name, chat.template.sha256) == ("adapter", trained)


def test_a_killed_training_ends_as_an_undisturbed_one(
    recipe_file: Path, tiny_model: Path, tmp_path: Path, killed_before: Killed, run_cli: RunCli
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    steps = ("--set", "training.max_steps=14")
    assert run_cli(*_command(recipe_file, tiny_model, whole, *steps))[0] == 0
    # The incomplete checkpoint must not be resumed from.
    cut_short = killed_before("checkpoint-8/files.json")
    words = _command(recipe_file, tiny_model, killed, *steps)
    assert run_forked(tuple(words), tmp_path / "logs", **cut_short).code == -signal.SIGKILL
    assert (killed / "checkpoints" / "checkpoint-8" / "adapter_model.safetensors").exists()
    assert not (killed / "adapter_model.safetensors").exists()

    assert run_cli(*_command(recipe_file, tiny_model, killed, *steps))[0] == 0
    first, second = (load_file(f / "adapter_model.safetensors") for f in (whole, killed))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)
    assert _losses(whole) == _losses(killed)
    assert (whole / "README.md").read_text() == (killed / "README.md").read_text()
    assert not (killed / "checkpoints").exists()
    # As if killed after writing the weights, before removing the checkpoints.
    (killed / "checkpoints" / "checkpoint-4").mkdir(parents=True)

    # A finished training is left as it is; another one is refused, naming the difference.
    assert run_cli(*_command(recipe_file, tiny_model, killed, *steps))[0] == 0
    assert not (killed / "checkpoints").exists()
    code, _, err = run_cli(*_command(recipe_file, tiny_model, killed, *steps, "--set", "lora.r=4"))
    assert code == 2
    assert err.splitlines()[-1] == (
        f"error: {killed} holds another training (recipe.lora.r differs); choose another --output"
    )


def _checkpoints(output: Path, best_of: dict[int, int]) -> dict[int, Path]:
    """Checkpoints by step, each with the step of the best one so far."""
    folders = {step: output / "checkpoints" / f"checkpoint-{step}" for step in best_of}
    for step, folder in folders.items():
        folder.mkdir(parents=True)
        state = {"best_model_checkpoint": f"/elsewhere/checkpoint-{best_of[step]}"}
        (folder / "trainer_state.json").write_text(json.dumps(state))
        (folder / "adapter_model.safetensors").write_bytes(b"weights of %d" % step)
        seal(folder)
    return folders


@pytest.mark.parametrize(
    ("spoiled", "goes_on_from"), [(None, 8), (8, 6), (6, 8), (4, None)], ids=str
)
def test_training_goes_on_from_whole_checkpoints_alone(
    tmp_path: Path, spoiled: int | None, goes_on_from: int | None
) -> None:
    folders = _checkpoints(tmp_path, {4: 4, 6: 4, 8: 4})
    if spoiled:
        file = folders[spoiled] / "adapter_model.safetensors"
        file.write_bytes(bytes(file.stat().st_size))
    found = _last_checkpoint(tmp_path)
    assert found == (str(folders[goes_on_from]) if goes_on_from else None)
    if goes_on_from:
        state = json.loads((folders[goes_on_from] / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(folders[4])
        assert _last_checkpoint(tmp_path) == found


def test_the_adapter_fits_its_base_and_its_card_says_what_it_is(
    tiny_model: Path, tmp_path: Path
) -> None:
    recipe = parse_recipe(RECIPE, "tiny")
    options = TrainOptions("tiny", recipe, str(tiny_model), tmp_path / "out", str(MINI))
    adapter = find_adapter(str(train(options)))
    check_adapter(adapter, meta_model(str(tiny_model)), str(tiny_model))
    assert alignment_languages(adapter) == ["ru", "zh"]
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert head["xlt_bench"]["alignment_layers"] == [2]
    assert head["xlt_bench"]["seed"] == 1
    assert head["xlt_bench"]["data_digests"].keys() == {"task", "task_dev", "alignment"}
    losses = _losses(tmp_path / "out")
    # Each objective has its own losses in the log, and they fall.
    for name in ("eval_task_loss", "task_loss", "alignment_loss"):
        values = [row[name] for row in losses if name in row]
        assert values[-1] < values[0]
    assert any("eval_alignment_loss" in row for row in losses)
    # Run again it is finished, unless its weights have changed.
    assert train(options) == tmp_path / "out"
    weights = tmp_path / "out" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="one of them is damaged"):
        train(options)


def test_logging_the_gradients_cosine_changes_no_weight(tiny_model: Path, tmp_path: Path) -> None:
    """The first is against plain backward passes over the next micro-batches of the same model."""
    raw = RECIPE | {"lora": {"dropout": 0.0}, "training": RECIPE["training"] | {"max_steps": 8}}
    outputs = {}
    for logged in (False, True):
        raw["training"]["log_gradient_cosine"] = logged
        recipe = parse_recipe(raw, "tiny")
        outputs[logged] = tmp_path / str(logged)
        train(TrainOptions("tiny", recipe, str(tiny_model), outputs[logged], str(MINI)))
    plain, more = (load_file(outputs[x] / "adapter_model.safetensors") for x in (False, True))
    assert all(torch.equal(plain[name], more[name]) for name in plain)
    assert _losses(outputs[False]) == _losses(outputs[True])
    log = (outputs[True] / "log.jsonl").read_text().splitlines()
    found = {
        row["step"]: row["task_alignment_gradient_cosine"]
        for row in map(json.loads, log)
        if "task_alignment_gradient_cosine" in row
    }
    assert list(found) == [4]  # at the end of the training there is no next micro-batch

    # The same training ended at update 4, whose weights are the checkpoint's.
    short = parse_recipe(raw | {"training": raw["training"] | {"max_steps": 4}}, "tiny")
    stopped = train(TrainOptions("tiny", short, str(tiny_model), tmp_path / "short", str(MINI)))
    model = PeftModel.from_pretrained(
        tiny.load_model(tiny_model), str(stopped), is_trainable=True
    ).train()
    recipe = parse_recipe(raw, "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    set_chat_template(tokenizer, None)
    data = encode_data(read_texts(MINI, recipe), recipe, tokenizer)
    gradients = []
    for number, name in ((8, "task"), (10, "alignment")):
        batch = data.train[number]
        assert batch["objective"] == name
        model.zero_grad()
        objectives_of(recipe)[name].loss(model, batch["tensors"]).backward()
        weights = [value for value in model.parameters() if value.requires_grad]
        gradients.append(
            torch.cat(
                [(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in weights]
            )
        )
    one, other = (gradient.double() for gradient in gradients)
    assert found[4] == pytest.approx((one @ other / one.norm() / other.norm()).item(), rel=1e-3)


def test_a_folder_from_before_a_setting_resumes(tiny_model: Path, tmp_path: Path) -> None:
    """What its recipe does not state had the default."""
    recipe = parse_recipe(RECIPE | {"training": RECIPE["training"] | {"max_steps": 1}}, "tiny")
    options = TrainOptions("tiny", recipe, str(tiny_model), tmp_path, str(MINI))
    file = train(options) / "training.json"
    stated = json.loads(file.read_text())
    del stated["recipe"]["alignment"]["loss"]
    file.write_text(json.dumps(stated))
    assert train(options) == tmp_path
    cosine = parse_recipe(RECIPE | {"alignment": RECIPE["alignment"] | {"loss": "cosine"}}, "tiny")
    with pytest.raises(InputError, match=r"recipe\.alignment\.loss differs"):
        train(replace(options, recipe=cosine))


_SIZE = tiny.SIZE | {"vocab_size": 258, "num_hidden_layers": 2, "max_position_embeddings": 2048}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_ATTENTION = ["q_proj", "v_proj"]
_ARCHITECTURES = {
    "gpt2": (
        GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=2048),
        ["c_attn", "c_fc"],
    ),
    "mixtral": (MixtralConfig(**_SIZE, **_EXPERTS), [*_ATTENTION, "w1", "w2", "w3"]),
    "olmoe": (
        OlmoeConfig(**_SIZE, num_experts=4, num_experts_per_tok=2),
        [*_ATTENTION, "gate_proj", "up_proj", "down_proj"],
    ),
    "falcon": (
        FalconConfig(vocab_size=258, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        ["query_key_value"],
    ),
    "phi": (PhiConfig(**_SIZE), [*_ATTENTION, "fc1", "fc2"]),
    "embeddings": (Qwen2Config(**_SIZE), [*_ATTENTION, "embed_tokens"]),
    "gemma 3": (Gemma3TextConfig(**_SIZE, head_dim=8), [*_ATTENTION, "up_proj"]),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _ARCHITECTURES)
def test_what_is_trained_is_evaluated_as_peft_has_it(name: str, tmp_path: Path) -> None:
    config, targets = _ARCHITECTURES[name]
    base = tmp_path / "base"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    tiny.byte_tokenizer().save_pretrained(base)
    lora = {"dropout": 0.0, "targets": targets}
    recipe = parse_recipe(RECIPE | {"lora": lora}, "tiny")
    options = TrainOptions("tiny", recipe, str(base), tmp_path / "out", str(MINI))
    adapter = find_adapter(str(train(options)))
    fits = {adapter.name: check_adapter(adapter, meta_model(str(base)), "tiny")}
    model = AdapterSwitch(tiny.load_model(base).eval(), "tiny", fits).use(adapter)
    plain = PeftModel.from_pretrained(tiny.load_model(base), str(adapter.folder)).eval()
    ids = torch.tensor([[5, 9, 7, 30, 8]])
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, plain(ids).logits)
        assert not torch.equal(model(ids).logits, tiny.load_model(base).eval()(ids).logits)


def test_experts_are_trained_without_dropout(tmp_path: Path) -> None:
    config, targets = _ARCHITECTURES["mixtral"]
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.byte_tokenizer().save_pretrained(tmp_path)
    recipe = parse_recipe(RECIPE | {"lora": {"targets": targets}}, "tiny")
    options = TrainOptions("tiny", recipe, str(tmp_path), tmp_path / "out", str(MINI))
    with pytest.raises(InputError, match=r"lora\.dropout to 0"):
        train(options)


def _launch(processes: int, *words: str) -> list[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc-per-node", str(processes), "--no-python", *words]


# Each process draws its own random numbers for dropout.
NO_DROPOUT = ("--set", "lora.dropout=0")
SHORT = ("--set", "training.max_steps=12")
SHARES = ("--set", "training.fsdp=true")


def _watch(shares: Path) -> Callable[[], None]:
    """Have a process write to a file of its own which share of the base model it keeps."""

    def watch() -> None:
        load_base = run.load_base

        def watched(*args: Any, **options: Any) -> Any:
            base = load_base(*args, **options)
            kept = whole = 0
            for weight in base.model.parameters():
                kept += (weight.to_local() if hasattr(weight, "to_local") else weight).numel()
                whole += weight.numel()
            (shares / os.environ["RANK"]).write_text(str(kept / whole))
            return base

        run.load_base = watched

    return watch


def _same_losses(one: Path, two: Path) -> None:
    for a, b in zip(_losses(one), _losses(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize(
    ("shared", "share", "both"),
    [
        ((), "1.0", ()),
        pytest.param(
            (), "1.0", ("--set", "training.alternation=microbatch"), marks=pytest.mark.slow
        ),
        # For three dev batches two processes run four forwards; the mean must be of three.
        pytest.param(
            SHARES,
            "0.5",
            ("--set", "training.micro_batch_size=2", "--set", "task.dev_items=3"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["step", "microbatch", "fsdp"],
)
def test_two_processes_train_as_one(
    recipe_file: Path,
    tiny_model: Path,
    tmp_path: Path,
    shared: tuple[str],
    share: str,
    both: tuple[str],
    run_cli: RunCli,
) -> None:
    both = (*NO_DROPOUT, *SHORT, *both)
    words = _command(recipe_file, tiny_model, tmp_path / "1", *both)
    assert run_cli(*words)[0] == 0
    words = _command(recipe_file, tiny_model, tmp_path / "2", *both, *shared)
    shares = tmp_path / "shares"
    shares.mkdir()
    for ended in run_ranks(tuple(words), 2, tmp_path / "logs", _watch(shares)):
        assert ended.code == 0, ended.err[-2000:]
    assert {file.name: file.read_text() for file in shares.iterdir()} == {"0": share, "1": share}
    _same_losses(tmp_path / "1", tmp_path / "2")
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in "12")
    assert one.keys() == two.keys()
    assert all((one[name] - two[name]).abs().max() < 1e-5 for name in one)


@pytest.mark.slow
def test_a_killed_training_in_shares_goes_on_in_one_process(
    recipe_file: Path, tiny_model: Path, tmp_path: Path, killed_before: Killed
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    one = _command(recipe_file, tiny_model, whole, *NO_DROPOUT)
    assert _run(PROGRAM, *one).returncode == 0
    words = _command(recipe_file, tiny_model, killed, *NO_DROPOUT)
    first_process = killed_before("checkpoint-12/files.json")
    done = _run(*_launch(2, PROGRAM, *words, *SHARES), **first_process)
    assert done.returncode
    assert (killed / "checkpoints" / "checkpoint-8" / "files.json").exists()
    assert not (killed / "adapter_model.safetensors").exists()
    assert _run(PROGRAM, *words).returncode == 0
    _same_losses(whole, killed)


def test_a_device_map_trains_as_one_device(tiny_model: Path, tmp_path: Path) -> None:
    """On whatever devices this machine has."""
    for name, more in (("plain", {}), ("spread", {"device_map": "auto"})):
        recipe = parse_recipe(
            RECIPE | {"training": RECIPE["training"] | {"max_steps": 6} | more}, "tiny"
        )
        train(TrainOptions("tiny", recipe, str(tiny_model), tmp_path / name, str(MINI)))
    _same_losses(tmp_path / "plain", tmp_path / "spread")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alignment": {"data": "massive", "pairs": ["ru-en"], "layers": [5]}}, "between 1 and 4"),
        ({"alignment": {"data": "massive", "pairs": ["cs-en"]}}, "MASSIVE has no cs"),
        ({"alignment": {"data": "tatoeba", "pairs": ["cy-en"]}}, "xlt-bench data fetch tatoeba"),
        ({"lora": {"targets": ["no_such_module"]}}, "lora.targets"),
        ({"training": {"max_tokens": 3}}, "training.max_tokens"),
        ({"training": {"micro_batch_size": 64}}, "training.micro_batch_size"),
        ({"training": {"fsdp": True}}, "under torchrun"),
    ],
)
def test_bad_input_is_one_line(
    tiny_model: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    recipe = parse_recipe(RECIPE | change, "tiny")
    options = TrainOptions("tiny", recipe, str(tiny_model), tmp_path / "out", str(MINI))
    with pytest.raises(InputError) as error:
        train(options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_in_use_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    options = TrainOptions("tiny", parse_recipe(RECIPE, "t"), str(tiny_model), tmp_path, str(MINI))
    with pytest.raises(InputError, match="not empty and not a training"):
        train(options)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("broken", ["lm_head.weight", "model.layers.2.mlp.up_proj.weight"])
def test_a_loss_that_is_not_finite_ends_the_training(
    recipe_file: Path, tiny_model: Path, tmp_path: Path, run_cli: RunCli, broken: str
) -> None:
    model, output = tmp_path / "model", tmp_path / "adapter"
    shutil.copytree(tiny_model, model)
    weights = load_file(model / "model.safetensors")
    weights[broken][0, 0] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    code, _, errors = run_cli(*_command(recipe_file, model, output))
    assert code == 2
    assert "task loss is not finite by update" in errors.strip().splitlines()[-1]
    assert not (output / "adapter_model.safetensors").exists()
    assert not list(output.glob("checkpoints/checkpoint-*"))
