"""Reviews the submissions that a pull request adds: checks them, and compares them on the board.

The result is read again by a process with the right to comment (`read_review`), while the pull
request may have changed what wrote it. So it holds only numbers, names of known form and bounded
texts, and `comment` shows the texts as code.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from xlt_bench.errors import InputError, one_line
from xlt_bench.store.build import build, connect
from xlt_bench.submissions.artifacts import Stores, read_stores
from xlt_bench.submissions.report import MAX_LINE, Report, State, refused
from xlt_bench.submissions.rescore import check, valid
from xlt_bench.submissions.safe_read import read_model
from xlt_bench.submissions.schema import MAX_ID, REGISTER
from xlt_bench.submissions.validate import Package

_AROUND = 2  # ranked systems shown above, and below
_MAX_COMMENT = 60_000  # characters; GitHub's limit is 65,536
_MOST = 20  # added or changed submissions of a pull request
Name = Annotated[str, StringConstraints(pattern=r"^[\w.:-]{1,80}$")]
Text = Annotated[str, StringConstraints(max_length=MAX_LINE)]
Number = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Checked(_Strict):
    """The report of one submission, as `submissions check` prints it."""

    name: Text
    state: State
    detail: Text


class Row(_Strict):
    """A system on the board: the mean that ranks the task, and its gain over its baseline."""

    submission: Name
    name: Text
    added: bool
    place: Annotated[int, Field(ge=1, le=1_000_000)] | None
    value: Number
    low: Number
    high: Number
    gain: Number | None
    gain_low: Number | None
    gain_high: Number | None


class Ranking(_Strict):
    """An added system and its neighbours in a task, best first."""

    task: Name
    version: Annotated[int, Field(ge=1, le=10_000)]
    metric: Name
    split: Name
    rows: Annotated[list[Row], Field(max_length=2 * _AROUND + 1)]


class Review(_Strict):
    """What a pull request adds, and what it may not change."""

    kind: Literal["xlt-bench review"] = "xlt-bench review"
    checked: Annotated[list[Checked], Field(max_length=_MOST)]
    changed: Annotated[list[Text], Field(max_length=_MOST)]
    register_changed: Annotated[list[Text], Field(max_length=len(REGISTER))] = []
    rankings: Annotated[list[Ranking], Field(max_length=10 * _MOST)]

    @property
    def exit_code(self) -> int:
        """As of `submissions check`: 0, 1 for refused or changed, 3 for not fully checked.

        The maintainers' files may change, but not together with submissions.
        """
        states = {one.state for one in self.checked}
        if self.changed or (states and self.register_changed) or "refused" in states:
            return 1
        if "held" in states:
            return 4
        return 3 if "not fully checked" in states else 0


def review(proposed: Path, base: Path, root: Path, artifacts: Sequence[str] = ()) -> Review:
    """Check the submissions that a pull request adds.

    Args:
        proposed: The folder of submissions with the pull request merged.
        base: The folder without it.
        root: The data folder.
        artifacts: Artifact stores, beside those of `base`; what the pull request names is not read.

    Raises:
        InputError: A folder is missing, or the pull request adds or changes too many submissions.
    """
    for folder in (proposed, base):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: pass a folder of submissions")
    added, changed = _difference(proposed, base)
    if len(added) > _MOST or len(changed) > _MOST:
        raise InputError(
            f"{len(added)} submissions are added and {len(changed)} changed; limit: {_MOST} each"
        )
    stores = read_stores(base, artifacts)
    among = valid(proposed, stores) if added else []
    reports = [_check(proposed / name, root, among, stores) for name in added]
    loaded = [one.name for one in reports if one.state not in ("refused", "held")]
    return Review(
        checked=[Checked(name=one.name, state=one.state, detail=one.detail) for one in reports],
        changed=[one_line(name, MAX_ID) for name in changed],
        register_changed=[name for name in REGISTER if not _equal(proposed / name, base / name)],
        rankings=_rankings(proposed, loaded) if loaded else [],
    )


def _check(folder: Path, root: Path, among: Sequence[Package], stores: Stores) -> Report:
    try:
        found = check(folder, root, among, stores)
    except OSError as error:  # a name that no file system takes, a folder without permission
        return refused(folder, error)
    warnings = (f"warning: {one}" for one in found.warnings)
    told = "; ".join(filter(None, [found.detail, *warnings]))
    return Report(found.name, found.state, one_line(told, MAX_LINE))


def _difference(proposed: Path, base: Path) -> tuple[list[str], list[str]]:
    """The names of the submissions that are added, and of those that are changed or removed."""
    ours, theirs = ({path.name for path in folder.iterdir()} for folder in (proposed, base))
    added = sorted(name for name in ours - theirs if name not in REGISTER)
    # Not submissions alone: also the folder of artifacts, and hidden files that git acts on.
    same = (ours & theirs) - set(REGISTER)
    changed = {name for name in same if not _equal(proposed / name, base / name)}
    return added, sorted(changed | (theirs - ours - set(REGISTER)))


def _equal(one: Path, other: Path) -> bool:
    """Whether two files or folders are the same or both missing, without following links."""
    there = [os.path.lexists(path) for path in (one, other)]
    if not all(there):
        return not any(there)
    kinds = [path.lstat() for path in (one, other)]
    modes = {stat.S_IFMT(kind.st_mode) for kind in kinds}
    if modes == {stat.S_IFDIR}:
        names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
        return names[0] == names[1] and all(_equal(one / name, other / name) for name in names[0])
    sizes = {kind.st_size for kind in kinds}
    return modes == {stat.S_IFREG} and len(sizes) == 1 and one.read_bytes() == other.read_bytes()


def _rankings(submissions: Path, added: list[str]) -> list[Ranking]:
    with tempfile.TemporaryDirectory(prefix="xlt-bench-") as temporary:
        db = Path(temporary) / "leaderboard.duckdb"
        build(submissions, db)
        with connect(db) as store:
            return [
                ranking
                for name in added
                for run in _runs(store, name)
                if (ranking := _ranking(store, name, run, added))
            ]


def _runs(store: duckdb.DuckDBPyConnection, submission: str) -> list[tuple[str, int, str, str]]:
    """The tasks of a submission: name, version, primary metric, and the split that ranks it."""
    return store.execute(
        "SELECT r.task, r.version, k.metric, t.ranked_by FROM runs r "
        "JOIN submissions s USING (number) JOIN tasks t USING (task) "
        "JOIN metrics k USING (task) WHERE s.id = ? AND k.is_primary ORDER BY t.place",
        [submission],
    ).fetchall()


_ROWS = """
SELECT m.submission, m.name, m.place_all AS place, m.value, m.low, m.high, g.gain,
    g.low AS gain_low, g.high AS gain_high, m.split,
    m.submission IN (SELECT unnest($added)) AS added
