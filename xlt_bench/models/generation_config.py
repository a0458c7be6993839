"""What of a model's generation config the benchmark follows; one table for every field.

The rule: an answer is what `generate(do_sample=False, num_beams=1, max_new_tokens=LIMIT)` gives for
the prompt alone. Fields that change the scores of tokens are applied, as transformers applies them,
and noted in the record. Sampling, search, limits and outputs are the benchmark's. A field that is
in no table (of a newer transformers, or an author's own) is ignored; a test names every field that
transformers knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig

from xlt_bench.errors import one_line
from xlt_bench.models.hidden_states import PADDING, base_model

APPLIED: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "repetition_penalty": (1,),
    "sequence_bias": (),
    "suppress_tokens": (),
}
"""Fields that change the scores of tokens, with the values that change nothing (besides None and an
empty list)."""

CUT = "stop_strings"
"""The field whose strings end an answer: the text is cut before the first."""

DECIDES = {
    "num_beams": (1, "decoding is greedy"),
    "num_beam_groups": (1, "decoding is greedy"),
    "constraints": (None, "decoding is greedy"),
    "force_words_ids": (None, "decoding is greedy"),
    "penalty_alpha": (0, "decoding is greedy"),
    "dola_layers": (None, "decoding is greedy"),
    "watermarking_config": (None, "answers are scored without a watermark"),
    "token_healing": (False, "every engine reads the same prompt"),
    "max_time": (None, "answers must not depend on the speed of the machine"),
}
"""Fields that would change answers and are not applied: the value that changes nothing, and why.
The record notes them."""

IGNORED = {
    "the stop tokens and the padding are chosen with the tokenizer": (
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ),
    "a task has its own limit, and an answer that it cuts off is marked": (
        "max_length",
        "max_new_tokens",
        "forced_eos_token_id",
    ),
    "for encoder-decoders": ("decoder_start_token_id", "forced_bos_token_id"),
    "for sampling, which is switched off": (
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "top_h",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
    ),
    "details of beam and contrastive search": (
        "early_stopping",
        "length_penalty",
        "diversity_penalty",
        "low_memory",
    ),
    "greedy decoding has one answer": ("num_return_sequences",),
    "a non-finite score is an error": ("remove_invalid_values",),
    "does not change which token is best": ("renormalize_logits",),
    "how the answer is computed, not what it is": (
        "use_cache",
        "cache_implementation",
        "cache_config",
        "max_cache_len",
        "prefill_chunk_size",
        "compile_config",
        "disable_compile",
        "continuous_batching_config",
    ),
    "speculative decoding, which gives the same answer": (
        "use_mtp",
        "is_assistant",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_lookbehind",
        "target_lookbehind",
        "assistant_ensemble_weight",
        "prompt_lookup_num_tokens",
        "max_matching_ngram_size",
        "speculation_type",
    ),
    "only the tokens are needed": (
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "output_logits",
        "return_dict_in_generate",
    ),
    "where the file came from": ("_from_model_config", "transformers_version"),
}
"""The other fields by the reason for which they are not applied. They would change no greedy
answer, or are the benchmark's to choose."""


def applied(model: Any) -> dict[str, Any]:
    """Read the fields of the model's generation config that change the scores of tokens.

    Args:
        model: The model, wrapped or not.

    Returns:
        The values that have an effect, by field of `APPLIED`.
    """
    config = base_model(model).generation_config
    values = {name: getattr(config, name, None) for name in APPLIED}
    return {
        name: value
        for name, value in values.items()
        if value not in (None, [], (), {}, *APPLIED[name])
    }


def stop_strings(model: Any) -> list[str]:
    """Read the strings that end an answer, besides the stop tokens.

    Args:
        model: The model, wrapped or not.

    Returns:
        The strings of the generation config; empty ones are left out.
    """
    named = getattr(base_model(model).generation_config, CUT, None) or []
    return [text for text in ([named] if isinstance(named, str) else named) if text]


def notes(model: Any) -> list[str]:
    """Describe what the model's generation config changes in its answers, and what it would.

    Args:
        model: The model, wrapped or not.

    Returns:
        Lines for the record.
    """
    config = base_model(model).generation_config
    found = []
    for name, value in applied(model).items():
        if name == "repetition_penalty":
            shown = f"repetition penalty of {value:g}"
        else:
            shown = f"{name}: {one_line(value, 60)}"
        found.append(f"greedy decoding with the model's own {shown}")
    if strings := stop_strings(model):
        found.append(f"answers end at the model's own stop strings: {one_line(strings, 60)}")
    for name, (neutral, reason) in DECIDES.items():
        value = getattr(config, name, None)
        if value not in (None, neutral):
            found.append(f"the generation config's {name} is not applied: {reason}")
    return found


@contextmanager
def greedy(model: Any, max_new_tokens: int, stops: Sequence[int]) -> Iterator[GenerationConfig]:
    """Give the model the benchmark's generation config, while the body runs.

    transformers' `generate` takes from the model's own config whatever its caller leaves open.

    Args:
        model: The model, wrapped or not.
        max_new_tokens: The longest answer.
        stops: Token ids that end an answer.

    Yields:
        The config, for `generate`.
    """
    base = base_model(model)
    own = base.generation_config
    fields = applied(model)
    if not stops:  # it raises the score of the stop tokens
        fields.pop("exponential_decay_length_penalty", None)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        **fields,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=list(stops) or None,
        pad_token_id=stops[0] if stops else PADDING,
    )
    base.generation_config = config
    try:
        yield config
    finally:
        base.generation_config = own
