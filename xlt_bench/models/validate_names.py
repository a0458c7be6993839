"""Validates options that concern models without importing torch, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from xlt_bench.errors import InputError, unknown
from xlt_bench.models.adapters import check_hub_name, split_revision

DTYPE_NAMES = ("float32", "bfloat16", "float16")
_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mlu", "musa")


def check_model(name: str) -> None:
    """Check the name of a base model.

    Args:
        name: A folder, or a hub name with or without `@revision`.

    Raises:
        InputError: If it is neither a folder nor a valid hub name.
    """
    repo, _ = split_revision(name)
    if not Path(repo).is_dir():
        check_hub_name("model", name)


def check_dtype(dtype: str) -> None:
    """Check the name of a dtype.

    Args:
        dtype: The name.

    Raises:
        InputError: If it is neither `auto` nor one of DTYPE_NAMES.
    """
    if dtype not in ("auto", *DTYPE_NAMES):
        raise unknown("dtype", dtype, ["auto", *DTYPE_NAMES])


def check_device(device: str | None) -> None:
    """Check the kind of a device; `choose_device` finds out whether it exists.

    Args:
        device: A name such as `cuda:1`, or None for the default.

    Raises:
        InputError: If torch has no such kind of device.
    """
    if device is not None and device.partition(":")[0] not in _DEVICES:
        raise unknown("device", device, _DEVICES)


def parse_batch_size(text: str) -> int | str:
    """Parse a batch size: `auto`, or a number from 1.

    Raises:
        InputError: If it is neither.
    """
    if text == "auto":
        return text
    if not (text.isdecimal() and int(text)):
        raise InputError(f"--batch-size must be 'auto' or at least 1, not {text!r}")
    return int(text)
