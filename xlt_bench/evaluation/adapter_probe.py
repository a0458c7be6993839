"""The proof that an adapter takes effect: what it changes, and that it answers otherwise."""

from __future__ import annotations

from typing import Any

from xlt_bench.models.adapters import (
    AdapterFiles,
    alignment_languages,
    change_norms,
    recipe_name,
    trained_on_flores,
)
from xlt_bench.models.lm import XltLM
from xlt_bench.results.record import AdapterRecord

# What the bare model and the adapter both answer, to see that the adapter does something.
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
    """The prompts of the proof, as the model's template renders them."""
    return [lm.apply_chat_template([{"role": "user", "content": text}]) for text in PROBE]


def prove(
    lm: XltLM, model: Any, adapter: AdapterFiles, name: str
) -> tuple[AdapterRecord, list[str]]:
    """What is known of the active adapter, `name` in the model, and warnings where it does nothing.

    Compares its greedy answers with the bare model's on eight prompts, and measures its change.
    """
    prompts = probe(lm)
    with_adapter = lm.generate(prompts, _PROBE_TOKENS)
    with model.disable_adapter():
        bare = lm.generate(prompts, _PROBE_TOKENS)
    lm.noted()  # the probe is no part of the run
    differing = sum(a.text != b.text for a, b in zip(with_adapter, bare, strict=True))
    norms = change_norms(model, name)
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
        peft_type=adapter.config["peft_type"],
        base_model=adapter.config.get("base_model_name_or_path"),
        alignment_languages=alignment_languages(adapter),
        recipe=recipe_name(adapter),
        trained_on_flores=trained_on_flores(adapter),
        change_norms=norms,
        probe_prompts=len(PROBE),
        probe_differing=differing,
    )
    return record, warnings
