"""Unusable chat templates are refused at once, in one line."""

import pytest

from xlt_bench.errors import InputError
from xlt_bench.models.chat import check_template, set_chat_template

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
        check_template(str(path))


def test_the_broken_template_of_a_tokenizer(tokenizer):
    tokenizer.chat_template = "{{ messages[0].content"
    with pytest.raises(InputError, match="chat template tokenizer"):
        set_chat_template(tokenizer, None)


def test_a_template_without_a_system_role_is_taken(tokenizer, tmp_path):
    path = tmp_path / "chat.jinja"
    path.write_text(SYSTEM_REFUSED)
    assert set_chat_template(tokenizer, str(path)).name == str(path)
