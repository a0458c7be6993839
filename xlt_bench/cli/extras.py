"""Which extra of the package installs a missing module."""

from __future__ import annotations

# As in pyproject.toml. An editable install may be older, so its metadata is not asked.
EXTRAS = {
    "leaderboard": "altair duckdb pandas streamlit vl-convert-python".split(),
    "eval": ("accelerate altair datasets lm-eval pandas peft psutil torch transformers").split(),
    "vllm": ["vllm"],
    "artifacts": ["fsspec"],
}


def extra_of(module: str) -> str | None:
    """The first extra that installs a top-level module; None if none does.

    >>> extra_of("lm_eval"), extra_of("numpy")
    ('eval', None)
    """
    package = module.replace("_", "-")
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)
