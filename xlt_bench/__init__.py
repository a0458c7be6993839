"""xlt-bench: how far does a fine-tuned skill carry over to other languages?

The names below are the public interface; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlt_bench.api.compare import compare
    from xlt_bench.api.evaluate import evaluate
    from xlt_bench.api.run import Run, load_run
    from xlt_bench.api.share import load_leaderboard, submit
    from xlt_bench.api.train import merge, steer, train
    from xlt_bench.api.transfer_callback import TransferCallback
    from xlt_bench.errors import InputError

    __version__: str

_HOMES = {
    "InputError": "errors",
    "Run": "api.run",
    "TransferCallback": "api.transfer_callback",
    "compare": "api.compare",
    "evaluate": "api.evaluate",
    "load_leaderboard": "api.share",
    "load_run": "api.run",
    "merge": "api.train",
    "steer": "api.train",
    "submit": "api.share",
    "train": "api.train",
}
__all__ = [
    "InputError",
    "Run",
    "TransferCallback",
    "compare",
    "evaluate",
    "load_leaderboard",
    "load_run",
    "merge",
    "steer",
    "submit",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("xlt-bench")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
