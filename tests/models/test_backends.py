"""The other backends: a real loopback server, and a fake vllm package.

Both answer with the embedded model by transformers' own `generate`, one prompt at a time, so the
answers must be those of the hf backend. vLLM itself needs a GPU: its arguments, prompts and records
are tested here, not its decoding.
"""

import importlib.machinery
import importlib.metadata
import json
import shutil
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError
from xlt_bench.evaluation.config import Options, check, prepare
from xlt_bench.evaluation.run import evaluate
from xlt_bench.evaluation.score import text_units
from xlt_bench.models.adapters import find_adapter
from xlt_bench.models.chat import encode_prompt, render_chat, set_chat_template
from xlt_bench.models.load import load_base
from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import predictions_path, read_plan, read_predictions
from xlt_bench.tasks import TEXT
from xlt_bench.tasks.base import Item


def options(output: Path, **more: Any) -> Options:
    chosen = {"tasks": ["massive", "uner"], "languages": ["de", "sw", "en"], "limit": 3}
    return Options(model="embedded", output=output, data_dir="mini", **chosen | more)


def run(asked: Options) -> list[tuple[Path, Record]]:
    return list(evaluate(prepare(asked)))


def answers(folder: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    return {
        unit: [
            (row.id, row.hypothesis) for row in read_predictions(predictions_path(folder, *unit))
        ]
        for unit in text_units(read_plan(folder))
    }


def items(folder: Path) -> list[Item]:
    units, root = text_units(read_plan(folder)), data_root("mini")
    return [item for task, unit in units for item in TEXT[task].load(root, unit)[:3]]


class Greedy:
    """transformers' own greedy answers of the embedded model, bare or with an adapter."""

    def __init__(self, adapter: str | None = None) -> None:
        self.base = load_base("embedded", "float32", "cpu")
        set_chat_template(self.base.tokenizer, None)
        self.model = self.base.model
        if adapter:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter).eval()
        self.lock = threading.Lock()

    def answer(self, ids: list[int], limit: int) -> tuple[str, str]:
        """The answer's text, and why it ended in the words of OpenAI and vLLM."""
        with self.lock, torch.inference_mode():
            whole = self.model.generate(
                input_ids=torch.tensor([ids]), max_new_tokens=limit, do_sample=False,
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            )  # fmt: skip
        new = whole[0, len(ids) :].tolist()
        ended = new[-1] == self.base.tokenizer.eos_token_id
        text = self.base.tokenizer.decode(new, skip_special_tokens=True)
        return text, "stop" if ended else "length"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The run of the hf backend that the others must equal."""
    return run(options(tmp_path_factory.mktemp("hf") / "run", dtype="float32"))[0]


@dataclass
class Server:
    """The requests of the loopback server, and how it should behave."""

    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    failures: list[int] = field(default_factory=list)
    """Status codes of the next responses."""
    body: dict[str, Any] | None = None
    """In place of an answer."""


@pytest.fixture(scope="module")
def greedy() -> Greedy:
    return Greedy()


@pytest.fixture
def server(greedy: Greedy) -> Iterator[Server]:
    state, lock = Server(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.keys.add(self.headers.get("Authorization"))
                status = state.failures.pop(0) if state.failures else 200
                state.asked.append(payload | {"status": status})
            reply: dict[str, Any] = {"error": {"message": "no"}}
            if status == 200:
                reply = state.body or self._completion(payload)
            text = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _completion(self, payload: dict[str, Any]) -> dict[str, Any]:
            tokenizer = greedy.base.tokenizer
            prompt = render_chat(tokenizer, payload["messages"], add_generation_prompt=True)
            text, end = greedy.answer(encode_prompt(tokenizer, prompt), payload["max_tokens"])
            message = {"role": "assistant", "content": text}
            return {"choices": [{"index": 0, "message": message, "finish_reason": end}]}

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.address = f"http://127.0.0.1:{http.server_port}/v1/chat/completions"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def served(output: Path, server: Server, **more: Any) -> Options:
    arguments = f"base_url={server.address}"
    return options(output, backend="openai", model_args=arguments, **more)


@pytest.mark.parametrize("batch_size", ["1", "auto"])
def test_a_server_answers_as_the_model_it_serves(
    bare: tuple[Path, Record],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "made-up-key")
    ((folder, record),) = run(served(tmp_path / "run", server, batch_size=batch_size))
    assert answers(folder) == answers(bare[0])
    assert record.results == bare[1].results
    assert server.keys == {"Bearer made-up-key"}
    sent = sorted(json.dumps(row["messages"]) for row in server.asked)
    assert sent == sorted(json.dumps(item.messages) for item in items(folder))
    assert {row["temperature"] for row in server.asked} == {0}
    limits = {TEXT["massive"].MAX_NEW_TOKENS, TEXT["uner"].MAX_NEW_TOKENS}
    assert {row["max_tokens"] for row in server.asked} == limits
    assert record.plan.backend == "openai"
    assert (record.model.sha256, record.adapter, record.template) == (None, None, "server")
    assert any("answered by a server" in note for note in record.notes)
    assert "made-up-key" not in record.model_dump_json()


def test_retrieval_is_left_out_and_said(server: Server, tmp_path: Path) -> None:
    asked = served(tmp_path / "run", server, tasks=["uner", "retrieval"])
    ((_, record),) = run(asked)
    assert list(record.plan.units) == ["uner"]
    assert any("no retrieval" in note for note in record.notes)


def test_a_server_that_stumbles_is_asked_again(
    bare: tuple[Path, Record], server: Server, tmp_path: Path
) -> None:
    server.failures = [503, 500]
    ((folder, _),) = run(served(tmp_path / "run", server))
    assert answers(folder) == answers(bare[0])
    assert len(server.asked) == len(items(folder)) + 2


def test_a_server_that_refuses_is_one_line_and_the_rest_goes_on(
    bare: tuple[Path, Record], server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    server.failures = [200] * 3 + [401] * 3
    with pytest.raises(InputError, match="401"):
        run(served(folder, server, batch_size="1"))
    assert predictions_path(folder, "massive", "de").exists()
    assert not predictions_path(folder, "massive", "sw").exists()
    server.asked.clear()
    run(served(folder, server, batch_size="1"))
    assert len(server.asked) == len(items(folder)) - 3
    assert answers(folder) == answers(bare[0])


def test_what_is_no_completion_is_one_line(server: Server, tmp_path: Path) -> None:
    server.body = {"object": "error", "message": "model not found"}
    with pytest.raises(InputError, match=r"did not return a chat completion.*model not found"):
        run(served(tmp_path / "run", server))


def test_an_answer_without_content_is_empty(server: Server, tmp_path: Path) -> None:
    """lm-eval would return a placeholder."""
    choice = {"message": {"content": None}, "finish_reason": "content_filter"}
    server.body = {"choices": [choice]}
    ((folder, _),) = run(served(tmp_path / "run", server, tasks=["massive"], languages=["de"]))
    rows = read_predictions(predictions_path(folder, "massive", "de"))
    assert [(row.hypothesis, row.cut_off) for row in rows] == [("", False)] * 3


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not answer"):
        run(served(tmp_path / "run", Server("http://127.0.0.1:9/v1/chat/completions"), limit=1))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"backend": "tgi"}, "unknown backend 'tgi'"),
        ({"model_args": "tensor_parallel_size=2"}, "--model-args goes with"),
        ({"backend": "openai"}, "base_url="),
        ({"backend": "openai", "model_args": "base_url=x", "adapters": ["a"]}, "--adapter cannot"),
        ({"backend": "openai", "model_args": "base_url=x", "dtype": "float32"}, "--dtype cannot"),
        (
            {"backend": "openai", "model_args": "base_url=x", "tasks": ["retrieval"]},
            "retrieval needs hidden states",
        ),
        ({"backend": "vllm"}, "pip install 'lm_eval\\[vllm\\]'"),
    ],
)
def test_what_an_engine_cannot_take_is_one_line(
    more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        check(options(tmp_path / "run", **more))


@dataclass(frozen=True)
class LoRARequest:
    name: str
    number: int
    path: str


class FakeVllm:
    """Replaces `vllm.LLM`; records its arguments and requests."""

    made: ClassVar[list[dict[str, Any]]] = []
    prompts: ClassVar[list[list[int]]] = []
    penalties: ClassVar[set[float]] = set()
    answerers: ClassVar[dict[str | None, Greedy]] = {}

    def __init__(self, **arguments: Any) -> None:
        self.made.append(arguments)
        config = types.SimpleNamespace(max_model_len=8192)
        self.llm_engine = types.SimpleNamespace(model_config=config)

    def generate(
        self, prompts: Any, sampling_params: Any, lora_request: Any = None, **_: Any
    ) -> list[Any]:
        found = []
        path = lora_request.path if lora_request else None
        if path not in self.answerers:
            self.answerers[path] = Greedy(path)
        for prompt, sampling in zip(prompts, sampling_params, strict=True):
            assert sampling["temperature"] == 0
            self.penalties.add(sampling["repetition_penalty"])
            ids = prompt["prompt_token_ids"]
            self.prompts.append(ids)
            text, end = self.answerers[path].answer(ids, sampling["max_tokens"])
            one = types.SimpleNamespace(text=text, finish_reason=end)
            found.append(types.SimpleNamespace(outputs=[one]))
        return found


@pytest.fixture(scope="module")
def vllm_package() -> Iterator[None]:
    """A `vllm` to import; once for all tests, since lm-eval registers its model once."""
    from transformers import AutoTokenizer

    contents: dict[str, dict[str, Any]] = {
        "vllm": {"LLM": FakeVllm, "SamplingParams": dict, "TokensPrompt": dict},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.renderers": {},
        "vllm.renderers.hf": {"resolve_chat_template": lambda **_: None},
        "vllm.tokenizers": {"get_tokenizer": lambda name, **_: AutoTokenizer.from_pretrained(name)},
    }
    real = importlib.metadata.version
    with pytest.MonkeyPatch.context() as patch:
        for name, values in contents.items():
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            vars(module).update(values)
            patch.setitem(sys.modules, name, module)
        patch.setattr(
            importlib.metadata, "version", lambda name: "0.18.0" if name == "vllm" else real(name)
        )
        yield


@pytest.fixture
def fake_vllm(vllm_package: None) -> type[FakeVllm]:
    FakeVllm.made.clear()
    FakeVllm.prompts.clear()
    FakeVllm.penalties.clear()
    FakeVllm.answerers.clear()
    return FakeVllm


def test_vllm_gets_our_prompts_and_its_records_say_so(
    fake_vllm: type[FakeVllm], tmp_path: Path
) -> None:
    adapters = ["embedded:baseline", "embedded:aligned"]
    more = {"adapters": adapters, "dtype": "float32", "tasks": ["massive", "uner", "retrieval"]}
    by_hf = dict(run(options(tmp_path / "hf", **more)))
    arguments = "tensor_parallel_size=2,gpu_memory_utilization=0.5"
    asked = options(tmp_path / "vllm", backend="vllm", model_args=arguments, **more)
    by_vllm = dict(run(asked))
    for (one, record), (other, expected) in zip(by_vllm.items(), by_hf.items(), strict=True):
        assert answers(one) == answers(other)
        assert record.results == expected.results
        assert record.plan.backend == "vllm"
        assert record.adapter
        assert expected.adapter
        assert record.adapter.probe_differing == expected.adapter.probe_differing
        assert record.model == expected.model
    (made,) = fake_vllm.made
    assert made["tensor_parallel_size"] == 2
    assert made["gpu_memory_utilization"] == 0.5
    assert made["enable_prefix_caching"] is True
    assert (made["enable_lora"], made["max_lora_rank"]) == (True, 16)
    assert fake_vllm.penalties == {1}
    assert set(fake_vllm.answerers) == {str(find_adapter(name).folder) for name in adapters}
    base = load_base("embedded", "float32", "cpu")
    set_chat_template(base.tokenizer, None)
    rendered = [
        render_chat(base.tokenizer, item.messages, add_generation_prompt=True)
        for item in items(one)
    ]
    wanted = [encode_prompt(base.tokenizer, prompt) for prompt in rendered]
    assert sorted(fake_vllm.prompts) == sorted(wanted * 2)


def test_a_repetition_penalty_is_every_engine_s_and_in_the_record(
    fake_vllm: type[FakeVllm], tmp_path: Path
) -> None:
    base = load_base("embedded", "float32", "cpu")
    base.model.generation_config.repetition_penalty = 1.05
    model = str(tmp_path / "model")
    base.model.save_pretrained(model)
    base.tokenizer.save_pretrained(model)
    chosen = {"tasks": ["massive"], "languages": ["de"], "dtype": "float32"}
    for backend in ("hf", "vllm"):
        asked = options(tmp_path / backend, backend=backend, **chosen)
        ((_, record),) = run(replace(asked, model=model))
        assert "greedy with the model's own repetition penalty of 1.05" in record.notes
    assert fake_vllm.penalties == {1.05}


def test_a_finished_run_starts_no_engine(fake_vllm: type[FakeVllm], tmp_path: Path) -> None:
    asked = options(tmp_path / "run", backend="vllm", tasks=["massive"], languages=["de"])
    first = run(asked)
    fake_vllm.made.clear()
    assert run(asked) == first
    assert not fake_vllm.made


def test_adapters_that_vllm_does_not_take(fake_vllm: type[FakeVllm], tmp_path: Path) -> None:
    sound = find_adapter("embedded:baseline").folder
    for name, change, message in [
        ("wide", {"r": 513}, "ranks up to 512, got 513"),
        ("in places", {"rank_pattern": {"q_proj": 600}}, "ranks up to 512, got 600"),
        ("other", {"peft_type": "LOHA"}, "vLLM supports LoRA only"),
    ]:
        folder = shutil.copytree(sound, tmp_path / name)
        config = folder / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        with pytest.raises(InputError, match=message):
            run(options(tmp_path / f"run {name}", adapters=[str(folder)], backend="vllm"))
    assert not fake_vllm.made
