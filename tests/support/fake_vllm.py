"""A stand-in for the vllm package, which answers by transformers' own `generate`.

It has what lm-eval and our backend use of vLLM, by the same names and with the same parameters;
`tests/models/test_vllm_engine.py` compares them with the real package where it is installed.
"""

import importlib.machinery
import importlib.metadata
import sys
import threading
import types
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import pytest
import torch

from xlt_bench.models.chat import set_chat_template
from xlt_bench.models.load import load_base


@cache
def greedy(adapter: str | None = None) -> "Greedy":
    """The same object for every test of the process, for each test asks for the same answers."""
    return Greedy(adapter)


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
        self.known: dict[tuple[int, ...], list[int]] = {}

    def answer(self, ids: list[int], limit: int) -> tuple[str, str]:
        """The answer's text, and why it ended in the words of OpenAI."""
        new = self.tokens(ids, limit)
        text = self.base.tokenizer.decode(new, skip_special_tokens=True)
        return text, "stop" if new[-1] == self.base.tokenizer.eos_token_id else "length"

    def tokens(self, ids: list[int], limit: int) -> list[int]:
        """The tokens of the answer, with the EOS that ends it."""
        with self.lock:
            key = (limit, *ids)
            if key not in self.known:
                self.known[key] = self._generate(ids, limit)
            return self.known[key]

    def _generate(self, ids: list[int], limit: int) -> list[int]:
        with torch.inference_mode():
            whole = self.model.generate(
                input_ids=torch.tensor([ids]), max_new_tokens=limit, do_sample=False,
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            )  # fmt: skip
        new: list[int] = whole[0, len(ids) :].tolist()
        return new


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class SamplingParams:
    temperature: float
    max_tokens: int
    repetition_penalty: float
    stop_token_ids: list[int]
    ignore_eos: bool
    detokenize: bool


@dataclass
class LoRAConfig:
    max_lora_rank: int = 16


class PEFTHelper:
    """Refuses DoRA, in vLLM's words; the rest of vLLM's rules are tested with vLLM."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]) -> "PEFTHelper":
        return cls(config_dict)

    def validate_legal(self, lora_config: LoRAConfig) -> None:
        if self.config.get("use_dora"):
            raise ValueError("vLLM does not yet support DoRA.")


@dataclass
class EngineArgs:
    """Some of vLLM's settings."""

    model: str
    revision: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    enable_lora: bool = False
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    data_parallel_size: int = 1
    quantization: str | None = None

    def create_engine_config(self) -> Any:
        length = self.max_model_len or CONTEXT
        return types.SimpleNamespace(model_config=types.SimpleNamespace(max_model_len=length))


CONTEXT = 8192


class FakeVllm:
    """Replaces `vllm.LLM`; records its arguments and requests."""

    made: ClassVar[list[dict[str, Any]]] = []
    prompts: ClassVar[list[list[int]]] = []
    penalties: ClassVar[set[float]] = set()
    answerers: ClassVar[dict[str | None, Greedy]] = {}

    def __init__(self, **arguments: Any) -> None:
        self.made.append(arguments)
        config = types.SimpleNamespace(max_model_len=arguments["max_model_len"] or CONTEXT)
        self.llm_engine = types.SimpleNamespace(model_config=config)

    def generate(
        self,
        prompts: Any,
        sampling_params: Any = None,
        *,
        use_tqdm: Any = True,
        lora_request: Any = None,
    ) -> list[Any]:
        found = []
        path = lora_request.lora_path if lora_request else None
        if path not in self.answerers:
            self.answerers[path] = greedy(path)
        bar = use_tqdm(total=len(prompts), desc="Processed prompts")
        for prompt, sampling in zip(prompts, sampling_params, strict=True):
            assert sampling.temperature == 0
            self.penalties.add(sampling.repetition_penalty)
            ids = prompt["prompt_token_ids"]
            self.prompts.append(ids)
            tokens = self.answerers[path].tokens(ids, sampling.max_tokens)
            assert 1 / bar.format_dict["elapsed"]  # as vLLM computes its speed
            bar.update(1)
            one = types.SimpleNamespace(token_ids=tokens)
            found.append(types.SimpleNamespace(outputs=[one]))
        bar.close()
        return found


def contents() -> dict[str, dict[str, Any]]:
    """What each module of the stand-in has."""
    from transformers import AutoTokenizer

    return {
        "vllm": {"LLM": FakeVllm, "SamplingParams": SamplingParams, "TokensPrompt": dict},
        "vllm.config": {"LoRAConfig": LoRAConfig},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"EngineArgs": EngineArgs},
        "vllm.lora": {},
        "vllm.lora.peft_helper": {"PEFTHelper": PEFTHelper},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.model_executor": {},
        "vllm.model_executor.model_loader": {"get_model_architecture": lambda config: (None, "")},
        "vllm.model_executor.models": {"supports_lora": lambda model: True},
        "vllm.renderers": {},
        "vllm.renderers.hf": {"resolve_chat_template": lambda **_: None},
        "vllm.tokenizers": {"get_tokenizer": lambda name, **_: AutoTokenizer.from_pretrained(name)},
    }


def install(patch: pytest.MonkeyPatch) -> None:
    """Make the stand-in importable, as vllm 0.32.0, until the patch is undone."""
    real = importlib.metadata.version
    for name, values in contents().items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        vars(module).update(values)
        patch.setitem(sys.modules, name, module)
    patch.setattr(
        importlib.metadata, "version", lambda name: "0.32.0" if name == "vllm" else real(name)
    )
