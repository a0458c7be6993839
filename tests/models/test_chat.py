"""Unusable chat templates are refused at once, in one line."""

from datetime import datetime

import pytest

from xlt_bench.errors import InputError
from xlt_bench.models.chat import DATE, given_template, parse_args, render_chat, set_chat_template

SYSTEM_REFUSED = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ messages[0].content }}"
)


@pytest.fixture
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


BROKEN = {
    "not UTF-8": ("caf\xe9".encode("latin-1"), r"is not UTF-8 \(byte 3\)"),
    "syntax": (b"{% for m in messages %}{{ m.content }}", "cannot render|line 1"),
    "raises": (b"{{ raise_exception('not for\nyou') }}", "not for you"),
    "arithmetic": (b"{{ messages[0].content + 1 }}", "cannot render a system and a user message"),
}


SAID = b"{% for m in messages %}{{ m.content }}{% endfor %}"
BROKEN |= {
    "no user": (b"{{ messages[0].content }}", "drops the user message"),
    "no system": (b"{{ messages[1].content }}", "drops the system message"),
    "ten million characters": (SAID + b"{{ 'x' * 10000000 }}", "as 10,000,0"),
    "Python's classes": (SAID + b"{{ ''.__class__.__mro__ }}", "unsafe"),
    "the system's commands": (
        SAID + b"{{ lipsum.__globals__['os'].popen('touch ran').read() }}",
        "cannot render",
    ),
    "changes its input": (SAID + b"{{ messages.append(1) }}", "unsafe|cannot render"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line(name, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, message = BROKEN[name]
    path = tmp_path / "chat.jinja"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as refused:
        set_chat_template(tokenizer, str(path))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_an_unreadable_file_is_seen_without_a_tokenizer(tmp_path):
    path = tmp_path / "chat.jinja"
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="is not UTF-8"):
        given_template(str(path))


def test_the_broken_template_of_a_tokenizer(tokenizer):
    tokenizer.chat_template = "{{ messages[0].content"
    with pytest.raises(InputError, match="chat template tokenizer"):
        set_chat_template(tokenizer, None)


def test_a_template_without_a_system_role_is_taken(tokenizer, tmp_path):
    path = tmp_path / "chat.jinja"
    path.write_text(SYSTEM_REFUSED)
    assert set_chat_template(tokenizer, str(path)).name == str(path)


DATED = "Today is {{ strftime_now('%d %b %Y') }}.{% for m in messages %}{{ m.content }}{% endfor %}"
THINKING = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
BUDGET = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if thinking_budget is defined and thinking_budget == 0 %}[no thoughts]{% endif %}"
)
CHAT = [{"role": "system", "content": "Do it. "}, {"role": "user", "content": "Now."}]


def test_the_date_is_pinned_and_stated(tokenizer):
    tokenizer.chat_template = DATED
    assert set_chat_template(tokenizer, None).date == "2024-07-26"
    assert render_chat(tokenizer, CHAT) == "Today is 26 Jul 2024.Do it. Now."
    # Plain transformers prints today's.
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) != render_chat(tokenizer, CHAT)
    tokenizer.chat_template = THINKING
    assert set_chat_template(tokenizer, None).date is None


@pytest.mark.parametrize(
    "form",
    ["%-d %B", "%e %b", "%F %T", "%D", "%x", "%c", "%^a", "%A", "%u", "%%d is %d, 100%%", "%"],
)
@pytest.mark.parametrize(
    "template",
    [
        "{{ strftime_now(FORM) }}",
        "{{ strftime_now(format=FORM) }}",
        "{% set today = strftime_now(FORM) %}\n{{- today|upper }}",
        "{% macro date(form) %}{{ strftime_now(form) }}{% endmacro %}\n {{ date(FORM) }}",
    ],
)
def test_dates_are_formatted_as_by_transformers(tokenizer, monkeypatch, form, template):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return DATE

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    said = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.chat_template = template.replace("FORM", repr(form)) + said
    assert render_chat(tokenizer, CHAT) == tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert set_chat_template(tokenizer, None).date == (None if form == "%" else "2024-07-26")


@pytest.mark.parametrize(
    ("template", "off"),
    [
        (THINKING, {"enable_thinking": False}),
        (THINKING.replace("enable_thinking", "thinking"), {"thinking": False}),
        (BUDGET, {"thinking_budget": 0}),
        (THINKING.replace("enable_thinking is defined and enable_thinking is false", "true"), {}),
        ("{# enable_thinking #}" + SAID.decode(), {}),
        (DATED, {}),
    ],
)
def test_thinking_is_off_where_the_template_has_a_switch(tokenizer, template, off):
    tokenizer.chat_template = template
    assert set_chat_template(tokenizer, None).args == off
    if "strftime_now" not in template:
        asked = {"tokenize": False, "add_generation_prompt": True}
        assert render_chat(tokenizer, CHAT, add_generation_prompt=True) == (
            tokenizer.apply_chat_template(CHAT, **asked, **off)
        )


def test_a_variable_that_is_given_takes_precedence(tokenizer):
    tokenizer.chat_template = THINKING
    args = parse_args('{"enable_thinking": true}')
    found = set_chat_template(tokenizer, None, args)
    assert found.args == {"enable_thinking": True}
    prompt = render_chat(tokenizer, CHAT, add_generation_prompt=True, **found.args)
    assert prompt == "Do it. Now.[assistant]"


@pytest.mark.parametrize("opening", ["<think>\n", "<think>", "<thinking>\n\n"])
def test_a_template_that_thinks_without_a_switch_is_noticed(tokenizer, opening):
    tokenizer.chat_template = SAID.decode() + opening
    assert set_chat_template(tokenizer, None).thinks
    tokenizer.chat_template = SAID.decode() + opening + "</think>"
    assert not set_chat_template(tokenizer, None).thinks


@pytest.mark.parametrize(
    "text", ["enable_thinking=true", "[1]", '{"a": {"b": 1}}', '{"a": NaN}', "{", "[" * 9999]
)
def test_variables_that_are_not_plain_json_are_refused(text):
    with pytest.raises(InputError, match="must be a JSON object") as refused:
        parse_args(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["enable_thinkin", "tokenize", "conversation", "messages", ""])
def test_variables_that_the_template_does_not_have_are_refused(tokenizer, name):
    tokenizer.chat_template = THINKING + "{# tokenize #}"
    with pytest.raises(InputError, match="has no variable"):
        set_chat_template(tokenizer, None, {name: True})
