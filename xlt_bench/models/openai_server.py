"""A model behind an OpenAI-compatible server, by lm-eval's `local-chat-completions`.

    xlt-bench evaluate --backend openai --model NAME --output RUN \
      --model-args base_url=http://localhost:8000/v1/chat/completions

The server renders the chat, so a prompt is the chat itself. Needs `lm_eval[api]`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import aiohttp
import requests
from lm_eval.models.openai_completions import LocalChatCompletion
from lm_eval.utils import simple_parse_args_string

from xlt_bench.errors import InputError
from xlt_bench.models.lm import Generation, Progress, as_requests, silent

_FAILURES = (requests.RequestException, aiohttp.ClientError, asyncio.TimeoutError, OSError)


class _Text(str):
    """An answer on its way through lm-eval, which knows nothing of its end."""

    cut_off: bool | None


class ServedLM(LocalChatCompletion):  # type: ignore[misc]
    """Answers chats; at temperature 0, which most servers take for greedy."""

    def __init__(self, model: str, concurrent: int, model_args: str) -> None:
        arguments = {
            "tokenizer_backend": None,
            "tokenized_requests": False,
            "num_concurrent": concurrent,
        }
        super().__init__(model=model, **arguments | simple_parse_args_string(model_args))
        self._progress: Progress = silent

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, progress: Progress
    ) -> list[Generation]:
        """Answers to chats, in their order. Raises InputError where the server gives none."""
        asked = as_requests(prompts, until=[], max_gen_toks=max_new_tokens, temperature=0)
        self._progress = progress
        try:
            answers = self.generate_until(asked, disable_tqdm=True)
        except _FAILURES as error:
            raise InputError(
                f"{self.model} at {self.base_url} does not answer: {_said(error)}; what is "
                "finished is kept, and the same command goes on from here"
            ) from None
        return [Generation(str(answer), answer.cut_off) for answer in answers]

    def parse_generations(self, outputs: Any, **_: Any) -> list[str]:
        """The text of each response, with what the server says of its end."""
        found = []
        for output in outputs if isinstance(outputs, list) else [outputs]:
            try:
                choice = output["choices"][0]
                text = _Text(choice["message"]["content"] or "")
            except (KeyError, IndexError, TypeError):
                raise InputError(
                    f"{self.base_url} answers with no chat completion: {json.dumps(output)[:200]}"
                ) from None
            reason = choice.get("finish_reason")
            text.cut_off = None if reason is None else reason == "length"
            found.append(text)
        self._progress(len(found))
        return found  # type: ignore[return-value]

    def noted(self) -> dict[str, Any]:
        """Requests at a time; of the prompt's tokens nothing is known."""
        return {"batch_size": str(self._concurrent), "bos": [], "truncated_prompts": None}


def _said(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}"
    return str(error) or type(error).__name__
