"""Sets chat templates, renders chats with them, and turns chats and sentences into token ids.

A template is the tokenizer's own, a file, or one of those that ship with the package:

plain             for base models without a template: "Input: ...", then "Output:"
llama3-midalign   the template of the Llama 3 adapters by the paper's authors: a line break after
                  each end-of-turn token, and no BOS in the text, since the tokenizer adds it
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from xlt_bench.errors import InputError, one_line, unknown

_FOLDER = Path(__file__).with_name("templates")
# Characters that a template may add to two messages. Llama 3.1's, the longest in use, adds a few
# thousand for tools and dates.
_MOST_AROUND = 100_000
NAMED = sorted(path.stem for path in _FOLDER.glob("*.jinja"))


def template_file(choice: str) -> Path:
    """Find the file of a template.

    Args:
        choice: A name other than `tokenizer`, or a path.

    Returns:
        The file.

    Raises:
        InputError: If it is neither a known name nor a file.
    """
    path = _FOLDER / f"{choice}.jinja" if choice in NAMED else Path(choice)
    if not path.is_file():
        raise unknown("chat template", choice, ["tokenizer", *NAMED, "a file"])
    return path


def check_template(choice: str | None) -> None:
    """Check a choice of template before there is a tokenizer.

    Args:
        choice: A name, a path, or None for the default.

    Raises:
        InputError: If it is neither a known name nor a text file.
    """
    if choice not in (None, "tokenizer"):
        _read_template(str(choice))


def _read_template(choice: str) -> str:
    path = template_file(choice)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"chat template {path} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None


def set_chat_template(tokenizer: Any, choice: str | None) -> tuple[str, str]:
    """Set the tokenizer's chat template and try it.

    Args:
        tokenizer: The tokenizer, which is changed.
        choice: `tokenizer`, a name, a path, or None: the tokenizer's own, `plain` if it has none.

    Returns:
        The name of the choice, and the sha256 of the template.

    Raises:
        InputError: If the template is unknown, or cannot render a chat.
    """
    if choice is None:
        choice = "tokenizer" if tokenizer.chat_template else "plain"
    if choice != "tokenizer":
        tokenizer.chat_template = _read_template(choice)
    _try_template(tokenizer, choice)
    template = tokenizer.chat_template
    text = template if isinstance(template, str) else str(sorted(template.items()))
    return choice, hashlib.sha256(text.encode()).hexdigest()


def _try_template(tokenizer: Any, choice: str) -> None:
    """Render one chat, so that a broken template fails at the start. Raises InputError."""
    said = {"system": "What the system says.", "user": "What the user says."}
    chat = [{"role": role, "content": text} for role, text in said.items()]
    try:
        prompt = render_chat(tokenizer, chat, add_generation_prompt=True)
    except Exception as error:  # a template is a program, and may raise anything
        line = one_line(error, 300)
        number = getattr(error, "lineno", None)
        where = f" line {number}" if number else ""
        raise InputError(
            f"chat template {choice}{where} cannot render a system and a user message: {line}; "
            "fix it, or choose another with --chat-template"
        ) from None
    if left_out := [role for role, text in said.items() if text not in prompt]:
        raise InputError(
            f"chat template {choice} drops the {left_out[0]} message; "
            "fix it, or choose another with --chat-template"
        )
    if len(prompt) > _MOST_AROUND:
        raise InputError(
            f"chat template {choice} renders two short messages as {len(prompt):,} characters, "
            f"at most {_MOST_AROUND:,} are allowed; choose another with --chat-template"
        )


def render_chat(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    """Render a chat as a prompt.

    If the template refuses the system role, the system message is put before the user's. lm-eval's
    own wrapper drops it, and with it the task.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The chat: a `role` and a `content` for each message.
        **options: What `apply_chat_template` takes.

    Returns:
        The prompt.
    """
    import jinja2

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    except jinja2.exceptions.TemplateError:
        if messages[0]["role"] != "system":
            raise
        system, user, *rest = messages
        merged = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        return str(tokenizer.apply_chat_template([merged, *rest], tokenize=False, **options))


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """Tokenize a rendered prompt, with at most one BOS.

    Args:
        tokenizer: The tokenizer.
        text: The prompt, perhaps with a BOS that the template wrote.

    Returns:
        Token ids: without a second BOS, and without an EOS that the tokenizer appended.
    """
    ids: list[int] = list(tokenizer(text)["input_ids"])
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        ids = ids[1:]
    # An EOS that the tokenizer appends would end the conversation before the answer.
    if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token):
        ids = ids[:-1]
    return ids


def encode_sentence(tokenizer: Any, sentence: str) -> list[int]:
    """Tokenize a bare sentence for retrieval and alignment: no chat template, no EOS.

    Args:
        tokenizer: The tokenizer.
        sentence: The sentence.

    Returns:
        Token ids; a BOS included if the tokenizer adds one.
    """
    ids: list[int] = list(tokenizer(sentence)["input_ids"])
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def encode_exchange(
    tokenizer: Any, messages: list[dict[str, str]], answer: str
) -> tuple[list[int], list[int]]:
    """Tokenize a prompt and the answer that the model should learn.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The chat before the answer.
        answer: The gold answer.

    Returns:
        Token ids of the prompt and of the answer. The answer ends with the first special token that
        the template puts after an assistant's message, or with the tokenizer's EOS if the rendered
        chat does not start with the prompt.
    """
    prompt = render_chat(tokenizer, messages, add_generation_prompt=True)
    turn = [*messages, {"role": "assistant", "content": answer}]
    whole = render_chat(tokenizer, turn, add_generation_prompt=False)
    closing = whole.removeprefix(prompt + answer) if whole.startswith(prompt + answer) else ""
    special = set(tokenizer.all_special_ids)
    ends = tokenizer(closing, add_special_tokens=False)["input_ids"] if closing else []
    end = next((id_ for id_ in ends if id_ in special), tokenizer.eos_token_id)
    ids: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return encode_prompt(tokenizer, prompt), [*ids, end]
