"""Measures what answers cost: memory and energy of a part, and the sums over a run."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch

from xlt_bench.evaluation import codecarbon_energy
from xlt_bench.results.record import Costs

_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
# How the values of parts are added, if not by their sum.
_ADDED: dict[str, Any] = {"peak_memory_bytes": max, "energy_source": min}
_SUMS = ("seconds", "tokens_in", "tokens_out", "truncated_prompts", "energy_joules")


class Meter:
    """Measures from its creation on; the GPU, if there is one, is the current one.

    Energy is that of the driver's counter, or else codecarbon's estimate, if it is installed.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._began = energy_counter()
        if self._began is None:
            codecarbon_energy.start()

    def read(self) -> dict[str, float | int | str | None]:
        """Peak memory in bytes, energy in joules and where it is from; None where nothing tells."""
        spent, source = self._spent()
        return {
            "peak_memory_bytes": peak_memory_bytes(),
            "energy_joules": spent,
            "energy_source": source,
        }

    def _spent(self) -> tuple[float | None, str | None]:
        if self._began is None:
            spent = codecarbon_energy.stop()
            return spent, None if spent is None else "codecarbon"
        ended = energy_counter()
        if ended is None or ended < self._began:
            return None, None  # a counter that began again says nothing
        return ended[1] - self._began[1], ended[0]


def peak_memory_bytes() -> int:
    """The most memory that torch allocated on the GPU since the reset, or the process had."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def energy_counter() -> tuple[str, float] | None:
    """The energy counter of the GPU (`nvml`), or of the CPU package (`rapl`), in joules.

    Returns:
        None if it cannot be read.
    """
    if torch.cuda.is_available():
        return _of_gpu()
    try:
        return "rapl", int(_RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def _of_gpu() -> tuple[str, float] | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        return "nvml", float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except Exception:  # not installed, or a device or driver without the counter
        return None


def of_parts(rows: Iterable[Mapping[str, Any]]) -> Costs:
    """Add up the costs of the parts of a run, or of runs.

    Args:
        rows: The fields of `Costs`, of each part.

    Returns:
        The sums, and the highest memory; None where a part lacks the number, and for energy from
        different sources.
    """
    given = list(rows)
    found: dict[str, Any] = {}
    for name in Costs.model_fields:
        values = [row[name] for row in given if row.get(name) is not None]
        add = _ADDED.get(name, sum)
        found[name] = add(values) if values and len(values) == len(given) else None
    if len({row.get("energy_source") for row in given}) > 1:
        found["energy_joules"] = found["energy_source"] = None
    return Costs(**found)


def split_costs(row: Mapping[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Split the statistics of units that were answered together, by their numbers of items.

    Args:
        row: The statistics of all.
        sizes: The number of items of each unit.

    Returns:
        The statistics of each unit; seconds, tokens, truncated prompts and joules add up to those
        of all, and counts stay whole.
    """
    rows = [dict(row) for _ in sizes]
    ends = [0, *accumulate(sizes)]
    for name in _SUMS:
        if (whole := row.get(name)) is not None:
            digits = None if isinstance(whole, int) else 3
            reached = [round(whole * end / ends[-1], digits) for end in ends]
            for one, (start, end) in zip(rows, pairwise(reached), strict=True):
                one[name] = round(end - start, digits)
    return rows
