"""The types of RUN/plan.json (written when a run starts) and RUN/record.json (when it has ended).

Plans and records of older schemas are upgraded by `results.migrations` before they are validated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from xlt_bench.languages import Setting

SCHEMA_VERSION = 2

# Every number has bounds, far from what a run can have: a submission's record may hold anything.
MAX_LAYERS = 1_000
MAX_LIMIT = 1_000_000
# Of a score; sums of floats may exceed 100 in the last digits.
Percent = Annotated[float, Field(ge=0, le=100.001)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Layer = Annotated[int, Field(ge=1, le=MAX_LAYERS)]
Version = Annotated[int, Field(ge=0, le=10_000)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Number = Annotated[int, Field(ge=-(2**53), le=2**53)] | Annotated[float, Field(ge=-1e300, le=1e300)]
"""A number that the chat template or a recipe is given."""
Value = str | bool | Number | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class UserPrompt(_Strict):
    """A user's own prompt for a task: the name of its file, and the sha256 of its text."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


ShotLanguage = Literal["en", "same"]
MOST_SHOTS = 1_000
SHOT_SEED = 1234
"""The seed with which examples are drawn, lm-eval's default."""


class ShotPrompt(UserPrompt):
    """A task's prompt with examples before it, the benchmark's or a user's own.

    `sha256` is that of the setting, `examples` are content digests of the examples by unit.
    """

    shots: Annotated[int, Field(ge=1, le=MOST_SHOTS)]
    language: ShotLanguage
    examples: Annotated[
        dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]], Field(max_length=1_000)
    ]


def shots_text(shots: int, language: ShotLanguage) -> str:
    """Describe examples in a prompt's name.

    >>> shots_text(1, "en"), shots_text(2, "same")
    ('1 example in English', "2 examples in the item's language")
    """
    where = "English" if language == "en" else "the item's language"
    return f"{shots} example{'s' if shots > 1 else ''} in {where}"


def shots_sha256(own: str | None, shots: int, language: ShotLanguage) -> str:
    """The sha256 of a setting of examples; `own` is that of the user's prompt, if there is one."""
    return hashlib.sha256(json.dumps([own, shots, language, SHOT_SEED]).encode()).hexdigest()


def same_prompt(one: UserPrompt | None, other: UserPrompt | None) -> bool:
    """Whether two prompts of a task are equal in the units that both have; None is its own."""
    if not isinstance(one, ShotPrompt) or not isinstance(other, ShotPrompt):
        return one == other
    both = set(one.examples) & set(other.examples)
    return one.sha256 == other.sha256 and all(one.examples[u] == other.examples[u] for u in both)


class Plan(_Strict):
    """What a run evaluates. A command resumes a run if its plan is equal."""

    schema_version: Version = SCHEMA_VERSION
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
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None
    layers: list[Layer]
    units: dict[str, list[str]]
    task_versions: dict[str, Version]
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
    template_args: dict[str, str | Number | bool | None] = {}
    """Variables of the chat template: thinking switched off, and those of the user."""
    template_date: str | None = None
    """The date that the chat template printed; None if it prints none."""
    stop_tokens: list[str] = []
    """What ends an answer; empty in older plans and if a server answered."""
    prompts: dict[str, ShotPrompt | UserPrompt] = {}
    """Prompts by task, if not the benchmark's; such runs are not ranked beside the others."""
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
    value: Percent
    low: Percent
    high: Percent
    n: Count


class Mean(_Strict):
    """The unweighted mean of a metric over exactly `units`.

    `missing` are the units of the split that were not evaluated. Units beyond the version's ranked
    set are in no mean.
    """

    task: str
    split: Literal["all", "supervised", "transfer", "aligned"]
    metric: str
    value: Percent
    low: Percent
    high: Percent
    units: list[str]
    missing: list[str]


class LayerAccuracy(_Strict):
    """Retrieval accuracy at one layer: the mean over all ordered pairs of the ranked languages."""

    layer: Layer
    value: Percent
    low: Percent
    high: Percent


AccuracyIntervals = Literal["bootstrap", "jeffreys"]


class Scores(_Strict):
    """Everything that follows from predictions and references alone.

    `accuracy_intervals` says how the intervals of accuracies and other shares of items were
    computed. Records of older releases do not have it: they used the bootstrap for all scores.
    """

    accuracy_intervals: AccuracyIntervals = "bootstrap"
    scores: list[Score]
    means: list[Mean]
    layers: list[LayerAccuracy]


