"""Loads base models and tokenizers from local folders or the hub; safetensors only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils.peft_utils import find_adapter_config_file

from xlt_bench.distributed import local_rank, world_size
from xlt_bench.errors import InputError
from xlt_bench.models.adapters import split_revision
from xlt_bench.models.hidden_states import blocks_name
from xlt_bench.models.hub import FILES, find, other_kind, steering_as_model
from xlt_bench.models.steering_config import CONFIG as STEERING
from xlt_bench.models.tokenizer import load_tokenizer, not_loaded
from xlt_bench.models.validate_names import DTYPE_NAMES, check_dtype, check_model

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


@dataclass(frozen=True)
class Base:
    """A loaded base model and its tokenizer."""

    name: str
    """As it was given, but without an `@revision` that is the commit."""
    model: Any
    tokenizer: Any
    revision: str | None
    """The commit on the hub; None for a folder."""
    sha256: str | None
    """Digest of the weight files of a local model; None for one from the hub."""
    trust_remote_code: bool = False
    """Whether code that comes with the model was allowed to run."""

    @property
    def repository(self) -> str:
        """The name without `@revision`."""
        return self.name.partition("@")[0] if self.revision else self.name


def choose_device(device: str | None) -> str:
    """Choose the device of this process.

    Args:
        device: A device; `auto` to spread the layers over all GPUs (accelerate's device map); None
            for CUDA if there is a GPU, else the CPU.

    Returns:
        The device; if there are several processes, `cuda` becomes the GPU of this one.

    Raises:
        InputError: If the device cannot be used.
    """
    if device == "auto":
        if world_size() > 1:
            raise InputError("--device auto uses all GPUs: run it without torchrun")
        return device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and world_size() > 1:
        device = f"cuda:{local_rank()}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).split("\n")[0]
        raise InputError(f"device {device!r} cannot be used: {line}") from None
    return device


def commit_of(name: str) -> str | None:
    """Find the commit that a name stands for now; load by it, since branches and tags move.

    Args:
        name: A folder or a hub name.

    Returns:
        The commit; None for a folder.

    Raises:
        InputError: If there is no such model, the hub does not give it, or it is an adapter.
    """
    repo, revision = split_revision(name)
    if not Path(repo).is_dir():
        return find("model", repo, revision).commit
    if (Path(repo) / FILES["adapter"]).is_file():
        if (Path(repo) / FILES["model"]).is_file():
            raise _holds_adapter(name)
        raise other_kind("model", name)
    if (Path(repo) / STEERING).is_file():
        raise steering_as_model(name)
    return None


def _holds_adapter(name: str) -> InputError:
    return InputError(
        f"model {name} has an adapter beside its weights (adapter_config.json), which transformers "
        "would apply; move the adapter to a folder of its own and pass it as --adapter"
    )


def _from(name: str, trust_remote_code: bool, commit: str | None) -> tuple[str, dict[str, Any]]:
    """The repository and keyword arguments of from_pretrained for a name.

    trust_remote_code is always given: by default transformers asks on the terminal, and runs the
    code on "y".
    """
    repo, _ = split_revision(name)
    if commit and find_adapter_config_file(repo, revision=commit):
        raise _holds_adapter(name)
    return repo, {"revision": commit or "main", "trust_remote_code": trust_remote_code}


def meta_model(name: str, trust_remote_code: bool = False, commit: str | None = None) -> Any:
    """Build a model without weights, to check adapters against before anything is loaded.

    Args:
        name: A folder or a hub name.
        trust_remote_code: Run code that comes with the model.
        commit: What `commit_of` found, if it was called before.

    Returns:
        The model on the meta device.

    Raises:
        InputError: If there is no such model.
    """
    check_model(name)
    repo, where = _from(name, trust_remote_code, commit or commit_of(name))
    try:
        config = AutoConfig.from_pretrained(repo, **where)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]
    except Exception as error:
        hint = " (a folder of save_pretrained or a hub name)"
        raise not_loaded("model", name, error, hint) from None


def load_base(
    name: str,
    dtype: str,
    device: str,
    trust_remote_code: bool = False,
    commit: str | None = None,
    tokenizer: Any = None,
) -> Base:
    """Load a base model in eval mode, and its tokenizer.

    Args:
        name: A folder or a hub name.
        dtype: `auto` or one of DTYPE_NAMES.
        device: A device; `auto` to spread the layers over all GPUs; `fsdp` to shard every layer
            over the processes.
        trust_remote_code: Run code that comes with the model.
        commit: What `commit_of` found, if it was called before.
        tokenizer: A tokenizer to use instead of the model's, which may have none.

    Returns:
        The model and its tokenizer.

    Raises:
        InputError: If the model cannot be loaded, or weights are missing in its files.
    """
    check_dtype(dtype)
    commit = commit or commit_of(name)
    repo, where = _from(name, trust_remote_code, commit)
    placed: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
    if device == "fsdp":
        placed = {"distributed_config": _shares(meta_model(name, trust_remote_code, commit))}
    if tokenizer is None:
        tokenizer = load_tokenizer(name, trust_remote_code, commit)
    try:
        kind: Any = AutoModelForCausalLM
        model, loaded = kind.from_pretrained(
            repo,
            dtype=DTYPES.get(dtype, "auto"),
            use_safetensors=True,
            output_loading_info=True,
            **where,
            **placed,
        )
    except Exception as error:
        raise not_loaded("model", name, error) from None
    if missing := sorted(loaded["missing_keys"]):
        # transformers would initialise them at random.
        raise InputError(
            f"model {name} cannot be loaded: its files lack {len(missing)} of the weights that "
            f"config.json asks for, such as {missing[0]}"
        )
    if not placed:
        model = model.to(device)
    model = model.eval()
    if device == "fsdp":
        _settle(model)
    digest = weights_digest(Path(repo))
    return Base(_title(name, commit), model, tokenizer, commit, digest, trust_remote_code)


def _title(name: str, commit: str | None) -> str:
    """A name without an `@revision` that only repeats the commit; branches and tags stay."""
    repo, revision = split_revision(name)
    return repo if commit and revision and commit.startswith(revision) else name


def _shares(skeleton: Any) -> DistributedConfig:
    """Configure FSDP over all processes, one decoder block at a time."""
    plan = {f"{blocks_name(skeleton)}.*": "free_full_weight"}
    return DistributedConfig(fsdp_size=world_size(), fsdp_plan=plan)


@torch.no_grad()
def _settle(model: Any) -> None:
    """Run one forward of the whole model, in which FSDP registers how its modules are nested.

    The first forward of a training may stop at a middle layer and would leave the upper blocks out.
    """
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def weights_digest(folder: Path) -> str | None:
    """Hash the weights of a local model.

    Args:
        folder: The model's folder.

    Returns:
        sha256 over the names and bytes of its safetensors files; None if there is no such folder.
    """
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
