"""Finding and creating COMET's environment; pip is replaced, except in the slow test."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.evaluation.comet import environment
from xlt_bench.evaluation.comet.environment import find_python, setup


@pytest.fixture
def pip(tmp_path, monkeypatch, fake_comet):
    """A pip that installs the fake `comet`, or fails while `fails` is set."""

    class Pip:
        fails = ""

    def create(there, **_options):
        (there / "bin").mkdir()
        (there / "bin" / "python").symlink_to(sys.executable)

    def run(command):
        if "pip" not in command:
            return real([str(fake_comet.python), *command[1:]])
        (Path(command[0]).parents[1] / "half installed").mkdir()
        return subprocess.CompletedProcess(command, bool(Pip.fails), "", Pip.fails)

    real = environment._run
    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setattr(environment.venv, "create", create)
    monkeypatch.setenv("XLT_BENCH_COMET", str(tmp_path / "env"))
    return Pip


def test_a_broken_off_setup_is_recognised_and_mended(pip, tmp_path):
    there = tmp_path / "env"
    with pytest.raises(InputError, match=r"does not exist; create it with: xlt-bench comet setup"):
        find_python()
    pip.fails = "WARNING: one\nERROR: No space left on device\n"
    with pytest.raises(
        InputError, match=r"pip could not .*No space left on device\); run it again"
    ):
        setup(lambda _step: None)
    with pytest.raises(InputError, match=r"is incomplete; finish it with: xlt-bench comet setup"):
        find_python()
    pip.fails = ""
    steps = []
    assert setup(steps.append)["unbabel-comet"] == "0.1"
    assert len(steps) == 3
    assert find_python() == there / "bin" / "python"
    # A working environment is left as it is, a broken one is created again.
    assert setup(steps.append)["unbabel-comet"] == "0.1"
    assert len(steps) == 3


def test_a_setup_started_during_another_waits_for_it(pip, monkeypatch):
    said, told, found = threading.Event(), [], []
    create = environment.venv.create

    def says(step):
        told.append(step.split()[0])
        said.set()

    def creates(there, **options):
        second.start()
        assert said.wait(600)
        create(there, **options)

    second = threading.Thread(target=lambda: found.append(setup(says)))
    monkeypatch.setattr(environment.venv, "create", creates)
    found.append(setup(lambda _step: None))
    second.join()
    assert [one["unbabel-comet"] for one in found] == ["0.1", "0.1"]
    assert told == ["waiting"]


def test_a_folder_that_is_not_ours_is_left_alone(pip, tmp_path, monkeypatch):
    there = tmp_path / "env"
    there.mkdir()
    (there / "thesis.tex").touch()
    monkeypatch.setattr(
        environment, "_run", lambda command: subprocess.CompletedProcess(command, 1, "", "none")
    )
    with pytest.raises(InputError, match=r"cannot import comet \(none\)"):
        setup(lambda _step: None)
    assert [path.name for path in there.iterdir()] == ["thesis.tex"]


def test_an_environment_of_the_users_own_is_used(fake_comet, monkeypatch, tmp_path):
    assert find_python() == fake_comet.python
    assert setup(lambda _step: None)["unbabel-comet"] == "0.1"
    (fake_comet.modules / "comet.py").write_text("import no_such_module\n")
    with pytest.raises(InputError, match="No module named 'no_such_module'"):
        find_python()


def test_every_package_is_pinned_and_comet_among_them():
    path = Path(environment.__file__).with_name("requirements.txt")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and "+" not in line for line in lines)
    assert "unbabel-comet==2.2.7" in lines


@pytest.mark.slow
def test_setup_from_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XLT_BENCH_COMET", str(tmp_path / "env"))
    try:
        found = setup(lambda _step: None)
    except InputError as error:
        pytest.skip(f"COMET cannot be installed here: {error}")
    assert found["unbabel-comet"] == "2.2.7"
    assert json.loads((tmp_path / "env" / "xlt-bench-comet.json").read_text()) == found
    assert find_python() == tmp_path / "env" / "bin" / "python"
