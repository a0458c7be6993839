"""An answer ends where the chat template ends an assistant's turn, as well as at every EOS."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import AddedToken
from transformers import GenerationConfig

from tiny import byte_tokenizer, load_model
from xlt_bench.errors import InputError
from xlt_bench.models.lm import XltLM
from xlt_bench.models.stops import stops
from xlt_bench.models.turn_end import encode_exchange, turn_end

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
)
# What each template writes after an answer, and with which of the tokens it is to be found.
TEMPLATES = {
    "ChatML": (CHATML, "<|im_end|>"),
    "Llama 3": (LLAMA3, "<|eot_id|>"),
    "Gemma": (
        "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
        "{{ m.content }}<end_of_turn>\n{% endfor %}",
        "<end_of_turn>",
    ),
    "Mistral": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "</s>",
    ),
    "thinking in the history": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n<think>\n\n"
        "</think>\n\n{{ m.content }}<|im_end|>\n{% else %}{{ m.content }}{% endif %}{% endfor %}",
        "<|im_end|>",
    ),
    "nothing but a line break": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
        "</s>",
    ),
    "no answers": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}"
        "{% endif %}{{ m.content }}{% endfor %}",
        "</s>",
    ),
    "no template": (None, "</s>"),
}


def model_ending(eos):
    """As much of a model as is asked for its EOS."""
    return SimpleNamespace(generation_config=GenerationConfig(eos_token_id=eos))


@pytest.fixture
def tokenizer():
    tokenizer = byte_tokenizer()
    marks = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"]
    # One of them as models are often published: added, but not marked as special.
    tokenizer.add_tokens([AddedToken(mark, special=mark != "<|im_end|>") for mark in marks])
    return tokenizer


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_a_turn_by_template(tokenizer, name):
    template, end = TEMPLATES[name]
    tokenizer.chat_template = template
    id_ = tokenizer.convert_tokens_to_ids(end)
    assert turn_end(tokenizer).ids == (id_,)
    found = stops(model_ending(None), tokenizer)
    assert (set(found.ids), found.texts) == ({1, id_}, ())
    assert set(found.names) == {"</s>", end}


def test_every_eos_of_the_generation_config_counts(tokenizer):
    tokenizer.chat_template = CHATML
    assert {5, 7, 1} < set(stops(model_ending([5, 7]), tokenizer).ids)
    assert {5, 1} < set(stops(model_ending(5), tokenizer).ids)


@pytest.mark.parametrize(
    ("template", "end", "mark", "texts"),
    [
        (CHATML, "<|im_end|>", "<|im_end|>", ()),
        (LLAMA3, "<|eot_id|>", "<|eot_id|>", ()),
        (CHATML.replace("<|im_end|>", "<|done|>"), "<|done|>", None, ("<|done|>",)),
        (CHATML.replace("<|im_end|>", "\n### End"), "\n### End", None, ("### End",)),
        (
            CHATML.replace("<|im_end|>", "\n### End<|im_end|>"),
            "\n### End<|im_end|>",
            "<|im_end|>",
            ("### End",),
        ),
        (TEMPLATES["nothing but a line break"][0], "</s>", "</s>", ()),
    ],
)
def test_training_teaches_the_end_at_which_decoding_stops(tokenizer, template, end, mark, texts):
    tokenizer.chat_template = template
    _, answer = encode_exchange(tokenizer, [{"role": "user", "content": "Hi"}], "None")
    assert tokenizer.decode(answer) == "None" + end
    found = stops(model_ending(None), tokenizer)
    assert found.texts == texts
    if mark:
        assert answer[-1] == tokenizer.convert_tokens_to_ids(mark)
        assert answer[-1] in found.ids


def test_a_turn_that_nothing_ends_is_refused(tokenizer):
    tokenizer.chat_template = TEMPLATES["nothing but a line break"][0]
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="nothing ends an answer"):
        encode_exchange(tokenizer, [{"role": "user", "content": "Hi"}], "None")


def _greedy(model, ids, **options):
    out = model.generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False, **options)
    return out[0, len(ids) :].tolist()


@pytest.fixture
def free(tiny_model):
    """The tiny model, and the text that it writes after a prompt if only </s> ends it."""
    model, tokenizer = load_model(tiny_model).eval(), byte_tokenizer()
    ids = tokenizer("user: Hi\nassistant:")["input_ids"]
    return model, ids, _greedy(model, ids)


def test_an_end_of_one_token_is_that_of_plain_generate(free):
    model, ids, written = free
    tokenizer = byte_tokenizer()
    mark = tokenizer.convert_ids_to_tokens(written[5])
    tokenizer.add_tokens([AddedToken(mark, special=True)])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}" + mark + "\n{% endfor %}"
    [answer] = XltLM(pretrained=model, tokenizer=tokenizer, batch_size=1).generate(
        ["user: Hi\nassistant:"], 40
    )
    theirs = _greedy(model, ids, eos_token_id=[1, written[5]])
    assert len(theirs) < len(written)
    assert answer.text == tokenizer.decode(theirs, skip_special_tokens=True)
    assert answer.cut_off is False


def test_an_end_of_several_tokens_cuts_the_text(free):
    model, _, written = free
    tokenizer = byte_tokenizer()
    text = tokenizer.decode(written, skip_special_tokens=True)
    end = text[6:9]
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}" + end + "\n{% endfor %}"
    [answer] = XltLM(pretrained=model, tokenizer=tokenizer, batch_size=1).generate(
        ["user: Hi\nassistant:"], 40
    )
    assert end.strip()
    assert answer.text == text.partition(end.strip())[0] != text
    assert answer.cut_off is False
