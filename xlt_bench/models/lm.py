"""The lm-eval model of the benchmark: greedy generation, and hidden states of sentences.

Registered as `xlt`: `import xlt_bench.models.lm`, then `lm_eval.simple_evaluate(model="xlt", ...)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from xlt_bench.errors import InputError, one_line
from xlt_bench.metrics.retrieval import accuracy, all_pairs, even_layers
from xlt_bench.models.chat import encode_sentence
from xlt_bench.models.generation import NotFiniteError, answers
from xlt_bench.models.hidden_states import (
    acts_in_forward,
    base_model,
    body,
    count_layers,
    lengths_mask,
    mean_pool,
    pad_right,
    pooled_layers,
    weighted_and_last,
    without_head,
)
from xlt_bench.models.padding import OTHER_TOKENS, close
from xlt_bench.models.prompts import Prompts
from xlt_bench.models.steering import Steering
from xlt_bench.models.stops import Stops, stops
from xlt_bench.tasks.registry import get_task

_AUTO_BATCH = {"cuda": 64}
_AUTO_BATCH_CPU = 32

Progress = Callable[[int], None]
"""Called with the number of items that have been finished since the last call."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Generation:
    """An answer, and whether the length limit cut it off; None if the backend does not say."""

    text: str
    cut_off: bool | None


def silent(_: int) -> None:
    """Report no progress."""


def read_answer(tokenizer: Any, tokens: Sequence[int], ends: Stops) -> Generation:
    """Read the answer in new tokens.

    Args:
        tokenizer: The tokenizer.
        tokens: The new tokens, perhaps with more after the end of the answer.
        ends: What ends an answer.

    Returns:
        The text before the end, and whether there is no end.
    """
    end = next((i for i, token in enumerate(tokens) if token in ends.ids), None)
    text = tokenizer.decode(list(tokens[:end]), skip_special_tokens=True)
    if places := [place for stop in ends.texts if (place := text.find(stop)) >= 0]:
        return Generation(text[: min(places)], cut_off=False)
    return Generation(text, cut_off=end is None)


def _disable_tying(model: Any) -> None:
    """Keep lm-eval from tying the weights of a PeftModel; they were tied when the base was loaded.

    Tying again would replace the LM head by an adapter's trained copy of the embedding, and fails
    with a KeyError if the head is adapted.
    """
    if base_model(model) is not model:
        model.tie_weights = lambda: None


