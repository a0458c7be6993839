"""The OpenAI backend: a model behind an OpenAI-compatible server, by lm-eval's client for chats.

    xlt-bench evaluate --backend openai --model NAME --output RUN \
      --model-args base_url=http://localhost:8000/v1/chat/completions

The server renders the chat, so a prompt is a list of messages. Needs `lm_eval[api]`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import aiohttp
import requests
from lm_eval.models.openai_completions import LocalChatCompletion
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from xlt_bench.errors import InputError, one_line
from xlt_bench.models.chat import encode_prompt, render_chat
from xlt_bench.models.lm import Generation, Progress

_KEPT = "finished languages are kept, run the same command to resume"
_FAILURES = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
# Other statuses from 400 to 499 are about the request, and asking again changes nothing.
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
_PATH = "/chat/completions"
# What vLLM's /tokenize shares with the requests for answers.
_RENDERING = ("chat_template", "chat_template_kwargs", "add_generation_prompt")


class _StatusError(Exception):
    """A response with an error status, and the reason that its body gives."""

    def __init__(self, status: int, phrase: str | None, body: str) -> None:
        super().__init__(f"{status} {_reason(body) or phrase}")
        self.status = status


def _reason(body: str) -> str:
    """The message in the body of an error, in the forms of OpenAI, vLLM and FastAPI."""
    try:
        found = json.loads(body)
        found = found.get("error", found)
        text = found if isinstance(found, str) else found.get("message") or found.get("detail")
    except (ValueError, AttributeError):
        text = body
    return one_line(text or "", 300)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, _StatusError):
        return error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.status in _PASSING
    return isinstance(error, _FAILURES)


class ServedLM(LocalChatCompletion):  # type: ignore[misc]
    """Generates answers at temperature 0, which most servers treat as greedy decoding."""

    def __init__(self, model: str, concurrent: int, arguments: dict[str, Any]) -> None:
        self._extra_body = dict(arguments["extra_body"])
        self._tokenizer_name = arguments.get("tokenizer")
        rest = {k: v for k, v in arguments.items() if k not in ("extra_body", "tokenizer")}
        usual = {"tokenizer_backend": None, "num_concurrent": concurrent}
        super().__init__(model=model, **usual | rest)
        self._bos: list[int] = []

    def _create_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(super()._create_payload(*args, **kwargs)) | self._extra_body

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
            InputError: If the server does not answer, refuses a request, or does not return a chat
                completion.
        """
        try:
            responses = asyncio.run(self._ask(prompts, max_new_tokens, progress))
        except _StatusError as error:
            raise InputError(self._refusal(error)) from None
        except _FAILURES as error:
            said = str(error) or type(error).__name__
            raise InputError(
                f"{self.model} at {self.base_url} does not answer: {one_line(said, 300)}; {_KEPT}"
            ) from None
        return [self._read(response) for response in responses]

    async def _ask(
        self, prompts: Sequence[str], max_new_tokens: int, progress: Progress
    ) -> list[Any]:
        """Send all prompts, `num_concurrent` at a time; what may pass is tried again."""
        trying = retry(
            stop=stop_after_attempt(self.max_retries),
            wait=wait_exponential(multiplier=0.5, min=1, max=10),
            retry=retry_if_exception(_is_passing),
            reraise=True,
        )
        turn = asyncio.Semaphore(self._concurrent)

        async def ask(prompt: str) -> Any:
            async with turn:
                response = await trying(self._post)(session, self._payload(prompt, max_new_tokens))
            self._read(response)  # what is no answer ends the run now
            progress(1)
            return response

        connector = aiohttp.TCPConnector(limit=self._concurrent, ssl=self._ssl())
        patience = aiohttp.ClientTimeout(total=self.timeout)
        async with aiohttp.ClientSession(connector=connector, timeout=patience) as session:
            tasks = [asyncio.create_task(ask(prompt)) for prompt in prompts]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _post(self, session: aiohttp.ClientSession, payload: dict[str, Any]) -> Any:
        async with session.post(self.base_url, json=payload, headers=self.header) as response:
            body = await response.text()
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _StatusError(response.status, response.reason, body)
        try:
            return json.loads(body)
        except ValueError:
            return body

    def _payload(self, prompt: Any, max_new_tokens: int) -> dict[str, Any]:
        settings = {"until": [], "max_gen_toks": max_new_tokens, "temperature": 0}
        messages = self.create_message([prompt])
        return self._create_payload(messages, generate=True, gen_kwargs=settings, seed=self._seed)

    def _ssl(self) -> Any:
        if self.verify_certificate and self.ca_cert_path:
            return ssl.create_default_context(cafile=self.ca_cert_path)
        return bool(self.verify_certificate)

    def _read(self, response: Any) -> Generation:
        try:
            choice = response["choices"][0]
            text = str(choice["message"]["content"] or "")
        except (KeyError, IndexError, TypeError):
            said = one_line(json.dumps(response), 200)
            raise InputError(f"{self.base_url} did not return a chat completion: {said}") from None
        reason = choice.get("finish_reason")
        return Generation(text, None if reason is None else reason == "length")

    def _refusal(self, error: _StatusError) -> str:
        line = f"{self.model} at {self.base_url} refused a request: {error}"
        if not self.base_url.endswith(_PATH):
            return f"{line}; base_url must be the whole address, such as http://HOST:PORT/v1{_PATH}"
        if error.status == HTTPStatus.NOT_FOUND and (names := self._served()):
            return f"{line}; name a model that it serves by --model: {', '.join(names)}"
        return f"{line}; {_KEPT}"

    def _served(self) -> list[str]:
        """The models that the server lists; none if it does not say."""
        found = self._request("GET", self.base_url.removesuffix(_PATH) + "/models")
        rows = (found or {}).get("data")
        names = [row.get("id") for row in rows if isinstance(row, dict)] if rows else []
        return [one_line(name, 80) for name in names[:20]]

    def _request(self, method: str, url: str, payload: Any = None) -> dict[str, Any] | None:
        """Ask another address of the server; None if it has no such address."""
        verify = self.ca_cert_path or self.verify_certificate
        verify = verify if self.verify_certificate else False
        try:
            response = requests.request(
                method, url, json=payload, headers=self.header, verify=verify, timeout=30
            )
            found = response.json() if response.ok else None
        except (requests.RequestException, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def check_prompt(self, messages: list[dict[str, str]]) -> list[str]:
        """Compare how the server tokenizes a chat with how the hf backend does.

        vLLM's `/tokenize` shows the tokens. Other servers only count them (`usage`), which is
        compared with the tokenizer named by `tokenizer` in `--model-args`.

        Args:
            messages: The chat.

        Returns:
            A note for the record, if they differ; none if they are equal or nothing is known.
        """
        return self._check_bos(messages) or self._check_count(messages)

    def _check_bos(self, messages: list[dict[str, str]]) -> list[str]:
        url = self.base_url.removesuffix("/v1" + _PATH) + "/tokenize"
        shared = {key: self._extra_body[key] for key in _RENDERING if key in self._extra_body}
        chat = {"model": self.model, "messages": messages} | shared
        rows = {}
        for added in (False, True):
            found = self._request("POST", url, chat | {"add_special_tokens": added}) or {}
            rows[added] = found.get("tokens")
            if not rows[added] or not isinstance(rows[added], list):
                return []
        bare, full = rows[False] or [], rows[True] or []
        if full != [full[0], *bare]:
            return []  # the tokenizer adds no BOS, or no second one
        sent = full if self._extra_body.get("add_special_tokens") else bare
        self._bos = [sent[:3].count(full[0])]
        if self._bos == [0]:
            return [
                "the server's prompts lack the BOS that the tokenizer adds: answers differ from "
                "those of the hf backend, unless --model-args has "
                'extra_body={"add_special_tokens":true}'
            ]
        if self._bos == [2]:
            return [
                "the server's prompts start with two BOS, since the chat template writes one: "
                "leave add_special_tokens out of extra_body"
            ]
        return []

    def _check_count(self, messages: list[dict[str, str]]) -> list[str]:
        if self._tokenizer_name is None:
            return []
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._tokenizer_name)
            options = self._extra_body.get("chat_template_kwargs", {})
            text = render_chat(tokenizer, messages, add_generation_prompt=True, **options)
            ours = len(encode_prompt(tokenizer, text))
        except Exception as error:  # transformers raises many types
            raise InputError(
                f"tokenizer {self._tokenizer_name} in --model-args cannot tokenize a chat: "
                f"{one_line(error, 200)}"
            ) from None
        payload = self._payload(self.apply_chat_template(messages), 1)
        theirs = ((self._request("POST", self.base_url, payload) or {}).get("usage") or {}).get(
            "prompt_tokens"
        )
        if theirs in (None, ours):
            return []
        return [
            f"the server's prompts differ from those of the hf backend: {theirs} tokens for the "
            f"first one, where the tokenizer {self._tokenizer_name} gives {ours}; a missing BOS is "
            'one token, and in vLLM extra_body={"add_special_tokens":true} in --model-args adds it'
        ]

    def noted(self) -> dict[str, Any]:
        """Report on the prompts, for the record: concurrent requests, and BOS if known."""
        return {"batch_size": str(self._concurrent), "bos": self._bos, "truncated_prompts": None}
