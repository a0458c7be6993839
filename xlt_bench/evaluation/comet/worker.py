"""Scores segments with COMET: started by path in COMET's environment, imports nothing of ours.

Reads the request, a JSON file: `model` (a hub name), `checkpoint` (a .ckpt file, or null) and
`directions`, of each its `unit`, the file `segments` ([{"src", "mt", "ref"}, ...]), the file
`scores` to write, and `kept`, the checksum of the checkpoint that has scored it already, or null.

Prints a JSON line a step: {"sha256", "version"} once the model is there; then, for each direction
that another checkpoint or none has scored, {"scored": segments since the last line} again and
again, and {"finished": unit}. What goes wrong is the last line of stderr.
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

BATCH = 16  # that of comet-score
CHUNK = 8 * BATCH  # segments between two signs of life


def main(request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Answer a request; `say` takes each step."""
    checkpoint = Path(request["checkpoint"] or download(request["model"]))
    sha256 = checksum(checkpoint)
    todo = [one for one in request["directions"] if one["kept"] != sha256]
    # Loaded first: a checkpoint that cannot be loaded must not replace another's scores.
    model = load(checkpoint) if todo else None
    say({"sha256": sha256, "version": version("unbabel-comet")})
    for one in todo:
        segments = json.loads(Path(one["segments"]).read_text(encoding="utf-8"))
        scores = score(model, segments, lambda done: say({"scored": done}))
        Path(one["scores"]).write_text(json.dumps(scores), encoding="utf-8")
        say({"finished": one["unit"]})


def download(name: str) -> str:
    """The checkpoint of a hub name, from the cache if it is there."""
    import comet
    from huggingface_hub import constants

    try:
        return str(comet.download_model(name, local_files_only=constants.HF_HUB_OFFLINE))
    except Exception as error:
        cause: BaseException = error
        while cause.__context__ is not None:  # comet hides it behind a KeyError
            cause = cause.__context__
        sys.exit(
            f"{name} cannot be downloaded ({told(cause)}); check its name and the network, or give "
            "a local one with --comet-model PATH"
        )


def checksum(path: Path) -> str:
    """The sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def load(checkpoint: Path) -> Any:
    """The model of a checkpoint; its encoder's tokenizer is another download, or in the cache."""
    import comet
    from huggingface_hub import constants

    try:
        return comet.load_from_checkpoint(
            str(checkpoint), local_files_only=constants.HF_HUB_OFFLINE
        )
    except Exception as error:
        sys.exit(
            f"{checkpoint} cannot be loaded ({told(error)}); is it COMET's, and its encoder (in "
            "hparams.yaml) in the hub's cache?"
        )


def told(error: BaseException) -> str:
    """What an exception says, in one line of at most 150 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:150]


def score(
    model: Any, segments: list[dict[str, str]], progress: Callable[[int], None]
) -> list[float]:
    """A score a segment, in their order; `progress` takes the number scored since the last call."""
    import torch

    # predict sorts by length as well, but only what it is given at once.
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
    # The libraries print to stdout too: it is ours alone, and theirs goes to stderr.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(step: dict[str, Any]) -> None:
        """One JSON line to whoever started us."""
        channel.write(json.dumps(step) + "\n")
        channel.flush()

    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), tell)
