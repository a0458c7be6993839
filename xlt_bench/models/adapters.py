"""Finds PEFT adapters and steering folders, on disk or on the hub, and reads their files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from xlt_bench.errors import InputError, one_line
from xlt_bench.models import steering_config as steering
from xlt_bench.models.embedded import shipped
from xlt_bench.models.hub import FILES, find, hub_error, other_kind
from xlt_bench.results.run_folder import file_digest, write_bytes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "spiece.model",
)
"""Patterns of the files of a tokenizer and its chat template, which an adapter may bring."""
TEMPLATE = "chat_template.jinja"
# The rule of huggingface_hub, which takes a tenth of a second to import.
_HUB_NAME = re.compile(
    r"(?!.*(?:--|\.\.))(?:\w(?:[\w.-]{0,94}\w)?/)?\w(?:[\w.-]{0,94}\w)?", re.ASCII
)

# No configuration is longer: AdaLora's, with a rank mask for each module, are the longest.
_MAX_FILE = 4_000_000


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter on disk: its configuration, and the digest and shapes of its weights.

    A steering folder is one, too: its weights are the vectors, by language.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    sha256: str
    shapes: dict[str, tuple[int, ...]]
    revision: str | None = None
    """The commit on the hub; None for a folder."""
    steers: bool = False
    """Whether it is a steering folder."""
    under: AdapterFiles | None = None
    """The adapter of the model that a steering folder steers; None for the bare model."""


def split_revision(name: str) -> tuple[str, str | None]:
    """Split `name@revision` of the hub.

    Args:
        name: A folder, a hub name with or without a revision, or `embedded` and its adapters, which
            ship with the package.

    Returns:
        The name (for what ships, its folder) and the revision, if there is one. A folder whose name
        contains `@` is not split.
    """
    name = shipped(name)
    if Path(name).exists() or "@" not in name:
        return name, None
    base, _, revision = name.rpartition("@")
    return base, revision


def looks_local(name: str) -> bool:
    """Whether a name can only be a path, since no hub name has that form."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def check_hub_name(kind: str, name: str) -> None:
    """Check the form of a hub name, offline.

    Args:
        kind: What is named (`model`, `adapter`), for the message.
        name: The name that is not a folder here.

    Raises:
        InputError: If nothing on the hub can have that name.
    """
    repo, revision = split_revision(name)
    if revision == "" or not _HUB_NAME.fullmatch(repo):
        raise InputError(f"{kind} {name}: no such folder, and not a valid hub name")


def check_local(name: str) -> Path | None:
    """Check that a local adapter has its files, without reading them.

    Args:
        name: A folder or a hub name.

    Returns:
        The adapter's folder, or None for a hub name.

    Raises:
        InputError: If a file is missing, or there is no such folder and the name is not a valid hub
            name.
    """
    folder = Path(shipped(name)).expanduser()
    if folder.is_dir():
        _check_files(name, folder)
        return folder
    check_hub_name("adapter", name)
    return None


def _check_files(name: str, folder: Path) -> None:
    if (folder / steering.CONFIG).is_file():
        if (folder / CONFIG).exists():
            raise InputError(
                f"adapter {name} has both {CONFIG} and {steering.CONFIG}, so peft would not steer; "
                f"move the adapter to {steering.UNDER}/ in it"
            )
        if not (folder / steering.VECTORS).is_file():
            raise InputError(f"adapter {name} has no {steering.VECTORS}")
        return
    if not (folder / CONFIG).is_file():
        if (folder / FILES["model"]).is_file():
            raise other_kind("adapter", name)
        raise InputError(f"adapter {name} has no adapter_config.json: is it a PEFT adapter?")
    if not (folder / WEIGHTS).is_file():
        if (folder / "adapter_model.bin").is_file():
            raise InputError(
                f"adapter {name} has only pickled weights (adapter_model.bin), which are not "
                "loaded; save it again with save_pretrained(..., safe_serialization=True)"
            )
        raise InputError(f"adapter {name} has no {WEIGHTS}")


def adapter_commit(name: str) -> str | None:
    """Find the commit that an adapter's name stands for now.

    Args:
        name: A local folder or `hub-name[@revision]`.

    Returns:
        The commit; None for a folder.

    Raises:
        InputError: If there is no such adapter, the hub does not give it, or it is a model.
    """
    return None if check_local(name) else find("adapter", *split_revision(name)).commit


def find_adapter(name: str, commit: str | None = None) -> AdapterFiles:
    """Read an adapter, downloading it if it is on the hub.

    Args:
        name: A local folder or `hub-name[@revision]`.
        commit: What `adapter_commit` found, if it was called before.

    Returns:
        The adapter's configuration, and the digest and shapes of its weights.

    Raises:
        InputError: If there is no such adapter, or its files cannot be read.
    """
    folder = check_local(name)
    if folder is None:
        commit = commit or adapter_commit(name)
        folder = _download(name, commit)
        _check_files(name, folder)
    if (folder / steering.CONFIG).is_file():
        return _find_steering(name, folder, commit)
    weights = folder / WEIGHTS
    config = _read_config(name, folder / CONFIG)
    try:
        digest = file_digest(weights)
        shapes = _shapes(weights)
    except (ValueError, RecursionError, OSError, SafetensorError) as error:
        raise InputError(f"adapter {name} cannot be read: {one_line(error, 200)}") from None
    return AdapterFiles(name, folder, config, digest, shapes, commit)


