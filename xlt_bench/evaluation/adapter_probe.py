"""Checks that an adapter takes effect: it changes weights, and the model answers differently."""

from __future__ import annotations

from collections.abc import Sequence

from xlt_bench.errors import InputError
from xlt_bench.models.adapter_card import (
    alignment_languages,
    recipe_name,
    trained_on_flores,
    training,
)
from xlt_bench.models.adapter_fit import PEFT_NAME
from xlt_bench.models.adapter_switch import change_norms
from xlt_bench.models.adapters import AdapterFiles
from xlt_bench.models.generation import NotFiniteError
from xlt_bench.models.lm import Generation, XltLM
from xlt_bench.results.record import AdapterRecord

# Prompts that the model answers with and without the adapter, to see whether it has an effect.
PROBE = (
    "wake me up at five am this week",
    "play some jazz in the kitchen",
    "¿qué tiempo hace mañana en madrid?",
    "stelle den wecker auf sieben uhr",
    "Translate to French: The library opens at nine.",
    "Who wrote the report about Lagos?",
    "今週は午前五時に起こして",
    "Niambie habari za leo",
)
_PROBE_TOKENS = 16


def probe(lm: XltLM) -> list[str]:
    """The probe prompts, rendered with the model's chat template."""
    return [lm.apply_chat_template([{"role": "user", "content": text}]) for text in PROBE]


def _answers(lm: XltLM, who: str) -> list[Generation]:
    try:
        return lm.generate(probe(lm), _PROBE_TOKENS)
    except NotFiniteError as error:
        raise InputError(f"probe prompts, {who}: {error}") from None


def bare_answers(lm: XltLM) -> list[Generation]:
    """Answer the probe prompts.

    Args:
        lm: The bare model.

    Returns:
        An answer to each.

    Raises:
        InputError: If the model's numbers overflow.
    """
    answers = _answers(lm, "the bare model")
    lm.noted()  # resets the counts: the probe is not part of the run
    return answers


def prove(
    lm: XltLM, bare: Sequence[Generation], adapter: AdapterFiles
) -> tuple[AdapterRecord, list[str]]:
    """Compare the model's answers with those of the bare model.

    Args:
        lm: The model with the adapter.
        bare: The result of `bare_answers`.
        adapter: The files of the adapter.

    Returns:
        The adapter's record, with the norms of its weight change and how many of the eight greedy
        answers differ, and a warning for each sign that it has no effect. Of a steered system the
        norms are those of the vectors, and all eight prompts are steered by the longest.

    Raises:
        InputError: If the model's numbers overflow.
    """
    norms = lm.steering.norms if lm.steering else change_norms(lm.model, PEFT_NAME)
    if lm.steering:
        lm.steering.use(max(norms, key=norms.__getitem__))
    with_adapter = _answers(lm, f"adapter {adapter.name}")
    lm.noted()  # resets the counts: the probe is not part of the run
    differing = sum(a.text != b.text for a, b in zip(with_adapter, bare, strict=True))
    warnings = []
    if not any(norms.values()):
        warnings.append(f"WARNING: adapter {adapter.name} changes no weight")
    if not differing:
        warnings.append(
            f"WARNING: adapter {adapter.name} gives the bare model's answer to all "
            f"{len(PROBE)} probe prompts"
        )
    record = AdapterRecord(
        name=adapter.name,
        sha256=adapter.sha256,
        revision=adapter.revision,
        peft_type=adapter.config["peft_type"],
        base_model=adapter.config.get("base_model_name_or_path"),
        alignment_languages=alignment_languages(adapter),
        recipe=recipe_name(adapter),
        trained_on_flores=trained_on_flores(adapter),
        training=training(adapter),
        change_norms=norms,
        probe_prompts=len(PROBE),
        probe_differing=differing,
    )
    return record, warnings
