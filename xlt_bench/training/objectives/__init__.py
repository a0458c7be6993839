"""Training objectives: one module each, and the registry that looks up a recipe's sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlt_bench.training.objectives.alignment import AlignmentObjective
from xlt_bench.training.objectives.base import Objective
from xlt_bench.training.objectives.task import TaskObjective
from xlt_bench.training.overlap import overlaps
from xlt_bench.training.recipe import Recipe

OBJECTIVES: dict[str, type[Objective[Any, Any]]] = {
    objective.name: objective for objective in (TaskObjective, AlignmentObjective)
}


def objectives_of(recipe: Recipe) -> dict[str, Objective[Any, Any]]:
    """Look up the objectives of a recipe.

    Args:
        recipe: The recipe.

    Returns:
        The objectives of its sections by name, in the order in which they alternate.
    """
    return {
        name: OBJECTIVES[name](section, recipe.training)
        for name, section in recipe.sections.items()
    }


def read_texts(root: Path, recipe: Recipe) -> dict[str, Any]:
    """Read all that a recipe learns from, without importing torch.

    Args:
        root: The data folder.
        recipe: The recipe.

    Returns:
        Each objective's texts, by its name.

    Raises:
        InputError: If data are missing.
    """
    return {name: objective.read(root) for name, objective in objectives_of(recipe).items()}


def overlaps_of(root: Path, recipe: Recipe, texts: Mapping[str, Any]) -> dict[str, int]:
    """Count the test items that the training text of a recipe contains in part.

    Args:
        root: The data folder.
        recipe: The recipe.
        texts: What `read_texts` returned.

    Returns:
        What `training.overlap.overlaps` returns.
    """
    objectives = objectives_of(recipe).items()
    return overlaps(
        root, (row for name, objective in objectives for row in objective.sentences(texts[name]))
    )
