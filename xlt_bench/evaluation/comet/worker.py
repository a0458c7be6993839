"""Scores segments with COMET; runs as a script in COMET's environment, without this package.

The argument is a JSON file: `model` (a hub name), `checkpoint` (a .ckpt file, or null) and
`directions`. Each direction has a `unit`, a file `segments` to read ([{"src", "mt", "ref"}, ...]),
a file `scores` to write, and `kept`, the checksum of the checkpoint that has scored it, or null.

Prints JSON lines: {"sha256", "version"} when the model is loaded; then, for each direction that
this checkpoint has not scored, {"scored": segments since the last line} several times, and
{"finished": unit}. If it fails, the last line of stderr is the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

BATCH = 16  # as in comet-score
CHUNK = 8 * BATCH  # segments between two reports of progress


def main(request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Score what a request asks for.

    Args:
        request: The content of the JSON file.
        say: Called with each report.
    """
    checkpoint = Path(request["checkpoint"] or download(request["model"]))
    sha256 = checksum(checkpoint)
    todo = [one for one in request["directions"] if one["kept"] != sha256]
    # Loaded before anything is reported, since the caller then deletes another checkpoint's scores.
    model = load(checkpoint) if todo else None
    say({"sha256": sha256, "version": version("unbabel-comet")})
    for one in todo:
        segments = json.loads(Path(one["segments"]).read_text(encoding="utf-8"))
        scores = score(model, segments, lambda done: say({"scored": done}))
        Path(one["scores"]).write_text(json.dumps(scores), encoding="utf-8")
        say({"finished": one["unit"]})


def download(name: str) -> str:
    """Download a checkpoint, unless it is in the cache.

    Args:
        name: A hub name.

    Returns:
        The .ckpt file.
    """
    import comet
    from huggingface_hub import constants

    try:
        return str(comet.download_model(name, local_files_only=constants.HF_HUB_OFFLINE))
    except Exception as error:
        cause: BaseException = error
        while cause.__context__ is not None:  # comet raises a KeyError in its place
            cause = cause.__context__
        sys.exit(
            f"{name} cannot be downloaded ({describe(cause)}); check its name and the network, or "
            "use a local checkpoint with --comet-model PATH"
        )


def checksum(path: Path) -> str:
    """Compute the sha256 of a file.

    Args:
        path: The file.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def load(checkpoint: Path) -> Any:
    """Load a checkpoint; the tokenizer of its encoder comes from the hub or its cache.

    Args:
        checkpoint: The .ckpt file.

    Returns:
        The COMET model.
    """
    import comet
    from huggingface_hub import constants

    try:
        return comet.load_from_checkpoint(
            str(checkpoint), local_files_only=constants.HF_HUB_OFFLINE
        )
    except Exception as error:
        sys.exit(
            f"{checkpoint} cannot be loaded ({describe(error)}); is it a COMET checkpoint, and is "
            "its encoder (see hparams.yaml) in the hub's cache?"
        )


def describe(error: BaseException) -> str:
    """Describe an exception in one line of at most 150 characters.

    Args:
        error: The exception.
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:150]


def score(
    model: Any, segments: list[dict[str, str]], progress: Callable[[int], None]
) -> list[float]:
    """Score segments.

    Args:
        model: The COMET model.
        segments: The segments.
        progress: Called with the number of segments scored since the last call.

    Returns:
        A score for each segment, in their order.
    """
    import torch

    # predict sorts by length too, but only within a call.
    order = sorted(range(len(segments)), key=lambda i: len(segments[i]["src"]))
    scores = [0.0] * len(segments)
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        found = model.predict(
            [segments[i] for i in part],
            batch_size=BATCH,
            gpus=int(torch.cuda.is_available()),
            progress_bar=False,
            num_workers=0,
        )
        for place, i in enumerate(part):
            scores[i] = found["scores"][place]
        progress(len(part))
    return scores


if __name__ == "__main__":
    # The libraries print to stdout too; send that to stderr, and keep stdout for the reports.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(step: dict[str, Any]) -> None:
        """Print a report as a JSON line."""
        channel.write(json.dumps(step) + "\n")
        channel.flush()

    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), tell)
