"""The types of RUN/plan.json (written when a run starts) and RUN/record.json (when it has ended).

Plans and records of older schemas are upgraded by `results.migrations` before they are validated.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from xlt_bench.languages import Setting

SCHEMA_VERSION = 2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Plan(_Strict):
    """What a run evaluates. A command resumes a run if its plan is equal."""

    schema_version: int = SCHEMA_VERSION
    model: str
    model_revision: str | None
    model_sha256: str | None
    adapter: str | None
    adapter_sha256: str | None
    adapter_revision: str | None = None
    """The adapter's commit on the hub; None for a folder, and in older records."""
    dtype: str
    template: str
    template_sha256: str
    limit: int | None
    layers: list[int]
    units: dict[str, list[str]]
    task_versions: dict[str, int]
    shard: str | None = None
    """`2/4`: the units are the second of four shares of those asked for."""
    backend: Literal["hf", "vllm", "openai"] = "hf"
    """The engine that generated the answers of text tasks."""
    corpus: str | None = None
    """The name of the corpus that retrieval uses instead of FLORES dev."""
    trust_remote_code: bool = False
    """Whether the model's own code was allowed to run."""
    tokenizer: str | None = None
    """`model`, `adapter` or `--tokenizer NAME`; None in older plans."""
    tokenizer_sha256: str | None = None
    template_args: dict[str, str | int | float | bool | None] = {}
    """Variables of the chat template: thinking switched off, and those of the user."""
    template_date: str | None = None
    """The date that the chat template printed; None if it prints none."""
    stop_tokens: list[str] = []
    """What ends an answer; empty in older plans and if a server answered."""
    model_args: str = ""
    """JSON: those of --model-args that may change answers, such as a server's extra fields."""


class Score(_Strict):
    """One metric of one unit (language or direction), with its 95 % bootstrap interval.

    `setting` is None for tasks without settings and for units beyond the version's ranked set.
    """

    task: str
    unit: str
    setting: Setting | None
    aligned: bool
    metric: str
    value: float
    low: float
    high: float
    n: int


class Mean(_Strict):
    """The unweighted mean of a metric over exactly `units`.

    `missing` are the units of the split that were not evaluated. Units beyond the version's ranked
    set are in no mean.
    """

    task: str
    split: Literal["all", "supervised", "transfer", "aligned"]
    metric: str
    value: float
    low: float
    high: float
    units: list[str]
    missing: list[str]


class LayerAccuracy(_Strict):
    """Retrieval accuracy at one layer: the mean over all ordered pairs of the ranked languages."""

    layer: int
    value: float
    low: float
    high: float


class Scores(_Strict):
    """Everything that follows from predictions and references alone."""

    scores: list[Score]
    means: list[Mean]
    layers: list[LayerAccuracy]


class AdapterRecord(_Strict):
    """The adapter, and the proof that it took effect; `probe_prompts` is 0 if it was not probed."""

    name: str
    sha256: str
    revision: str | None = None  # its commit on the hub; None for a folder, and in older records
    peft_type: str
    base_model: str | None
    alignment_languages: list[str]
    recipe: str | None = None  # as its card says; None in older records
    trained_on_flores: bool | None = None  # on FLORES dev, as its card says; None: unknown
    change_norms: dict[str, float]
    probe_prompts: int
    probe_differing: int
    merged: bool | None = None  # into the weights, for every answer; None: for some, or unknown


class ModelRecord(_Strict):
    """The base model as it ran; what plain lm-eval does not report is None."""

    name: str
    revision: str | None
    sha256: str | None
    architecture: str | None
    parameters: int | None
    layers: int | None
    dtype: str


class Fertility(_Strict):
    """How many tokens the tokenizer needs for the FLORES dev sentences of a language."""

    tokens_per_character: float
    tokens_per_word: float | None


class Record(_Strict):
    """A finished run. `harness` is the program that ran it; plain lm-eval reports less."""

    schema_version: int = SCHEMA_VERSION
    harness: Literal["xlt-bench", "lm-eval"] = "xlt-bench"
    created: str
    command: str
    model: ModelRecord
    adapter: AdapterRecord | None
    template: str
    template_sha256: str
    bos_per_prompt: list[int]
    truncated_prompts: int | None
    plan: Plan
    data_digests: dict[str, str]
    notes: list[str]
    signatures: dict[str, str]
    versions: dict[str, str]
    hardware: dict[str, str]
    seconds: dict[str, float]
    batch_sizes: dict[str, str]
    fertility: dict[str, Fertility]
    results: Scores

    @property
    def alignment_languages(self) -> list[str]:
        """The languages that the adapter was aligned on; empty without an adapter."""
        return self.adapter.alignment_languages if self.adapter else []
