"""The maintainers' register: which submissions were merged, in which order, and what may supersede.

submissions/accepted.txt        an id per line, in the order in which they were merged
            supersessions.json  pairs of ids: which newer submission may take an older one's place

Anybody can state the hashes of another system. So other answers under the same system are held:
they are left out of the database until a maintainer allows the supersession. An id that is not in
accepted.txt comes after all that are, whatever date its record has.

Answers are public, so anybody can also submit those of another system with one more language, and
declare what they like. Such a run is held too if it would take the place of a verified submission,
or if it declares another training, alignment languages or number of layers: what others are
compared with depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from xlt_bench.errors import InputError
from xlt_bench.results.record import Plan, Record, ShotPrompt
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.submissions.answers import read_accuracies
from xlt_bench.submissions.safe_read import read_bytes, read_model
from xlt_bench.submissions.schema import (
    ACCEPTED,
    ID,
    SUPERSESSIONS,
    Id,
    Line,
    covered_tasks,
    stated_system,
)
from xlt_bench.submissions.trainings import trained
from xlt_bench.submissions.validate import Package, open_package
from xlt_bench.tasks.registry import retrieval_in

_MAX_BYTES = 4 << 20  # of accepted.txt: 50,000 of the longest ids


class Supersession(BaseModel):
    """A maintainer's permission for a submission to supersede other answers of its system."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    newer: Id
    older: Id
    why: Line


class _Supersessions(BaseModel):
    """supersessions.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    allowed: list[Supersession]


@dataclass(frozen=True)
class Register:
    """The places of accepted submissions, and the supersessions that are allowed."""

    places: Mapping[str, int] = field(default_factory=dict)
    supersessions: Sequence[Supersession] = ()

    def age(self, name: str) -> tuple[int, str]:
        """Sort key of submissions from first to last accepted; the others follow, by id."""
        return self.places.get(name, len(self.places) + 1), name

    def allows(self, newer: str, older: str) -> bool:
        """Whether a submission may supersede another, also by way of those in between."""
        found, left = {newer}, [newer]
        while left:
            name = left.pop()
            more = {one.older for one in self.supersessions if one.newer == name} - found
            found |= more
            left += more
        return older in found


def read_register(submissions: Path) -> Register:
    """Read the register of a folder of submissions; empty if there is none.

    Raises:
        InputError: A file of it is damaged.
    """
    places: dict[str, int] = {}
    path = submissions / ACCEPTED
    if path.exists():
        text = read_bytes(path, _MAX_BYTES).decode("utf-8", errors="replace")
        for number, name in enumerate(text.split("\n")[:-1], start=1):
            if not ID.fullmatch(name) or name in places:
                raise InputError(
                    f"{ACCEPTED} line {number} is not an id, or an id for the second time"
                )
            places[name] = number
    path = submissions / SUPERSESSIONS
    allowed = read_model(path, _Supersessions).allowed if path.exists() else []
    return Register(places, allowed)


def accept(submissions: Path, names: Sequence[str], over: Sequence[Supersession] = ()) -> list[str]:
    """Add submissions to the register, after those that are in it.

    Args:
        submissions: The folder of submissions.
        names: Ids, in the order in which they were merged.
        over: Supersessions to allow.

    Returns:
        The ids that were added.

    Raises:
        InputError: A submission is not valid.
    """
    register = read_register(submissions)
    added = [name for name in dict.fromkeys(names) if name not in register.places]
    for name in added:
        open_package(submissions / name)
    more = [one for one in over if one not in register.supersessions]
    for name in {name for one in more for name in (one.newer, one.older)}:
        open_package(submissions / name)
    if more:
        allowed = _Supersessions(allowed=[*register.supersessions, *more])
        text = allowed.model_dump_json(indent=1).encode() + b"\n"
        write_bytes(submissions / SUPERSESSIONS, text)
    if added:
        lines = [*sorted(register.places, key=register.age), *added]
        write_bytes(submissions / ACCEPTED, "".join(f"{line}\n" for line in lines).encode())
    return added


@dataclass(frozen=True)
class Superseded:
    """An older submission that a newer one supersedes, as a whole or in some tasks.

    Attributes:
        id: Its id.
        tasks: The tasks in which the newer one takes its place.
        kept: The others, in which it keeps its place because their versions or items differ.
    """

    id: str
    tasks: Sequence[str]
    kept: Sequence[str]

    def __str__(self) -> str:
        if not self.kept:
            return f"{self.id} in all its tasks"
        others = f"not in {', '.join(self.kept)}, where versions or items differ"
        return f"{self.id} in {', '.join(self.tasks)} ({others})"


def superseded(package: Package, others: Sequence[Package], register: Register) -> list[Superseded]:
    """List the older submissions that a submission supersedes.

    Args:
        package: The submission.
        others: The others of its system, as `of_one_system` returns them.
        register: The register of their folder.
    """
    name, found = package.folder.name, []
    for older in others:
        theirs = older.folder.name
        covered = covered_tasks(package.record, older.record)
        if covered and register.age(name) > register.age(theirs):
            kept = [task for task in older.record.plan.units if task not in covered]
            found.append(Superseded(theirs, covered, kept))
    return found


def held(package: Package, others: Sequence[Package], register: Register) -> str:
    """Why a submission is held for the maintainers; empty if it is not.

    Args:
        package: The submission.
        others: The others of its system, as `of_one_system` returns them.
        register: The register of their folder.
    """
    return held_among([package, *others], register).get(package.folder.name, "")


def held_among(packages: Sequence[Package], register: Register) -> dict[str, str]:
    """Find the submissions of one system that are held for the maintainers.

    An accepted submission is held because of earlier ones; one that is not accepted yet, because
    of any of the others, except those that are held because of accepted ones.

    Returns:
        The reason, by id.
    """
    places = register.places
    reasons: dict[str, str] = {}
    kept: list[Package] = []
    for package in sorted(packages, key=lambda one: register.age(one.folder.name)):
        for other in kept:
            if reason := _conflict(package, other, register):
                reasons[package.folder.name] = reason
                break
        if package.folder.name in places and package.folder.name not in reasons:
            kept.append(package)
    new = [p for p in packages if p.folder.name not in places and p.folder.name not in reasons]
    for package in new:
        for other in new:
            if other is not package and (reason := _conflict(package, other, register)):
                reasons[package.folder.name] = reason
    return reasons


def of_one_system(folder: Path) -> list[Package]:
    """Open the other valid submissions of a submission's system, which its id states."""
    system, found = stated_system(folder.name), []
    for path in sorted(folder.parent.iterdir()):
        if path != folder and ID.fullmatch(path.name) and stated_system(path.name) == system:
            try:
                found.append(open_package(path))
            except InputError:
                continue
    return found


