"""Describes the paper's tables and figures as data: systems (rows) and scores (columns).

Importing this module imports no torch. `published` names a row of store/published.csv for each
model. Left out are Tables 1 and 10, which list data sets and languages (`xlt-bench languages`), and
Figure 2, which is a drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from xlt_bench.languages import Setting
from xlt_bench.tasks.registry import get_task
from xlt_bench.tasks.retrieval import ACCURACY

LLAMA, QWEN = "Llama 3", "Qwen 2.5"


@dataclass(frozen=True)
class System:
    """The bare model, the adapter of a recipe, or the merge of two recipes' adapters."""

    recipe: str | None = None
    merged_with: str | None = None

    @property
    def name(self) -> str:
        """The name of its folder, without the seed."""
        if self.recipe is None:
            return "base"
        return f"{self.recipe}-merged" if self.merged_with else self.recipe


@dataclass(frozen=True)
class Column:
    """The mean of a metric, or of its gains over the baseline row, over a split or in one unit.

    The split `aligned` is the panel's alignment languages; for gains, those of the row's recipe.
    """

    title: str
    metric: str
    split: str
    unit: str = ""
    of: Literal["score", "gain", "gain, standard deviation"] = "score"

    @property
    def published(self) -> tuple[str, str, str]:
        """Its key in published.csv: split, unit, metric."""
        suffix = {
            "score": "",
            "gain": " gain",
            "gain, standard deviation": " gain, standard deviation",
        }
        return self.split, self.unit, self.metric + suffix[self.of]


@dataclass(frozen=True)
class Row:
    """A system and its row in published.csv, by model. `metrics` limits the columns it fills."""

    label: str
    system: System
    published: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[str] = ()


@dataclass(frozen=True)
class Panel:
    """The rows and columns of one task; gains are over the row of `baseline`."""

    task: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    aligned: Sequence[str] = ()
    baseline: System | None = None


@dataclass(frozen=True)
class Curves:
    """Retrieval by layer, with a line for each system and group of languages."""

    systems: Mapping[str, System]
    groups: Sequence[Literal["35 languages", "low-resource languages", "20 languages"]]


@dataclass(frozen=True)
class Scatter:
    """Retrieval of each language in the bare model's middle layer against a system's score."""

    task: str
    system: System


@dataclass(frozen=True)
class Reproduction:
    """A table or figure of the paper."""

    title: str
    parts: Sequence[Panel | Curves | Scatter]
    notes: Sequence[str] = ()


BASE = System()
AUTHORS_BASES = {
    "Meta-Llama-3-8B-Instruct": "llama3-midalign",
    "Qwen2.5-7B-Instruct": None,
}
"""The base models of the adapters that the authors published, with the template to use."""
_AUTHORS = {
    "massive-baseline": "SF-baseline",
    "massive-align-middle": "SF-mid-align",
    "wmt23-baseline": "MT-baseline",
    "wmt23-align-middle": "MT-mid-align",
}
_SLOTS = System("massive-baseline")
_SLOTS_ALIGNED = _MIDDLE, _TOP, _BOTTOM = tuple(
    System(f"massive-align-{at}") for at in ("middle", "top", "bottom")
)
_MT = System("wmt23-baseline")
_MT_ALIGNED = tuple(System(f"wmt23-align-{at}") for at in ("middle", "top", "bottom"))
_MT_MIDDLE = _MT_ALIGNED[0]
_LOW = ("cy", "ja", "jv", "sw", "tl")

_F1 = [
    Column("supervised F1", "slot_f1", "supervised"),
    Column("transfer F1", "slot_f1", "transfer"),
]
_F1_SD = Column("SD of gains", "slot_f1", "transfer", of="gain, standard deviation")
_COMET = [
    Column("supervised COMET", "comet", "supervised"),
    Column("transfer COMET (from en)", "comet", "transfer from English"),
]
_COMET_SD = Column("SD of gains", "comet", "transfer from English", of="gain, standard deviation")
_RETRIEVAL = Column("retrieval", ACCURACY, "all")


