"""What of a generation config is followed, field by field, against transformers' `generate`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig

import tiny
from architectures import random_model
from xlt_bench.errors import InputError
from xlt_bench.models import generation_config
from xlt_bench.models.generation import NotFiniteError, answers
from xlt_bench.models.lm import XltLM
from xlt_bench.models.load import load_base

LIMIT, STOP = 12, 7
ROWS = [[10, 11, 12, 13, 14, 15, 20], [10, 11, 30, 31], [10, 11, 12]]


@pytest.fixture
def model() -> Any:
    config = LlamaConfig(**tiny.SIZE, vocab_size=61, eos_token_id=STOP, tie_word_embeddings=False)
    return random_model(config)


def ours(model: Any) -> list[list[int]]:
    found = dict(answers(model, ROWS, 3, LIMIT, [STOP]))
    return [ended(found[i]) for i in range(len(ROWS))]


def ended(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens


def alone(model: Any) -> list[list[int]]:
    """What `generate` answers to each row, by the model's own generation config."""
    return [
        ended(
            model.generate(
                input_ids=torch.tensor([row]),
                attention_mask=torch.ones(1, len(row), dtype=torch.long),
                max_new_tokens=LIMIT,
                do_sample=False,
            )[0, len(row) :].tolist()
        )
        for row in ROWS
    ]


def test_every_field_is_judged() -> None:
    """A field that a new transformers brings must be put into one of the tables."""
    judged = [
        *generation_config.APPLIED,
        generation_config.CUT,
        *generation_config.DECIDES,
        *(field for fields in generation_config.IGNORED.values() for field in fields),
    ]
    assert sorted(judged) == sorted(vars(GenerationConfig()))


APPLIED = {
    "bad_words_ids": [[27], [53, 16]],
    "begin_suppress_tokens": [*range(30)],
    "encoder_no_repeat_ngram_size": 1,
    "encoder_repetition_penalty": 3.0,
    "exponential_decay_length_penalty": (1, 3.0),
    "guidance_scale": 2.0,
    "min_length": 18,
    "min_new_tokens": 11,
    "no_repeat_ngram_size": 1,
    "repetition_penalty": 1.6,
    "sequence_bias": [[[25], 50.0]],
    "suppress_tokens": [*range(30)],
}


@pytest.mark.parametrize("field", generation_config.APPLIED)
def test_what_changes_scores_is_applied_as_by_transformers(model: Any, field: str) -> None:
    plain = ours(model)
    setattr(model.generation_config, field, APPLIED[field])
    if field.startswith("min_") or field == "exponential_decay_length_penalty":
        # Make the stop token likely, so that the field has something to change.
        model.lm_head.weight.data[STOP] *= 4
        plain = [ended(row) for row in plain]
    expected = alone(model)
    assert ours(model) == expected
    assert expected != plain
    assert any(field in note or "repetition penalty" in note for note in notes(model))


def notes(model: Any) -> list[str]:
    return generation_config.notes(model)


NOT_APPLIED = {
    "num_beams": 3,
    "penalty_alpha": 0.6,
    "num_return_sequences": 2,
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_attentions": True,
    "do_sample": True,
    "temperature": 0.2,
    "top_k": 4,
    "max_time": 1e-9,
    "max_length": 5,
    "max_new_tokens": 1,
    "forced_eos_token_id": 9,
    "eos_token_id": [9, 11],
    "pad_token_id": -1,
    "bos_token_id": None,
    "cache_implementation": "static",
    "use_cache": False,
    "prompt_lookup_num_tokens": 3,
    "dola_layers": "low",
    "token_healing": True,
    "stop_strings": ["x"],
    "remove_invalid_values": True,
    "an_author_s_own": 5,
}


