"""Estimates the energy of a part with codecarbon, an optional package, where no counter tells.

codecarbon makes its estimate from the load and the design power of the hardware. It is used
offline: it writes no file, sends nothing and logs nothing. Its own settings of hardware, such as
`force_cpu_power` in `~/.codecarbon.config`, apply.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from xlt_bench.distributed import world_size

_JOULES_PER_KWH = 3.6e6
_TASK = "part"


def start() -> None:
    """Begin to measure; what was begun before and never stopped is dropped."""
    if (tracker := _tracker()) is not None:
        stop()
        tracker.start_task(_TASK)


def stop() -> float | None:
    """The energy in joules since `start`; None without codecarbon, or if nothing was begun."""
    tracker = _tracker()
    measured = None if tracker is None else tracker.stop_task()
    return None if measured is None else float(measured.energy_consumed) * _JOULES_PER_KWH


@cache
def _tracker() -> Any:
    """The tracker of this process, which detects the hardware once; None without codecarbon."""
    try:
        import codecarbon
        import torch
    except ImportError:
        return None
    if torch.cuda.is_available() and world_size() > 1:
        return None  # each process would count all GPUs
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    return codecarbon.OfflineEmissionsTracker(
        tracking_mode="process",
        # Emissions are not recorded; without an intensity, codecarbon asks for the country.
        force_carbon_intensity_g_co2e_kwh=0,
        output_methods=[],
        output_handlers=[],
        emissions_endpoint="",
        allow_multiple_runs=True,
        log_level="critical",
    )
