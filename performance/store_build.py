"""Measures how the build of the leaderboard grows from 100 to 1,000 generated submissions.

    python performance/store_build.py [--sizes 100 1000] [--keep FOLDER]

A generated submission has every ranked unit of all four tasks with the counts of as many items as
the test sets have, every score and mean, and retrieval at 16 layers, 1,190 pairs and 997 sentences.
One answer in twenty has each fault, as is usual. Counts, answers and hits have their real sizes; a
build lists the files of answers and hits but does not read them, so that answers are random bytes.
All come from a pool of 20 by hard links, so that generating takes neither longer than building nor
the disk.

Each build runs in a process of its own, without an earlier file. A build of many submissions starts
others: the memory is the sum of all, read five times a second, and the peak its largest. Then one
more submission is built on the last file. The last line has the CPU seconds for the larger number
divided by those for the smaller, and the goal, the ratio of the two numbers (linear growth). CPU
seconds, because wall-clock seconds include the work of others on the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from side_by_side import machine

from xlt_bench.evaluation.score import Counted, scores_of
from xlt_bench.results.record import (
    AdapterRecord,
    LayerAccuracy,
    ModelRecord,
    Plan,
    Record,
    Scores,
)
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.submissions.counts import Tasks, write_counts
from xlt_bench.submissions.hits import accuracies_of, write_accuracies, write_hits
from xlt_bench.submissions.schema import Submission, answer_files, submission_id
from xlt_bench.tasks.registry import BY_DEFAULT, get_task

LAYERS = list(range(2, 33, 2))
PLANNED = {name: list(get_task(name).test_set().units) for name in BY_DEFAULT}
SENTENCES = 997
BASES = 5
ALIGNED = ["cy", "ja", "jv", "sw", "tl"]
FAULTY = 0.05
ANSWERS = 4_400_000  # bytes of the answers of an 8B model to the text tasks


def counts_of(generator: np.random.Generator) -> Tasks:
    """Random counts of every task, metric, unit and item."""
    tasks: Tasks = {}
    for place, (task, names) in enumerate(PLANNED.items()):
        for unit in names:
            for name, metric in get_task(task).metrics.items():
                if not get_task(task).is_scored(name, unit):
                    continue
                n, wide = get_task(task).test_set().units[unit].items, metric.width
                if not metric.higher_is_better:
                    flags = generator.random((n, 1)) < FAULTY
                    counts = np.hstack([flags, np.ones((n, 1))]).astype(np.int64)
                    tasks.setdefault(task, {}).setdefault(name, {})[unit] = counts
                    continue
                total = generator.integers(2, 12, size=(n, 1))
                part = generator.integers(0, 2 + place, size=(n, wide)).clip(max=total)
                # No more may be right than there is: columns of hits, by metric.
                right = {10: slice(2, 6), 24: slice(2, None, 3)}.get(wide, slice(0, 1))
                part[:, right] = part.min(axis=1, keepdims=True)
                if wide == 10:
                    part[:, 6:] = total
                counts = np.hstack([part[:, :-1], total]) if wide == 2 else part
                tasks.setdefault(task, {}).setdefault(name, {})[unit] = counts
    return tasks


def scores_with_intervals(tasks: Tasks, layers: dict[int, float], aligned: set[str]) -> Scores:
    """The scores of the counts, with made-up intervals: a build takes those from the record."""
    plan = plan_of(0, bare=True)
    found = scores_of(plan, Counted(tasks, {}), sorted(aligned), intervals=False)
    rows = [LayerAccuracy(layer=layer, **around(value)) for layer, value in layers.items()]
    return Scores(
        scores=[row.model_copy(update=around(row.value)) for row in found.scores],
        means=[row.model_copy(update=around(row.value)) for row in found.means],
        layers=rows,
    )


def around(value: float) -> dict[str, float]:
    """A value with a made-up interval."""
    return {"value": value, "low": max(0.0, value - 1), "high": min(100.0, value + 1)}


def make_pool(folder: Path, size: int) -> list[tuple[Path, Scores, Scores]]:
    """Write the counts and layers of `size` submissions.

    Returns:
        The folder of each, its scores as a bare model, and its scores as an adapter.
    """
    pool = []
    for place in range(size):
        generator = np.random.default_rng(place)
        one = folder / str(place)
        tasks = counts_of(generator)
        write_counts(one / "counts.parquet", tasks)
        write_answers(one, generator)
        layers = write_retrieval(one, generator)
        pool.append(
            (
                one,
                scores_with_intervals(tasks, layers, set()),
                scores_with_intervals(tasks, layers, set(ALIGNED)),
            )
        )
    return pool


def write_answers(folder: Path, generator: np.random.Generator) -> None:
    """Write files of the sizes of the answers to the text tasks."""
    files = [path for name, path in FILES.items() if not name.startswith("retrieval/")]
    for path in files:
        write_bytes(folder / path, generator.bytes(ANSWERS // len(files)))


def write_retrieval(folder: Path, generator: np.random.Generator) -> dict[int, float]:
    """Write hits and accuracies of all layers; returns the mean accuracy by layer."""
    pairs = list(permutations(PLANNED["retrieval"], 2))
    by_layer, size = {}, 0
    for layer in LAYERS:
        share = generator.uniform(0.05, 0.95, size=(len(pairs), 1))
        hit = generator.random((len(pairs), SENTENCES)) < share
        answers = np.where(hit, np.arange(SENTENCES), -1).astype(np.int16)
        path = folder / FILES[f"retrieval/{layer}"]
        write_hits(path, pairs, answers)
        size += path.stat().st_size
        by_layer[layer] = dict(zip(pairs, accuracies_of(answers).tolist(), strict=True))
    write_accuracies(folder / "accuracies.parquet", by_layer)
    print(f"hits {size / 1e6:.2f} MB", flush=True)
    return {layer: float(np.mean(list(found.values()))) for layer, found in by_layer.items()}


def plan_of(number: int, bare: bool) -> Plan:
    """The plan of a generated submission."""
    base = number % BASES
    return Plan(
        model=f"base-{base}",
        model_revision=None,
        model_sha256=f"{base:064x}",
        adapter=None if bare else f"adapter-{number}",
        adapter_sha256=None if bare else f"{number:064x}",
        dtype="bfloat16",
        template="tokenizer",
        template_sha256="0" * 64,
        limit=None,
        layers=LAYERS,
        units=PLANNED,
        task_versions={task: get_task(task).version for task in PLANNED},
    )


FILES = answer_files(plan_of(0, bare=True))


def record_of(number: int, results: Scores) -> Record:
    """The record of a generated submission; the first `BASES` of them are bare models."""
    base, bare = number % BASES, number < BASES
    sha, adapter_sha = f"{base:064x}", f"{number:064x}"
    adapter = f"adapter-{number}"
    plan = plan_of(number, bare)
    proof = AdapterRecord(
        name=adapter,
        sha256=adapter_sha,
        peft_type="LORA",
        base_model=f"base-{base}",
        alignment_languages=ALIGNED,
        change_norms={"q_proj": 1.0},
        probe_prompts=8,
        probe_differing=8,
    )
    model = ModelRecord(
        name=f"base-{base}",
        revision=None,
        sha256=sha,
        architecture="LlamaForCausalLM",
        parameters=8_000_000_000,
        layers=32,
        dtype="bfloat16",
    )
    created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return Record(
        created=created.isoformat(),
        command="xlt-bench evaluate",
        model=model,
        adapter=None if bare else proof,
        template=plan.template,
        template_sha256=plan.template_sha256,
        bos_per_prompt=[1],
        truncated_prompts=0,
        plan=plan,
        data_digests={
            f"{name}/{unit}": pinned.digest
            for name in PLANNED
            for unit, pinned in get_task(name).test_set().units.items()
        },
        notes=[],
        signatures={},
        versions={},
        hardware={},
        seconds={},
        batch_sizes={},
        fertility={},
        results=results,
    )


def generate(folder: Path, pool: list[tuple[Path, Scores, Scores]], numbers: range) -> None:
    """Write the submissions of these numbers into a folder."""
    for number in numbers:
        source, bare, adapted = pool[number % len(pool)]
        record = record_of(number, bare if number < BASES else adapted)
        files = answer_files(record.plan)
        contents = dict.fromkeys(files, f"{number:016x}")
        name = submission_id(record.plan, contents)
        one = folder / name
        one.mkdir(parents=True)
        for file in ("counts.parquet", "accuracies.parquet", *files.values()):
            (one / file).parent.mkdir(parents=True, exist_ok=True)
            os.link(source / file, one / file)
        about: dict[str, Any] = dict.fromkeys(("contact", "url", "notes", "baseline"))
        submission = Submission(
            id=name, name=f"system {number}", contents=contents, retrieval="hits", **about
        )
        (one / "record.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")
        (one / "submission.json").write_text(submission.model_dump_json(), encoding="utf-8")


BUILD = """
import resource, sys, time
from pathlib import Path
from xlt_bench.store.build import build
started = time.perf_counter()
built = build(Path(sys.argv[1]), Path(sys.argv[2]))
seconds = time.perf_counter() - started
assert not built.refused, built.refused[0]
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(built.loaded, seconds, sum(one.ru_utime + one.ru_stime for one in used))
"""


def measure(submissions: Path, db: Path) -> tuple[int, float, float, float]:
    """Build in a separate process. Returns submissions, wall-clock and CPU seconds, and peak MB."""
    command = [sys.executable, "-c", BUILD, str(submissions), str(db)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.2)
        assert process.returncode == 0
        assert process.stdout
        out = process.stdout.read().splitlines()[-1].split()  # after DuckDB's progress
    return int(out[0]), float(out[1]), float(out[2]), peak / 1e6


def memory(pid: int) -> int:
    """Bytes of a process and of those that it started; pages that they share count for each."""
    found = 0
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for one in (top, *top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found += one.memory_info().rss
    return found


QUERIES = {
    "scores": "SELECT count(value), avg(value) FROM scores",
    "scores of a task": "SELECT * FROM scores WHERE task = 'massive' AND metric = 'slot_f1'",
    "split_means": "SELECT * FROM split_means WHERE task = 'massive' AND metric = 'slot_f1' "
    "AND place_all IS NOT NULL ORDER BY place_all",
    "gains, one pair": "SELECT * FROM gains WHERE submission = $id AND is_default",
    "significance": "SELECT * FROM significance WHERE submission = $id",
    "significance, all": "SELECT count(*), avg(p_holm) FROM significance",
    "gain_means": "SELECT * FROM gain_means WHERE submission = $id",
    "layer_curves": "SELECT * FROM layer_curves",
    "language_curves": "SELECT * FROM language_curves WHERE submission = $id",
    "pair_accuracies, one layer": "SELECT * FROM pair_accuracies WHERE submission = $id "
    "AND layer = 16",
    "pair_accuracies, all": "SELECT count(*), avg(accuracy) FROM pair_accuracies",
    "transfer_points": "SELECT * FROM transfer_points WHERE submission = $id",
    "transfer_correlation": "SELECT * FROM transfer_correlation WHERE submission = $id",
    "transfer_correlation, all": "SELECT count(*), avg(pearson) FROM transfer_correlation",
    "published": "SELECT * FROM published",
}


def ask(db: Path) -> None:
    """Print how long each view takes to query."""
    from xlt_bench.store.build import connect

    with connect(db) as store:
        query = "SELECT max(id) FROM submissions WHERE adapter IS NOT NULL"
        ((last,),) = store.execute(query).fetchall()
        for name, query in QUERIES.items():
            started = time.perf_counter()
            given = {"id": last} if "$id" in query else {}
            rows = store.execute(query, given).fetchall()
            spent = 1000 * (time.perf_counter() - started)
            print(f"view {name}: {len(rows)} rows in {spent:.0f} ms")
            assert rows, name


def main() -> None:
    """Generate submissions, build, query the views, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=(100, 1000))
    parser.add_argument("--keep", type=Path, help="folder to keep the database in")
    options = parser.parse_args()
    small, large = options.sizes
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "submissions"
        pool = make_pool(Path(temporary) / "pool", 20)
        db = options.keep / "leaderboard.duckdb" if options.keep else Path(temporary) / "db"
        seconds = []
        for numbers in (range(small), range(small, large), range(large, large + 1)):
            generate(folder, pool, numbers)
            if numbers.start < large:
                db.unlink(missing_ok=True)
            loaded, spent, cores, peak = measure(folder, db)
            size = db.stat().st_size / 1e6
            print(
                f"{'fresh' if numbers.start < large else 'on the last file'}: {loaded} "
                f"submissions: {spent:.1f} s ({cores:.1f} CPU seconds), peak {peak:.0f} MB, file "
                f"{size:.0f} MB",
                flush=True,
            )
            seconds.append(cores)
        ask(db)
    ratio, goal = seconds[1] / seconds[0], large / small
    verdict = "met" if ratio <= goal else "missed"
    print(f"store_build ratio={ratio:.2f} goal={goal:g} {verdict}")


if __name__ == "__main__":
    print(machine(), flush=True)
    main()
