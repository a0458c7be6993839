"""The other backends: a real loopback server, and a fake vllm package.

Both answer with the embedded model by transformers' own `generate`, one prompt at a time, so the
answers must be those of the hf backend. `test_vllm_engine.py` runs vLLM itself.
"""

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig

from fake_vllm import FakeVllm, greedy, install
from steered import random_vectors, save_steering
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
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_text_task

LIMIT = 2  # items of a unit: enough to be padded


def options(output: Path, **more: Any) -> Options:
    chosen = {"tasks": ["massive", "uner"], "languages": ["de", "sw", "en"], "limit": LIMIT}
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
    return [item for task, unit in units for item in get_text_task(task).load(root, unit)[:LIMIT]]


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
    reason: Any = field(default_factory=lambda: {"error": {"message": "no"}})
    """The body of a failure."""
    body: dict[str, Any] | None = None
    """In place of an answer."""
    adds_bos: bool | None = None
    """Whether the tokenizer, not the template, adds the BOS; None: there is no /tokenize."""


@pytest.fixture
def server() -> Iterator[Server]:
    state, lock, model = Server(), threading.Lock(), greedy()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"data": [{"id": "one"}, {"id": "two"}]}
            self._send(*(200, known) if self.path == "/v1/models" else (404, {}))

        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                self._send(*self._tokenized(payload))
                return
            with lock:
                state.keys.add(self.headers.get("Authorization"))
                status = state.failures.pop(0) if state.failures else 200
                state.asked.append(payload | {"status": status})
            reply = state.reason
            if status == 200:
                reply = state.body or self._completion(payload)
            self._send(status, reply)

        def _tokenized(self, payload: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            if state.adds_bos is None or self.path != "/tokenize":
                return 404, {"detail": "Not Found"}
            chat = [7, 8, 9] if state.adds_bos else [1, 7, 8, 9]
            return 200, {"tokens": [1, *chat] if payload["add_special_tokens"] else chat}

        def _send(self, status: int, reply: Any) -> None:
            text = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _completion(self, payload: dict[str, Any]) -> dict[str, Any]:
            tokenizer = model.base.tokenizer
            prompt = render_chat(tokenizer, payload["messages"], add_generation_prompt=True)
            ids = encode_prompt(tokenizer, prompt)
            text, end = model.answer(ids, payload["max_tokens"])
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": end}
            return {"choices": [choice], "usage": {"prompt_tokens": len(ids)}}

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.address = f"http://127.0.0.1:{http.server_port}/v1/chat/completions"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def served(output: Path, server: Server, **more: Any) -> Options:
    extra = more.pop("arguments", "")
    arguments = f"base_url={server.address}{extra}"
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
    limits = {get_text_task("massive").max_new_tokens, get_text_task("uner").max_new_tokens}
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
    server.failures = [200] * LIMIT + [401]
    with pytest.raises(InputError, match="401"):
        run(served(folder, server, batch_size="1"))
    assert predictions_path(folder, "massive", "de").exists()
    assert not predictions_path(folder, "massive", "sw").exists()
    server.asked.clear()
    run(served(folder, server, batch_size="1"))
    assert len(server.asked) == len(items(folder)) - LIMIT
    assert answers(folder) == answers(bare[0])


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (
            400,
            {"error": {"message": "maximum context length is 256 tokens", "code": 400}},
            "refused a request: 400 maximum context length is 256 tokens; finished languages",
        ),
        (400, {"detail": [{"msg": "Field required"}]}, "400 .*Field required"),
        (
            404,
            {"error": {"message": "The model `embedded` does not exist."}},
            "404 The model `embedded` does not exist.; name a model .*: one, two",
        ),
        (422, {}, "422 Unprocessable"),
    ],
)
def test_a_refusal_is_one_line_with_its_reason_and_is_not_repeated(
    server: Server, tmp_path: Path, status: int, reason: Any, said: str
) -> None:
    server.failures, server.reason = [status], reason
    with pytest.raises(InputError, match=said):
        run(served(tmp_path / "run", server, batch_size="1"))
    assert len(server.asked) == 1


def test_an_address_that_is_not_the_whole_one(server: Server, tmp_path: Path) -> None:
    server.address = server.address.removesuffix("/chat/completions")
    with pytest.raises(InputError, match="404 Not Found; base_url must be the whole address"):
        run(served(tmp_path / "run", server))


