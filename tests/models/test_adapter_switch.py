"""An adapter answers as plain peft has it alone, also beside others, and leaves the base alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tiny import byte_tokenizer, load_model, save_adapter
from xlt_bench.errors import InputError
from xlt_bench.models import adapter_config
from xlt_bench.models.adapter_fit import PEFT_NAME, check_adapter
from xlt_bench.models.adapter_switch import AdapterSwitch, change_norms
from xlt_bench.models.adapters import find_adapter
from xlt_bench.models.hidden_states import acts_in_forward
from xlt_bench.models.lm import XltLM
from xlt_bench.models.load import meta_model

INVOCATION = byte_tokenizer()("ger")["input_ids"]  # is in a sentence
IDS = torch.tensor([[0, 5, 9, *INVOCATION, 78, 40, 6]])
SENTENCES = ["Wo bist du?", "A longer sentence than the first."]
LAYERS = [1, 3]

_ON = {"target_modules": ["q_proj", "up_proj"]}
_Q = {"target_modules": ["q_proj"]}
# One of each way to act: in modules, in place on the base, by tokens that are searched or added.
QUICK = {
    "LORA dora": {**_ON, "r": 4, "use_dora": True},
    "LORA olora": {**_ON, "r": 4, "init_lora_weights": "olora"},
    "LORA alora": {**_ON, "r": 4, "alora_invocation_tokens": INVOCATION},
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
}
SLOW = {
    "P_TUNING": {"num_virtual_tokens": 4},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "ADALORA": {**_ON, "init_r": 4, "total_step": 10},
    "LORA pissa": {**_ON, "r": 4, "init_lora_weights": "pissa"},
    "LORA tokens": {**_Q, "r": 4, "trainable_token_indices": [1, 5]},
    "LORA modules_to_save": {**_Q, "r": 4, "modules_to_save": ["embed_tokens", "lm_head"]},
    "LORA embeddings": {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
    "LORA": {**_ON, "r": 4, "use_rslora": True},
    "LORA orthogonal": {**_ON, "r": 4, "init_lora_weights": "orthogonal"},
    "LORA lora_bias": {**_ON, "r": 4, "lora_bias": True},
    "LORA parameters": {"r": 4, "target_modules": [], "target_parameters": ["q_proj.weight"]},
    "ADALORA cut": {
        **_Q, "init_r": 4, "total_step": 10,
        "rank_pattern": {
            f"model.layers.{i}.self_attn.q_proj.lora_E": [True, False, True, False]
            for i in range(4)
        },
    },
    "ADAMSS": {**_ON, "r": 16},
    "BEFT": _ON,
    "BOFT": {**_ON, "boft_block_size": 4},
    "C3A": {**_ON, "block_size": 8},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "CPT": {"cpt_token_ids": [3, 4], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 2]},
    "DEFT": _ON,
    "DELORA": _ON,
    "FOURIERFT": {**_ON, "n_frequency": 10},
    "FROD": _ON,
    "GLORA": _ON,
    "GRALORA": _ON,
    "HIRA": _ON,
    "HRA": _ON,
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "LOHA": {**_ON, "rank_pattern": {"up_proj": 2}},
    "LOKR": _ON,
    "MISS": {**_ON, "r": 4},
    "OFT": {**_ON, "oft_block_size": 4},
    "OSF": _ON,
    "PEANUT": _ON,
    "PROMPT_TUNING text": {
        "num_virtual_tokens": 4, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Answer:",
    },
    "PSOFT": _ON,
    "PVERA": {**_Q, "r": 4},
    "RANDLORA": _ON,
    "ROAD": {**_ON, "group_size": 16},
    "SHIRA": {**_Q, "r": 2},
    "SUPERTUNING": _ON,
    "TINYLORA": _ON,
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [1, 5]},
    "UNILORA": _ON,
    "VBLORA": {**_ON, "r": 2, "vector_length": 8, "num_vectors": 10, "topk": 2},
    "VERA": {**_Q, "r": 4},
    "WAVEFT": {**_ON, "n_frequency": 64},
}  # fmt: skip
EVERY = [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)]


def save_kind(model, folder, kind):
    """Write an adapter of a kind that changes answers, as peft saves it."""
    torch.manual_seed(1)
    values = dict((QUICK | SLOW)[kind])
    if "prompt_tuning_init_text" in values:
        values["tokenizer_name_or_path"] = str(model)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind.split()[0]](task_type="CAUSAL_LM", **values)
    trained = get_peft_model(load_model(model), config)
    with torch.no_grad():
        for weight in trained.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    trained.save_pretrained(folder)
    return folder


def switch_for(model, *folders):
    """A switch with the adapters in these folders, and their files."""
    found = [find_adapter(str(folder)) for folder in folders]
    skeleton = meta_model(str(model))
    fits = {one.name: check_adapter(one, skeleton, "tiny") for one in found}
    base = load_model(model).eval()
    return AdapterSwitch(base, "tiny", fits), found


@torch.inference_mode()
def logits(model, ids=IDS):
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@torch.inference_mode()
def expected(model):
    """What plain transformers and peft make of a prompt and of sentences, one row at a time."""
    tokenizer, states, answers = byte_tokenizer(), [], []
    for sentence in SENTENCES:
        ids = torch.tensor([tokenizer(sentence)["input_ids"]])
        hidden = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        ).hidden_states  # virtual tokens come first
        states.append([hidden[layer][0, -ids.shape[1] :].mean(0) for layer in LAYERS])
        answer = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=1,
        )[0, ids.shape[1] :]
        answers.append(tokenizer.decode(answer, skip_special_tokens=True))
    return SimpleNamespace(
        logits=logits(model),
        states=torch.stack([torch.stack(row) for row in states]),
        answers=answers,
    )


def check(model, lm, wanted):
    """The model answers as wanted: the same logits, text and states."""
    lm.use_model(model)
    assert torch.equal(logits(model), wanted.logits)
    batches = [[one] for one in SENTENCES] if acts_in_forward(model) else [SENTENCES]
    given = [answer.text for batch in batches for answer in lm.generate(batch, 6)]
    assert given == wanted.answers
    torch.testing.assert_close(
        lm.sentence_states(SENTENCES, LAYERS), wanted.states, rtol=1e-5, atol=1e-5
    )


@pytest.fixture(scope="module")
def usual(tiny_model, tiny_adapter):
    """What the bare model and the random LoRA answer."""
    adapted = PeftModel.from_pretrained(load_model(tiny_model), str(tiny_adapter)).eval()
    return expected(load_model(tiny_model).eval()), expected(adapted)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_answers_as_alone_in_peft(kind, usual, tiny_model, tiny_adapter, tmp_path):
    """Also in retrieval; before and after it another adapter and the bare model do, too."""
    saved = save_kind(tiny_model, tmp_path / "saved", kind)
    if "tokenizer_name_or_path" in (text := (saved / "adapter_config.json").read_text()):
        # Evaluation must not need that tokenizer.
        path = text.replace(
            f'"tokenizer_name_or_path": "{tiny_model}"', '"tokenizer_name_or_path": "/"'
        )
        (saved / "adapter_config.json").write_text(path)
    bare, lora = usual
    alone = expected(PeftModel.from_pretrained(load_model(tiny_model), str(saved)).eval())
    assert not torch.allclose(alone.logits[:, -3:], bare.logits[:, -3:], atol=1e-4)
    switch, (other, found) = switch_for(tiny_model, tiny_adapter, saved)
    lm = XltLM(pretrained=switch.use(None), tokenizer=byte_tokenizer(), batch_size=2)
    before = {name: tensor.clone() for name, tensor in switch.use(None).state_dict().items()}
    check(switch.use(other), lm, lora)
    check(switch.use(found), lm, alone)
    assert not any(weight.is_meta for weight in lm.model.parameters())
    check(switch.use(other), lm, lora)
    check(switch.use(None), lm, bare)
    after = switch.use(None).state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.slow
def test_every_kind_of_peft_is_tested_or_refused():
    tested = {kind.split()[0] for kind in QUICK | SLOW}
    assert tested | set(adapter_config._REFUSED_KINDS) == {kind.value for kind in PeftType}


def tied(tiny_model, folder, tie):
    """A base whose LM head is tied to the embeddings, or not."""
    config = AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=tie)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def save_resized(base, folder, rows, **settings):
    """Write a LoRA that was trained on a base with another number of tokens; its logits."""
    model = load_model(base)
    model.resize_token_embeddings(rows)
    torch.manual_seed(1)
    values = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False} | settings
    trained = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **values))
    with torch.no_grad():
        for weight in trained.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    trained.save_pretrained(folder)
    return logits(trained.eval(), IDS_NEW if rows > VOCABULARY else IDS)


VOCABULARY = 258
IDS_NEW = torch.tensor([[0, 258, 9, 260, 30]])
_BOTH = ["embed_tokens", "lm_head"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tie", "rows", "settings"),
    [
        (False, 261, {}),
        pytest.param(True, 261, {}, marks=pytest.mark.slow),
        pytest.param(False, 250, {}, marks=pytest.mark.slow),
        pytest.param(False, 250, {"target_modules": ["lm_head"]}, marks=pytest.mark.slow),
        (True, 250, {}),
        (False, 261, {"modules_to_save": _BOTH}),
        pytest.param(True, 261, {"modules_to_save": _BOTH}, marks=pytest.mark.slow),
        pytest.param(False, 261, {"modules_to_save": ["embed_tokens"]}, marks=pytest.mark.slow),
        pytest.param(True, 261, {"modules_to_save": ["embed_tokens"]}, marks=pytest.mark.slow),
        pytest.param(
            True,
            261,
            {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            False, 261, {"trainable_token_indices": [258, 259, 260]}, marks=pytest.mark.slow
        ),
        (True, 261, {"trainable_token_indices": [258, 259, 260]}),
        pytest.param(False, 261, {"target_modules": _BOTH}, marks=pytest.mark.slow),
        pytest.param(
            True, 261, {"target_modules": ["q_proj", "embed_tokens"]}, marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_an_adapter_with_added_tokens_is_evaluated_with_them(
    tie, rows, settings, tiny_model, tmp_path
):
    """The base is resized for it alone."""
    base = tied(tiny_model, tmp_path / "base", tie)
    trained = save_resized(base, tmp_path / "resized", rows, **settings)
    other = save_adapter(base, tmp_path / "other", seed=2)
    bare = logits(load_model(base))
    beside = logits(PeftModel.from_pretrained(load_model(base), str(other)))
    ids = IDS_NEW if rows > VOCABULARY else IDS

    switch, (first, found) = switch_for(base, other, tmp_path / "resized")
    for _ in range(2):
        assert torch.equal(logits(switch.use(first)), beside)
        torch.testing.assert_close(logits(switch.use(found), ids), trained)
        assert logits(switch.bare(found), ids).shape == trained.shape
        assert torch.equal(logits(switch.use(None)), bare)
        assert switch.use(None).config.vocab_size == VOCABULARY


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tie", "settings"),
    [
        (False, {"target_modules": ["q_proj", "embed_tokens"]}),
        (False, {"target_modules": ["q_proj", "lm_head"]}),
    ],
    ids=str,
)
def test_added_tokens_of_which_the_file_holds_a_part(tie, settings, tiny_model, tmp_path):
    """Peft would leave the other embeddings of the new tokens at random values."""
    base = tied(tiny_model, tmp_path / "base", tie)
    save_resized(base, tmp_path / "resized", 261, **settings)
    found = find_adapter(str(tmp_path / "resized"))
    with pytest.raises(InputError, match=r"does not hold all of .*merge the adapter .*--model"):
        check_adapter(found, meta_model(str(base)), "tiny")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tie", [False, True])
def test_embeddings_in_the_file_are_the_adapters_alone(tie, tiny_model, tmp_path):
    """Peft loads them into the base, where the next adapter would find them."""
    base = tied(tiny_model, tmp_path / "base", tie)
    model = load_model(base)
    adapter, other = (save_adapter(base, tmp_path / name, seed=2) for name in ("own", "other"))
    embeddings = model.get_input_embeddings().weight.detach() + 0.1
    own = {"base_model.model.model.embed_tokens.weight": embeddings}
    save_file(
        load_file(adapter / "adapter_model.safetensors") | own,
        adapter / "adapter_model.safetensors",
    )
    bare = logits(model)
    alone, beside = (
        logits(PeftModel.from_pretrained(load_model(base), str(folder)))
        for folder in (adapter, other)
    )
    switch, (first, second) = switch_for(base, adapter, other)
    for _ in range(2):
        assert torch.equal(logits(switch.use(first)), alone)
        assert torch.equal(logits(switch.use(second)), beside)
        assert torch.equal(logits(switch.use(None)), bare)
    assert not torch.allclose(alone, beside, atol=1e-2)


def test_an_adapter_that_peft_refuses_leaves_the_base(tiny_model, tiny_adapter, tmp_path):
    switch, (found,) = switch_for(tiny_model, tiny_adapter)
    bare = logits(switch.use(None))
    broken = replace(found, folder=tmp_path, config={}, shapes={})
    with pytest.raises(InputError, match="does not fit tiny"):
        switch.use(broken)
    assert torch.equal(logits(switch.use(None)), bare)


def test_change_norm_is_that_of_the_product(tiny_model, tiny_adapter):
    model = load_model(tiny_model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    adapted = PeftModel.from_pretrained(model, tiny_adapter)
    norms = change_norms(adapted, PEFT_NAME)
    merged = dict(adapted.merge_and_unload().named_parameters())
    for kind, norm in norms.items():
        square = sum(
            (merged[name] - before[name]).pow(2).sum().item() for name in before if kind in name
        )
        assert norm == pytest.approx(square**0.5, rel=1e-4)


@pytest.mark.parametrize("kind", ["ADAPTION_PROMPT", "IA3", "PROMPT_TUNING"])
def test_change_norm_of_other_kinds_is_that_of_their_file(tiny_model, tmp_path, kind):
    folder = save_kind(tiny_model, tmp_path, kind)
    adapted = PeftModel.from_pretrained(load_model(tiny_model), folder, adapter_name=PEFT_NAME)
    tensors = load_file(folder / "adapter_model.safetensors").values()
    norm = sum(tensor.pow(2).sum().item() for tensor in tensors) ** 0.5
    assert change_norms(adapted, PEFT_NAME) == {"parameters": pytest.approx(norm, rel=1e-4)}