FROM split_means m
LEFT JOIN gain_means g USING (submission, task, version, metric, split)
WHERE m.task = $task AND m.version = $version AND m.metric = $metric
    AND (m.submission = $submission OR m.place_all IS NOT NULL)
ORDER BY m.value DESC, m.submission
"""


def _ranking(
    store: duckdb.DuckDBPyConnection,
    submission: str,
    run: tuple[str, int, str, str],
    added: list[str],
) -> Ranking | None:
    """The system and the ranked ones around it; alone if it is not ranked itself.

    Without a unit in the split that ranks the task, the mean of all units is shown.
    """
    task, version, metric, ranked_by = run
    asked = {"task": task, "version": version, "metric": metric, "submission": submission}
    store.execute(_ROWS, asked | {"added": added})
    keys = [str(column[0]) for column in store.description or []]
    found = [dict(zip(keys, row, strict=True)) for row in store.fetchall()]
    for split in (ranked_by, "all"):
        means = [row for row in found if row["split"] == split]
        at = next((i for i, row in enumerate(means) if row["submission"] == submission), None)
        if at is not None:
            around = _AROUND if means[at]["place"] else 0
            shown = means[max(0, at - around) : at + around + 1]
            rows = [Row(**{key: row[key] for key in Row.model_fields}) for row in shown]
            return Ranking(task=task, version=version, metric=metric, split=split, rows=rows)
    return None


def read_review(path: Path) -> Review:
    """Read a review that another process wrote, which may be hostile.

    Raises:
        InputError: The file is missing or too large, or is not a review.
    """
    return read_model(path, Review)


_SIGN = {"checked": "✅", "not fully checked": "⚠️", "held": "✋", "refused": "❌"}


def comment(review: Review, other_files: int, url: str) -> str:
    """Write the comment on the pull request, in Markdown; texts of the submitter are shown as code.

    Args:
        review: The review.
        other_files: The number of files outside `submissions/` that the pull request changes.
        url: The address of the run that checked it.
    """
    lines = ["### Check of the submissions", ""]
    if other_files:
        lines += [
            f"**This pull request also changes {other_files} files outside `submissions/`, so it "
            "may have changed this check. Read them before you trust what follows.**",
            "",
        ]
    lines += [
        f"- {_SIGN[one.state]} {_code(one.name)}: {one.state}"
        + (f": {_code(one.detail)}" if one.detail else "")
        for one in review.checked
    ]
    lines += [
        f"- ❌ {_code(name)}: changed or removed; add a new submission, and leave the others as "
        "they are"
        for name in review.changed
    ]
    lines += [
        f"- ❌ {_code(name)} is changed: it decides about places and stores, and only maintainers "
        "change it, without adding a submission"
        for name in review.register_changed
    ]
    if not review.checked and not review.changed:
        lines.append("No submission is added.")
    for number, ranking in enumerate(review.rankings):
        table = _table(ranking)
        if sum(map(len, [*lines, *table])) > _MAX_COMMENT:
            lines += ["", f"{len(review.rankings) - number} more tables are left out."]
            break
        lines += ["", *table]
    return "\n".join([*lines, "", f"From [this run]({url}).", ""])


def _table(ranking: Ranking) -> list[str]:
    title = f"**{ranking.task} v{ranking.version}**, {ranking.metric}, mean of {ranking.split}"
    title += "; places are among all systems, verified or not"
    lines = [
        title.replace("_", "\\_"),
        "",
        "| | system | score (95 %) | gain (95 %) |",
        "|---|---|---|---|",
    ]
    for row in ranking.rows:
        gain = ""
        if row.gain is not None and row.gain_low is not None and row.gain_high is not None:
            gain = f"{row.gain:+.1f} ({row.gain_low:+.1f} to {row.gain_high:+.1f})"
        name = f"**{_code(row.name)}** (new)" if row.added else _code(row.name)
        score = f"{row.value:.1f} ({row.low:.1f}–{row.high:.1f})"
        lines.append(f"| {row.place or 'partial'} | {name} | {score} | {gain} |")
    return lines


def _code(text: str) -> str:
    """Any text as code in a Markdown table: no link, mention, HTML or line break."""
    shown = one_line(text, MAX_LINE).replace("`", "'").replace("|", "\\|")
    return f"`{shown or ' '}`"
