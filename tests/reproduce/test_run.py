"""`xlt-bench reproduce` from training to the page, with the mini suite and the embedded model."""

import json
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from xlt_bench.cli.main import app
from xlt_bench.errors import InputError
from xlt_bench.evaluation.config import Options
from xlt_bench.reproduce.steps import Project, Settings, Step
from xlt_bench.reproduce.tables import System
from xlt_bench.tasks.registry import get_text_task

CHANGES = (
    "alignment.data=flores",  # the mini suite has no Tatoeba
    "training.batch_size=4",
    "training.micro_batch_size=4",
    "lora.r=2",
    "task.dev_items=2",
)
WORDS = [
    *"reproduce table7 --tasks massive --model embedded --data-dir mini --limit 1".split(),
    *"--steps 2 --dtype float32 --yes".split(),
    *(word for change in CHANGES for word in ("--set", change)),
]


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens each: what is tested is the way of the answers, not what they say."""
    monkeypatch.setattr(get_text_task("massive"), "max_new_tokens", 4)


def _run(output: Path, *more: str) -> str:
    done = CliRunner().invoke(app, [*WORDS, "--output", str(output), *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def _times(folder: Path) -> dict[Path, int]:
    kept = {".safetensors", ".zst", ".jsonl"}
    files = [
        path for path in folder.rglob("*") if path.suffix in kept or path.name == "record.json"
    ]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.usefixtures("short_answers")
def test_a_table_from_training_to_the_page_and_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = _run(out)
    assert "7 steps to do" in text
    assert {path.name for path in (out / "adapters").iterdir()} == {
        "massive-baseline.seed1",
        "massive-align-middle.seed1",
        "align-only-multi.seed1",
        "massive-baseline-merged.seed1",
    }
    page = (out / "table7.md").read_text()
    measured = [line for line in page.splitlines() if "embedded, measured" in line]
    assert len(measured) == 3
    assert all(line.count(".") >= 2 for line in measured)  # supervised and transfer
    assert "76.9" in page  # the paper's
    assert "Gains over SFT" in page
    before = _times(out)
    assert "0 steps to do" in _run(out)
    assert _times(out) == before
    # The answers of one language are gone: only that evaluation resumes, with that language alone.
    folder = out / "evaluations" / "massive-align-middle.seed1" / "massive"
    (folder / "predictions" / "massive" / "cy.jsonl.zst").unlink()
    (folder / "record.json").unlink()
    text = _run(out)
    assert "1 steps to do" in text
    assert "resumes" in text
    changed = {path for path, time in _times(out).items() if before[path] != time}
    assert {path.name for path in changed} == {"cy.jsonl.zst", "record.json"}
    # The plan of the same table in this folder.
    plan = CliRunner().invoke(app, [*WORDS, "--output", str(out), "--plan"], catch_exceptions=False)
    assert "evaluate massive" in plan.output


def test_other_settings_and_other_trainings_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = Settings(model="embedded", output=out, steps=2, data_dir="mini")
    step = Step(System("massive-baseline"), 1)
    project = Project(settings)
    folder = step.folder(out)
    folder.mkdir(parents=True)
    assert not project.is_done(step)
    recipe = project.recipe(step).identity
    (folder / "training.json").write_text(json.dumps({"recipe": recipe}))
    assert project.is_begun(step)
    assert not project.is_done(step)
    with pytest.raises(InputError, match="was not trained by massive-baseline"):
        Project(Settings(model="embedded", output=out, steps=3)).is_done(step)
    (out / "reproduction.json").write_text(json.dumps(settings.identity))
    with pytest.raises(InputError, match=r"started with other settings \(steps: 2, now 3\)"):
        Project(Settings(model="embedded", output=out, steps=3, data_dir="mini"))
    Project(Settings(model="embedded", output=out, steps=2, data_dir="mini", seeds=5))


def test_an_aligned_training_sees_as_much_of_the_task_as_its_baseline(tmp_path: Path) -> None:
    project = Project(
        Settings(model="embedded", output=tmp_path, steps=50, changes=("task.dev_items=3",))
    )
    made = {
        name: project.recipe(Step(System(name), 2))
        for name in ("massive-baseline", "massive-align-middle", "align-only-multi")
    }
    assert {name: one.training.max_steps for name, one in made.items()} == {
        "massive-baseline": 50,
        "massive-align-middle": 100,
        "align-only-multi": 50,
    }
    assert [one.training.eval_steps for one in made.values()] == [10, 20, 10]
    assert {one.training.seed for one in made.values()} == {2}
    assert [one.task and one.task.dev_items for one in made.values()] == [3, 3, None]


def test_a_step_as_a_command_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = Settings(
        model="embedded", output=out, steps=2, limit=1, data_dir="mini", changes=CHANGES
    )
    project = Project(settings)
    training = Step(System("massive-baseline"), 1)
    merging = Step(System("massive-baseline", "align-only-multi"), 1)
    steps = [training, Step(System("align-only-multi"), 1), merging]
    steps += [Step(System("align-only-multi"), 1, "retrieval")]
    for step in steps:
        assert not project.is_done(step)
        done = CliRunner().invoke(app, shlex.split(project.command(step))[1:])
        assert done.exit_code == 0, done.output
        assert project.is_done(step)
    record = json.loads((steps[-1].folder(out) / "record.json").read_text())
    assert record["plan"]["layers"] == [2, 4, 6, 8]
    assert len(record["plan"]["units"]["retrieval"]) == 20
    # It was aligned on the sentences of retrieval, and the merge says so.
    assert record["adapter"]["trained_on_flores"] is True
    assert "retrieval is inflated" in record["notes"][-1]
    cards = [(step.folder(out) / "README.md").read_text() for step in steps[:3]]
    told = [
        yaml.safe_load(card.split("---")[1])["xlt_bench"]["trained_on_flores"] for card in cards
    ]
    assert told == [False, True, True]


def test_an_evaluation_takes_every_setting_that_both_have(tmp_path: Path) -> None:
    given = {
        "model": "embedded", "limit": 3, "data_dir": "mini", "dtype": "float32", "device": "cpu",
        "batch_size": "7", "chat_template": "plain", "trust_remote_code": True,
    }  # fmt: skip
    project = Project(Settings(output=tmp_path, **given))  # type: ignore[arg-type]
    options = project.options(Step(System("massive-baseline"), 1, "massive"))
    both = {field.name for field in fields(Settings)} & {field.name for field in fields(Options)}
    assert both - {"output"} == set(given)
    assert {name: getattr(options, name) for name in given} == given