def test_extra_fields_are_sent_with_each_request_and_belong_to_the_run(
    server: Server, tmp_path: Path
) -> None:
    extra = {"add_special_tokens": True, "chat_template_kwargs": {"enable_thinking": False}}
    arguments = json.dumps({"base_url": server.address, "extra_body": extra})
    asked = replace(served(tmp_path / "run", server), model_args=arguments)
    ((_, record),) = run(asked)
    assert all(row.items() >= extra.items() for row in server.asked)
    assert json.loads(record.plan.model_args) == extra
    assert any("enable_thinking" in note for note in record.notes)
    with pytest.raises(InputError, match="another model args"):
        run(served(tmp_path / "run", server))
    run(served(tmp_path / "other", server, arguments=',extra_body={"top_k":1}'))
    assert server.asked[-1]["top_k"] == 1


@pytest.mark.parametrize(
    ("adds_bos", "sent", "bos", "said"),
    [
        (True, False, [0], "lack the BOS"),
        (True, True, [1], None),
        (False, False, [1], None),
        (False, True, [2], "two BOS"),
    ],
)
def test_a_bos_that_a_server_leaves_out_or_doubles_is_noted(
    server: Server, tmp_path: Path, adds_bos: bool, sent: bool, bos: list[int], said: str | None
) -> None:
    server.adds_bos = adds_bos
    extra = f',extra_body={{"add_special_tokens":{str(sent).lower()}}}'
    asked = served(tmp_path / "run", server, tasks=["massive"], languages=["de"], arguments=extra)
    ((_, record),) = run(asked)
    assert record.bos_per_prompt == bos
    noted = [note for note in record.notes if "BOS" in note]
    assert len(noted) == (said is not None)
    assert all(said in note for note in noted if said)


def test_a_server_s_count_of_tokens_is_compared_with_a_tokenizer_s(
    server: Server, tmp_path: Path
) -> None:
    base = load_base("embedded", "float32", "cpu")
    set_chat_template(base.tokenizer, None)
    base.tokenizer.save_pretrained(tmp_path / "equal")
    base.tokenizer.chat_template = "<x>" + str(base.tokenizer.chat_template)
    base.tokenizer.save_pretrained(tmp_path / "longer")
    small = {"tasks": ["massive"], "languages": ["de"]}
    for name, differs in [("equal", False), ("longer", True)]:
        extra = f",tokenizer={tmp_path / name}"
        ((_, record),) = run(served(tmp_path / f"run {name}", server, arguments=extra, **small))
        assert any("prompts differ" in note for note in record.notes) == differs


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
    assert [(row.hypothesis, row.cut_off) for row in rows] == [("", False)] * LIMIT


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as port:  # ours, so that no other program serves on it
        port.bind(("127.0.0.1", 0))
        address = "http://{}:{}/v1/chat/completions".format(*port.getsockname())
        with pytest.raises(InputError, match="does not answer"):
            run(served(tmp_path / "run", Server(address), limit=1))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"backend": "tgi"}, "unknown backend 'tgi'"),
        ({"model_args": "tensor_parallel_size=2"}, "--model-args needs --backend"),
        ({"backend": "openai"}, "base_url="),
        ({"backend": "openai", "model_args": "base_url"}, "not KEY=VALUE"),
        ({"backend": "openai", "model_args": "{"}, "not valid JSON"),
        ({"backend": "openai", "model_args": "base_url=x,bse=1"}, "unknown --model-args key 'bse'"),
        ({"backend": "openai", "model_args": "base_url=x,extra_body=1"}, "must be a JSON object"),
        (
            {"backend": "openai", "model_args": 'base_url=x,extra_body={"temperature":1}'},
            "cannot set temperature",
        ),
        ({"backend": "openai", "model_args": "base_url=x", "adapters": ["a"]}, "--adapter cannot"),
        ({"backend": "openai", "model_args": "base_url=x", "dtype": "float32"}, "--dtype cannot"),
        (
            {"backend": "openai", "model_args": "base_url=x", "tasks": ["retrieval"]},
            "retrieval needs hidden states",
        ),
        ({"backend": "vllm"}, "pip install 'xlt-bench\\[vllm\\]'"),
    ],
)
def test_what_an_engine_cannot_take_is_one_line(
    more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        check(options(tmp_path / "run", **more))


@pytest.fixture(scope="module")
def vllm_package() -> Iterator[None]:
    """A `vllm` to import; once for all tests, since lm-eval registers its model once."""
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
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
    more = {
        "adapters": adapters,
        "dtype": "float32",
        "tasks": ["massive", "retrieval"],
        "languages": ["de", "sw"],
    }
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
        assert record.adapter.merged is False
        assert record.bos_per_prompt == expected.bos_per_prompt
        assert record.truncated_prompts == 0
        assert record.versions["vllm"] == "0.32.0"
        assert "vllm" not in expected.versions
        assert record.model == expected.model
    (made,) = fake_vllm.made
    assert made["tensor_parallel_size"] == 2
    assert made["gpu_memory_utilization"] == 0.5
    assert made["enable_prefix_caching"] is True
    ranks = [PeftConfig.from_pretrained(find_adapter(one).folder).r for one in adapters]
    assert (made["enable_lora"], made["max_lora_rank"]) == (True, max(ranks))
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
        assert "greedy decoding with the model's own repetition penalty of 1.05" in record.notes
    assert fake_vllm.penalties == {1.05}


def test_vllm_gets_the_chosen_chat_template(fake_vllm: type[FakeVllm], tmp_path: Path) -> None:
    """One that refuses the system role, so that its text is in the user's message."""
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    chosen = {"tasks": ["massive"], "languages": ["de"], "chat_template": str(template)}
    ((folder, _),) = run(options(tmp_path / "hf", dtype="float32", **chosen))
    fake_vllm.prompts.clear()
    ((other, _),) = run(options(tmp_path / "vllm", backend="vllm", dtype="float32", **chosen))
    tokenizer = load_base("embedded", "float32", "cpu").tokenizer
    wanted = [
        encode_prompt(
            tokenizer, "<user>{}\n\n{}<assistant>".format(*(m["content"] for m in item.messages))
        )
        for item in items(other)
    ]
    assert fake_vllm.prompts == wanted
    assert answers(other) == answers(folder)


def test_a_prompt_that_leaves_no_room_is_truncated_on_the_left_and_counted(
    fake_vllm: type[FakeVllm], tmp_path: Path
) -> None:
    asked = options(tmp_path / "run", backend="vllm", tasks=["massive"], languages=["de"])
    run(asked)
    whole = list(fake_vllm.prompts)
    fake_vllm.prompts.clear()
    longest = max(map(len, whole))
    room = longest - 1
    arguments = f"max_model_len={room + get_text_task('massive').max_new_tokens}"
    ((_, record),) = run(replace(asked, output=tmp_path / "short", model_args=arguments))
    assert fake_vllm.prompts == [ids[-room:] for ids in whole]
    assert record.truncated_prompts == sum(len(ids) == longest for ids in whole)
    assert json.loads(record.plan.model_args) == {
        "max_model_len": room + get_text_task("massive").max_new_tokens
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("tensor_parallel_sise=2", "unknown vLLM setting .*did you mean 'tensor_parallel_size'"),
        ("max_model_len=128", "128 tokens leaves no room"),
        ("dtype=float16", "use --dtype instead of dtype"),
        ("trust_remote_code=True", "use --trust-remote-code"),
        ("add_bos_token=True", "add_bos_token in --model-args has no effect"),
    ],
)
def test_settings_that_vllm_does_not_take_are_refused_before_a_model_is_loaded(
    fake_vllm: type[FakeVllm],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    said: str,
) -> None:
    monkeypatch.setattr("xlt_bench.evaluation.systems.load_base", pytest.fail)
    with pytest.raises(InputError, match=said):
        run(options(tmp_path / "run", backend="vllm", model_args=arguments))
    assert not fake_vllm.made


