"""The translation loss against transformers' own on chats written out here."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import tiny
from xlt_bench.data.root import MINI
from xlt_bench.models.chat import set_chat_template
from xlt_bench.training.objectives import objectives_of
from xlt_bench.training.pairs import Pair
from xlt_bench.training.recipe import parse_recipe

PAIRS = [Pair("cy-en", "Bore da.", "Good morning."), Pair("zh-en", "\u8c22\u8c22\u3002", "Thanks.")]
SYSTEM = {
    "cy-en": "Translate the following sentences from Welsh to English.",
    "en-cy": "Translate the following sentences from English to Welsh.",
    "zh-en": "Translate the following sentences from mandarin Chinese to English.",
    "en-zh": "Translate the following sentences from English to mandarin Chinese.",
}


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_second_side_is_learned_as_the_answer(tiny_model: Path, symmetric: bool) -> None:
    section = {"data": "massive", "pairs": ["ru-en"], "loss": "translation", "symmetric": symmetric}
    objective = objectives_of(parse_recipe({"title": "t", "alignment": section}, "t"))["alignment"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    set_chat_template(tokenizer, None)
    model = tiny.load_model(tiny_model)
    objective.check(1)  # it has no layers
    found = objective.loss(model, objective.tensors(PAIRS, tokenizer))

    chats = [(SYSTEM[pair.languages], pair.anchor, pair.candidate) for pair in PAIRS]
    if symmetric:
        chats += [(SYSTEM[f"en-{p.languages[:2]}"], p.candidate, p.anchor) for p in PAIRS]
    total = tokens = 0.0
    for system, text, answer in chats:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        learned = tokenizer(answer, add_special_tokens=False)["input_ids"] + [1]  # </s>
        ids = torch.tensor([[*prompt, *learned]])
        with torch.no_grad():
            scores = model(ids).logits[0].log_softmax(-1)
        total -= sum(scores[len(prompt) + i - 1, token].item() for i, token in enumerate(learned))
        tokens += len(learned)
    assert found.item() == pytest.approx(total / tokens, rel=1e-4)
    assert objective.read(MINI).pairs["ru-en"]
