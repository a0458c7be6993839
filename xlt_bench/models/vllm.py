"""The vLLM backend: lm-eval's model with our prompts. The fastest choice for text on a GPU.

    xlt-bench evaluate --backend vllm --model NAME --output RUN --model-args tensor_parallel_size=4

Needs `lm_eval[vllm]`. vLLM's prefix caching computes shared prompts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.models.vllm_causallms import VLLM, LoRARequest
from lm_eval.utils import simple_parse_args_string

from xlt_bench.errors import InputError
from xlt_bench.models.adapters import AdapterFiles, split_revision
from xlt_bench.models.chat import encode_prompt
from xlt_bench.models.generation import repetition_penalty
from xlt_bench.models.lm import Generation, Progress, as_requests
from xlt_bench.models.load import Base

# Ranks that vLLM has kernels for.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def lora_rank(adapters: Sequence[AdapterFiles]) -> int:
    """Choose vLLM's `max_lora_rank`.

    Args:
        adapters: The adapters of the run.

    Returns:
        The smallest rank that vLLM has kernels for and that fits all adapters.

    Raises:
        InputError: If an adapter is not a LoRA, or its rank is too large.
    """
    needed = [0]
    for adapter in adapters:
        config = adapter.config
        if config.get("peft_type") != "LORA":
            kind = config.get("peft_type")
            raise InputError(
                f"vLLM supports LoRA only, and {adapter.name} is {kind}; use --backend hf"
            )
        needed += [config.get("r", 8), *(config.get("rank_pattern") or {}).values()]
    if max(needed) > _RANKS[-1]:
        raise InputError(
            f"vLLM supports ranks up to {_RANKS[-1]}, got {max(needed)}; use --backend hf"
        )
    return next(rank for rank in _RANKS if rank >= max(needed))


class VllmLM(VLLM):  # type: ignore[misc]
    """Generates greedy answers by vLLM, from the same token ids as the hf backend."""

    def __init__(
        self, base: Base, dtype: str, adapters: Sequence[AdapterFiles], model_args: str | None
    ) -> None:
        repo, _ = split_revision(base.name)
        arguments: dict[str, Any] = {
            "dtype": dtype,
            "revision": base.revision,
            "enable_prefix_caching": True,
            "trust_remote_code": base.trust_remote_code,
        }
        if adapters:
            arguments["max_lora_rank"] = lora_rank(adapters)
            arguments["lora_local_path"] = str(adapters[0].folder)
        super().__init__(repo, **arguments | simple_parse_args_string(model_args))
        self.tokenizer = base.tokenizer
        self._penalty = repetition_penalty(base.model)
        self._numbers = {adapter.name: i for i, adapter in enumerate(adapters, 1)}
        self._cut_off: dict[tuple[int, ...], bool] = {}

    def use(self, adapter: AdapterFiles) -> None:
        """Use this adapter for the answers that follow.

        Args:
            adapter: One of those that the model was made with.
        """
        number = self._numbers[adapter.name]
        self.lora_request = LoRARequest(adapter.name, number, str(adapter.folder))

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, progress: Progress
    ) -> list[Generation]:
        """Generate greedy answers.

        Args:
            prompts: Rendered prompts.
            max_new_tokens: The longest answer.
            progress: Called once, when all answers are finished.

        Returns:
            The answers, in the order of the prompts.
        """
        asked = as_requests(
            prompts,
            until=[],
            max_gen_toks=max_new_tokens,
            do_sample=False,
            skip_special_tokens=True,
            repetition_penalty=self._penalty,
        )
        texts = self.generate_until(asked, disable_tqdm=True)
        progress(len(prompts))
        ends = [self._cut_off.get(tuple(self.tok_encode(prompt))) for prompt in prompts]
        self._cut_off.clear()
        return [Generation(text, end) for text, end in zip(texts, ends, strict=True)]

    def tok_encode(self, string: Any, *_: Any, **__: Any) -> Any:
        """Tokenize prompts as the hf backend does: at most one BOS.

        Args:
            string: A prompt or a list of prompts.

        Returns:
            Token ids, or a list of them.
        """
        if isinstance(string, str):
            return encode_prompt(self.tokenizer, string)
        return [encode_prompt(self.tokenizer, one) for one in string]

    def _model_generate(self, requests: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Call vLLM as lm-eval does, and remember which answers the length limit cut off."""
        outputs = super()._model_generate(requests, *args, **kwargs)
        for ids, output in zip(requests, outputs, strict=True):
            self._cut_off[tuple(ids)] = output.outputs[0].finish_reason == "length"
        return outputs

    def noted(self) -> dict[str, Any]:
        """Report on the prompts, for the record: vLLM sizes its batches itself."""
        return {"batch_size": "vllm", "bos": [], "truncated_prompts": None}
