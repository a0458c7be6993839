"""Removes secrets, folders and inner addresses from records, because records are published.

A path argument keeps its last part: that names the model, the data or the run, and the folders
above it name users and machines.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

_KEY = (
    r"(?:api[-_]?key|access[-_]?key|auth|authorization|cookie|credentials?|token|password|passwd"
    r"|passphrase|pwd|secret)"
)
_SECRET_OPTION = re.compile(rf"(?i)-.*{_KEY}")
_SECRET_NAME = re.compile(rf"(?i).*{_KEY}")
_HIDDEN, _HOME = "***", "~"
# Stand for the two while a command is quoted, since they need quotes in a shell.
_STAND_INS = {_HIDDEN: "-masked-", _HOME: "-home-"}
# Group 1, the text before the secret, is kept.
_SECRETS = (
    re.compile(r"()\b(?:hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{16,}"),
    re.compile(rf"(?i)({_KEY}[\"']?\s*[=:]\s*\")[^\"]+(?=\")"),
    re.compile(rf"(?i)({_KEY}[\"']?\s*[=:]\s*(?:(?:basic|bearer)\s+)?[\"']?)[^,&\"'}}]+"),
    re.compile(r"(?i)(\bbearer\s+)[^\s,\"']+"),
    re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/]+(?=@)"),
)

# The values of --model, --adapter and --tokenizer may be hub names, which have one slash.
_PATH_OPTIONS = frozenset(
    "--output --data-dir --corpus --submissions --db --chat-template --comet-model".split()
)
_START = r"(?:~|\.{1,2})?/|[A-Za-z]:[\\/]|\\\\"
_ABSOLUTE = re.compile(_START)
_PATH = re.compile(rf"(?<![\w.~:/\\*-])(?:{_START})[^\s'\",;)\]}}]+")
_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*://(?:\*\*\*@)?)([^\s/'\",;?#)\]}]+)")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.])")
_INNER = frozenset("local localhost localdomain internal intranet lan corp home private".split())
_COMMAND = re.compile(r"\bxlt-bench [a-z]")


def command_line() -> str:
    """The command line of this process, with the program's bare name and without what is private.

    A relative path of two parts, which could be a hub name, is shortened if it exists.
    """
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return _joined(_reduced(list(_masked(words)), existing=True))


def masked_command(words: Sequence[str]) -> str:
    """Join the words of another program's command line, without what looks like a secret.

    >>> masked_command(["lm_eval", "--model_args", "pretrained=a/b,token=hf_abc"])
    'lm_eval --model_args pretrained=a/b,token=***'
    """
    return _joined(list(_masked(words)))


def masked_values(value: Any) -> Any:
    """Hide secrets in a JSON value, also what a key such as `hf_token` or `api_key` has.

    >>> masked_values({"hf_token": "abc", "top_k": 1, "max_tokens": 5})
    {'hf_token': '***', 'top_k': 1, 'max_tokens': 5}
    """
    if isinstance(value, dict):
        return {
            key: _HIDDEN
            if isinstance(part, str) and _SECRET_NAME.fullmatch(key)
            else masked_values(part)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [masked_values(part) for part in value]
    return _without_tokens(value) if isinstance(value, str) else value


def reduced_command(command: str) -> str:
    """Shorten the paths and hide the inner addresses in a command line.

    >>> reduced_command("xlt-bench join /lustre/ada/a b/c --output=../out/d")
    'xlt-bench join a c --output=d'
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return reduced(command)
    return _joined(_reduced(words, existing=False))


def reduced(text: str) -> str:
    """Shorten absolute paths and hide inner addresses in any text, and reduce commands in it.

    >>> reduced("with --model-args base_url=http://10.0.0.7:8000/v1, of /data/ada/m")
    'with --model-args base_url=http://***/v1, of m'
    """
    if found := _COMMAND.search(text):
        return _plain(text[: found.start()]) + reduced_command(text[found.start() :])
    return _plain(text)


def reduced_values(value: Any) -> Any:
    """Reduce every text in a JSON value; keys stay."""
    if isinstance(value, dict):
        return {key: reduced_values(part) for key, part in value.items()}
    if isinstance(value, list):
        return [reduced_values(part) for part in value]
    return reduced(value) if isinstance(value, str) else value