class Training(_Strict):
    """How an adapter was trained, as its card states it; nobody can check it from the answers."""

    settings: Annotated[dict[str, Value | list[Value]], Field(max_length=500)]
    """The recipe's settings that are not the defaults, by dotted key; without the seed."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    data_digests: dict[str, str] = {}
    """Digests of the training data, by objective and split; empty if unknown."""
    overlap: dict[str, Annotated[int, Field(ge=0, le=10**6)]] | None = None
    """Items of test sets (`massive/de`) that the training text contains in part; None: unknown."""

    def merged_with(self, others: Mapping[str, Training], how: Mapping[str, Value]) -> Training:
        """The training of the adapter that `xlt-bench merge` makes of this one and others.

        Args:
            others: The other adapters' trainings, by the prefix of their settings.
            how: Settings of the merge, by their keys.

        Returns:
            The settings, seed and data of this one, and those of the others with their prefixes.
        """
        settings, digests = dict(self.settings), dict(self.data_digests)
        for prefix, other in others.items():
            settings |= {f"{prefix}.{key}": value for key, value in other.settings.items()}
            if other.seed != self.seed:
                settings[f"{prefix}.training.seed"] = other.seed
            digests |= {f"{prefix}.{key}": value for key, value in other.data_digests.items()}
        told = [one.overlap for one in (self, *others.values())]
        overlap: dict[str, int] | None = {}
        for one in told:  # of two texts that contain the same item, it is counted once at least
            overlap = None if one is None or overlap is None else _largest(overlap, one)
        return Training(
            settings={**settings, **how}, seed=self.seed, data_digests=digests, overlap=overlap
        )


def _largest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: max(one.get(key, 0), other.get(key, 0)) for key in {**one, **other}}


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
    training: Training | None = None  # None: its card does not say, as in older records
    change_norms: dict[str, Annotated[float, Field(ge=0, le=1e12)]]
    probe_prompts: Annotated[int, Field(ge=0, le=1_000)]
    probe_differing: Annotated[int, Field(ge=0, le=1_000)]
    merged: bool | None = None  # into the weights, for every answer; None: for some, or unknown


class ModelRecord(_Strict):
    """The base model as it ran; what plain lm-eval does not report is None."""

    name: str
    revision: str | None
    sha256: str | None
    architecture: str | None
    parameters: Annotated[int, Field(ge=1, le=10**15)] | None
    layers: Layer | None
    dtype: str


class Fertility(_Strict):
    """How many tokens the tokenizer needs for the FLORES dev sentences of a language."""

    tokens_per_character: Annotated[float, Field(ge=0, le=1_000)]
    tokens_per_word: Annotated[float, Field(ge=0, le=100_000)] | None


class Alignment(_Strict):
    """How alike a language's states are to English at a layer (`metrics.representation`).

    MEXA is of the first 100 sentences, the others of all; nobody can check them from the answers.
    """

    layer: Layer
    language: Annotated[str, Field(max_length=20)]
    mexa_weighted: Percent
    mexa_last: Percent
    cka: Annotated[float, Field(ge=-10, le=1.001)]
    cosine_margin: Annotated[float, Field(ge=-2.001, le=2.001)]


class Costs(_Strict):
    """What the answers cost, over all parts of a run; None where a part does not tell.

    Peak memory is what torch allocated on the GPU, or of the process on a CPU. Energy is by the
    counter of the driver, also for other processes: the GPU's (`nvml`), or the CPU package's
    (`rapl`). Without a counter, `codecarbon` estimates it for the CPU and memory of this process,
    and the GPUs. Older records do not name the source.
    """

    tokens_in: Annotated[int, Field(ge=0, le=10**15)] | None = None
    tokens_out: Annotated[int, Field(ge=0, le=10**15)] | None = None
    device_seconds: Seconds | None = None
    peak_memory_bytes: Annotated[int, Field(ge=0, le=10**15)] | None = None
    energy_joules: Annotated[float, Field(ge=0, le=1e15)] | None = None
    energy_source: Literal["nvml", "rapl", "codecarbon"] | None = None


class Record(_Strict):
    """A finished run. `harness` is the program that ran it; plain lm-eval reports less."""

    schema_version: Version = SCHEMA_VERSION
    harness: Literal["xlt-bench", "lm-eval"] = "xlt-bench"
    created: str
    command: str
    model: ModelRecord
    adapter: AdapterRecord | None
    template: str
    template_sha256: str
    bos_per_prompt: list[Count]
    truncated_prompts: Count | None
    plan: Plan
    data_digests: dict[str, str]
    notes: list[str]
    signatures: dict[str, str]
    versions: dict[str, str]
    hardware: dict[str, str]
    seconds: dict[str, Seconds]
    batch_sizes: dict[str, str]
    fertility: dict[str, Fertility]
    costs: Costs | None = None  # None in older records, and from plain lm-eval
    alignment: Annotated[list[Alignment], Field(max_length=10_000)] = []  # empty in older records
    results: Scores

    @property
    def alignment_languages(self) -> list[str]:
        """The languages that the adapter was aligned on; empty without an adapter."""
        return self.adapter.alignment_languages if self.adapter else []
