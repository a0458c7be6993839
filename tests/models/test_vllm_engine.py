"""vLLM itself, in the process of a command and behind `vllm serve`; skipped where it is missing.

The answers must be those of plain transformers and peft, in float32. docs/scaling.md says how to
install vLLM for a CPU.
"""

import dataclasses
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests
import torch

from fake_vllm import contents
from tiny import byte_tokenizer, save_adapter
from xlt_bench.data.root import data_root
from xlt_bench.models.chat import encode_prompt, render_chat, set_chat_template
from xlt_bench.models.load import load_base
from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import predictions_path, read_predictions, read_record
from xlt_bench.tasks.registry import get_text_task

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("vllm") is None, reason="vLLM is not installed: see docs/scaling.md"
    ),
]

ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}
LIMIT, UNITS = 4, [("massive", "de"), ("massive", "sw"), ("uner", "en")]
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# The template leaves the BOS to the tokenizer, as those of Llama 2 and many others do.
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with heads as wide as vLLM needs, and a tokenizer that adds a BOS."""
    from tokenizers.processors import TemplateProcessing
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    tokenizer = byte_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs: one of rank 2, and one with rsLoRA and other ranks and scales in places."""
    root = tmp_path_factory.mktemp("adapters")
    more = {"r": 12, "use_rslora": True, "target_modules": EVERY}
    patterns = {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"up_proj": 32}}
    return [
        save_adapter(model, root / "small", seed=1),
        save_adapter(model, root / "patterns", seed=2, **more, **patterns),
    ]


def command(backend: str, model: Path | str, output: Path, *words: object) -> list[str]:
    tasks = ["--tasks", "massive,uner", "--languages", "de,sw,en", "--limit", str(LIMIT)]
    asked = ["--backend", backend, "--model", model, "--output", output, "--data-dir", "mini"]
    start = [sys.executable, "-m", "xlt_bench", "evaluate"]
    return [str(word) for word in [*start, *tasks, *asked, *words]]


def evaluate(*words: Any, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ENVIRONMENT | more
    return subprocess.run(command(*words), capture_output=True, text=True, env=environment)


IN_VLLM = ("--dtype", "float32", "--model-args", "enforce_eager=True")


def greedy(
    model: Path, adapter: Path | None, template: str | None = None
) -> dict[tuple[str, str], list[str]]:
    """Plain transformers: one prompt at a time, in float32."""
    from peft import PeftModel

    base = load_base(str(model), "float32", "cpu")
    set_chat_template(base.tokenizer, template)
    network = PeftModel.from_pretrained(base.model, adapter).eval() if adapter else base.model
    found = {}
    for task, unit in UNITS:
        rows, texts = get_text_task(task).load(data_root("mini"), unit)[:LIMIT], []
        for row in rows:
            prompt = render_chat(base.tokenizer, row.messages, add_generation_prompt=True)
            ids = torch.tensor([encode_prompt(base.tokenizer, prompt)])
            with torch.inference_mode():
                whole = network.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=get_text_task(task).max_new_tokens,
                    do_sample=False,
                )
            new = whole[0, ids.shape[1] :]
            texts.append(base.tokenizer.decode(new, skip_special_tokens=True))
        found[task, unit] = texts
    return found


def answers(run: Path) -> dict[tuple[str, str], list[str]]:
    return {
        (task, unit): [
            row.hypothesis for row in read_predictions(predictions_path(run, task, unit))
        ]
        for task, unit in UNITS
    }


def test_adapters_answer_as_in_peft_and_the_record_says_how(
    model: Path, adapters: list[Path], tmp_path: Path
) -> None:
    words = [word for adapter in adapters for word in ("--adapter", adapter)]
    done = evaluate("vllm", model, tmp_path / "run", *IN_VLLM, *words)
    assert done.returncode == 0, done.stderr
    for adapter in adapters:
        run = tmp_path / "run" / adapter.name
        assert answers(run) == greedy(model, adapter)
        record: Record = read_record(run)
        assert record.adapter is not None
        assert record.adapter.merged is False
        assert record.versions["vllm"].split("+")[0] in {*installed()}
        assert (record.bos_per_prompt, record.truncated_prompts) == ([1], 0)
    logged = ("INFO", "WARNING", "ERROR", "it/s]", "vllm/", "Processed prompts")
    assert not [mark for mark in logged if mark in done.stdout + done.stderr]


def installed() -> Iterator[str]:
    from importlib.metadata import distributions

    for name in ("vllm", "vllm-cpu"):
        yield from (found.version.split("+")[0] for found in distributions(name=name))


