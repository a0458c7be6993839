"""Tests `xlt-bench demo`: what is on its page, and the commands that it offers."""

import os
import pty
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from xlt_bench.cli import demo
from xlt_bench.cli.demo_screen import METRICS, Next, screen
from xlt_bench.data.root import MINI
from xlt_bench.models.adapters import check_local
from xlt_bench.models.embedded import MODEL, NAMES, PAIRS, shipped
from xlt_bench.results.run_folder import read_record
from xlt_bench.submissions.compare import compare_metric, load_system
from xlt_bench.tasks.registry import get_task

MOST_LINES, WIDTH = 40, 80


@pytest.fixture(scope="module")
def runs(make_run, tmp_path_factory):
    """Two systems on the mini suite, one much better than the other; their folder."""
    folder = tmp_path_factory.mktemp("demo")
    units = {name: list(get_task(name).test_set().units) for name in METRICS}
    for seed, (name, right) in enumerate({"baseline": 0.2, "aligned": 0.9}.items()):
        adapter = f"embedded:{name}"
        make_run(
            folder / name, seed, right=right, adapter=adapter, units=units, root=MINI,
            layers=range(1, 9),
        )  # fmt: skip
    return folder


def draw(runs, system="aligned", baseline="baseline"):
    ours, theirs = (load_system(str(runs / name), runs, MINI) for name in (system, baseline))
    found = [compare_metric(task, METRICS[task][0], [ours], [theirs]) for task in METRICS]
    records = [read_record(runs / name) for name in (baseline, system)]
    commands = [Next("a", "xlt-bench a"), Next("b", "xlt-bench b"), Next("c", "one \\\n  two")]
    said = "word " * 44  # three lines
    return screen(said, found, demo._curves(records), commands), records


def test_the_page_fits_a_terminal_and_has_its_parts_in_order(runs):
    page, _ = draw(runs)
    lines = page.splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= WIDTH
    parts = ["word", "mean of", "retrieval accuracy by layer", "largest gains and losses"]
    parts += ["Where the task has no training data", "xlt-bench a", "xlt-bench b", "  two"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_the_means_are_those_of_the_records(runs):
    page, records = draw(runs)
    task, wanted, seen = "", {}, []
    for name, (metric, _) in METRICS.items():
        for record in records:
            for row in record.results.means:
                if row.metric == metric and row.task == name:
                    wanted.setdefault((name, row.split), []).append(f"{row.value:.1f}")
    for line in page.splitlines():
        if row := re.match(r"(\w*).*?(\w+) \(\d+\) +([\d.]+) +([\d.]+) +([-+][\d.]+) \(", line):
            task = row[1] if row[1] in METRICS else task
            assert [row[3], row[4]] == wanted[task, row[2]]
            seen.append((task, row[2]))
    # All languages together only where the task has no settings.
    assert set(seen) == {(t, s) for t, s in wanted if s != "all" or t == "retrieval"}


def test_a_large_gain_is_marked_and_said_and_none_is_not(runs):
    page, _ = draw(runs)
    better = " ".join(page.split())
    assert "alignment raised massive, wmt23, uner and retrieval;" in better
    # By an exact test, the few items of the one aligned language of massive show nothing.
    assert len(re.findall(r"\(\S+ to \S+\)", page)) == 9
    assert page.count(") *") == 8
    page, _ = draw(runs, "baseline", "baseline")
    same = " ".join(page.split())
    assert "changed massive, wmt23, uner and retrieval by no more than chance" in same
    assert ") *" not in page
    assert page.count("none gains") == page.count("none loses") == len(METRICS)
    page, _ = draw(runs, "baseline", "aligned")
    assert "alignment lowered massive, wmt23, uner and retrieval;" in " ".join(page.split())


def test_the_plot_has_every_layer_at_its_height(runs):
    page, (baseline, aligned) = draw(runs)
    start = next(i for i, line in enumerate(page.splitlines()) if "by layer" in line) + 1
    plot = page.splitlines()[start : start + 6]
    axis = plot.pop()
    assert axis.split() == [str(layer) for layer in range(1, 9)]
    top = max(row.value for row in [*baseline.results.layers, *aligned.results.layers])
    for record, letter in ((baseline, "b"), (aligned, "a")):
        for row in record.results.layers:
            column = axis.index(str(row.layer))
            drawn = [
                float(line.split("|")[0])
                for line in plot
                if line.ljust(WIDTH)[column] in (letter, "=")
            ]
            assert len(drawn) == 1
            assert abs(drawn[0] - row.value) <= top / 8 + 0.06  # half a line, and rounding


def test_every_pair_has_its_two_adapters_and_the_old_names_are_those_of_slot_filling():
    assert [pair.task for pair in PAIRS][:1] == ["massive"]
    for pair in PAIRS:
        for name in (pair.baseline, pair.aligned):
            folder = check_local(name)
            assert folder is not None
            assert folder.name == name.removeprefix(f"{MODEL}:")
    assert shipped("embedded:baseline") == shipped("embedded:massive-baseline")
    assert shipped("embedded:aligned") == shipped("embedded:massive-aligned")
    folders = {path.name for path in NAMES["embedded:aligned"].parent.iterdir() if path.is_dir()}
    assert folders == {Path(shipped(n)).name for n in NAMES if n != MODEL}


def test_each_pair_is_asked_its_own_task_and_one_pair_retrieval(tmp_path):
    asked = demo._requests(tmp_path / "out")
    assert [(*one.options.adapters, list(one.options.tasks)) for one in asked] == [
        (adapter, [pair.task] + ["retrieval"] * (pair.task == "massive"))
        for pair in PAIRS
        for adapter in (pair.baseline, pair.aligned)
    ]
    assert not (tmp_path / "out").exists()


def test_the_commands_name_the_program_that_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "my env" / "xlt-bench"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", ["my env/xlt-bench"])
    assert demo._program() == "'my env/xlt-bench'"
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert demo._program() == "'my env/xlt-bench'"
    monkeypatch.setenv("PATH", str(script.parent))
    assert demo._program() == "xlt-bench"
    monkeypatch.setattr(sys, "argv", ["/somewhere/xlt_bench/__main__.py"])
    assert shlex.split(demo._program()) == [sys.executable, "-m", "xlt_bench"]


@pytest.mark.slow
def test_the_whole_demo_prints_one_page_and_resumes(tmp_path):
    """Piped, it says a line for each run; on a terminal, a bar that is gone at the end."""
    command = [sys.executable, "-m", "xlt_bench", "demo", "--output", "runs/demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) <= MOST_LINES
    assert [len(line) for line in lines if len(line) > WIDTH and "xlt_bench" not in line] == []
    assert len(done.stderr.splitlines()) == 2 * len(PAIRS)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    timed = re.compile(r"in \d+ s\.|\s+")
    assert timed.sub(" ", again.stdout) == timed.sub(" ", done.stdout)
    master, terminal = pty.openpty()
    process = subprocess.Popen(command, cwd=tmp_path, stderr=terminal, stdout=subprocess.PIPE)
    os.close(terminal)
    drawn = b""
    with suppress(OSError):  # Linux: the other end is closed
        while part := os.read(master, 1024):
            drawn += part
    os.close(master)
    page = process.communicate()[0].decode()
    assert timed.sub(" ", page) == timed.sub(" ", done.stdout)
    assert b"%" in drawn
    assert b" done" not in drawn
