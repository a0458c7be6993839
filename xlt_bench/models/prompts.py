"""Prompts of the lm-eval models that run here: rendered, tokenized, counted for the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xlt_bench.models.chat import encode_prompt, render_chat
from xlt_bench.models.tokenizer import Chat


class Prompts:
    """A mixin for lm-eval's models, which have `tokenizer` and `chat_template_args`."""

    tokenizer: Any
    chat_template_args: dict[str, Any]
    _truncated = 0
    _tokens_in = 0
    _tokens_out: int | None = None  # an engine that does not count them
    _bos_counts: frozenset[int] = frozenset()

    def use_chat(self, chat: Chat) -> None:
        """Answer with this tokenizer and chat template from now on.

        Args:
            chat: The tokenizer and the template.
        """
        self.tokenizer, self.chat_template_args = chat.tokenizer, chat.template.args

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat; if the template has no system role, the user's message includes its text.

        Args:
            chat_history: The messages: a `role` and a `content` each.
            add_generation_prompt: End with the start of the assistant's turn.

        Returns:
            The prompt.
        """
        return render_chat(
            self.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self.chat_template_args,
        )

    def encode_prompts(self, prompts: Sequence[str], room: int) -> list[list[int]]:
        """Tokenize prompts, truncated on the left, and count BOS and truncations for `noted`.

        Args:
            prompts: Rendered prompts.
            room: The longest prompt, in tokens.

        Returns:
            Token ids of each prompt.
        """
        encoded = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        self._count_bos(encoded)
        self._truncated += sum(len(ids) > room for ids in encoded)
        cut = [ids[-room:] for ids in encoded]
        self._tokens_in += sum(map(len, cut))
        return cut

    def _count_bos(self, encoded: Sequence[Sequence[int]]) -> None:
        bos = self.tokenizer.bos_token_id
        if bos is not None:
            self._bos_counts |= {list(ids[:3]).count(bos) for ids in encoded}

    def _noted(self, batch_size: str) -> dict[str, Any]:
        """`batch_size`, `bos`, `truncated_prompts` and tokens since the last call."""
        row = {
            "batch_size": batch_size,
            "bos": sorted(self._bos_counts),
            "truncated_prompts": self._truncated,
            "tokens_in": self._tokens_in,
            "tokens_out": self._tokens_out,
        }
        self._bos_counts, self._truncated = frozenset(), 0
        self._tokens_in, self._tokens_out = 0, self._tokens_out and 0
        return row
