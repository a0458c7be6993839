"""Greedy decoding against transformers' `generate` on each prompt alone, without padding."""

import random

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconMambaConfig,
    Gemma3TextConfig,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    RwkvConfig,
)

import tiny
from xlt_bench.models import generation
from xlt_bench.models import kv_cache as cache
from xlt_bench.models.generation import answers, shared_prefix
from xlt_bench.models.kv_cache import keeps_every_slot
from xlt_bench.models.lm import XltLM
from xlt_bench.models.load import load_base
from xlt_bench.models.padding import masks_padding

VOCABULARY, LIMIT, PAD = 61, 24, 0
STOPS = [3, 4, 5, 6, 7, 8, 9]
SIZE = tiny.SIZE | {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 7,
    "pad_token_id": PAD,
    "tie_word_embeddings": False,  # tied random weights repeat the last token for ever
}
ALTERNATE = ["sliding_attention", "full_attention"]
FULL_WIDTH = {
    "llama": LlamaConfig(**SIZE),
    "qwen2": Qwen2Config(**SIZE),
    "mistral": MistralConfig(**SIZE, sliding_window=None),
    "mistral, wide window": MistralConfig(**SIZE, sliding_window=128),
    "gemma3, wide window": Gemma3TextConfig(
        **SIZE, head_dim=8, sliding_window=128, layer_types=ALTERNATE
    ),
}
LEFT_TO_TRANSFORMERS = {
    "mistral, narrow window": MistralConfig(**SIZE, sliding_window=12),
    "gemma3, narrow window": Gemma3TextConfig(
        **SIZE, head_dim=8, sliding_window=12, layer_types=ALTERNATE
    ),
    "recurrent": FalconMambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2),
    "local attention": GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=12,
    ),
    "no position_ids": BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
}


def random_model(config):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:  # far from the tiny initial weights, so that answers vary
            parameter.data.normal_(0, 0.25)
    return model


def made_up_rows(shared, count=9, seed=0):
    """Rows of unequal lengths with a common prefix; they differ right after it."""
    draw = random.Random(seed)
    prefix = [draw.randrange(10, VOCABULARY) for _ in range(shared)]
    return [
        [*prefix, 10 + i, *(draw.randrange(10, VOCABULARY) for _ in range(draw.randrange(20)))]
        for i in range(count)
    ]


def alone(model, rows, limit=LIMIT):
    """The answer of transformers' `generate` to each row alone."""
    return [
        model.generate(
            input_ids=torch.tensor([row]),
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=STOPS,
            pad_token_id=PAD,
        )[0, len(row) :].tolist()
        for row in rows
    ]


def ours(model, rows, batch_size=9, limit=LIMIT):
    found = dict(answers(model, rows, batch_size, limit, STOPS))
    return [found[i] for i in range(len(rows))]


def ended(answers):
    """Cut after the first stop token."""
    ends = [next((i for i, t in enumerate(row) if t in STOPS), LIMIT) for row in answers]
    return [row[: end + 1] for row, end in zip(answers, ends, strict=True)]


@pytest.mark.parametrize("name", FULL_WIDTH)
@pytest.mark.parametrize("shared", [0, 1, 17])
def test_tokens_are_those_of_transformers(name, shared):
    model = random_model(FULL_WIDTH[name])
    rows = made_up_rows(shared)
    assert shared_prefix(rows) == shared
    assert keeps_every_slot(model, max(map(len, rows)) + LIMIT)
    expected = alone(model, rows)
    # The comparison must see rows that leave early, and rows that the limit cuts off.
    assert len({len(row) for row in expected}) > 2
    assert ours(model, rows) == expected


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_batch_size_and_limit_change_nothing(batch_size):
    model = random_model(FULL_WIDTH["llama"])
    rows = made_up_rows(11, count=33)
    expected = alone(model, rows)
    assert ours(model, rows, batch_size) == expected
    for limit in (1, 2, 5):
        assert ours(model, rows, batch_size, limit) == [row[:limit] for row in expected]


