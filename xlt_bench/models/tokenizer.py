"""Loads tokenizers, and chooses the tokenizer and chat template with which a system answers.

Both come from the adapter if it brings them, since its prompts were written with them in training.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from xlt_bench.errors import InputError, one_line
from xlt_bench.models.adapters import TEMPLATE, AdapterFiles, read_small, split_revision
from xlt_bench.models.chat import Template, set_chat_template
from xlt_bench.models.hub import reason

_CONFIG = "tokenizer_config.json"
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Chat:
    """The tokenizer and the chat template with which a system answers."""

    tokenizer: Any
    source: str
    """Where the tokenizer comes from: `model`, `adapter` or `--tokenizer NAME`."""
    sha256: str
    """Digest of the tokenizer."""
    template: Template


def load_tokenizer(name: str, trust_remote_code: bool = False, commit: str | None = None) -> Any:
    """Load a tokenizer that can pad.

    Args:
        name: A folder, or a hub name with or without `@revision`.
        trust_remote_code: Run code that comes with the tokenizer.
        commit: The commit to load, for a hub name whose commit is known.

    Returns:
        The tokenizer. Without a pad token of its own it pads with EOS; the padding is masked.

    Raises:
        InputError: If it cannot be loaded.
    """
    repo, revision = split_revision(name)
    try:
        # By default transformers asks on the terminal whether to run code.
        tokenizer = AutoTokenizer.from_pretrained(
            repo, revision=commit or revision or "main", trust_remote_code=trust_remote_code
        )
    except Exception as error:  # of many types, and all that matters is the text
        raise not_loaded("tokenizer", name, error) from None
    return _padding(tokenizer)


def _padding(tokenizer: Any) -> Any:
    """The tokenizer; it pads with EOS if it has no pad token."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def not_loaded(kind: str, name: str, error: Exception, hint: str = "") -> InputError:
    """Make the InputError for any of the many exceptions by which transformers reports no model.

    Args:
        kind: What was to be loaded: `model` or `tokenizer`.
        name: Its name.
        error: What transformers raised.
        hint: What the name should have been, in parentheses.

    Returns:
        The error to raise.
    """
    if why := reason(name, error):
        return InputError(f"{kind} {name}: {why}")
    line = one_line(error, 300)
    if "custom code" in line:
        line = (
            "it comes with its own code; add --trust-remote-code to run it, if you trust its "
            "authors"
        )
        hint = ""
    return InputError(f"{kind} {name} cannot be loaded{hint}: {line}")


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash a tokenizer as it was loaded.

    Args:
        tokenizer: The tokenizer.

    Returns:
        sha256 of its tokenizer.json or, if it has none, of its vocabulary and added tokens.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    added = {str(id_): str(token) for id_, token in tokenizer.added_tokens_decoder.items()}
    state = backend.to_str() if backend else json.dumps([tokenizer.get_vocab(), added])
    return hashlib.sha256(state.encode()).hexdigest()


def choose_chat(
    model: str,
    adapter: AdapterFiles | None,
    tokenizer: Any,
    template: str | None,
    args: Mapping[str, Any],
    trust_remote_code: bool = False,
    commit: str | None = None,
) -> Chat:
    """Choose the tokenizer and the chat template of a system.

    Args:
        model: The base model's name.
        adapter: The adapter, if there is one.
        tokenizer: The option --tokenizer, or a tokenizer, which is copied.
        template: The option --chat-template.
        args: Variables of the template, from --chat-template-args.
        trust_remote_code: Run code that comes with the model's tokenizer, never the adapter's.
        commit: The commit of a base model from the hub.

    Returns:
        The tokenizer that --tokenizer names, else the adapter's, else the model's. Its template is
        the one that --chat-template names, else the adapter's, the tokenizer's or the model's.

    Raises:
        InputError: If one of them cannot be loaded or used.
    """
    if tokenizer is not None and not isinstance(tokenizer, str):
        chosen, source = _padding(copy.deepcopy(tokenizer)), "model"
    elif tokenizer is not None:
        chosen, source = load_tokenizer(tokenizer, trust_remote_code), f"--tokenizer {tokenizer}"
    elif adapter and _brings_tokenizer(adapter.folder):
        chosen, source = _load_from(adapter), "adapter"
    else:
        chosen, source = load_tokenizer(model, trust_remote_code, commit), "model"
    digest = tokenizer_digest(chosen)
    name: str | None = None
    if template is None and adapter and source != "adapter" and (text := _own_template(adapter)):
        chosen.chat_template, name = text, "adapter"
    elif template is None and source != "model" and not chosen.chat_template:
        chosen.chat_template = load_tokenizer(model, trust_remote_code, commit).chat_template
        name = "model" if chosen.chat_template else None
    found = set_chat_template(chosen, "tokenizer" if name else template, args)
    return Chat(chosen, source, digest, replace(found, name=name) if name else found)


def _brings_tokenizer(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return _CONFIG in names and not names.isdisjoint(_VOCABULARIES)


def _load_from(adapter: AdapterFiles) -> Any:
    try:
        return load_tokenizer(str(adapter.folder))
    except InputError as error:
        raise InputError(
            f"adapter {adapter.name} brings a tokenizer that cannot be used ({error}); choose one "
            "with --tokenizer, such as the base model's"
        ) from None


def _own_template(adapter: AdapterFiles) -> Any:
    """The chat template of an adapter that brings no tokenizer; None if there is none."""
    try:
        if (adapter.folder / TEMPLATE).is_file():
            return read_small(adapter.folder / TEMPLATE)
        if (adapter.folder / _CONFIG).is_file():
            return _by_name(json.loads(read_small(adapter.folder / _CONFIG)).get("chat_template"))
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise InputError(
            f"adapter {adapter.name} brings a chat template that cannot be read: "
            f"{one_line(error, 200)}; choose one with --chat-template"
        ) from None
    return None


def _by_name(template: Any) -> Any:
    """Several templates by name, as transformers has them; in the file they are a list."""
    if isinstance(template, list):
        return {row["name"]: row["template"] for row in template}
    if not isinstance(template, str | None):
        raise TypeError(f"chat_template is {one_line(template, 40)}, not a text")
    return template
