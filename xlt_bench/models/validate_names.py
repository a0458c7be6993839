"""What is wrong with the name of a model, a dtype or a device, said before torch is imported."""

from __future__ import annotations

from pathlib import Path

from xlt_bench.errors import unknown
from xlt_bench.models.adapters import check_hub_name, split_revision

DTYPE_NAMES = ("float32", "bfloat16", "float16")
_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mlu", "musa")


def check_model(name: str) -> None:
    """Raise InputError if a base model's name is neither a folder's here nor one of the hub."""
    repo, _ = split_revision(name)
    if not Path(repo).is_dir():
        check_hub_name("model", name)


def check_dtype(dtype: str) -> None:
    """Raise InputError unless dtype is `auto` or one of DTYPE_NAMES."""
    if dtype not in ("auto", *DTYPE_NAMES):
        raise unknown("dtype", dtype, ["auto", *DTYPE_NAMES])


def check_device(device: str | None) -> None:
    """Raise InputError for a kind of device that torch has not; whether one is here, torch says."""
    if device is not None and device.partition(":")[0] not in _DEVICES:
        raise unknown("device", device, _DEVICES)
