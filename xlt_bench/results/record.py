"""The types of an evaluation's result: RUN/plan.json when it starts, RUN/record.json when it ends.

Schemas of older releases are read through `results.migrations`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from xlt_bench.languages import Setting

SCHEMA_VERSION = 2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Plan(_Strict):
    """What a run evaluates: two commands with equal plans continue each other."""

    schema_version: int = SCHEMA_VERSION
    model: str
    model_revision: str | None
    model_sha256: str | None
    adapter: str | None
    adapter_sha256: str | None
    dtype: str
    template: str
    template_sha256: str
    limit: int | None
    layers: list[int]
    units: dict[str, list[str]]
    task_versions: dict[str, int]
    shard: str | None = None
    """`2/4`: the units are one share of four of what was asked for."""
    backend: Literal["hf", "vllm", "openai"] = "hf"
    """What answered with text."""
    corpus: str | None = None
    """The folder that retrieval is over instead of FLORES dev."""
    trust_remote_code: bool = False
    """Whether code that comes with the model was allowed to run."""


class Score(_Strict):
    """A metric of one unit (language or direction), with its 95 % bootstrap interval.

    `setting` is None in tasks without settings and in units beyond the version's ranked set.
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
    """The unweighted mean of a metric over exactly `units`; `missing` were not evaluated.

    No unit beyond the version's ranked set is in a mean.
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
    """Retrieval at one layer: the mean over all ordered pairs."""

    layer: int
    value: float
    low: float
    high: float


class Scores(_Strict):
    """Everything that predictions and references determine."""

    scores: list[Score]
    means: list[Mean]
    layers: list[LayerAccuracy]


class AdapterRecord(_Strict):
    """Which adapter ran, and the proof that it took effect (no probe prompts: none was tried)."""

    name: str
    sha256: str
    peft_type: str
    base_model: str | None
    alignment_languages: list[str]
    recipe: str | None = None  # what its card names; older records do not say
    trained_on_flores: bool | None = None  # retrieval's sentences, as its card says; null: unknown
    change_norms: dict[str, float]
    probe_prompts: int
    probe_differing: int
    merged: bool | None = None  # answered with it in the weights; null: in part, or not known


class ModelRecord(_Strict):
    """The base model as it ran; plain lm-eval tells less of it."""

    name: str
    revision: str | None
    sha256: str | None
    architecture: str | None
    parameters: int | None
    layers: int | None
    dtype: str


class Fertility(_Strict):
    """Tokens the tokenizer spends on a language's FLORES dev sentences."""

    tokens_per_character: float
    tokens_per_word: float | None


class Record(_Strict):
    """A whole run. `harness` is what answered: ours, or plain lm-eval, which says less."""

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
        """What the adapter was aligned on; none without an adapter."""
        return self.adapter.alignment_languages if self.adapter else []
