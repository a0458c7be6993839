"""What a reviewer should look at in a submission: signs that no model gave these answers.

Most are warnings, since an honest run can show them. Those that none can show (`impossible`) refuse
the submission. None of this proves that a submission is honest: `verify` does.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from xlt_bench.errors import InputError, one_line
from xlt_bench.results.record import Record
from xlt_bench.submissions.answers import read_unit
from xlt_bench.submissions.schema import layer_names, primary_means
from xlt_bench.submissions.validate import Package
from xlt_bench.tasks.registry import get_task

CEILING = 1.0  # points below the score of the gold answers
ENOUGH = 100  # items, below which a score or an equality says little
COPIED = 0.95  # share of equal answers, without the most frequent one
CLOSE = 2.0  # points between scores, beyond which answers are not compared
FASTEST = 10_000  # items per second
CROWD, NEAR = 5, 0.1  # rows of one contact, and points between their means
STACKED = 3  # combining marks on one letter; Vietnamese and Hebrew need two

# Letters of other scripts that look like Latin ones in most fonts.
_LOOK_ALIKES = str.maketrans(
    "авеѕіјкмнорстухԁԛԝАВЕЅІЈКМНОРСТУХοανικτυρχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "abesijkmhopctyxdqwABESIJKMHOPCTYXoavikturxABEZHIKMNOPTYX",
)
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\u00a0")


@dataclass(frozen=True)
class Suspicion:
    """One sign, in a line. `impossible`: no honest run can show it."""

    kind: str
    detail: str
    impossible: bool = False


def suspicions(package: Package, others: Sequence[Package]) -> list[Suspicion]:
    """List what is suspicious in a submission.

    Args:
        package: The submission.
        others: The other submissions.

    Returns:
        The suspicions. Answers are read only where the scores of another submission are close.
    """
    record = package.record
    return [
        *_ceilings(record),
        *_flat_layers(record),
        *_adapter(record),
        *_times(record),
        *_versions(record),
        *_model(record, others),
        *_texts(package, others),
        *_crowd(package, others),
        *_copies(package, others),
    ]


def _ceilings(record: Record) -> Iterator[Suspicion]:
    for task in record.plan.units:
        pinned = get_task(task).test_set(record.plan.task_versions[task]).units
        primary = get_task(task).primary
        rows = [r for r in record.results.scores if (r.task, r.metric) == (task, primary)]
        judged = [row for row in rows if row.n >= ENOUGH and row.unit in pinned]
        near = [
            row.unit
            for row in judged
            if row.value >= pinned[row.unit].ceilings.get(primary, 100.0) - CEILING
        ]
        if near:
            # The best representations find nearly all translations; nobody answers all of a task.
            every = _is_text(task) and len(near) == len(judged)
            detail = f"{task}: within {CEILING:g} point of the gold answers in {' '.join(near)}"
            yield Suspicion("ceiling", one_line(detail, 200), every)


def _is_text(task: str) -> bool:
    return get_task(task).answers == "text"


def _flat_layers(record: Record) -> Iterator[Suspicion]:
    values = [row.value for row in record.results.layers]
    if len(values) > 1 and max(values) - min(values) < 1e-9:
        n = min((row.n for row in record.results.scores if not _is_text(row.task)), default=0)
        detail = f"retrieval: {values[0]:.2f} at all {len(values)} layers"
        yield Suspicion("layers", detail, len(values) > 2 and n >= ENOUGH)


def _adapter(record: Record) -> Iterator[Suspicion]:
    adapter = record.adapter
    if adapter is None:
        return
    if adapter.probe_differing > adapter.probe_prompts:
        detail = f"{adapter.probe_differing} of {adapter.probe_prompts} probe answers differ"
        yield Suspicion("probe", detail, True)
    elif adapter.probe_prompts and not adapter.probe_differing:
        yield Suspicion("probe", "no probe answer differs from the bare model's")
    elif not adapter.probe_prompts and record.harness == "xlt-bench":
        yield Suspicion("probe", "the adapter was not probed")
    if adapter.change_norms and not any(adapter.change_norms.values()):
        contradicts = adapter.probe_differing > 0
        yield Suspicion("norm", "the adapter changes no weight", contradicts)


def _times(record: Record) -> Iterator[Suspicion]:
    if record.harness != "xlt-bench" or not record.seconds:
        return
    items = {(row.task, row.unit): row.n for row in record.results.scores if _is_text(row.task)}
    for (task, unit), n in items.items():
        seconds = record.seconds.get(f"{task}_{unit}")
        if seconds is None:
            yield Suspicion("seconds", f"no time for {task} {unit}")
        elif n >= ENOUGH and seconds * FASTEST < n:
            yield Suspicion("seconds", f"{task} {unit}: {n} items in {seconds:g} s", True)


def _versions(record: Record) -> Iterator[Suspicion]:
    for name, version in record.versions.items():
        try:
            Version(version)
        except InvalidVersion:
            detail = f"{name} {version} is not a version"
            yield Suspicion("versions", one_line(detail, 120), record.harness == "xlt-bench")


def _model(record: Record, others: Sequence[Package]) -> Iterator[Suspicion]:
    model = record.model
    layers, parameters = model.layers or 0, model.parameters
    if parameters is not None and parameters < layers:
        yield Suspicion("parameters", f"{parameters} parameters in {layers} layers", True)
    for other in others:
        theirs = other.record.model
        if _base(record) != _base(other.record) or None in _base(record):
            continue
        for field in ("parameters", "layers", "architecture"):
            a, b = getattr(model, field), getattr(theirs, field)
            if None not in (a, b) and a != b:
                detail = f"{field} is {a}, but {b} in {other.folder.name}, of the same base model"
                yield Suspicion("parameters", one_line(detail, 200))
                return


def _base(record: Record) -> tuple[str | None, ...]:
    plan = record.plan
    return (plan.model_sha256,) if plan.model_sha256 else (plan.model, plan.model_revision)


def _texts(package: Package, others: Sequence[Package]) -> Iterator[Suspicion]:
    about = package.submission
    for field in ("name", "contact"):
        text = getattr(about, field)
        if text is not None:
            yield from _letters(field, text)
    plain = skeleton(about.name)
    for other in others:
        theirs = other.submission.name
        if theirs != about.name and skeleton(theirs) == plain:
            yield Suspicion("name", f"the name looks like that of {other.folder.name}")
            return


def _letters(field: str, text: str) -> Iterator[Suspicion]:
    if not any(_is_visible(character) for character in text):
        yield Suspicion("name", f"{field} has no visible character", True)
    marks = "".join("m" if unicodedata.combining(c) else "-" for c in text)
    longest = max((len(run) for run in re.findall("m+", marks)), default=0)
    if longest > STACKED:
        yield Suspicion("name", f"{field} stacks {longest} combining marks on a letter", True)
    for word in re.findall(r"\w+", text):
        if len(scripts := _scripts(word)) > 1 and word.translate(_LOOK_ALIKES) != word:
            mixed = ", ".join(sorted(scripts))
            yield Suspicion("name", one_line(f"{field} mixes {mixed} letters in {word!r}", 200))


def _is_visible(character: str) -> bool:
    return character not in _BLANK and unicodedata.category(character)[0] not in "ZCM"


def _scripts(word: str) -> set[str]:
    """The scripts of a word's letters, by the first word of their Unicode names."""
    names = (unicodedata.name(character, "") for character in word if character.isalpha())
    return {name.split(" ")[0].split("-")[0] for name in names if name}


