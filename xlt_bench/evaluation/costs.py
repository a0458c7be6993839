"""Measures what answers cost: memory and energy of a part, and the sums over a run."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from xlt_bench.results.record import Costs

_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


class Meter:
    """Measures from its creation on; the GPU, if there is one, is the current one."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._energy = energy_joules()

    def read(self) -> dict[str, float | int | None]:
        """Peak memory in bytes, and energy in joules; None where the driver does not tell."""
        now, spent = energy_joules(), None
        if now is not None and self._energy is not None and now >= self._energy:
            spent = now - self._energy  # a counter that began again says nothing
        return {"peak_memory_bytes": peak_memory_bytes(), "energy_joules": spent}


def peak_memory_bytes() -> int:
    """The most memory that torch allocated on the GPU since the reset, or the process had."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def energy_joules() -> float | None:
    """The energy counter of the GPU, or of the CPU package; None if it cannot be read."""
    if torch.cuda.is_available():
        return _of_gpu()
    try:
        return int(_RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def _of_gpu() -> float | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except Exception:  # not installed, or a device or driver without the counter
        return None


def of_parts(rows: Iterable[Mapping[str, Any]]) -> Costs:
    """Add up the costs of the parts of a run, or of runs.

    Args:
        rows: `tokens_in`, `tokens_out`, `device_seconds`, `peak_memory_bytes` and `energy_joules`
            of each part.

    Returns:
        The sums, and the highest memory; None where a part lacks the number.
    """
    given = list(rows)
    found: dict[str, Any] = {}
    for name in Costs.model_fields:
        values = [row[name] for row in given if row.get(name) is not None]
        add = max if name == "peak_memory_bytes" else sum
        found[name] = add(values) if values and len(values) == len(given) else None
    return Costs(**found)
