"""Base models and tokenizers: local folders or hub names, safetensors only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.distributed.configuration_utils import DistributedConfig

from xlt_bench.distributed import local_rank, world_size
from xlt_bench.errors import InputError, one_line
from xlt_bench.models.adapters import split_revision
from xlt_bench.models.hidden_states import blocks_name
from xlt_bench.models.validate_names import DTYPE_NAMES, check_dtype, check_model

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


@dataclass(frozen=True)
class Base:
    """A loaded base model; `sha256` is of the local weight files' names and bytes, if local."""

    name: str
    model: Any
    tokenizer: Any
    revision: str | None
    sha256: str | None
    trust_remote_code: bool = False
    """Whether code that comes with the model was allowed to run."""


def choose_device(device: str | None) -> str:
    """The device asked for, else CUDA where there is one, else the CPU.

    Of several processes each takes the GPU of its own number. `auto` spreads the layers of a model
    over all GPUs, by accelerate's device map.
    """
    if device == "auto":
        if world_size() > 1:
            raise InputError("--device auto takes all GPUs: run it without torchrun")
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


def _from(name: str, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """What from_pretrained takes for a name.

    Trust is said outright: by default transformers asks at the terminal, and runs code on "y".
    """
    repo, revision = split_revision(name)
    return repo, {"revision": revision or "main", "trust_remote_code": trust_remote_code}


def _not_loaded(name: str, error: Exception, hint: str = "") -> InputError:
    """Transformers raises many kinds, all meaning "no such model"."""
    line = one_line(error, 300)
    if "custom code" in line:
        line = (
            "it comes with code of its own; --trust-remote-code runs it, if you trust its authors"
        )
        hint = ""
    return InputError(f"model {name} cannot be loaded{hint}: {line}")


def meta_model(name: str, trust_remote_code: bool = False) -> Any:
    """The model's modules without weights, to check adapters against before anything is loaded."""
    check_model(name)
    repo, where = _from(name, trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(repo, **where)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]
    except Exception as error:
        hint = " (a folder of save_pretrained or a hub name)"
        raise _not_loaded(name, error, hint) from None


def load_base(name: str, dtype: str, device: str, trust_remote_code: bool = False) -> Base:
    """The model in eval mode on its device, and its tokenizer. Raises InputError in one line.

    `auto` spreads its layers over all GPUs; `fsdp` leaves each process a share of every layer.
    """
    check_dtype(dtype)
    repo, where = _from(name, trust_remote_code)
    placed: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
    if device == "fsdp":
        placed = {"distributed_config": _shares(meta_model(name, trust_remote_code))}
    try:
        tokenizer = AutoTokenizer.from_pretrained(repo, **where)
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
        raise _not_loaded(name, error) from None
    if missing := sorted(loaded["missing_keys"]):
        # Transformers would make them up.
        raise InputError(
            f"model {name} cannot be loaded: its files lack {len(missing)} weights of its "
            f"config.json, the first {missing[0]}"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not placed:
        model = model.to(device)
    model = model.eval()
    if device == "fsdp":
        _settle(model)
    commit = getattr(model.config, "_commit_hash", None) or split_revision(name)[1]
    return Base(name, model, tokenizer, commit, weights_digest(Path(repo)), trust_remote_code)


def _shares(skeleton: Any) -> DistributedConfig:
    """FSDP over all processes, a decoder block at a time whatever a model calls its blocks."""
    plan = {f"{blocks_name(skeleton)}.*": "free_full_weight"}
    return DistributedConfig(fsdp_size=world_size(), fsdp_plan=plan)


@torch.no_grad()
def _settle(model: Any) -> None:
    """One forward of the whole model, in which FSDP settles what lies in what.

    The first of a training may be an alignment's, which the upper blocks have no part in.
    """
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def weights_digest(folder: Path) -> str | None:
    """sha256 over the names and bytes of a local model's safetensors files; None for a hub name."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
