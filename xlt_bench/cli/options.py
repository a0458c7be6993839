r"""The options that several commands have. Importing it imports no torch.

Rich reads `[...]` in help texts as markup: write `\[` for a bracket that should show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from xlt_bench.errors import InputError, unknown
from xlt_bench.results.tables import FORMATS

MODEL_HELP = r"Base model: folder or hub name\[@revision]."

Model = Annotated[str, typer.Option(metavar="MODEL", help=MODEL_HELP)]
AdaptedModel = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help=MODEL_HELP, show_default="the one that the adapters name"),
]
ChatTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="tokenizer, plain, llama3-midalign or a Jinja file.",
        show_default="the tokenizer's, or plain if it has none",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Tokenizer: folder or hub name.",
        show_default="the adapter's if it brings one, or the model's",
    ),
]
ChatTemplateArgs = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help="Variables of the chat template, such as '{\"enable_thinking\": true}'.",
        show_default="thinking off",
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the data sets, or mini for the hand-written suite.",
        show_default="$XLT_BENCH_DATA, or the user's cache",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Device for evaluation: cpu, cuda, cuda:1, ...; auto spreads the layers over all "
        "GPUs.",
        show_default="cuda if available",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="DTYPE", help="Number format for evaluation: auto, float32, bfloat16 or float16."
    ),
]
BatchSize = Annotated[
    str, typer.Option(metavar="N", help="Batch size for evaluation: a number, or auto.")
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Only the first N test items of each language; not ranked."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a recipe setting, such as training.seed=2; repeat for several.",
    ),
]
Submissions = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the submissions.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that ships with the model.")
]
WithComet = Annotated[
    bool,
    typer.Option("--comet", help="Also score translations with COMET; needs `comet setup`."),
]
CometModel = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="COMET checkpoint: hub name, folder or .ckpt file.",
        show_default="Unbabel/wmt22-comet-da",
    ),
]


def _known(formats: Sequence[str]) -> Callable[[str], str]:
    """A check of --format that comes before the command does any work."""

    def check(form: str) -> str:
        if form not in formats:
            raise unknown("format", form, formats)
        return form

    return check


_PRINTED = ("table", "csv", "json")
PrintFormat = Annotated[
    str,
    typer.Option(
        "--format", metavar="FORMAT", help="table, csv or json.", callback=_known(_PRINTED)
    ),
]
TableFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="table, csv, json, md or latex.",
        callback=_known(FORMATS),
    ),
]


def listed(text: str | None) -> list[str]:
    """The parts of an option such as `de,sw`; an empty list for an option that is not given."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


_Number = TypeVar("_Number", int, float)


def numbers(
    name: str, text: str | None, kind: Callable[[str], _Number], example: str
) -> list[_Number]:
    """The numbers of an option such as `--layers 8,16`.

    Raises:
        InputError: A part is not a number; the message has the option's name and the example.
    """
    try:
        return [kind(part) for part in listed(text)]
    except ValueError:
        raise InputError(f"{name} must be numbers such as {example}, got {text!r}") from None


def comet_checkpoint(comet: bool, model: str | None) -> str | None:
    """The checkpoint that `--comet` scores with; None without `--comet`."""
    if not comet:
        if model is not None:
            raise InputError("--comet-model needs --comet: add it")
        return None
    from xlt_bench.evaluation.comet.score import MODEL

    return model or MODEL