@pytest.mark.parametrize("field", NOT_APPLIED)
@pytest.mark.parametrize("padded", [True, False], ids=["our loop", "generate"])
def test_other_fields_change_no_answer(
    model: Any, field: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not padded:
        monkeypatch.setattr("xlt_bench.models.generation.keeps_every_slot", lambda *_: False)
    plain = ours(model)
    setattr(model.generation_config, field, NOT_APPLIED[field])
    own = model.generation_config
    assert ours(model) == plain
    assert model.generation_config is own
    assert bool(notes(model)) == (field in {*generation_config.DECIDES, "stop_strings"})


def test_a_neutral_value_is_not_noted(model: Any) -> None:
    for field, neutral in generation_config.APPLIED.items():
        setattr(model.generation_config, field, neutral[0] if neutral else None)
    model.generation_config.suppress_tokens = []
    model.generation_config.num_beams = 1
    assert notes(model) == []


@pytest.fixture
def lm(tiny_model: Path) -> XltLM:
    base = load_base(str(tiny_model), "float32", "cpu")
    return XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=2)


def test_answers_end_at_stop_strings(lm: XltLM) -> None:
    prompts = ["Where is it?", "Play some jazz"]
    plain = lm.generate(prompts, 20)
    end = plain[0].text[5:7]
    lm.model.generation_config.stop_strings = [end, "never said"]
    first, second = lm.generate(prompts, 20)
    assert first.text == plain[0].text[: plain[0].text.index(end)]
    assert first.cut_off is False
    assert (end in plain[1].text) or second == plain[1]
    # A stop string that is one token ends the answer there.
    lm.model.generation_config.stop_strings = lm.tokenizer.convert_ids_to_tokens(
        lm.tokenizer(plain[0].text)["input_ids"][0]
    )
    assert lm.generate(prompts, 20)[0].text == ""


@pytest.mark.parametrize("pad", [-1, 10_000, None])
@pytest.mark.parametrize("padded", [True, False], ids=["our loop", "generate"])
def test_any_pad_id_gives_the_same_answers_and_states(
    lm: XltLM, pad: int | None, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not padded:
        monkeypatch.setattr("xlt_bench.models.generation.keeps_every_slot", lambda *_: False)
    prompts = ["a", "a much longer prompt"]
    plain, states = lm.generate(prompts, 9), lm.sentence_states(prompts, [2])
    for config in (lm.model.config, lm.model.generation_config):
        config.pad_token_id = pad
    monkeypatch.setitem(vars(lm.tokenizer), "pad_token_id", pad)
    assert lm.generate(prompts, 9) == plain
    assert torch.equal(lm.sentence_states(prompts, [2]), states)


def test_a_tokenizer_without_special_tokens(tiny_model: Path, tmp_path: Path) -> None:
    whole = load_base(str(tiny_model), "float32", "cpu")
    whole.model.config.eos_token_id = whole.model.generation_config.eos_token_id = None
    whole.model.save_pretrained(tmp_path)
    bare = tiny.byte_tokenizer()
    bare.eos_token = bare.bos_token = bare.pad_token = None
    bare.save_pretrained(tmp_path)
    base = load_base(str(tmp_path), "float32", "cpu")
    assert base.tokenizer.eos_token_id is None
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=2)
    lm.try_out(True, [1, 4])
    prompts = ["a", "a much longer prompt"]
    for prompt, answer in zip(prompts, lm.generate(prompts, 9), strict=True):
        assert answer.cut_off
        ids = torch.tensor([base.tokenizer(prompt)["input_ids"]])
        greedy = base.model.generate(ids, max_new_tokens=9, do_sample=False)[0, ids.shape[1] :]
        assert answer.text == base.tokenizer.decode(greedy)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("padded", [True, False], ids=["our loop", "generate"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_scores_that_are_not_finite_are_no_answer(
    model: Any, value: float, padded: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not padded:
        monkeypatch.setattr("xlt_bench.models.generation.keeps_every_slot", lambda *_: False)
    model = model.to(dtype)
    model.lm_head.register_forward_hook(lambda *_: _[2].index_fill(-1, torch.tensor([40]), value))
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(NotFiniteError, match=f"logits are not finite in {name}; ch") as raised:
        ours(model)
    assert isinstance(raised.value, InputError)
    assert "\n" not in str(raised.value)


def test_a_score_of_minus_infinity_is_allowed(model: Any) -> None:
    plain = ours(model)
    unused = torch.tensor(sorted(set(range(61)) - {token for row in plain for token in row}))
    model.lm_head.register_forward_hook(lambda *_: _[2].index_fill(-1, unused, -torch.inf))
    assert ours(model) == plain