def without_home(text: str) -> str:
    """Replace the home folder in a text by `~`, and the user's name in others by `***`.

    >>> without_home("--model /home/ada/m --adapter=../../Users/ada/a --output /homes/x")
    '--model /home/***/m --adapter=../../Users/***/a --output /homes/x'
    """
    end = r"(?![^/\s'\"])"
    with suppress(RuntimeError):  # a user without a home folder, as in some containers
        text = re.sub(rf"(?<![\w./~-]){re.escape(str(Path.home()))}{end}", _HOME, text)
    return re.sub(rf"(/home|/Users)/[^/\s'\"]+{end}", r"\1/***", text)


def shown_address(address: str) -> str:
    """Remove what may be secret from an address: user, password, query.

    >>> shown_address("https://ada:key@example.org/data?token=abc")
    'https://example.org/data'
    """
    return re.sub("//[^/]*@", "//", re.split("[?#]", address)[0])


def without_secrets(text: str) -> str:
    """Hide what looks like a secret in any text, and queries of addresses, which sign downloads.

    >>> without_secrets("Bearer hf_abc of https://ada:key@example.org/data?Signature=abc failed")
    'Bearer *** of https://example.org/data failed'
    """
    text = _without_tokens(text)
    return re.sub(r"\b[a-z0-9]+://[^\s'\"<>]+", lambda found: shown_address(found[0]), text)


def _masked(words: Sequence[str]) -> Iterator[str]:
    """Hide what looks like a secret.

    Secrets are tokens of common formats, values of keys and options such as `--api-key`, and
    passwords in addresses.
    """
    for before, word in pairwise(["", *words]):
        if _SECRET_OPTION.fullmatch(before) and "=" not in before and word[:1] != "-":
            yield _HIDDEN
            continue
        yield _without_tokens(word)


def _without_tokens(text: str) -> str:
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1{_HIDDEN}", text)
    return text


def _joined(words: Sequence[str]) -> str:
    """Quote the words of a command, except `***` and `~`."""
    whole = [_STAND_INS.get(word, word.replace(_HIDDEN, _STAND_INS[_HIDDEN])) for word in words]
    command = shlex.join(whole)
    for shown, stand_in in _STAND_INS.items():
        command = command.replace(stand_in, shown)
    return command


def _reduced(words: Sequence[str], *, existing: bool) -> list[str]:
    """Reduce the words of a command; the first is the program, the second its command."""
    joins = words[1:2] == ["join"]
    found = list(words[:1])
    for before, word in pairwise(words):
        option, equals, value = word.partition("=") if word[:1] == "-" else ("", "", word)
        if option and not equals:
            found.append(word)
            continue
        named = option or (before if before[:1] == "-" else "")
        is_path = named in _PATH_OPTIONS or (joins and not named)
        found.append(option + equals + _word(value, is_path, existing))
    return found


def _word(word: str, is_path: bool, existing: bool) -> str:
    if is_path and "://" not in word:
        return _last(word)
    if "://" in word or "{" in word:
        return _plain(word)
    pieces = re.split(r"([=,])", word)
    return "".join(_piece(piece, existing) for piece in pieces)


def _piece(piece: str, existing: bool) -> str:
    absolute = _ABSOLUTE.match(piece) or piece == _HOME
    there = existing and "/" in piece and len(piece) < 1000 and Path(piece).exists()
    # A hub name has at most one slash.
    return _last(piece) if absolute or there or piece.count("/") > 1 else _plain(piece)


def _last(path: str) -> str:
    """The last part of a path; `~` for the home folder, `***` for that of another user."""
    home = None
    with suppress(RuntimeError):
        home = str(Path.home())
    if path.rstrip("/") in (_HOME, home):
        return _HOME
    if re.fullmatch(r".*(?:/home|[/\\]Users)[/\\][^/\\]+[/\\]?", path):
        return _HIDDEN
    parts = [part for part in re.split(r"[\\/]+", path) if part not in ("", ".")]
    return parts[-1] if parts else path


def _plain(text: str) -> str:
    text = _ADDRESS.sub(lambda found: found[1] + _host(found[2]), text)
    text = _IPV4.sub(lambda found: _host(found[0]), text)
    return _PATH.sub(lambda found: _last(found[0]), text)


def _host(host: str) -> str:
    """A public host name as it is; `***` for a port, an IP address and a name without a domain."""
    with suppress(ValueError):
        return host if ipaddress.ip_address(host.partition(":")[0]).is_global else _HIDDEN
    domain = host.rpartition(".")
    public = domain[1] and ":" not in host and domain[2].lower() not in _INNER
    return host if public else _HIDDEN
