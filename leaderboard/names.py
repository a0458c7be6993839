"""Names of base models, methods and systems, made from what is known about them.

A name consists of parts: what was trained, the aligned layer, the alignment languages, the changed
settings, the number format, the seed. Names that stand side by side leave out the parts that all of
them share. Where the training is not known, the submitter's name stands for it. A name ends with a
badge, `verified` or `self-reported`; on the axis of a chart, a tick stands for the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from queries import records
from widgets import short

from xlt_bench.submissions.preview import MARK

Parts = dict[str, str]
"""The parts of a name, in their order, by what they are about."""

KINDS = {
    "bare": "bare model",
    "sft": "SFT",
    "aligned": "SFT + alignment",
    "alignment": "alignment alone",
    "merged": "SFT merged with alignment",
    "steered": "steered",
}
SHORT = 12  # characters of a method's hash that stand in addresses
# The parts of a name that stands alone.
_ALONE = {"own", "base", "kind", "layers", "languages", "seed"}
_LAST = (
    "recipe", "training.max_steps", "training.precision", "training.micro_batch_size",
    "training.max_tokens", "training.eval_steps", "task.dev_items",
)  # fmt: skip
TICKED = "✓ verified; the others are self-reported."
_TEACHING = 50_000_000  # parameters; a smaller model is for teaching, not an LLM
_BASES = """
SELECT base_model AS base, model, count(*) AS n,
    max(CAST(record::JSON ->> '$.model.parameters' AS BIGINT)) AS parameters
FROM submissions JOIN records USING (number) GROUP BY base_model, model ORDER BY n DESC, model
"""
_SYSTEMS = """
SELECT s.id, s.name, s.base_model AS base, s.seed, s.item_limit, s.rank_class, m.*
FROM submissions s JOIN methods m USING (method)
WHERE s.id = ANY($ids)
"""


class Base:
    """A base model.

    Attributes:
        id: The hash of its weights.
        name: Its name and size; one base model has one name.
        parameters: Its number of parameters; None if unknown.
        teaching: Whether it is too small to be an LLM.
    """

    def __init__(self, base: str, model: str, parameters: int | None) -> None:
        self.id, self.parameters = base, parameters
        self.teaching = parameters is not None and parameters < _TEACHING
        last = short(model.rstrip("/").rpartition("/")[2] or model, 40)
        self.name = f"{last} {size(parameters)}" if parameters else last


def size(parameters: int) -> str:
    """A number of parameters as people say it: 268M, 8B."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= unit:
            value = parameters / unit
            return f"{value:.0f}{name}" if value >= 10 else f"{value:.2g}{name}"
    return str(parameters)


def bases() -> dict[str, Base]:
    """The base models by their hash, LLMs first, large ones before small ones."""
    found: dict[str, Base] = {}
    for row in records(_BASES):
        found.setdefault(row["base"], Base(row["base"], row["model"], row["parameters"]))
    counted = Counter(base.name for base in found.values())
    for base in found.values():
        if counted[base.name] > 1:
            base.name += f" · {base.id[:4]}"
    ordered = sorted(found.values(), key=lambda base: (base.teaching, -(base.parameters or 0)))
    return {base.id: base for base in ordered}


def method_parts(method: Mapping[str, Any]) -> Parts:
    """The parts of a method's name.

    Args:
        method: A row of `methods`, with `name`: what the submitter calls one of its systems.
    """
    own = {"own": MARK} if str(method["name"]).startswith(MARK) else {}
    if method["kind"] not in KINDS:
        return {"kind": short(str(method["name"]))}
    parts = {**own, "kind": KINDS[method["kind"]]}
    if layers := method["layers"]:
        numbers = " and ".join(map(str, layers))
        parts["layers"] = f"layer {numbers}" if len(layers) == 1 else f"layers {numbers}"
    if languages := method["alignment_languages"]:
        how = "vectors for" if method["kind"] == "steered" else "aligned on"
        parts["languages"] = f"{how} {_listed(languages)}"
    if method["task"]:
        parts["task"] = f"trained on {method['task']}"
    if units := method["task_units"]:
        parts["task_units"] = f"in {_listed(units)}"
    for change in method["changes"]:
        key, _, value = str(change).partition("=")
        if key not in ("alignment.layers", "alignment.pairs", "task.units"):
            parts[key] = f"{key.rpartition('.')[2]} {short(value, 30)}"
    parts["dtype"] = str(method["dtype"])
    if method["recipe"]:
        parts["recipe"] = short(method["recipe"], 60)
    return parts