def _conflict(package: Package, other: Package, register: Register) -> str:
    name, theirs = package.folder.name, other.folder.name
    if register.allows(name, theirs) or register.allows(theirs, name):
        return ""
    both, differ = other_answers(package, other)
    if differ:
        fault = (
            f"other answers than {theirs} in {len(differ)} of {len(both)} files, under the same "
            "system"
        )
    else:
        by_age = sorted([package, other], key=lambda one: register.age(one.folder.name))
        fault = _usurps(by_age[0], by_age[1], register)
    return fault and f"{fault}; a maintainer can allow it in {SUPERSESSIONS}"


def _usurps(older: Package, newer: Package, register: Register) -> str:
    """Why a submission that has the answers of an older one may not simply take its place."""
    if not covered_tasks(newer.record, older.record):
        return ""
    if _is_verified(older, register) and not _is_verified(newer, register):
        return f"{newer.folder.name} would supersede {older.folder.name}, which is verified"
    before = _declared(older.record)
    for what, ours in _declared(newer.record).items():
        if ours != before[what]:
            return f"another {what} than {older.folder.name} declares, with the same answers"
    return ""


def _is_verified(package: Package, register: Register) -> bool:
    return package.verified is not None and package.folder.name in register.places


def _declared(record: Record) -> dict[str, object]:
    """What a submission declares, and what places or gains of others depend on."""
    how = trained(record)
    return {
        "training": (how.method, how.seed, how.training and how.training.data_digests),
        "list of alignment languages": set(record.alignment_languages),
        "number of layers": record.model.layers,
    }


def other_answers(package: Package, other: Package) -> tuple[list[str], list[str]]:
    """Compare the answers of two submissions of one system.

    Returns:
        The files of answers that both have to the same questions, and those that differ.
    """
    ours, theirs = package.record.plan, other.record.plan
    if ours.limit != theirs.limit:
        return [], []
    both = [
        name
        for name in package.submission.contents
        if name in other.submission.contents and _asked(ours, name) == _asked(theirs, name)
    ]
    return both, [name for name in both if _differs(package, other, name)]


def _asked(plan: Plan, name: str) -> tuple[int, str, str]:
    """The version and the prompt that a file of answers is to, with its unit's examples."""
    task, unit = name.split("/")
    prompt = plan.prompts.get(task)
    examples = prompt.examples[unit] if isinstance(prompt, ShotPrompt) else ""
    return plan.task_versions[task], prompt.sha256 if prompt else "", examples


def _differs(package: Package, other: Package, name: str) -> bool:
    """Whether a file of answers differs.

    Layers of other languages, or of hits and of neighbours, differ if an accuracy does of a pair
    that both have.
    """
    digests = [one.submission.contents[name] for one in (package, other)]
    if digests[0] == digests[1]:
        return False
    task, layer = name.split("/")
    if not retrieval_in([task]):
        return True
    codes = [one.record.plan.units[task] for one in (package, other)]
    forms = {one.submission.retrieval for one in (package, other)}
    if set(codes[0]) == set(codes[1]) and len(forms) == 1:
        return True
    ours, theirs = (_accuracies(one, int(layer)) for one in (package, other))
    return any(ours[pair] != theirs[pair] for pair in ours.keys() & theirs.keys())


def _accuracies(package: Package, layer: int) -> dict[tuple[str, str], float]:
    rows = read_accuracies(package, [layer])[layer].to_pylist()
    return {(row["source"], row["target"]): row["accuracy"] for row in rows}
