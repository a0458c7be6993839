"""The OpenAI backend: a model behind an OpenAI-compatible server, by lm-eval's client for chats.

    xlt-bench evaluate --backend openai --model NAME --output RUN \
      --model-args base_url=http://localhost:8000/v1/chat/completions

The server renders the chat, so a prompt is a list of messages. Needs `lm_eval[api]`.
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
    """An answer that carries `cut_off` through lm-eval, which passes text only."""

    cut_off: bool | None


class ServedLM(LocalChatCompletion):  # type: ignore[misc]
    """Generates answers at temperature 0, which most servers treat as greedy decoding."""

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
        """Generate answers.

        Args:
            prompts: Chats, as lm-eval's client encodes them.
            max_new_tokens: The longest answer.
            progress: Called as answers arrive.

        Returns:
            The answers, in the order of the prompts.

        Raises:
            InputError: If the server does not answer, or not with a chat completion.
        """
        asked = as_requests(prompts, until=[], max_gen_toks=max_new_tokens, temperature=0)
        self._progress = progress
        try:
            answers = self.generate_until(asked, disable_tqdm=True)
        except _FAILURES as error:
            raise InputError(
                f"{self.model} at {self.base_url} does not answer: {_reason(error)}; finished "
                "languages are kept, run the same command to resume"
            ) from None
        return [Generation(str(answer), answer.cut_off) for answer in answers]

    def parse_generations(self, outputs: Any, **_: Any) -> list[str]:
        """Read the answers from the server's responses.

        Args:
            outputs: A response or a list of them.
            **_: Part of lm-eval's interface; unused.

        Returns:
            The text of each response, which knows whether it was cut off.

        Raises:
            InputError: If a response is not a chat completion.
        """
        found = []
        for output in outputs if isinstance(outputs, list) else [outputs]:
            try:
                choice = output["choices"][0]
                text = _Text(choice["message"]["content"] or "")
            except (KeyError, IndexError, TypeError):
                raise InputError(
                    f"{self.base_url} did not return a chat completion: {json.dumps(output)[:200]}"
                ) from None
            reason = choice.get("finish_reason")
            text.cut_off = None if reason is None else reason == "length"
            found.append(text)
        self._progress(len(found))
        return found  # type: ignore[return-value]

    def noted(self) -> dict[str, Any]:
        """Report on the prompts, for the record: concurrent requests; tokens are not known."""
        return {"batch_size": str(self._concurrent), "bos": [], "truncated_prompts": None}


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}"
    return str(error) or type(error).__name__
