"""The command `comet setup`, and the options that `evaluate` and `score` have for COMET.

Registered by cli.py; nothing of COMET is imported before a command runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from xlt_bench.cli.shared import console, errors
from xlt_bench.errors import InputError

comet = typer.Typer(no_args_is_help=True, help="The environment of the metric COMET.")

WithComet = Annotated[
    bool, typer.Option("--comet", help="Score translations with COMET too, after `comet setup`.")
]
CometModel = Annotated[
    str | None,
    typer.Option(help="Hub name, folder or .ckpt file; else Unbabel/wmt22-comet-da."),
]


@comet.command()
def setup() -> None:
    """Make COMET's environment in the user's cache, or in $XLT_BENCH_COMET; or mend it."""
    from xlt_bench.evaluation.comet.environment import setup as make

    found = make(errors.print)
    console.print(", ".join(f"{name} {version}" for name, version in found.items()))


def asked_model(comet: bool, model: str | None) -> str | None:
    """The checkpoint that `--comet` scores with, None without it."""
    if not comet:
        if model is not None:
            raise InputError("--comet-model goes with --comet")
        return None
    from xlt_bench.evaluation.comet.score import MODEL

    return model or MODEL