def authors_adapter(system: System, base: str) -> str | None:
    """The hub's name of the adapter that the authors published for a system.

    Args:
        system: The system.
        base: The last part of the base model's name.

    Returns:
        A name from the README of the authors' repository (github.com/dannigt/mid-align); None if
        they published none, or for the bare model.
    """
    if system.merged_with or system.recipe not in _AUTHORS:
        return None
    return f"danniliu/{base}-{_AUTHORS[system.recipe]}-LoRA"


def with_authors_adapters(whole: Reproduction) -> Reproduction:
    """Keep what consists of the bare model and the systems whose adapters the authors published.

    Args:
        whole: A table or figure.

    Returns:
        It without the other rows, and without the curves and points of other systems; a part
        without any such adapter is left out.
    """

    def published(system: System | None) -> bool:
        return system is not None and authors_adapter(system, "") is not None

    parts: list[Panel | Curves | Scatter] = []
    for part in whole.parts:
        if isinstance(part, Panel):
            rows = [row for row in part.rows if row.system == BASE or published(row.system)]
            baseline = part.baseline if published(part.baseline) else None
            kept: Panel | Curves | Scatter = replace(part, rows=rows, baseline=baseline)
            systems = [row.system for row in rows]
        elif isinstance(part, Curves):
            lines = {k: one for k, one in part.systems.items() if one == BASE or published(one)}
            kept, systems = replace(part, systems=lines), list(lines.values())
        else:
            kept, systems = part, [part.system]
        if any(map(published, systems)):
            parts.append(kept)
    return replace(whole, parts=parts)


def settings(task: str) -> dict[str, Setting | None]:
    """The paper's units of a task, with their settings: those of its first version."""
    return {unit: pinned.setting for unit, pinned in get_task(task).test_set(1).units.items()}


def _each(task: str, metrics: Sequence[str]) -> list[Column]:
    """A column for each unit and metric, as in the paper's appendix."""
    splits: dict[str, str] = {}
    for unit, setting in settings(task).items():
        side = "into English" if unit.endswith("-en") else "from English"
        splits[unit] = (
            f"transfer {side}" if (task, setting) == ("wmt23", "transfer") else str(setting)
        )
    order = sorted(splits, key=lambda unit: splits[unit] != "supervised")
    short = {"slot_f1": "", "bleu": " BLEU", "comet": " COMET"}
    return [Column(u + short[m], m, splits[u], u) for m in metrics for u in order]


def _by_layer(baseline: System, single: Sequence[System], both: System | None = None) -> list[Row]:
    """Rows for SFT, for alignment at each layer (Table 3), and at two layers at once (Table 13)."""
    places = {"middle": "layer 16 (middle)", "top": "layer 32 (top)", "bottom": "layer 8 (bottom)"}
    rows = [Row("SFT baseline", baseline, {LLAMA: "SFT"})]
    for (label, place), system in zip(places.items(), single, strict=True):
        rows.append(Row(label, system, {LLAMA: f"alignment at {place}"}))
    if both:
        second = both.name.rsplit("-", 1)[1]
        published = {LLAMA: f"alignment at the middle and {second} layers"}
        rows.append(Row(f"middle + {second}", both, published))
    return rows


def _alone(label: str, recipe: str, published: str) -> Row:
    return Row(label, System(recipe), {LLAMA: f"alignment alone: {published}"})


_BOTH = {LLAMA: "SFT + alignment", QWEN: "SFT + alignment"}
_SFT = {LLAMA: "SFT", QWEN: "SFT"}