def skeleton(name: str) -> str:
    """A name with look-alike letters, marks, spaces and case made equal."""
    text = unicodedata.normalize("NFKD", name.translate(_LOOK_ALIKES))
    return "".join(c for c in text if _is_visible(c) and not unicodedata.combining(c)).casefold()


def _crowd(package: Package, others: Sequence[Package]) -> Iterator[Suspicion]:
    contact = package.submission.contact
    if contact is None:
        return
    mine = primary_means(package.record)
    near = 0
    for other in others:
        if (other.submission.contact or "").casefold() == contact.casefold():
            theirs = primary_means(other.record)
            both = mine.keys() & theirs.keys()
            near += bool(both) and all(abs(mine[key] - theirs[key]) < NEAR for key in both)
    if near + 1 >= CROWD:
        yield Suspicion(
            "crowd", f"{near} other submissions of {contact} have nearly the same means"
        )


def _copies(package: Package, others: Sequence[Package]) -> Iterator[Suspicion]:
    """Other weights that gave nearly the same answers."""
    unread: list[str] = []
    why = ""
    for other in others:
        if _weights(package.record) == _weights(other.record):
            continue
        units = _close_units(package.record, other.record)
        equal = total = 0
        for task, unit in units:
            a = _told(package, task, unit)
            try:
                b = _told(other, task, unit)
            except InputError as error:  # in a store that does not answer
                unread.append(other.folder.name)
                why = why or str(error)
                break
            usual = Counter(b).most_common(1)[0][0]
            kept = [(x, y) for x, y in zip(a, b, strict=False) if y != usual]
            total += len(kept)
            equal += sum(x == y for x, y in kept)
        if total >= ENOUGH and equal >= COPIED * total:
            share = 100 * equal / total
            yield Suspicion(
                "copy", f"{share:.1f} % of {total:,} answers are those of {other.folder.name}"
            )
        elif layers := _copied_layers(package, other):
            detail = f"retrieval: the answers of {other.folder.name} at {layers} layers"
            yield Suspicion("copy", detail)
    if unread:
        more = f" and {len(unread) - 1} more" if unread[1:] else ""
        detail = f"not compared with the answers of {unread[0]}{more}: {why}"
        yield Suspicion("copy", one_line(detail, 300))


def _copied_layers(package: Package, other: Package) -> int:
    """The number of shared layers if the answers are equal at each of them, else 0.

    Below the first layer that an adapter changes, they are those of its base model.
    """
    both = package.submission.contents.items() & other.submission.contents.items()
    ours, theirs = (set(layer_names(one.record.plan).values()) for one in (package, other))
    shared = ours & theirs
    n = min((row.n for row in package.record.results.scores if not _is_text(row.task)), default=0)
    return len(shared) if n >= ENOUGH and shared <= {name for name, _ in both} else 0


def _weights(record: Record) -> tuple[object, ...]:
    return (*_base(record), record.plan.adapter_sha256)


def _close_units(ours: Record, theirs: Record) -> list[tuple[str, str]]:
    """The text units with close scores; none if those of most shared units are far apart.

    A copy may have a few other answers in some units, so that their scores are not close.
    """
    if ours.plan.limit != theirs.plan.limit:
        return []
    scores = [
        {
            (row.task, row.unit): row.value
            for row in record.results.scores
            if _is_text(row.task) and row.metric == get_task(row.task).primary
        }
        for record in (ours, theirs)
    ]
    both = sorted(scores[0].keys() & scores[1].keys())
    both = [
        u
        for u in both
        if ours.data_digests.get("/".join(u)) == theirs.data_digests.get("/".join(u))
    ]
    close = [unit for unit in both if abs(scores[0][unit] - scores[1][unit]) <= CLOSE]
    return close if 2 * len(close) >= len(both) else []


def _told(package: Package, task: str, unit: str) -> list[str]:
    return [answer.hypothesis for answer in read_unit(package, task, unit)]
