"""The commands to disturb, with their inputs and results, and a folder to run each in."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import xlt_bench
from xlt_bench.store.build import connect
from xlt_bench.store.export import VIEWS

MINI = Path(xlt_bench.__file__).parent / "data" / "mini"
OUTPUT = "disk"  # the output folder in a trial's folder; a small disk may be mounted there
RECIPE = {
    "title": "A small training",
    "task": {"name": "massive", "units": ["en"]},
    "alignment": {"data": "massive", "pairs": ["ru-en"]},
    "training": {"batch_size": 4, "micro_batch_size": 2, "max_steps": 6, "eval_steps": 2},
}
EVALUATE = (
    "evaluate --model embedded --adapter embedded:aligned --languages de,en,sw --limit 1 "
    "--layers 2,4 --dtype float32 --data-dir data --output"
).split()
# Keys of times, which differ between runs.
TIMES = {"created", "seconds", "train_runtime", "train_samples_per_second", "eval_runtime"}
TIMES |= {"device_seconds", "peak_memory_bytes", "energy_joules", "energy_source"}
TIMES |= {"train_steps_per_second", "eval_samples_per_second", "eval_steps_per_second"}


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code or negative signal, output, time, reads and writes."""

    code: int
    said: str
    seconds: float
    writes: int
    reads: int


class Forks:
    """A process with everything imported, which forks for each command."""

    def __init__(self) -> None:
        quiet = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forks.py")],
            env={**os.environ, **quiet},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(
        self,
        words: list[str],
        folder: Path,
        *,
        given: str = "data",
        kill_at: int | None = None,
        kill_before: str | None = None,
        move_at: int | None = None,
        after: float | None = None,
    ) -> Ended:
        """Run a command in a folder; forks.py explains the arguments."""
        order = {
            "words": words, "folder": str(folder), "output": OUTPUT, "input": given,
            "kill_at": kill_at, "kill_before": kill_before, "move_at": move_at, "after": after,
        }  # fmt: skip
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        return Ended(said=(folder / "said.txt").read_text(), **told)


@dataclass(frozen=True)
class Command:
    """A command line with outputs below OUTPUT; `reads` is its input in the trial's folder."""

    words: list[str]
    prepare: Callable[[Path], None]
    result: Callable[[Path], Any]
    reads: str = "data"


@dataclass(frozen=True)
class Undisturbed:
    """The result of an undisturbed command, and how it ended."""

    result: Any
    ended: Ended


class Bench:
    """All commands, and an undisturbed run of each."""

    def __init__(self, forks: Forks, folder: Path) -> None:
        self.forks, self.folder = forks, folder
        self._undisturbed: dict[str, Undisturbed] = {}
        inputs = folder / "inputs"
        inputs.mkdir()
        _data(inputs)
        for name, more in {"whole": [], "1": ["--shard", "1/2"], "2": ["--shard", "2/2"]}.items():
            assert forks.run([*EVALUATE, name, *more], inputs).code == 0
        assert forks.run([*EVALUATE, "one", "--tasks", "uner", "--limit", "1"], inputs).code == 0
        for name in ("whole", "one"):
            submit = ["submit", name, "--submissions", "submissions", "--data-dir", "data"]
            assert forks.run(submit, inputs).code == 0

        def given(*names: str) -> Callable[[Path], None]:
            def prepare(trial: Path) -> None:
                for name in names:
                    (trial / name).symlink_to(inputs / name)

            return prepare

        def recipe(trial: Path) -> None:
            given("data")(trial)
            (trial / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))

        self.commands = {
            "evaluate": Command([*EVALUATE, "disk/run"], given("data"), _tree),
            "train": Command(
                "train recipe.yaml --model embedded --data-dir data --output disk/lora".split(),
                recipe,
                _tree,
            ),
            "submit": Command(
                "submit whole --data-dir data --submissions disk/submissions".split(),
                given("data", "whole"),
                _tree,
            ),
            "leaderboard build": Command(
                "leaderboard build --submissions submissions --db disk/board.duckdb".split(),
                given("submissions"),
                _database,
                reads="submissions",
            ),
            "join": Command(
                "join 1 2 --data-dir data --output disk/run".split(), given("data", "1", "2"), _tree
            ),
        }

    def trial(self, name: str, folder: Path) -> Path:
        """Create a folder to run the command in, with its inputs."""
        (folder / OUTPUT).mkdir(parents=True)
        self.commands[name].prepare(folder)
        return folder

    def undisturbed(self, name: str) -> Undisturbed:
        """Run the command undisturbed, once per session."""
        if name not in self._undisturbed:
            command = self.commands[name]
            folder = self.trial(name, self.folder / name)
            ended = self.forks.run(command.words, folder, given=command.reads)
            assert ended.code == 0, ended.said
            self._undisturbed[name] = Undisturbed(command.result(folder / OUTPUT), ended)
        return self._undisturbed[name]


def _data(folder: Path) -> None:
    (folder / "data").symlink_to(MINI)


def _tree(folder: Path) -> dict[str, Any]:
    """Every file of a folder by its path: bytes, or JSON without times."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def _content(path: Path) -> Any:
    data = path.read_bytes()
    if path.suffix not in (".json", ".jsonl"):
        return data
    lines = data.splitlines() if path.suffix == ".jsonl" else [data]
    return [_timeless(json.loads(line)) for line in lines]


def _timeless(value: Any) -> Any:
    """Without the keys of times, at any depth."""
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _database(folder: Path) -> dict[str, Any]:
    """The rows of every view, and the names of all files."""
    found: dict[str, Any] = {"files": sorted(path.name for path in folder.iterdir())}
    with connect(folder / "board.duckdb") as store:
        for name, query in VIEWS.items():
            found[name] = sorted(map(repr, store.execute(query).fetchall()))
    return found


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    forks = Forks()
    yield Bench(forks, tmp_path_factory.mktemp("faults"))
    assert forks.process.stdin
    forks.process.stdin.close()
    assert forks.process.wait() == 0