def test_waiting_prompts_take_the_places_of_ended_answers(monkeypatch):
    monkeypatch.setattr(generation, "_pads_inside", lambda *_: True)  # counts no forward of its own
    model = random_model(FULL_WIDTH["llama"])
    rows = made_up_rows(11, count=40)
    lengths = [len(answer) for answer in alone(model, rows)]
    forwards = []
    model.register_forward_pre_hook(lambda *_: forwards.append(1))
    assert ours(model, rows, 4) == alone(model, rows)
    del forwards[:]
    ours(model, rows, 4)
    in_fours = sum(max(lengths[i : i + 4]) for i in range(0, 40, 4))
    assert sum(lengths) / 4 < len(forwards) - 1 < 0.7 * in_fours  # one was the prefix


def test_a_window_is_not_outgrown_when_a_row_joins_a_long_one():
    """The last row joins late: with its padding the batch would outgrow the window."""
    model = random_model(FULL_WIDTH["mistral, wide window"])
    short = made_up_rows(30, count=50)
    lengths = [len(answer) for answer in alone(model, short)]
    draw = random.Random(5)
    long = short[0][:30]
    while len(long) < 128 - LIMIT or len(alone(model, [long])[0]) < LIMIT:
        long = [*long[:30], *(draw.randrange(10, VOCABULARY) for _ in range(128 - LIMIT - 30))]
    middling = short[next(i for i, n in enumerate(lengths) if LIMIT // 2 < n < LIMIT)]
    lasting = short[next(i for i, n in enumerate(lengths) if n == LIMIT)]
    rows, slots = [long, middling, lasting], []
    expected = alone(model, rows)
    model.register_forward_pre_hook(
        lambda _module, _args, given: slots.append(given["attention_mask"].shape[1]),
        with_kwargs=True,
    )
    found = ours(model, rows, 2)
    assert max(slots) == len(long) + LIMIT == 128
    assert slots[-1] < 128
    assert found == expected


def test_answers_longer_than_the_buffer_first_has_room_for():
    model = random_model(FULL_WIDTH["llama"])
    limit = 2 * cache._GROWTH + 5
    rows = made_up_rows(6, count=20)
    expected = alone(model, rows, limit)
    assert max(map(len, expected)) > cache._GROWTH + 1
    assert ours(model, rows, 20, limit) == expected


def test_shared_prefix_leaves_a_token_of_every_row():
    assert shared_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_prefix([[1, 2], [1, 2, 3], [1, 2, 4]]) == 1
    assert shared_prefix([[1, 2, 3], [4, 2, 3]]) == 0
    assert shared_prefix([[1, 2, 3]]) == 0
    assert shared_prefix([]) == 0


def test_a_prompt_that_is_the_whole_prefix():
    model = random_model(FULL_WIDTH["qwen2"])
    rows = made_up_rows(12, count=4)
    rows += [rows[0][:12], rows[0][:12]]
    assert shared_prefix(rows) == 11
    assert ours(model, rows) == alone(model, rows)
    assert ours(model, [rows[0]] * 3) == alone(model, [rows[0]] * 3)


@pytest.mark.parametrize("name", LEFT_TO_TRANSFORMERS)
def test_caches_that_padding_would_disturb_are_left_to_transformers(name, monkeypatch):
    monkeypatch.setattr(generation, "_greedy", lambda *_: pytest.fail("our loop ran"))
    model = random_model(LEFT_TO_TRANSFORMERS[name])
    rows = made_up_rows(17, count=1) * 3  # of one length: no padding to disturb the reference
    assert not keeps_every_slot(model, max(map(len, rows)) + LIMIT)
    assert ended(ours(model, rows)) == alone(model, rows)


def test_a_window_is_wide_enough_up_to_its_last_slot():
    model = random_model(FULL_WIDTH["mistral, wide window"])
    assert keeps_every_slot(model, 128)
    assert not keeps_every_slot(model, 129)
    rows = [row + [10] * (128 - LIMIT - len(row)) for row in made_up_rows(30, count=2)]
    rows.append(rows[0][:60])
    assert ours(model, rows) == alone(model, rows)


def test_the_repetition_penalty_of_the_generation_config():
    model = random_model(FULL_WIDTH["qwen2"])
    rows = made_up_rows(8)
    plain = ours(model, rows)
    model.generation_config.repetition_penalty = 1.4
    assert ours(model, rows) == alone(model, rows) != plain


def test_adapter_and_bare_model_by_turns():
    bare = random_model(FULL_WIDTH["llama"])
    model = tiny.with_lora(bare, seed=3, target_modules=["k_proj", "v_proj"]).eval()
    rows = made_up_rows(15)
    adapted = alone(model, rows)
    with model.disable_adapter():
        bare = alone(model, rows)
        assert ours(model, rows) == bare
    assert adapted != bare
    assert ours(model, rows) == adapted
    with model.disable_adapter():
        assert ours(model, rows) == bare


def test_virtual_tokens_are_left_to_peft():
    model = random_model(FULL_WIDTH["llama"])
    tuned = get_peft_model(
        model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    ).eval()
    assert keeps_every_slot(model, 50)
    assert not keeps_every_slot(tuned, 50)


@pytest.mark.parametrize("kind", ["prompt tuning", "rwkv"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_that_is_not_masked_is_not_used(kind, dtype, monkeypatch):
    if kind == "rwkv":
        model = random_model(RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2))
    else:
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        model = get_peft_model(random_model(FULL_WIDTH["llama"]), config).eval()
        torch.nn.init.normal_(model.prompt_encoder["default"].embedding.weight)
    model = model.to(dtype)
    rows = made_up_rows(8, count=8)
    rows = sorted([*rows, rows[0][::-1]], key=len, reverse=True)
    call, batches = generation.ordinary, []
    monkeypatch.setattr(
        generation,
        "ordinary",
        lambda _, batch, *more: batches.append(batch) or call(_, batch, *more),
    )
    found = ours(model, rows, 4)
    assert all(len({len(row) for row in batch}) == 1 for batch in batches)
    assert max(map(len, batches)) == (
        1 if kind == "rwkv" else 2
    )  # rwkv mixes up the states of rows
    if dtype == torch.float32:
        assert [ended([row])[0] for row in found] == alone(model, rows)


def test_layers_that_take_tokens_in_fours_are_seen_to_count_padding():
    """Masks that hide the padding are not enough: the short row alone would show nothing."""

    def run(rows, fill):
        width = max(map(len, rows))
        whole = (width - len(rows[0])) % 4 * (len(rows[0]) >= 8)
        return torch.tensor([1.0, whole])

    short, long = [1, 2], [1] * 12
    assert not masks_padding(run, [long, long, short])
    assert masks_padding(lambda *_: torch.tensor([1.0, 0.0]), [long, short])


def test_the_lm_answers_as_transformers_does(tiny_model, tiny_adapter):
    base = load_base(str(tiny_model), "float32", "cpu")
    model = PeftModel.from_pretrained(base.model, tiny_adapter).eval()
    lm = XltLM(pretrained=model, tokenizer=base.tokenizer, batch_size=3)
    prompts = [f"Same beginning, then {'x' * i} {i}" for i in range(7)]
    told = []
    answers = lm.generate(prompts, 20, told.append)
    assert told == [1] * 7
    for prompt, answer in zip(prompts, answers, strict=True):
        inputs = base.tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0]
        tokens = output[inputs["input_ids"].shape[1] :].tolist()
        assert answer.text == base.tokenizer.decode(tokens, skip_special_tokens=True)
        assert answer.cut_off == (base.tokenizer.eos_token_id not in tokens)