def test_the_bare_model_and_a_template_that_refuses_the_system_role(
    model: Path, tmp_path: Path
) -> None:
    template = tmp_path / "no_system.jinja"
    template.write_text(NO_SYSTEM)
    words = (*IN_VLLM, "--chat-template", template)
    done = evaluate("vllm", model, tmp_path / "run", *words, VLLM_LOGGING_LEVEL="INFO")
    assert done.returncode == 0, done.stderr
    assert answers(tmp_path / "run") == greedy(model, None, str(template))
    assert "INFO" in done.stdout + done.stderr  # asked for, and so shown


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "does not yet support DoRA"),
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [3, 4]}, "LoRA factors of linear layers only"),
        ({"target_modules": ["embed_tokens"]}, "LoRA factors of linear layers only"),
    ],
)
def test_adapters_that_vllm_cannot_serve_are_refused_before_other_work(
    model: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    from xlt_bench.errors import InputError
    from xlt_bench.models.adapters import find_adapter
    from xlt_bench.models.vllm import check_engine

    adapter = find_adapter(str(save_adapter(model, tmp_path / "adapter", seed=1, **settings)))
    with pytest.raises(InputError, match=said) as raised:
        check_engine(str(model), None, "float32", False, [adapter], {}, 128)
    assert "use --backend hf" in str(raised.value)


def test_an_unknown_architecture_and_a_short_context_are_refused_before_other_work(
    model: Path, tmp_path: Path
) -> None:
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    from xlt_bench.errors import InputError
    from xlt_bench.models.vllm import check_engine

    with pytest.raises(InputError, match="context of 100 tokens"):
        check_engine(str(model), None, "float32", False, [], {"max_model_len": 100}, 128)
    config = OpenAIGPTConfig(n_embd=32, n_layer=2, n_head=2, vocab_size=300, n_positions=512)
    OpenAIGPTLMHeadModel(config).save_pretrained(tmp_path / "gpt")
    byte_tokenizer().save_pretrained(tmp_path / "gpt")
    with pytest.raises(InputError, match="vLLM cannot run"):
        check_engine(str(tmp_path / "gpt"), None, "float32", False, [], {}, 128)


def children(pid: int) -> set[int]:
    """All processes that descend from one."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found |= {child} | children(child)
    return found


def test_no_process_survives_a_kill(model: Path, tmp_path: Path) -> None:
    words = command("vllm", model, tmp_path / "run", *IN_VLLM)
    with subprocess.Popen(
        words, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        first = predictions_path(tmp_path / "run", *UNITS[0])
        while not first.exists() and process.poll() is None:
            time.sleep(0.01)
        started = children(process.pid)
        process.send_signal(signal.SIGKILL)
    assert first.exists()
    until = time.monotonic() + 30
    while (left := {pid for pid in started if Path(f"/proc/{pid}").exists()}) and (
        time.monotonic() < until
    ):
        time.sleep(0.1)
    assert not left


def test_the_stand_in_has_the_interface_of_vllm() -> None:
    """What the tests without vLLM rely on: names, and parameters of the same names."""
    import importlib

    def names(function: Any) -> set[str]:
        return set(inspect.signature(function).parameters)

    for module, values in contents().items():
        real = importlib.import_module(module)
        for name, stand_in in values.items():
            found = getattr(real, name)
            if dataclasses.is_dataclass(stand_in):
                asked = {field.name for field in dataclasses.fields(stand_in)}
                assert asked <= names(found), name
            ours = getattr(stand_in, "__module__", "") == "fake_vllm" and inspect.isclass(stand_in)
            for method, used in vars(stand_in).items() if ours else ():
                if inspect.isroutine(used) and not method.startswith("_"):
                    asked = names(getattr(stand_in, method))
                    assert asked <= names(getattr(found, method)), f"{name}.{method}"


@pytest.fixture(scope="module")
def server(model: Path, adapters: list[Path]) -> Iterator[str]:
    """The address of `vllm serve` with two LoRA modules, which ends with the tests."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    lora = [f"{adapter.name}={adapter}" for adapter in adapters]
    # What `vllm serve` runs; that command itself does not start where only vllm-cpu is installed.
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    words += ["--served-model-name", "base", "--dtype", "float32", "--enforce-eager"]
    words += ["--enable-lora", "--max-lora-rank", "16", "--max-loras", "2", "--lora-modules", *lora]
    words += ["--port", str(port), "--host", "127.0.0.1", "--max-model-len", "2048"]
    root = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        words,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            while process.poll() is None:
                try:
                    if requests.get(root + "/health", timeout=5).ok:
                        break
                except requests.RequestException:
                    time.sleep(0.5)
            assert process.poll() is None, "vllm serve ended"
            yield f"{root}/v1/chat/completions"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def served(address: str, name: str, run: Path, **extra: Any) -> subprocess.CompletedProcess[str]:
    arguments = json.dumps({"base_url": address, "extra_body": extra})
    return evaluate("openai", name, run, "--model-args", arguments)


def whole_characters(found: dict[tuple[str, str], list[str]]) -> dict[tuple[str, str], list[str]]:
    """Without a last character that the length limit cut into, which the server omits."""
    return {unit: [text.rstrip("\ufffd") for text in texts] for unit, texts in found.items()}


def test_a_server_with_two_lora_modules_answers_as_peft(
    server: str, model: Path, adapters: list[Path], tmp_path: Path
) -> None:
    for adapter in [None, *adapters]:
        name = adapter.name if adapter else "base"
        run = tmp_path / name
        done = served(server, name, run, add_special_tokens=True)
        assert done.returncode == 0, done.stderr
        assert whole_characters(answers(run)) == whole_characters(greedy(model, adapter))
        record: Record = read_record(run)
        assert record.bos_per_prompt == [1]
        assert not any("lack the BOS" in note for note in record.notes)


def test_a_server_that_adds_no_bos_is_noted(server: str, model: Path, tmp_path: Path) -> None:
    done = served(server, "base", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    record: Record = read_record(tmp_path / "run")
    assert record.bos_per_prompt == [0]
    assert any("lack the BOS" in note for note in record.notes)
    assert whole_characters(answers(tmp_path / "run")) != whole_characters(greedy(model, None))


def test_what_a_server_refuses_is_one_line(server: str, tmp_path: Path) -> None:
    done = served(server, "other", tmp_path / "unknown")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "refused a request: 404" in last
    assert "base, small, patterns" in last
    assert "Traceback" not in done.stderr
    done = served(server, "base", tmp_path / "long", truncate_prompt_tokens=100_000)
    assert done.returncode == 2
    assert "refused a request: 400" in done.stderr.splitlines()[-1]
