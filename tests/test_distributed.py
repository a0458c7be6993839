"""Invalid variables of a launcher are refused in one line, and nothing waits for them."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from xlt_bench import distributed
from xlt_bench.errors import InputError

RunCli = Callable[..., tuple[int, str, str]]
JOB = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*JOB, "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which something listens that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("command", ["evaluate", "train", "reproduce"])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE='' is not a number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' is not a number"),
        ({"WORLD_SIZE": "²"}, "WORLD_SIZE='²' is not a number"),
        ({"RANK": "-1"}, "RANK='-1' is not a number"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK='x' is not a number"),
        (JOB | {"MASTER_PORT": "http"}, "MASTER_PORT='http' is not a number"),
        (JOB | {"MASTER_PORT": "99999"}, "MASTER_PORT=99999, which does not describe a job"),
        (JOB | {"MASTER_PORT": "1", "RANK": "2"}, "RANK=2, LOCAL_RANK=0, MASTER_ADDR"),
        ({"RANK": "3"}, "the environment has RANK=3 but not WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "the environment has WORLD_SIZE=2 but not RANK"),
        (JOB, "but not MASTER_PORT"),
        (JOB | {"MASTER_PORT": "1", "MASTER_ADDR": ""}, "but not MASTER_ADDR"),
    ],
)
def test_variables_that_are_no_job(
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: os.PathLike[str],
    command: str,
    given: dict[str, str],
    says: str,
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    words = {"evaluate": [], "train": ["massive-baseline"], "reproduce": ["table2"]}[command]
    code, _, said = run_cli(command, *words, "--model", "embedded", "--output", tmp_path)
    assert code == 2
    assert says in said
    assert said.endswith("; unset it, or start the processes with torchrun\n")
    assert said.count("\n") == 1


def test_a_single_process_of_torchrun_and_none_are_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed.check_launcher()
    for name, value in (JOB | {"WORLD_SIZE": "1", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    distributed.check_launcher()


@pytest.mark.parametrize("left", ["first", "second", "of torchrun", "another program's port"])
def test_a_job_whose_processes_do_not_come(
    monkeypatch: pytest.MonkeyPatch, port: int, left: str
) -> None:
    """Each of these waited for hours; here the patience is a second."""
    number = "0" if left == "first" else "1"
    listening = port if left == "another program's port" else free_port()
    for name, value in (JOB | {"RANK": number, "MASTER_PORT": str(listening)}).items():
        monkeypatch.setenv(name, value)
    if left in ("of torchrun", "another program's port"):
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert distributed._MEETING < 60
    monkeypatch.setattr(distributed, "_MEETING", 1)
    with pytest.raises(InputError) as raised, distributed.together():
        pass
    said = str(raised.value)
    assert f"WORLD_SIZE=2, RANK={number}, LOCAL_RANK=0, MASTER_ADDR=127.0.0.1" in said
    assert "the other processes did not come within 1 seconds; unset these variables" in said


MEMBER = """
import sys, time
from xlt_bench.distributed import from_first, rank, together, wait
from xlt_bench import distributed

distributed._MEETING = 20
if rank():
    time.sleep(float(sys.argv[1]))
for turn in range(2):
    with together():
        if rank() == turn:  # longer than the meeting may take
            distributed._MEETING = 0.5
            time.sleep(1.5)
        wait()
        print(rank(), from_first(lambda: turn + 7), flush=True)
    distributed._MEETING = 20
"""


@pytest.mark.slow
def test_processes_that_come_late_and_work_long_are_waited_for() -> None:
    """Without torchrun, as mpirun starts them: the first one is the master."""
    job = os.environ | JOB | {"MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, "1"], env=job | {"RANK": number},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in "01"
    ]  # fmt: skip
    ended = [process.communicate(timeout=120) for process in started]
    assert [out for out, _ in ended] == ["0 7\n0 8\n", "1 7\n1 8\n"], ended
