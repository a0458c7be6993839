"""What is wrong with the name of a model, a dtype or a device, said before torch is imported."""

from __future__ import annotations

from pathlib import Path

from xlt_bench.errors import InputError, unknown
from xlt_bench.models.adapters import looks_local, split_revision

DTYPE_NAMES = ("float32", "bfloat16", "float16")
_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mlu", "musa")


def check_model(name: str) -> None:
    """Raise InputError if a base model's name can only be a folder's and there is none."""
    repo, _ = split_revision(name)
    if not Path(repo).is_dir() and looks_local(repo):
        raise InputError(f"model {name}: there is no such folder, and no hub name looks like that")


def check_dtype(dtype: str) -> None:
    """Raise InputError unless dtype is `auto` or one of DTYPE_NAMES."""
    if dtype not in ("auto", *DTYPE_NAMES):
        raise unknown("dtype", dtype, ["auto", *DTYPE_NAMES])


def check_device(device: str | None) -> None:
    """Raise InputError for a kind of device that torch has not; whether one is here, torch says."""
    if device is not None and device.partition(":")[0] not in _DEVICES:
        raise unknown("device", device, _DEVICES)
