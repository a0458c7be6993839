"""Finds models and adapters on the Hugging Face hub: their commits, and its errors in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlt_bench.errors import InputError, one_line
from xlt_bench.models.steering_config import CONFIG as STEERING

Kind = Literal["model", "adapter"]
COMMIT = re.compile("[0-9a-f]{40}")
FILES: dict[Kind, str] = {"model": "config.json", "adapter": "adapter_config.json"}
"""The file that makes a folder or repository a model or an adapter."""


@dataclass(frozen=True)
class Found:
    """A repository at a commit, and its file of `FILES` in the cache."""

    commit: str
    file: Path


def find(kind: Kind, repo: str, revision: str | None) -> Found:
    """Find the commit of a branch, tag or abbreviated commit, and download the configuration.

    Without a connection, or with HF_HUB_OFFLINE=1, the cache says which commit a revision was.

    Args:
        kind: What the repository should be.
        repo: Its name on the hub.
        revision: A branch, tag or commit; None for `main`.

    Returns:
        The commit and the configuration.

    Raises:
        InputError: If there is no such repository or revision, if the hub or the cache cannot be
            used, or if the repository is of the other kind.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name = f"{repo}@{revision}" if revision else repo
    try:
        file = Path(hf_hub_download(repo, FILES[kind], revision=revision))
    except EntryNotFoundError as error:
        # Of the repository, or, without a connection, of the cache.
        cached = isinstance(error, LocalEntryNotFoundError)
        steering = _downloaded(STEERING, repo, revision, cached) if kind == "adapter" else None
        if steering is None:
            _check_kind(kind, name, repo, revision, cached)
            raise hub_error(kind, name, error) from None
        file = steering
    except Exception as error:
        raise hub_error(kind, name, error) from None
    commit = file.parent.name  # the cache has it as snapshots/<commit>/<file>
    if not COMMIT.fullmatch(commit):
        raise InputError(f"{kind} {name}: the hub names no commit for it; download it to a folder")
    return Found(commit, file)


def _check_kind(kind: Kind, name: str, repo: str, revision: str | None, cached: bool) -> None:
    """Raise InputError if a repository without its file is of the other kind."""
    other: Kind = "adapter" if kind == "model" else "model"
    if _downloaded(FILES[other], repo, revision, cached):
        raise other_kind(kind, name)
    if kind == "model" and _downloaded(STEERING, repo, revision, cached):
        raise steering_as_model(name)


def _downloaded(file: str, repo: str, revision: str | None, cached: bool) -> Path | None:
    """A file of a repository; None if it has none, or cannot be reached."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=cached))
    except Exception:  # which is reported for the file that was asked for first
        return None


def steering_as_model(name: str) -> InputError:
    """Build the InputError for a steering folder that was given as a model."""
    return InputError(
        f"model {name} is a steering folder (it has {STEERING}); pass it as --adapter, and its "
        "base model as --model"
    )


def other_kind(kind: Kind, name: str) -> InputError:
    """Build the InputError for an adapter that was given as a model, or the reverse."""
    if kind == "model":
        return InputError(
            f"model {name} is a PEFT adapter (it has adapter_config.json and no config.json); pass "
            "it as --adapter, and its base model as --model"
        )
    return InputError(
        f"adapter {name} is a model (it has config.json and no adapter_config.json); pass it as "
        "--model"
    )


def hub_error(kind: Kind, name: str, error: BaseException) -> InputError | OSError:
    """Build the error for a failed download.

    Args:
        kind: What was to be downloaded.
        name: Its name as the user gave it.
        error: What huggingface_hub, or transformers because of it, raised.

    Returns:
        An InputError with the reason and the remedy; a full or failing disk stays an OSError.
    """
    if why := reason(name, error):
        return InputError(f"{kind} {name}: {why}")
    if isinstance(error, OSError) and error.errno:
        return error
    return InputError(f"{kind} {name} cannot be downloaded: {one_line(error, 300)}")


def reason(name: str, error: BaseException) -> str | None:
    """Say why the hub, or the cache of its files, gave nothing, and what to do.

    Args:
        name: The repository, with or without `@revision`.
        error: What was raised.

    Returns:
        One line; None if the error is of another kind.
    """
    repo, _, revision = name.partition("@")
    for cause in _causes(error):
        if why := _reason(repo, revision or "main", cause):
            return why
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from, the first cause first: libraries add little to it."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return reversed(chain)


def _reason(repo: str, revision: str, error: BaseException) -> str | None:
    import errno

    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, hub.GatedRepoError):
        return f"access is restricted; accept its terms at {page}, then log in with: hf auth login"
    if isinstance(error, hub.RepositoryNotFoundError):
        return (
            "no such folder here, and no such repository on the hub, or a private one; check the "
            "name, or log in with: hf auth login"
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return f"it has no revision {revision}; see its branches and tags at {page}/tree/main"
    if isinstance(error, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled):
        return _not_cached(repo, revision)
    if isinstance(error, hub.EntryNotFoundError):
        return f"it lacks {_file(error)}; see its files at {page}/tree/{revision}"
    if isinstance(error, hub.HfHubHTTPError):
        return f"the hub answers: {one_line(error, 200)}"
    if isinstance(error, hub.FileMetadataError):
        return one_line(error, 300)
    full = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    if isinstance(error, OSError) and error.errno not in (None, *full) and error.filename:
        cache = Path(constants.HF_HUB_CACHE)
        if cache in (path := Path(error.filename), *path.parents) or path in cache.parents:
            return (
                f"the cache cannot be written: {error.strerror}: {error.filename}; set HF_HOME to "
                "a folder that can be"
            )
    return None


def _not_cached(repo: str, revision: str) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return (
            f"it is not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set; unset "
            f"it, or first run: hf download {repo}"
            + (f" --revision {revision}" if revision != "main" else "")
        )
    return (
        f"the hub ({constants.ENDPOINT}) cannot be reached, and it is not in the cache "
        f"({constants.HF_HUB_CACHE}); check the connection, then run the command again"
    )


def _file(error: BaseException) -> str:
    """The name of the file that a repository lacks."""
    found = re.search(r"/resolve/[^/]+/([^\s?]+)", str(error))
    return one_line(found[1].rstrip("."), 80) if found else "a file"
