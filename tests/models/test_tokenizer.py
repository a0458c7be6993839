"""A system answers with the tokenizer and chat template that its adapter was trained with."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer

from tiny import byte_tokenizer, load_model
from xlt_bench.errors import InputError
from xlt_bench.models.adapters import find_adapter
from xlt_bench.models.lm import XltLM
from xlt_bench.models.tokenizer import choose_chat

MODELS = "<model>{% for m in messages %}{{ m.content }}{% endfor %}"
ADAPTERS = "<adapter>{% for m in messages %}{{ m.content }}{% endfor %}"
CHAT = [{"role": "system", "content": "Do it. "}, {"role": "user", "content": "Now."}]


@pytest.fixture
def model(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = MODELS
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(tiny_adapter, tmp_path):
    return shutil.copytree(tiny_adapter, tmp_path / "adapter")


def own(adapter, template):
    """Give the adapter a tokenizer that adds a BOS, and a template."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(adapter)


def chosen(model, adapter=None, tokenizer=None, template=None):
    found = choose_chat(
        str(model),
        adapter and find_adapter(str(adapter)),
        tokenizer and str(tokenizer),
        template,
        {},
    )
    ids = found.tokenizer("a")["input_ids"]
    return found.source, found.template.name, found.tokenizer.chat_template, ids[0] == 0


def test_the_models_own(model, adapter):
    assert chosen(model) == chosen(model, adapter) == ("model", "tokenizer", MODELS, False)


def test_the_adapters(model, adapter):
    own(adapter, ADAPTERS)
    assert chosen(model, adapter) == ("adapter", "tokenizer", ADAPTERS, True)
    assert chosen(model, adapter, template="plain")[:2] == ("adapter", "plain")
    source, name, template, bos = chosen(model, adapter, tokenizer=model)
    assert (source, bos) == (f"--tokenizer {model}", False)
    assert (name, template) == ("adapter", ADAPTERS)
    assert chosen(model, adapter, model, "tokenizer")[1:] == ("tokenizer", MODELS, False)


def test_an_adapter_whose_tokenizer_has_no_template(model, adapter):
    own(adapter, None)
    assert chosen(model, adapter) == ("adapter", "model", MODELS, True)


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_an_adapter_that_brings_a_template_only(model, adapter, name):
    text = ADAPTERS if name.endswith("jinja") else json.dumps({"chat_template": ADAPTERS})
    (adapter / name).write_text(text)
    assert chosen(model, adapter) == ("model", "adapter", ADAPTERS, False)
    assert chosen(model, adapter, template="tokenizer") == ("model", "tokenizer", MODELS, False)


def test_an_adapter_that_brings_several_templates(model, adapter):
    named = {"tool_use": "{{ tools }}", "default": ADAPTERS}
    rows = [{"name": name, "template": text} for name, text in named.items()]
    (adapter / "tokenizer_config.json").write_text(json.dumps({"chat_template": rows}))
    found = choose_chat(str(model), find_adapter(str(adapter)), None, None, {})
    assert found.tokenizer.get_chat_template() == ADAPTERS
    assert found.template.name == "adapter"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", "{", "brings a tokenizer that cannot be used"),
        ("tokenizer_config.json", "[1, 2]", "brings a chat template that cannot be read"),
        ("tokenizer_config.json", '{"chat_template": 5}', "brings a chat .* is 5, not a text"),
        ("tokenizer_config.json", '{"chat_template": [5]}', "brings a chat template that cannot"),
        ("chat_template.jinja", "{{ messages", "chat template .* cannot render"),
        ("chat_template.jinja", "\\xff" * 3_000_000, "larger than"),
    ],
)
def test_one_line_for_what_an_adapter_brings_broken(model, adapter, name, text, message):
    if name == "tokenizer.json":
        own(adapter, None)
    (adapter / name).write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        chosen(model, adapter)
    assert "\n" not in str(refused.value)


def test_tokens_that_the_model_does_not_have(model, adapter):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    lm = XltLM(pretrained=load_model(model), tokenizer=tokenizer, batch_size=1)
    with pytest.raises(InputError, match=r"'<\|im_end\|>' \(id 258\).*only 258 embeddings"):
        lm.generate([lm.apply_chat_template(CHAT)], 2)
    with pytest.raises(InputError, match="only 258 embeddings"):
        lm.sentence_states(["a<|im_end|>"], [1])


def test_a_model_without_a_tokenizer(model, adapter, made_up_root, tmp_path, run_cli):
    for path in [*model.glob("tokenizer*"), *model.glob("chat_template*")]:
        path.unlink()
    own(adapter, ADAPTERS)
    words = ["evaluate", "--model", model, "--data-dir", made_up_root, "--tasks", "retrieval"]
    words += ["--languages", "de,en", "--device", "cpu", "--limit", "2"]
    code, _, errors = run_cli(*words, "--output", tmp_path / "none")
    assert (code, errors.count("\n")) == (2, 1)
    assert "cannot be loaded" in errors
    assert run_cli(*words, "--output", tmp_path / "its", "--adapter", adapter)[0] == 0
    assert run_cli(*words, "--output", tmp_path / "given", "--tokenizer", adapter)[0] == 0


def test_a_run_answers_with_the_adapters_prompts(
    model, adapter, made_up_root, tmp_path, run_cli, monkeypatch
):
    from peft import PeftModel

    from xlt_bench.results.run_folder import read_predictions, read_record
    from xlt_bench.tasks.registry import get_text_task

    task = get_text_task("massive")
    monkeypatch.setattr(task, "max_new_tokens", 6)
    own(adapter, ADAPTERS)
    words = ["evaluate", "--model", model, "--adapter", adapter, "--data-dir", made_up_root]
    words += ["--tasks", "massive", "--languages", "de", "--dtype", "float32", "--device", "cpu"]
    code, _, errors = run_cli(*words, "--output", tmp_path / "run")
    assert code == 0, errors
    plan = read_record(tmp_path / "run").plan
    assert (plan.tokenizer, plan.template, plan.template_args) == ("adapter", "tokenizer", {})
    assert plan.stop_tokens == ["</s>"]
    # Plain peft and transformers, from the files of the adapter.
    plain = PeftModel.from_pretrained(load_model(model), adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    found = read_predictions(tmp_path / "run" / "predictions" / "massive" / "de.jsonl.zst")
    for item, answer in zip(task.load(made_up_root, "de"), found, strict=True):
        prompt = tokenizer.apply_chat_template(item.messages, tokenize=False)
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        out = plain.generate(input_ids=ids, max_new_tokens=6, do_sample=False)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert answer.hypothesis.strip() == text.strip()
    code, _, errors = run_cli(*words, "--output", tmp_path / "run", "--tokenizer", model)
    assert code == 2
    assert "was started with another" in errors