@register_model("xlt")
class XltLM(Prompts, HFLM):  # type: ignore[misc]
    """A causal model, with or without adapters; serves generate_until and hidden_states."""

    _tokens_out: int = 0
    steering: Steering | None = None
    """Chooses the language of what is answered next, in a steered model."""

    def __init__(self, pretrained: Any, *args: Any, **kwargs: Any) -> None:
        _disable_tying(pretrained)
        super().__init__(pretrained, *args, **kwargs)
        self.batch_size_per_gpu: int | str

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        super()._create_model(*args, **kwargs)
        _disable_tying(self._model)

    def use_model(self, model: Any, steering: Steering | None = None) -> None:
        """Answer with this model from now on.

        Args:
            model: The base model that this was made with, or a PeftModel of it.
            steering: What steers it.
        """
        _disable_tying(model)
        self._model, self.steering = model, steering

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer lm-eval's requests, grouped by their length limit.

        Args:
            requests: lm-eval's requests.
            disable_tqdm: Part of lm-eval's interface; unused.

        Returns:
            The answers, in the order of the requests.
        """
        texts: dict[int, str] = {}
        limits = {request.args[1]["max_gen_toks"] for request in requests}
        for limit in sorted(limits):
            chosen = [i for i, r in enumerate(requests) if r.args[1]["max_gen_toks"] == limit]
            answers = self.generate([requests[i].args[0] for i in chosen], limit)
            texts.update(zip(chosen, (answer.text for answer in answers), strict=True))
        return [texts[i] for i in range(len(requests))]

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, progress: Progress = silent
    ) -> list[Generation]:
        """Generate greedy answers.

        If the device runs out of memory, the batch size is halved and unfinished prompts start
        again. A prompt that leaves no room for the answer is truncated on the left and counted in
        `truncated_prompts`.

        Args:
            prompts: Rendered prompts.
            max_new_tokens: The longest answer.
            progress: Called as answers are finished.

        Returns:
            The answers, in the order of the prompts.

        Raises:
            InputError: If the model's context is too short, the device has too little memory, or
                the model's scores are not finite.
        """
        room = self.max_length - max_new_tokens
        if room <= 0:
            raise InputError(
                f"the model's context of {self.max_length} tokens leaves no room for a prompt and "
                f"an answer of {max_new_tokens} tokens; choose another model"
            )
        encoded = self.encode_prompts(prompts, room)
        self._check_ids(encoded)
        ends = self.stops()
        todo = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i]), i))
        found: dict[int, list[int]] = {}
        while todo:
            try:
                for i, tokens in answers(
                    self.model,
                    [encoded[i] for i in todo],
                    self._batch(),
                    max_new_tokens,
                    ends.ids,
                ):
                    found[todo[i]] = tokens
                    progress(1)
            except torch.OutOfMemoryError:
                self._halve_batch()
            todo = [i for i in todo if i not in found]
        self._tokens_out += sum(map(len, found.values()))
        return [read_answer(self.tokenizer, found[i], ends) for i in range(len(encoded))]

    def answer_requests(self, requests: Sequence[Instance]) -> list[Any]:
        """Answer requests as lm-eval's own model does, with its stop sequences and limits.

        Args:
            requests: Requests of one type, `loglikelihood` or `generate_until`.

        Returns:
            (log-likelihood, is greedy) or the text of each request, in their order.
        """
        self._batch()  # lm-eval would measure an automatic size anew
        encoded = [self.tok_encode("".join(request.args[:1])) for request in requests]
        self._check_ids(encoded)
        self._count_bos(encoded)
        self._tokens_in += sum(map(len, encoded))
        if requests[0].request_type == "loglikelihood":
            pairs: list[Any] = HFLM.loglikelihood(self, list(requests), disable_tqdm=True)
            return pairs
        texts: list[str] = HFLM.generate_until(self, list(requests), disable_tqdm=True)
        self._tokens_out += sum(len(self.tok_encode(text)) for text in texts)
        return texts

    def try_out(self, text: bool, layers: Sequence[int]) -> None:
        """Answer a few tokens, so that an unsupported architecture fails before anything is done.

        Args:
            text: Whether text will be generated.
            layers: The decoder blocks whose states will be needed; none for no retrieval.

        Raises:
            InputError: If the model cannot do what will be asked of it.
        """
        name = type(base_model(self.model)).__name__
        try:
            if not self._is_causal():
                raise InputError(
                    f"{name} reads the tokens that follow a token, so it cannot generate text; if "
                    "it was trained as a decoder, set is_decoder in its config.json"
                )
            if text:
                self.generate(["a", "a few words"], 2)
            if layers:
                self.sentence_states(["a", "a few words"], layers, silent)
        except NotFiniteError:
            pass  # the first unit that it happens in will name itself
        except InputError:
            raise
        except Exception as error:  # models raise many types for inputs that they lack
            raise InputError(
                f"the architecture {name} is not supported: it cannot answer a text prompt alone "
                f"({one_line(error, 200) or type(error).__name__})"
            ) from error
        self.noted()  # resets the counts

    @torch.inference_mode()
    def _is_causal(self) -> bool:
        """Whether the logits of a token stay the same when the token after it changes."""
        pair = torch.tensor([[1, 2, 3], [1, 2, 4]], device=self.device)
        output = self.model(input_ids=pair, attention_mask=torch.ones_like(pair), use_cache=False)
        first, second = output.logits[:, -2].to(self.model.dtype)
        return close(first, second, OTHER_TOKENS) or not bool(first.isfinite().all())

    def noted(self) -> dict[str, Any]:
        """Report on the prompts since the last call, for the record.

        Returns:
            `batch_size`, `bos` (numbers of BOS tokens that occurred) and `truncated_prompts`.
        """
        return self._noted(str(self.batch_size_per_gpu))

    def _batched(
        self,
        rows: Sequence[list[int]],
        run: Callable[[list[list[int]]], Iterable[_T]],
        progress: Progress,
    ) -> list[_T]:
        """Call `run` on batches by length, longest first; results are in the order of `rows`.

        Later batches take more rows, as long as they have, padded, no more tokens than the first.
        If the device runs out of memory, the batch size is halved and the batch is tried again.
        """
        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
        longest = max([1, *map(len, rows)])
        results: dict[int, _T] = {}
        while order:
            width = len(rows[order[0]])
            chosen = order[: self._batch() * longest // max(width, 1)]
            try:
                results.update(zip(chosen, run([rows[i] for i in chosen]), strict=True))
            except torch.OutOfMemoryError:
                self._halve_batch()
                continue
            order = order[len(chosen) :]
            progress(len(chosen))
        return [results[i] for i in range(len(rows))]

    def _check_ids(self, encoded: Sequence[Sequence[int]]) -> None:
        """Raise InputError for token ids that the model has no embedding of."""
        size = base_model(self.model).get_input_embeddings().weight.shape[0]
        highest = max((max(ids, default=0) for ids in encoded), default=0)
        if highest >= size:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise InputError(
                f"the tokenizer has the token {token!r} (id {highest}), and the model only "
                f"{size} embeddings; choose the base model's with --tokenizer"
            )

    def stops(self) -> Stops:
        """Collect what ends an answer: EOS, and what the chat template writes after one."""
        return stops(self.model, self.tokenizer, self.chat_template_args)

    def _batch(self) -> int:
        if self.batch_size_per_gpu == "auto":
            self.batch_size_per_gpu = _AUTO_BATCH.get(self.device.type, _AUTO_BATCH_CPU)
        return int(self.batch_size_per_gpu)

    def _halve_batch(self) -> None:
        if self._batch() == 1:
            raise InputError("out of memory with a batch of one; try a smaller --dtype")
        self.batch_size_per_gpu = self._batch() // 2
        torch.cuda.empty_cache()

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks, which is also the highest layer number."""
        return count_layers(self.model)

    def sentence_states(
        self, sentences: Sequence[str], layers: Sequence[int], progress: Progress = silent
    ) -> Tensor:
        """Compute mean-pooled hidden states of bare sentences.

        Args:
            sentences: Sentences, encoded by `encode_sentence`: no chat template, no EOS.
            layers: Decoder blocks, from 1; their output before any final norm.
            progress: Called as sentences are finished.

        Returns:
            (sentences, layers, d), float32, on the CPU.

        Raises:
            InputError: If the device has too little memory for one sentence.
        """
        return self.pooled_states(sentences, layers, progress, 0)[0]

    @torch.inference_mode()
    def pooled_states(
        self, sentences: Sequence[str], layers: Sequence[int], progress: Progress, few: int
    ) -> tuple[Tensor, Tensor]:
        """Compute what `sentence_states` does, and for a few sentences how MEXA pools, in one pass.

        Args:
            sentences: As for `sentence_states`, like the next two.
            layers: Decoder blocks.
            progress: Called as sentences are finished.
            few: The number of sentences, the first ones, that are pooled in the other ways too.

        Returns:
            The means, (sentences, layers, d), and of the few `weighted_and_last`, (few, layers, 2,
            d); both float32, on the CPU.

        Raises:
            InputError: If the device has too little memory for one sentence.
        """
        encoded = [encode_sentence(self.tokenizer, sentence) for sentence in sentences]
        self._tokens_in += sum(map(len, encoded))
        self._check_ids(encoded)
        chosen = {id(row) for row in encoded[:few]}

        def pool(batch: list[list[int]]) -> list[tuple[Tensor, Tensor | None]]:
            wanted = [id(row) in chosen for row in batch]
            if not any(wanted):
                return [(row, None) for row in self._pool_batch(batch, layers, mean_pool)]
            states = self._pool_batch(batch, layers, _every_pool)
            means, others = states[:, :, 0].contiguous(), states[:, :, 1:]
            return [
                (mean, other.clone() if keep else None)
                for mean, other, keep in zip(means, others, wanted, strict=True)
            ]

        pooled = self._batched(encoded, pool, progress)
        means = torch.stack([mean for mean, _ in pooled])
        kept = [other for _, other in pooled if other is not None]
        return means, torch.stack(kept) if kept else means.new_zeros(0, len(layers), 2, 1)

    def _pool_batch(
        self,
        batch: list[list[int]],
        layers: Sequence[int],
        how: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        ids = pad_right(batch).to(self.device)
        mask = lengths_mask(batch).to(self.device)
        with pooled_layers(self.model, mask, layers, how) as pooled:
            if acts_in_forward(self.model):
                with without_head(self.model):
                    self.model(input_ids=ids, attention_mask=mask, use_cache=False)
            else:
                body(self.model)(input_ids=ids, attention_mask=mask, use_cache=False)
        if missing := sorted(set(layers) - set(pooled)):
            name = type(base_model(self.model)).__name__
            raise InputError(
                f"{name} does not run block {missing[0]} for text; choose others with --layers"
            )
        return torch.stack([pooled[layer].cpu() for layer in layers], dim=1)

    def hidden_states(self, requests: list[Instance]) -> list[dict[str, float]]:
        """Answer lm-eval's retrieval requests; states are computed once for each language.

        Args:
            requests: Their first argument is JSON: `task`, `source`, `target`, `data_dir`, and
                `layers`, a list or null for the even ones.

        Returns:
            For each request the accuracy (0 to 100) by layer number, as text.
        """
        asked = [json.loads(request.args[0]) for request in requests]
        layers = asked[0]["layers"] or even_layers(self.n_layers)
        root = Path(asked[0]["data_dir"])
        answers: dict[tuple[str, str, str], dict[str, float]] = {
            (row["task"], row["source"], row["target"]): {} for row in asked
        }
        for name in dict.fromkeys(row["task"] for row in asked):
            pairs = [row for row in asked if row["task"] == name]
            needed = sorted({row[side] for row in pairs for side in ("source", "target")})
            task = get_task(name)
            states = {code: self.sentence_states(task.load(root, code), layers) for code in needed}
            for i, layer in enumerate(layers):
                table = all_pairs({code: state[:, i] for code, state in states.items()})
                for pair, found in table.items():
                    if (name, *pair) in answers:
                        answers[name, *pair][str(layer)] = accuracy(found)
        return [answers[row["task"], row["source"], row["target"]] for row in asked]


def _every_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean, and `weighted_and_last`: (n, 3, d)."""
    return torch.cat([mean_pool(hidden, mask)[:, None], weighted_and_last(hidden, mask)], dim=1)
