"""The lm-eval LM of the benchmark: greedy generation that knows when it was cut off, and states.

Registered as `xlt`: `import xlt_bench.models.lm`, then `lm_eval.simple_evaluate(model="xlt", ...)`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from xlt_bench.benchmarks import flores
from xlt_bench.errors import InputError
from xlt_bench.metrics.retrieval import even_layers
from xlt_bench.models.chat import encode_prompt, render_chat
from xlt_bench.pooling import mean_pool

_AUTO_BATCH = {"cuda": 64}
_AUTO_BATCH_CPU = 16

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Generation:
    """An answer, and whether the length limit cut it off."""

    text: str
    cut_off: bool


def _silent(_: int) -> None:
    pass


@register_model("xlt")
class XltLM(HFLM):  # type: ignore[misc]
    """A causal model with or without adapters; answers generate_until and hidden_states."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batch_size_per_gpu: int | str
        self.truncated_prompts = 0
        self.bos_counts: set[int] = set()

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt of a chat; a template without a system role keeps the system's text."""
        return render_chat(
            self.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self.chat_template_args,
        )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """lm-eval's door to `generate`; every request of a task has one length limit."""
        texts: dict[int, str] = {}
        limits = {request.args[1]["max_gen_toks"] for request in requests}
        for limit in sorted(limits):
            chosen = [i for i, r in enumerate(requests) if r.args[1]["max_gen_toks"] == limit]
            answers = self.generate([requests[i].args[0] for i in chosen], limit)
            texts.update(zip(chosen, (answer.text for answer in answers), strict=True))
        return [texts[i] for i in range(len(requests))]

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, progress: Progress = _silent
    ) -> list[Generation]:
        """Greedy answers to rendered prompts, in their order; batches by length, longest first.

        `progress` is told how many answers each batch brought. A prompt that leaves no room for
        the answer loses tokens on the left and is counted in `truncated_prompts`.
        """
        room = self.max_length - max_new_tokens
        if room <= 0:
            raise InputError(
                f"the model's context of {self.max_length} tokens leaves no room for a prompt "
                f"beside {max_new_tokens} new ones"
            )
        encoded = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        bos = self.tokenizer.bos_token_id
        if bos is not None:
            self.bos_counts.update(ids[:3].count(bos) for ids in encoded)
        self.truncated_prompts += sum(len(ids) > room for ids in encoded)
        encoded = [ids[-room:] for ids in encoded]
        order = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i]), i))
        answers: dict[int, Generation] = {}
        while order:
            chosen = order[: self._batch()]
            with self._smaller_on_oom() as outcome:
                batch = self._generate_batch([encoded[i] for i in chosen], max_new_tokens)
                answers.update(zip(chosen, batch, strict=True))
            if outcome.ok:
                order = order[len(chosen) :]
                progress(len(chosen))
        return [answers[i] for i in range(len(encoded))]

    @torch.inference_mode()
    def _generate_batch(self, batch: list[list[int]], max_new_tokens: int) -> list[Generation]:
        width = max(map(len, batch))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        stops = self._stop_ids()
        output = self.model.generate(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=stops,
            pad_token_id=pad,
        )
        answers = []
        for row in output[:, width:].tolist():
            end = next((i for i, token in enumerate(row) if token in stops), None)
            text = self.tokenizer.decode(row[:end], skip_special_tokens=True)
            answers.append(Generation(text, cut_off=end is None))
        return answers

    def _stop_ids(self) -> list[int]:
        """End-of-text and end-of-turn: what the model's generation config and tokenizer name."""
        named = self.model.generation_config.eos_token_id
        ids = set(named if isinstance(named, list) else [named]) | {self.tokenizer.eos_token_id}
        return sorted(id_ for id_ in ids if id_ is not None)

    def _batch(self) -> int:
        if self.batch_size_per_gpu == "auto":
            self.batch_size_per_gpu = _AUTO_BATCH.get(self.device.type, _AUTO_BATCH_CPU)
        return int(self.batch_size_per_gpu)

    @contextlib.contextmanager
    def _smaller_on_oom(self) -> Iterator[_Outcome]:
        """Halve the batch size where the device ran out of memory; the caller tries again."""
        outcome = _Outcome()
        try:
            yield outcome
        except torch.OutOfMemoryError:
            if self._batch() == 1:
                raise InputError(
                    "the device has no memory for a batch of one; use a smaller --dtype"
                ) from None
            self.batch_size_per_gpu = self._batch() // 2
            torch.cuda.empty_cache()
            outcome.ok = False

    @property
    def n_layers(self) -> int:
        """Decoder blocks; the highest layer number."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @torch.inference_mode()
    def sentence_states(
        self, sentences: Sequence[str], layers: Sequence[int], progress: Progress = _silent
    ) -> Tensor:
        """Mean-pooled block outputs of bare sentences: (sentences, layers, d) float32 on the CPU.

        Layer i is the output of the i-th decoder block, from 1, before any final norm. Tokens are
        the tokenizer's own, a BOS included where it adds one, without EOS and chat template. The
        LM head is never run.
        """
        decoder = _base_model(self.model).get_decoder()
        blocks = _blocks(decoder, self.n_layers)
        encoded = [self._bare_ids(sentence) for sentence in sentences]
        order = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i]), i))
        states: Tensor | None = None
        while order:
            chosen = order[: self._batch()]
            with self._smaller_on_oom() as outcome:
                pooled = self._pool_batch(decoder, blocks, [encoded[i] for i in chosen], layers)
                if states is None:
                    states = torch.empty(len(encoded), *pooled.shape[1:])
                states[torch.tensor(chosen)] = pooled
            if outcome.ok:
                order = order[len(chosen) :]
                progress(len(chosen))
        assert states is not None, "no sentences"
        return states

    def _bare_ids(self, sentence: str) -> list[int]:
        ids: list[int] = list(self.tokenizer(sentence)["input_ids"])
        return ids[:-1] if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id else ids

    def _pool_batch(
        self, decoder: Any, blocks: Any, batch: list[list[int]], layers: Sequence[int]
    ) -> Tensor:
        width = max(map(len, batch))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in batch]).to(self.device)
        lengths = torch.tensor([len(row) for row in batch], device=self.device)
        mask = (torch.arange(width, device=self.device) < lengths[:, None]).long()
        pooled: dict[int, Tensor] = {}

        def pool(layer: int) -> Callable[[Any, Any, Any], None]:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                hidden = output[0] if isinstance(output, tuple) else output
                pooled[layer] = mean_pool(hidden, mask).cpu()

            return hook

        hooks = [blocks[layer - 1].register_forward_hook(pool(layer)) for layer in layers]
        try:
            decoder(input_ids=ids, attention_mask=mask, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack([pooled[layer] for layer in layers], dim=1)

    def hidden_states(self, requests: list[Instance]) -> list[dict[str, float]]:
        """lm-eval's retrieval requests: for each direction its accuracy per layer.

        An argument is JSON with source, target, layers (or null: the even ones) and data_dir.
        States are computed once a language and never leave this method.
        """
        asked = [json.loads(request.args[0]) for request in requests]
        layers = asked[0]["layers"] or even_layers(self.n_layers)
        root = Path(asked[0]["data_dir"])
        needed = sorted({row[side] for row in asked for side in ("source", "target")})
        states = {
            code: self.sentence_states(flores.sentences(root, code), layers) for code in needed
        }
        pairs = {(row["source"], row["target"]) for row in asked}
        answers: dict[tuple[str, str], dict[str, float]] = {pair: {} for pair in pairs}
        for i, layer in enumerate(layers):
            table = flores.layer_table({code: state[:, i] for code, state in states.items()})
            for (source, target), found in table.items():
                if (source, target) in answers:
                    answers[source, target][str(layer)] = flores.accuracy(found)
        return [answers[row["source"], row["target"]] for row in asked]


@dataclass
class _Outcome:
    ok: bool = True


def _base_model(model: Any) -> Any:
    """The transformers model inside a PeftModel (adapters stay in place), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _blocks(decoder: Any, n_layers: int) -> Any:
    """The list of decoder blocks, whatever the architecture calls it."""
    for module in decoder.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers:
            return module
    raise InputError(f"no list of {n_layers} decoder blocks in {type(decoder).__name__}")