def _listed(codes: Sequence[str]) -> str:
    return f"{len(codes)} languages" if len(codes) > 6 else " ".join(map(str, codes))


def distinct(named: Mapping[str, Parts]) -> dict[str, str]:
    """A name by id, without the parts that all share; the kind always stays.

    Settings are named where they are unusual among methods of the same kind. The recipe, settings
    of minor interest and the end of the id are added only where they tell equal names apart.
    """
    if len(named) == 1:
        return {one: ", ".join(_alone(parts)) for one, parts in named.items()}
    left = {
        one: [text for key, text in parts.items() if key not in _LAST and _tells(key, parts, named)]
        for one, parts in named.items()
    }
    for key in (*_LAST, ""):
        alike: dict[tuple[str, ...], list[str]] = {}
        for one, texts in left.items():
            alike.setdefault(tuple(texts), []).append(one)
        for ones in alike.values():
            more = {one: named[one].get(key) if key else one[-6:] for one in ones}
            if len(set(more.values())) > 1:
                for one, text in more.items():
                    left[one] = [*left[one], *([text] if text else [])]
    return {one: ", ".join(texts) for one, texts in left.items()}


def _alone(parts: Parts) -> list[str]:
    return [text for key, text in parts.items() if key in _ALONE]


def _tells(key: str, parts: Parts, named: Mapping[str, Parts]) -> bool:
    """Whether a part tells a name from the others."""
    if key in ("own", "kind"):
        return True
    if "." in key or key in ("dtype", "limit"):
        others = [one.get(key) for one in named.values() if one["kind"] == parts["kind"]]
        return parts[key] != Counter(others).most_common(1)[0][0]
    return len({one[key] for one in named.values() if key in one}) > 1


def badged(name: str, badge: str) -> str:
    """A name with its badge; the tick shows where a select box cuts the end."""
    return f"{ticked(name, badge)} · {badge}"


def ticked(name: str, badge: str) -> str:
    """A name on an axis, which has no room for a badge."""
    return f"✓ {name}" if badge == "verified" else name


def system_names(ids: Iterable[str]) -> dict[str, str]:
    """Names of submissions with their badges, in the given order; unknown ids are left out."""
    rows = _systems(ids)
    known = bases()
    parts = {one: {"base": known[row["base"]].name, **_parts(row)} for one, row in rows.items()}
    return {one: badged(name, rows[one]["rank_class"]) for one, name in distinct(parts).items()}


def axis_names(ids: Iterable[str]) -> dict[str, str]:
    """The same for an axis of one base model: without it, and with ticks."""
    rows = _systems(ids)
    parts = {one: _parts(row) for one, row in rows.items()}
    return {one: ticked(name, rows[one]["rank_class"]) for one, name in distinct(parts).items()}


def _systems(ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    wanted = list(ids)
    found = {row["id"]: row for row in records(_SYSTEMS, {"ids": wanted})}
    return {one: found[one] for one in wanted if one in found}


def _parts(row: Mapping[str, Any]) -> Parts:
    said = method_parts(row)
    # What differs most often comes first: a select box cuts the end of a name.
    parts: Parts = {key: said.pop(key) for key in ("own", "kind", "layers") if key in said}
    if row["seed"] is not None:
        parts["seed"] = f"seed {row['seed']}"
    parts |= said
    if row["item_limit"] is not None:
        parts["limit"] = f"first {row['item_limit']} items"
    return parts
