"""Steering folders written by hand, and parallel text to compute vectors from."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

DEVTEST = {"deu_Latn": "Satz", "eng_Latn": "sentence", "swh_Latn": "sentensi fupi"}


def with_devtest(root: Path, folder: Path) -> Path:
    """A copy of a data folder with six sentences of FLORES devtest in de, en and sw."""
    shutil.copytree(root, folder)
    (folder / "flores200_dataset" / "devtest").mkdir()
    for code, word in DEVTEST.items():
        lines = "".join(f"{word} {'x' * i} {i * 7}\n" for i in range(6))
        (folder / "flores200_dataset" / "devtest" / f"{code}.devtest").write_text(lines)
    return folder


def random_vectors(*codes: str, width: int = 32, size: float = 1.0) -> dict[str, torch.Tensor]:
    """A vector of normal values for each language."""
    draw = torch.Generator().manual_seed(5)
    return {code: size * torch.randn(width, generator=draw) for code in codes}


def config_of(model: Path, **more: Any) -> dict[str, Any]:
    """The configuration of a folder whose vectors steer at layer 3."""
    return {
        "peft_type": "STEERING",
        "base_model_name_or_path": str(model),
        "layer": 3,
        "scale": 1.0,
        "pooling": "mean",
        "corpus": "flores-devtest",
        "corpus_digest": "0123456789abcdef",
        "sentences": 6,
        **more,
    }


def save_steering(
    folder: Path, model: Path, vectors: Mapping[str, torch.Tensor], **more: Any
) -> Path:
    """Write a steering folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(vectors), folder / "steering.safetensors")
    (folder / "steering_config.json").write_text(json.dumps(config_of(model, **more)))
    return folder
