"""Writes the embedded model's card, with the numbers of its training."""

from __future__ import annotations

from collections.abc import Mapping

from xlt_bench.models.embedded.corpus import KINDS

_CARD = """---
license: other
library_name: transformers
pipeline_tag: text-generation
tags: [multilingual, teaching]
---

# The embedded model of xlt-bench

A multilingual Llama of {parameters:,} parameters (8 decoder blocks, 192 wide, a byte-level BPE of
{vocabulary:,} tokens, bfloat16) that ships with xlt-bench, so that adapters can be trained and
compared within minutes on a laptop. It is a teaching model, not an LLM: it knows no facts, follows
no instructions, and without an adapter it solves none of the benchmark's tasks.

Trained, with its tokenizer, by

    python -m xlt_bench.models.embedded.pretrain --data-dir DATA --messages MESSAGES \\
      --output MODEL --steps {steps} --seed {seed}{start}

## Training text

- MASSIVE 1.1, split train, 20 locales, utterances without their slots: CC BY 4.0.
- Universal NER v1, split train, 8 treebanks, sentences without their entities: CC BY-SA 4.0.
- Tatoeba, in LASER's v1 and the Tatoeba Challenge v2021-08-07: CC BY 2.0 FR.
- ALMA's human-written training pairs (cs, de, ru, zh), which are dev and test texts of WMT17 to
  WMT20: MIT for ALMA's repository, WMT's terms (research use) for the text.
- Messages of free programs and their translations, from the Debian packages of
  xlt_bench/models/embedded/packages.tsv. Each has its licence in usr/share/doc/*/copyright; all
  are free software.

FLORES-200, which ALMA's files contain, is left out, and so are all validation and test splits of
the benchmark. No slot, entity or other annotation was used.

Documents: the same utterance in several languages, sentence pairs in both orders, and text that
is repeated (whole, or words of a turn in its answer, plainly or as JSON), since slot filling and
named entities copy from the prompt. English prompts of the benchmark occur as system turns.

## Training

{steps:,} steps of {batch:,} tokens ({tokens:,} in all), rows of 256 and 512 tokens; Muon for the
blocks' matrices and AdamW for the rest; linear warm-up, constant, linear to zero in the last
quarter. Longer prompts work (the context is 2,048) but were not trained on.

Each step also draws translations together: a contrastive loss tells the mean states at block
{block} of {translations} pairs of texts from each other, in both directions. So the bare model is
aligned already, more than an LLM would be.

On {documents} documents a kind of the validation splits of MASSIVE and UNER, unseen in training:

| documents | loss (nats a token) | copied tokens predicted right |
|---|---|---|
{table}

## Use

The chat template has the roles system, user and assistant; the end-of-turn token is the EOS. The
tokenizer adds one BOS and the template none.
"""


def model_card(
    sizes: Mapping[str, int], steps: int, seed: int, start: str | None, held: Mapping[str, float]
) -> str:
    """Write the card.

    Args:
        sizes: `parameters`, `vocabulary`, `batch` (tokens of a step), `translations` (pairs of a
            step), their `block`, and `documents` (held out, of each kind).
        steps: Steps of the training.
        seed: Its seed.
        start: The model from which it started, if any.
        held: `loss <kind>` (nats per token) and `copied <kind>` (per cent), as `held_out` returns.

    Returns:
        The card as Markdown.
    """
    rows = []
    for kind in KINDS:
        if f"loss {kind}" in held:
            copied = f"{held[f'copied {kind}']:.1f} %" if f"copied {kind}" in held else ""
            rows.append(f"| {kind} | {held[f'loss {kind}']:.3f} | {copied} |")
    return _CARD.format(
        **sizes, steps=steps, seed=seed, start=f" --start-from {start}" if start else "",
        tokens=steps * sizes["batch"], table="\n".join(rows),
    )  # fmt: skip