def test_a_finished_run_starts_no_engine(fake_vllm: type[FakeVllm], tmp_path: Path) -> None:
    asked = options(tmp_path / "run", backend="vllm", tasks=["massive"], languages=["de"])
    first = run(asked)
    fake_vllm.made.clear()
    assert run(asked) == first
    assert not fake_vllm.made


def check_with_vllm(adapter: Path) -> None:
    from xlt_bench.models.vllm import check_engine  # which the stand-in must be there for

    check_engine("embedded", None, "float32", False, [find_adapter(str(adapter))], {}, 128)


def test_adapters_that_vllm_does_not_take(fake_vllm: type[FakeVllm], tmp_path: Path) -> None:
    sound = find_adapter("embedded:baseline").folder
    for name, change, message in [
        ("wide", {"r": 513}, "ranks up to 512, got 513"),
        ("in places", {"rank_pattern": {"q_proj": 600}}, "ranks up to 512, got 600"),
        ("other", {"peft_type": "LOHA"}, "vLLM supports LoRA only"),
        ("dora", {"use_dora": True}, "does not yet support DoRA; use --backend hf"),
    ]:
        folder = shutil.copytree(sound, tmp_path / name)
        config = folder / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        with pytest.raises(InputError, match=message):
            check_with_vllm(folder)
    folder = save_steering(tmp_path / "steered", Path("embedded"), random_vectors("de"))
    with pytest.raises(InputError, match="steered is STEERING; use --backend hf"):
        check_with_vllm(folder)
    assert not fake_vllm.made


def test_weights_that_vllm_would_leave_out_are_refused(
    fake_vllm: type[FakeVllm], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(find_adapter("embedded:baseline").folder, tmp_path / "more")
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.model.embed_tokens.weight"] = torch.zeros(2, 2)
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(
        InputError, match=r"LoRA factors of linear layers only.*embed_tokens\.weight"
    ):
        check_with_vllm(folder)
