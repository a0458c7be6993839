"""Runs mutations and judges the results: true scores, or a refusal in one line."""

import gc
import os
import random
import shutil
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import duckdb

import xlt_bench.store.build as store_build
from fuzz.folders import KINDS, SECRET, mutate, seal, spoil
from retrieval_forms import expanded
from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import count_run, scores_of
from xlt_bench.results.record import Record
from xlt_bench.store.reuse import Earlier
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import check
from xlt_bench.submissions.schema import (
    ACCEPTED,
    COUNTS,
    RECORD,
    SUBMISSION,
    SUPERSESSIONS,
    Submission,
)

LONGEST = 500  # characters of an error

_allowed: list[str] = []
_others: set[int] = set()  # threads that ran before the block of `only_within`
_breaches: list[str] = []
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate",
          "os.chmod", "os.chown", "os.utime"}  # fmt: skip
_NEVER = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect",
          "pickle.")  # fmt: skip


def watch(event, args):
    if not _allowed or threading.get_ident() in _others:
        return
    if event == "open" and isinstance(args[0], str | bytes) and args[2] & _WRITES:
        paths = args[:1]
    elif event in _PATHS:
        paths = [a for a in args[:2] if isinstance(a, str | bytes)]
    elif event.startswith(_NEVER):
        _breaches.append(f"{event} {args}"[:300])
        return
    else:
        return
    for path in map(os.fsdecode, paths):
        if not (os.path.abspath(path) + os.sep).startswith(_allowed[0] + os.sep):  # noqa: PTH100
            _breaches.append(f"{event} {path}")


@contextmanager
def only_within(folder):
    """Fail if the block writes elsewhere, starts processes, connects or unpickles.

    What other tests left behind does not count: threads that still run, and objects that the
    garbage collector finalizes.
    """
    _others.update(set(sys._current_frames()) - {threading.get_ident()})
    _allowed[:], _breaches[:] = [str(folder)], []
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        _allowed.clear()
        _others.clear()
    assert not _breaches, _breaches


class Fuzz:
    """Runs numbered mutations in a scratch folder."""

    def __init__(self, material, scratch):
        self.made, self.root = material
        self.inside = scratch / "submissions"
        self.out = scratch / "out"
        self.outside = scratch / "outside"
        for folder in (self.out, self.outside):
            folder.mkdir(parents=True)
        (self.outside / "secret").write_text(SECRET)
        for name in (RECORD, SUBMISSION, COUNTS):  # targets for links
            shutil.copy(self.made["own"] / name, self.outside / name)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.store = duckdb.connect(":memory:")
        here = Path(store_build.__file__).parent
        self.store.execute((here / "schema.sql").read_text())

    def one(self, number):
        """Make and judge a mutation. Any exception is a failure."""
        draw = random.Random(number)
        kind = KINDS[number % len(KINDS)]
        role = draw.choice(["own", "own", "own", "older", "bare"])
        shutil.rmtree(self.inside, ignore_errors=True)
        alone = role == "own" and draw.random() < 0.7
        for name in [role] if alone else ["bare", "older", "own"]:
            shutil.copytree(self.made[name], self.inside / self.made[name].name)
        for name in (ACCEPTED, SUPERSESSIONS):
            shutil.copy(self.made["own"].parent / name, self.inside)
        folder = mutate(draw, kind, self.inside / self.made[role].name, self.outside)
        sealing = draw.randrange(3)
        if sealing and kind != "tree":
            folder = seal(folder, self.root, rescored=sealing == 2)
        before = self._tree()
        with only_within(self.out):
            report = check(folder, self.root)
            judged = report
            if role != "own":  # the effect of a mutation on the check of another submission
                judged = check(self.inside / self.made["own"].name, self.root)
            built = self._build(number)
        assert self._tree() == before
        for one in (report, judged, *built.refused):
            self._line(one)
        if report.state == "checked":
            self.check_scores(folder)
        if role != "own":
            assert judged.state in ("checked", "refused")
        self.counts[kind, "refused" if report.state == "refused" else "accepted"] += 1

    def _build(self, number):
        if number % 20 == 0:
            db = self.out / "leaderboard.duckdb"
            built = store_build.build(self.inside, db, fewer=True)
            assert [p.name for p in self.out.iterdir()] == ["leaderboard.duckdb"]
            return built
        # The same without a file, which is faster.
        earlier = Earlier(self.store, None)
        self.store.begin()
        try:
            with TemporaryFile(dir=self.out) as scratch:
                return store_build._load_submissions(self.store, self.inside, earlier, scratch)
        finally:
            self.store.rollback()

    def _tree(self):
        return {
            str(path): path.lstat().st_mtime_ns
            for top in (self.inside, self.outside)
            for path in top.rglob("*")
        }

    def _line(self, report):
        for text in (report.name, report.detail):
            assert len(text) <= LONGEST, text[:1000]
            assert text.isprintable(), text
            assert SECRET not in text
            text.encode()
        assert bool(report.detail) or report.state == "checked"

    def check_scores(self, folder):
        """Assert that the scores of an accepted record follow from its answers, by `count_run`."""
        record = Record.model_validate_json((folder / RECORD).read_bytes())
        about = Submission.model_validate_json((folder / SUBMISSION).read_bytes())
        run = folder
        if about.retrieval == "hits":
            run = expanded(folder, self.inside.parent / "expanded")
        counted = count_run(record.plan, run, self.root)
        wanted = scores_of(
            record.plan,
            counted,
            record.alignment_languages,
            accuracies=record.results.accuracy_intervals,
        ).model_dump(exclude={"accuracy_intervals"})
        got = record.results.model_dump()

        def key(row):
            return sorted(str(v) for k, v in row.items() if k not in ("value", "low", "high"))

        for table, rows in wanted.items():
            assert len(rows) == len(got[table])
            for one, other in zip(sorted(rows, key=key), sorted(got[table], key=key), strict=True):
                for name, value in one.items():
                    if isinstance(value, float):
                        assert abs(value - other[name]) <= 1e-6
                    elif isinstance(value, list):
                        assert sorted(value) == sorted(other[name])
                    else:
                        assert value == other[name]

    def run(self, numbers):
        """Run mutations; returns a line per failure with its number and kind."""
        failures = []
        for number in numbers:
            try:
                self.one(number)
            except Exception as error:  # any error is a failure; run the others too
                line = f"{number} {KINDS[number % len(KINDS)]}: {type(error).__name__}: {error}"
                failures.append(line[:400])
        return failures


def spoiled(output, root, scratch, numbers):
    """Count the changes that are refused in one line; raise any other error."""
    refused = 0
    for number in numbers:
        shutil.rmtree(scratch, ignore_errors=True)
        copy = shutil.copytree(output, scratch / "output")
        spoil(random.Random(number), copy)
        try:
            done = submit(copy, About(), scratch / "submissions", root)
        except InputError as error:
            refused, line = refused + 1, str(error)
        except Exception as error:
            raise AssertionError(f"change {number}: {error!r}") from error
        else:
            assert check(done.folder, root).state == "checked", number
            continue
        assert len(line) <= LONGEST, (number, line[:1000])
        assert line.isprintable(), (number, line)
        assert not list((scratch / "submissions").glob("[!.]*")), number
    return refused
