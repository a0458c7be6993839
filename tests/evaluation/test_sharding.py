"""An evaluation divided among jobs or processes, against the same one undivided."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forked import run_ranks
from xlt_bench.cli.main import app
from xlt_bench.errors import InputError
from xlt_bench.evaluation.sharding import divide, parse_share
from xlt_bench.results.run_folder import read_record

PROGRAM = str(Path(sys.executable).with_name("xlt-bench"))
RunCli = Callable[..., tuple[int, str, str]]
OPTIONS = [
    "--model", "embedded", "--adapter", "embedded:aligned", "--data-dir", "mini", "--limit", "2",
    "--languages", "en,de,sw", "--tasks", "massive,wmt23,retrieval", "--device", "cpu",
]  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]


def evaluate(output: Path, *more: str) -> None:
    words = ["evaluate", *OPTIONS, "--output", str(output), *more]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output[-2000:]


def evaluate_in_two(output: Path, logs: Path, **environment: str) -> int:
    """By torchrun. What each process says goes to a file: on one pipe their lines can mix."""
    several = [*TORCHRUN, "--nproc-per-node", "2", "--log-dir", str(logs), "--redirects", "3"]
    words = [PROGRAM, "evaluate", *OPTIONS, "--output", str(output)]
    env = os.environ | environment
    return subprocess.run([*several, *words], env=env, capture_output=True, check=False).returncode


def said(logs: Path, stream: str) -> list[str]:
    """What each process said, by rank."""
    return [path.read_text() for path in sorted(logs.glob(f"*/attempt_0/*/{stream}.log"))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    evaluate(run)
    return run


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    runs = [folder / f"shard-{i}" for i in (1, 2, 3)]
    for i, run in enumerate(runs, 1):
        evaluate(run, "--shard", f"{i}/3")
    return runs


def answers(run: Path) -> dict[str, bytes]:
    paths = [*run.glob("predictions/*/[!.]*"), *run.glob("retrieval/[!.]*")]  # no half-written ones
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def test_joined_equals_undivided(
    whole: Path, shards: list[Path], tmp_path: Path, run_cli: RunCli
) -> None:
    parts = [set(answers(run)) for run in shards]
    assert all(parts)
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
    joined = tmp_path / "joined"
    words = [*map(str, reversed(shards)), "--output", str(joined), "--data-dir", "mini"]
    assert run_cli("join", *words)[0] == 0
    assert answers(joined) == answers(whole)
    one, other = read_record(joined), read_record(whole)
    assert one.results == other.results
    own = {"created", "command", "notes", "seconds"}
    assert one.model_dump(exclude={*own, "costs"}) == other.model_dump(exclude={*own, "costs"})
    assert one.costs.tokens_in == other.costs.tokens_in > 0
    assert one.costs.tokens_out == other.costs.tokens_out > 0
    assert set(one.seconds) == set(other.seconds)
    assert any("joined from 3 runs" in note for note in one.notes)
    assert (joined / "plan.json").read_bytes() == (whole / "plan.json").read_bytes()
    assert run_cli("score", str(joined), "--data-dir", "mini")[0] == 0


NO_PARTS = {
    "shard 2/3 is missing": ["1", "3"],
    "both answer": ["1", "2", "3", "whole"],
    "differ in adapter: None and": ["1", "2", "3", "bare"],
    "versions 1 and 2 of massive": ["1", "2", "version 1"],
    "is not finished": ["1", "unfinished", "3"],
    "is not a run folder": ["1", "none"],
}


@pytest.fixture(scope="module")
def parts(whole: Path, shards: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to the shards and to runs that are not parts of the same evaluation."""
    folder = tmp_path_factory.mktemp("parts")
    for i, run in enumerate(shards, 1):
        (folder / str(i)).symlink_to(run)
    (folder / "whole").symlink_to(whole)
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "plan.json").write_bytes((shards[1] / "plan.json").read_bytes())
    older = shutil.copytree(shards[2], folder / "version 1")
    for name in ("plan.json", "record.json"):
        text = (older / name).read_text()
        changed = text.replace('"massive": 2', '"massive": 1').replace('"massive":2', '"massive":1')
        assert changed != text
        (older / name).write_text(changed)
    done = CliRunner().invoke(app, _bare(folder / "bare"), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("said", NO_PARTS)
def test_what_is_no_part_is_refused_and_nothing_is_written(
    said: str, parts: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    runs = [str(parts / name) for name in NO_PARTS[said]]
    words = [*runs, "--output", str(tmp_path / "joined"), "--data-dir", "mini"]
    code, _, err = run_cli("join", *words)
    assert (code, said in err) == (2, True), err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_made_while_runs_are_joined_stays(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: RunCli
) -> None:
    output = tmp_path / "joined"
    rename = Path.rename

    def later(path: Path, target: Path) -> Path:
        output.mkdir()
        (output / "other").write_text("of another process")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", later)
    words = [*map(str, shards), "--output", str(output), "--data-dir", "mini"]
    code, _, err = run_cli("join", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{output} exists; choose another --output" in " ".join(err.split("\n"))
    assert [path.name for path in tmp_path.rglob("*")] == ["joined", "other"]


def _bare(output: Path) -> list[str]:
    words = "evaluate --model embedded --data-dir mini --limit 1 --languages hi --tasks massive"
    return [*words.split(), "--device", "cpu", "--output", str(output)]


def test_layers_spread_over_devices_answer_as_one(whole: Path, tmp_path: Path) -> None:
    """There is one device here; what is tested is the way by accelerate's device map."""
    evaluate(tmp_path / "run", "--device", "auto")
    assert answers(tmp_path / "run") == answers(whole)


def test_two_processes_answer_as_one(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("evaluate", *OPTIONS, "--output", str(run))
    both = run_ranks(words, 2, tmp_path / "logs")
    assert [ended.code for ended in both] == [0, 0], both
    assert answers(run) == answers(whole)
    assert read_record(run).results == read_record(whole).results
    assert read_record(run).hardware["processes"] == "2"
    assert [ended.out.count("record:") for ended in both] == [1, 0]
    # Each item once: one of the two says that it is done.
    told = [re.findall(r"^(.+): (\d+) done$", ended.err, re.MULTILINE) for ended in both]
    assert all(told)
    names, counts = zip(*chain(*told), strict=True)
    assert len(set(names)) == len(names)
    units = [unit for units in read_record(whole).plan.units.values() for unit in units]
    assert sum(map(int, counts)) == 2 * len(units)  # --limit 2


@pytest.mark.slow
def test_a_process_that_dies_fails_the_run_and_the_rest_goes_on(
    whole: Path, tmp_path: Path, killed_before: Callable[..., dict[str, str]]
) -> None:
    run, logs = tmp_path / "run", tmp_path / "logs"
    dies = killed_before(".jsonl.zst", number=2, rank=1)
    assert evaluate_in_two(run, logs, **dies) != 0
    assert not (run / "record.json").exists()
    first, second = said(logs, "stderr")
    # Stopped by torchrun while it works, by the closed connection while it waits.
    assert "same command" in first
    assert "Traceback" not in first + second
    before = answers(run)
    assert before
    evaluate(run)  # by one process, so that one does what is left of both shares
    assert before.items() <= answers(run).items()
    assert answers(run) == answers(whole)
    assert read_record(run).results == read_record(whole).results


def test_shares_hold_every_unit_once_and_are_even() -> None:
    draw = random.Random(0)
    for shares in (1, 2, 5, 9):
        costs = {("massive", f"u{i}"): draw.uniform(1, 10) for i in range(draw.randrange(9, 40))}
        parts = divide(costs, shares)  # type: ignore[arg-type]
        assert sorted(unit for part in parts for unit in part) == sorted(costs)
        loads = [sum(costs[unit] for unit in part) for part in parts]  # type: ignore[index]
        # Graham's bound for the longest first.
        least = max(sum(costs.values()) / shares, max(costs.values()))
        assert max(loads) <= 4 / 3 * least + max(costs.values()) / 3


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/2/3", "1 /2"])
def test_a_wrong_share_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--shard must be i/n"):
        parse_share(text)


def test_a_share_without_work_is_one_line(tmp_path: Path, run_cli: RunCli) -> None:
    code, _, err = run_cli(*_bare(tmp_path / "run"), "--shard", "2/2")
    assert (code, "more shards than units" in err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_shards_of_another_number_are_refused(
    shards: list[Path], tmp_path: Path, run_cli: RunCli
) -> None:
    half = tmp_path / "half"
    half.mkdir()
    for name in ("plan.json", "record.json"):
        value = json.loads((shards[0] / name).read_text())
        (value if name == "plan.json" else value["plan"])["shard"] = "1/2"
        (half / name).write_text(json.dumps(value))
    words = [str(half), str(shards[1]), "--output", str(tmp_path / "joined"), "--data-dir", "mini"]
    assert run_cli("join", *words)[0] == 2
