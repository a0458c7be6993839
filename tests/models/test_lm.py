"""States, chat templates, BOS and adapters' norms against direct computations."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from xlt_bench.models.chat import encode_prompt, render_chat, set_chat_template
from xlt_bench.models.lm import XltLM
from xlt_bench.models.load import load_base

CHAT = [{"role": "system", "content": "Do it."}, {"role": "user", "content": "Now."}]


@pytest.fixture(scope="module")
def base(tiny_model):
    return load_base(str(tiny_model), "float32", "cpu")


@torch.no_grad()
def test_states_are_means_of_block_outputs_before_the_final_norm(base):
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=2)
    sentences = ["a", "a longer sentence", "und noch eine, länger als die anderen"]
    states = lm.sentence_states(sentences, [1, 3, 4])
    assert states.shape == (3, 3, 32)
    for i, sentence in enumerate(sentences):
        ids = torch.tensor([base.tokenizer(sentence)["input_ids"]])
        body = base.model.model
        hidden = body(ids, output_hidden_states=True).hidden_states
        torch.testing.assert_close(states[i, 0], hidden[1][0].mean(0))
        torch.testing.assert_close(states[i, 1], hidden[3][0].mean(0))
        # hidden_states[4] went through the final norm, the state must not have.
        normed = body.norm(states[i, 2])
        assert not torch.allclose(states[i, 2], hidden[4][0].mean(0), atol=1e-3)
        assert normed.shape == (32,)


def test_short_sentences_share_a_batch_that_is_no_larger_than_that_of_the_longest(base):
    sentences = ["x" * n for n in (5, 40, 4, 38, 6, 10, 7, 9, 8)]
    alone = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=1)
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=2)
    sizes: list[int] = []
    states = lm.sentence_states(sentences, [2], sizes.append)
    torch.testing.assert_close(states, alone.sentence_states(sentences, [2]))
    tokens = sorted((len(base.tokenizer(text)["input_ids"]) for text in sentences), reverse=True)
    assert sizes[0] == 2
    assert max(sizes) > 2
    for size in sizes:
        assert size * tokens[0] <= 2 * 40 + 2
        del tokens[:size]
    assert tokens == []


def _tied(tiny_model):
    torch.manual_seed(0)
    shape = AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(shape).eval()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    return model


@pytest.mark.parametrize(
    "beside_q",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"trainable_token_indices": [70, 71]},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*tie")
@torch.no_grad()
def test_an_adapter_of_tied_weights_answers_as_peft_has_it(tiny_model, tmp_path, beside_q):
    """lm-eval would tie weights that the adapter has changed: a KeyError, or wrong answers."""
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]} | beside_q)
    trained = get_peft_model(_tied(tiny_model), config)
    for weight in trained.parameters():
        if weight.requires_grad:
            weight.add_(0.1 * torch.randn_like(weight))
    trained.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = torch.tensor([encode_prompt(tokenizer, "Wo bist du?")])
    expected = trained.eval()(ids).logits

    adapted = PeftModel.from_pretrained(_tied(tiny_model), tmp_path)
    lm = XltLM(pretrained=adapted, tokenizer=tokenizer, batch_size=1)
    torch.testing.assert_close(lm.model(ids).logits, expected)
    assert not torch.allclose(_tied(tiny_model)(ids).logits, expected, atol=0.1)
    greedy = trained.generate(ids, max_new_tokens=5, do_sample=False)[0, ids.shape[1] :]
    text = tokenizer.decode(greedy, skip_special_tokens=True)
    assert lm.generate(["Wo bist du?"], 5)[0].text == text


@pytest.mark.filterwarnings("ignore:.*tie")
@torch.no_grad()
def test_an_adapted_head_that_lm_eval_loads_by_name(tiny_model, tmp_path):
    _tied(tiny_model).save_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(tmp_path / "base")
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["lm_head"])
    trained = get_peft_model(_tied(tiny_model), config)
    trained.base_model.model.lm_head.lora_B["default"].weight.add_(0.1)
    trained.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([encode_prompt(tokenizer, "Wo bist du?")])
    lm = XltLM(
        pretrained=str(tmp_path / "base"),
        peft=str(tmp_path / "adapter"),
        dtype="float32",
        device="cpu",
        batch_size=1,
    )
    torch.testing.assert_close(lm.model(ids).logits, trained.eval()(ids).logits)


def test_llama3_template_has_line_breaks_and_no_bos(base, tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert set_chat_template(tokenizer, "llama3-midalign").name == "llama3-midalign"
    assert render_chat(tokenizer, CHAT, add_generation_prompt=True) == (
        "<|start_header_id|>system<|end_header_id|>\n\nDo it.<|eot_id|>\n"
        "<|start_header_id|>user<|end_header_id|>\n\nNow.<|eot_id|>\n"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_template_without_a_system_role_keeps_the_systems_text(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}"
        "{% endif %}[{{ m['content'] }}]{% endfor %}"
    )
    assert render_chat(tokenizer, CHAT) == "[Do it.\n\nNow.]"


def test_never_two_bos(tiny_model):
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    once = encode_prompt(tokenizer, "ab")
    assert once == encode_prompt(tokenizer, "<s>ab")
    assert once.count(0) == 1
    assert once.count(1) == 0


@torch.no_grad()
def test_the_first_sentences_are_also_pooled_as_mexa_does(base):
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=2)
    sentences = ["a longer sentence", "a", "und noch eine, länger als die anderen", "four"]
    means, others = lm.pooled_states(sentences, [1, 3], lambda _done: None, 3)
    assert torch.equal(means, lm.sentence_states(sentences, [1, 3]))
    assert others.shape == (3, 2, 2, 32)
    for i, sentence in enumerate(sentences[:3]):
        ids = torch.tensor([base.tokenizer(sentence)["input_ids"]])
        hidden = base.model.model(ids, output_hidden_states=True).hidden_states
        for place, layer in enumerate((1, 3)):
            states = hidden[layer][0]
            weights = torch.arange(1, len(states) + 1.0)
            weighted = (states * weights[:, None]).sum(0) / weights.sum()
            torch.testing.assert_close(others[i, place, 0], weighted)
            torch.testing.assert_close(others[i, place, 1], states[-1])