def _find_steering(name: str, folder: Path, commit: str | None) -> AdapterFiles:
    config = steering.check_steering_config(name, _read_config(name, folder / steering.CONFIG))
    try:
        shapes = steering.vector_shapes(folder / steering.VECTORS)
        digest = steering.steering_digest(folder / steering.VECTORS, config)
    except (ValueError, OSError, SafetensorError) as error:
        raise InputError(f"adapter {name} cannot be read: {one_line(error, 200)}") from None
    place = folder / steering.UNDER
    if (place / steering.CONFIG).exists():
        raise InputError(f"adapter {name}: {steering.UNDER}/ in it is a steering folder itself")
    under = find_adapter(str(place)) if place.is_dir() else None
    if (under and under.sha256) != config.adapter_sha256:
        raise InputError(
            f"adapter {name}: {steering.UNDER}/ in it does not hold the weights that "
            f"{steering.CONFIG} names (adapter_sha256); run xlt-bench steer again"
        )
    return AdapterFiles(name, folder, config.model_dump(), digest, shapes, commit, True, under)


def _read_config(name: str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_small(path))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"adapter {name} cannot be read: {one_line(error, 200)}") from None
    if not isinstance(config, dict):
        kind = "" if path.name == steering.CONFIG else ": is it a PEFT adapter?"
        raise InputError(f"adapter {name}: {path.name} is not a JSON object{kind}")
    return config


def base_of(names: Sequence[str]) -> str:
    """Find the base model that adapters name in adapter_config.json.

    Args:
        names: Local folders or hub names of adapters.

    Returns:
        The folder or `hub-name[@revision]` of the base model.

    Raises:
        InputError: If there is no such adapter, or they name no base, different ones, or a folder
            that is not on this machine.
    """
    bases = {name: _named_base(name) for name in names}
    first, *others = bases
    if odd := [name for name in others if bases[name] != bases[first]]:
        raise InputError(
            f"adapter {first} names the base model {bases[first]}, and {odd[0]} names "
            f"{bases[odd[0]]}; give the base model with --model, or pass them separately"
        )
    return bases[first]


def _named_base(name: str) -> str:
    folder = check_local(name)
    if folder is None:
        path = find("adapter", *split_revision(name)).file
    else:
        path = folder / CONFIG if (folder / CONFIG).is_file() else folder / steering.CONFIG
    config = _read_config(name, path)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base.strip():
        raise InputError(f"adapter {name} names no base model; give it with --model")
    if Path(shipped(base)).is_dir():
        return base
    if looks_local(base) or not _HUB_NAME.fullmatch(split_revision(base)[0]):
        raise InputError(
            f"adapter {name} was trained on {one_line(base, 200)}, which is not on this machine; "
            "give the base model with --model"
        )
    return f"{base}@{revision}" if isinstance(revision, str) and revision else base


def read_small(path: Path) -> str:
    """Read a text file of an adapter.

    Args:
        path: The file, which is untrusted.

    Returns:
        Its text.

    Raises:
        ValueError: If it is larger than that of any real adapter, or not UTF-8.
    """
    if path.stat().st_size > _MAX_FILE:
        raise ValueError(f"{path.name} is larger than {_MAX_FILE // 1_000_000} MB")
    return path.read_text(encoding="utf-8")


def _shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors. Raises ValueError for NaN and infinity, which peft would load."""
    shapes = {}
    with safe_open(weights, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(key)
            if not tensor.float().isfinite().all():  # isfinite does not take 8-bit floats
                raise ValueError(f"{one_line(key, 120)} in {WEIGHTS} has NaN or infinite values")
            shapes[key] = tuple(tensor.shape)
    return shapes


def _download(name: str, commit: str | None) -> Path:
    from huggingface_hub import snapshot_download

    repo, _ = split_revision(name)
    files = [CONFIG, WEIGHTS, "README.md", *TOKENIZER_FILES]
    patterns = [steering.CONFIG, steering.VECTORS, *files]
    patterns += [f"{steering.UNDER}/{file}" for file in files]
    try:
        return Path(snapshot_download(repo, revision=commit, allow_patterns=patterns))
    except Exception as error:  # of many types
        raise hub_error("adapter", name, error) from None


def copy_tokenizer(adapter: AdapterFiles, folder: Path) -> None:
    """Copy the tokenizer and chat template that an adapter brings.

    Args:
        adapter: The adapter.
        folder: The folder to copy to.
    """
    for path in sorted(adapter.folder.iterdir()):
        if path.is_file() and any(map(path.match, TOKENIZER_FILES)):
            write_bytes(folder / path.name, path.read_bytes())


def install(saved: Path, folder: Path, template: str | None = None) -> None:
    """Copy a saved adapter, each file atomically, the weights last: they mark it as complete.

    Args:
        saved: The folder that peft wrote.
        folder: The folder to copy to.
        template: The chat template that it was trained with, unless that is the tokenizer's own.
    """
    if template is not None:
        write_bytes(folder / TEMPLATE, template.encode())
    for name in (CONFIG, WEIGHTS):
        write_bytes(folder / name, (saved / name).read_bytes())