REPRODUCTIONS: dict[str, Reproduction] = {
    "table2": Reproduction(
        "Table 2: main results",
        [
            Panel(
                "massive",
                [
                    Row("base", BASE, {LLAMA: "base", QWEN: "base"}, [ACCURACY]),
                    Row("SFT", _SLOTS, _SFT),
                    Row("+ alignment", _MIDDLE, _BOTH),
                ],
                [*_F1, Column("aligned F1", "slot_f1", "aligned"), _RETRIEVAL],
                _LOW,
                _SLOTS,
            ),
            Panel(
                "wmt23",
                [
                    Row("base", BASE, {LLAMA: "base", QWEN: "base"}),
                    Row("SFT", _MT, _SFT),
                    Row("+ alignment", _MT_MIDDLE, _BOTH),
                ],
                [
                    Column(f"{title} {metric.upper()}", metric, split)
                    for title, split in (
                        ("supervised", "supervised"),
                        ("X-en", "transfer into English"),
                        ("en-X", "transfer from English"),
                    )
                    for metric in ("bleu", "comet")
                ]
                + [_RETRIEVAL],
                baseline=_MT,
            ),
        ],
        [
            "Runs with Qwen 2.5 use alignment.temperature 1.5.",
            "Retrieval is inflated after training on translation: ALMA's text contains FLORES dev.",
        ],
    ),
    "table3": Reproduction(
        "Table 3: where the alignment loss is placed",
        [
            Panel("massive", _by_layer(_SLOTS, _SLOTS_ALIGNED), [*_F1, _F1_SD], _LOW, _SLOTS),
            Panel("wmt23", _by_layer(_MT, _MT_ALIGNED), [*_COMET, _COMET_SD], baseline=_MT),
        ],
    ),
    "table4": Reproduction(
        "Table 4: more alignment languages",
        [
            Panel(
                "massive",
                [
                    Row("5 languages-en", _MIDDLE, {LLAMA: "alignment of 5 languages to English"}),
                    Row(
                        "all-English",
                        System("massive-align-all-english"),
                        {LLAMA: "all to English (38 pairs)"},
                    ),
                    Row(
                        "all-all",
                        System("massive-align-all-all"),
                        {LLAMA: "all to all (238 pairs)"},
                    ),
                ],
                _F1,
                baseline=_MIDDLE,
            )
        ],
        ["all-all: 295 pairs here, those with at least 20 sentences in Tatoeba."],
    ),
    "table5": Reproduction(
        "Table 5: resource level of the alignment languages",
        [
            Panel(
                "massive",
                [
                    Row("SFT", _SLOTS, {LLAMA: "SFT"}),
                    Row("low", _MIDDLE, {LLAMA: "alignment, low-resource languages"}),
                    Row(
                        "medium",
                        System("massive-align-medium"),
                        {LLAMA: "alignment, medium-resource languages"},
                    ),
                    Row(
                        "high",
                        System("massive-align-high"),
                        {LLAMA: "alignment, high-resource languages"},
                    ),
                ],
                [*_F1, Column("gain on aligned", "slot_f1", "aligned", of="gain")],
                baseline=_SLOTS,
            )
        ],
    ),
    "table6": Reproduction(
        "Table 6: alignment alone, by languages and domain",
        [
            Panel(
                "massive",
                [
                    Row("base", BASE, metrics=[ACCURACY]),
                    _alone("multi", "align-only-multi", "multi {ar,es,ru,zh,sw}-en"),
                    _alone("only de-en", "align-only-de", "only de-en"),
                    _alone("only es-en", "align-only-es", "only es-en"),
                    _alone("only zh-en", "align-only-zh", "only zh-en"),
                    _alone(
                        "de-en FLORES (oracle)", "align-only-de-flores", "de-en FLORES (oracle)"
                    ),
                    _alone(
                        "de-en Tatoeba (different)",
                        "align-only-de",
                        "de-en Tatoeba (different domain)",
                    ),
                    _alone(
                        "very distant domain",
                        "align-only-de-far",
                        "de-en IWSLT (very distant domain)",
                    ),
                ],
                [_RETRIEVAL],
            )
        ],
        ["The paper has no base row. Very distant domain: MASSIVE's commands in place of IWSLT."],
    ),
    "table7": Reproduction(
        "Table 7: merging alignment and task modules",
        [
            Panel(
                "massive",
                [
                    Row("SFT", _SLOTS, {LLAMA: "SFT"}),
                    Row("joint", _MIDDLE, {LLAMA: "SFT + alignment, joint"}),
                    Row(
                        "merge",
                        System("massive-baseline", "align-only-multi"),
                        {LLAMA: "SFT + alignment, merged"},
                    ),
                ],
                _F1,
                _LOW,
                _SLOTS,
            ),
            Panel(
                "wmt23",
                [
                    Row("SFT", _MT, {LLAMA: "SFT"}),
                    Row("joint", _MT_MIDDLE, {LLAMA: "SFT + alignment, joint"}),
                    Row(
                        "merge",
                        System("wmt23-baseline", "align-only-alma"),
                        {LLAMA: "SFT + alignment, merged"},
                    ),
                ],
                _COMET,
                baseline=_MT,
            ),
        ],
        ["Merged with the paper's weight, 0.9 for the task, as the exact sum of the two changes."],
    ),
    "table8": Reproduction(
        "Table 8: JSON generation (UNER)",
        [
            Panel(
                "uner",
                [
                    Row("SFT", System("uner-baseline"), {LLAMA: "SFT"}),
                    Row("+ alignment", System("uner-align-middle"), {LLAMA: "SFT + alignment"}),
                ],
                [
                    Column(f"{split} F1", "entity_f1", split)
                    for split in ("supervised", "aligned", "transfer")
                ],
                ("da", "sv"),
                System("uner-baseline"),
            )
        ],
    ),
    "table9": Reproduction(
        "Table 9: English-only and multilingual fine-tuning",
        [
            Panel(
                "massive",
                [
                    Row("English-only", System("massive-english-only")),
                    Row("multilingual", _SLOTS, {LLAMA: "SFT"}),
                ],
                _each("massive", ["slot_f1"]),
                baseline=_SLOTS,
            )
        ],
        ["The paper's English-only row is left out: its columns look shifted."],
    ),
    "table11": Reproduction(
        "Table 11: slot filling by language",
        [
            Panel(
                "massive",
                [
                    Row("SFT", _SLOTS, _SFT),
                    Row(
                        "align (middle)",
                        _MIDDLE,
                        {LLAMA: "alignment at layer 16 (middle)", QWEN: "alignment (middle)"},
                    ),
                    Row("align (top)", _TOP),
                ],
                _each("massive", ["slot_f1"]),
                _LOW,
                _SLOTS,
            )
        ],
        ["The paper's align (top) row is left out: it is a copy of the middle row."],
    ),
    "table12": Reproduction(
        "Table 12: translation by direction",
        [
            Panel(
                "wmt23",
                [Row("SFT", _MT, _SFT), Row("align (middle)", _MT_MIDDLE, _BOTH)],
                _each("wmt23", ["bleu", "comet"]),
                baseline=_MT,
            )
        ],
    ),
    "table13": Reproduction(
        "Table 13: alignment at several layers",
        [
            Panel(
                "massive",
                _by_layer(_SLOTS, _SLOTS_ALIGNED, System("massive-align-middle-top")),
                _F1,
                _LOW,
                _SLOTS,
            ),
            Panel(
                "wmt23",
                _by_layer(_MT, _MT_ALIGNED, System("wmt23-align-middle-bottom")),
                _COMET,
                baseline=_MT,
            ),
        ],
    ),
    "figure1": Reproduction(
        "Figure 1: alignment of the bare model, and transfer after fine-tuning",
        [
            Curves({"base": BASE}, ["35 languages", "low-resource languages"]),
            Scatter("massive", _SLOTS),
        ],
    ),
    "figure3": Reproduction(
        "Figure 3: retrieval before and after fine-tuning on the task alone",
        [
            Curves(
                {
                    "base": BASE,
                    "SFT, English": System("massive-english-only"),
                    "SFT, multilingual": _SLOTS,
                },
                ["20 languages"],
            )
        ],
    ),
    "figure4": Reproduction(
        "Figure 4: retrieval by layer, by where the alignment loss is",
        [
            Curves(
                {"SFT": _SLOTS, "bottom": _BOTTOM, "middle": _MIDDLE, "top": _TOP}, ["20 languages"]
            )
        ],
    ),
}
