"""Runs of models and adapters of a hub whose main branch moves: one run is of one commit."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from loopback_hub import Hub
from xlt_bench.results.run_folder import read_plan, read_predictions, read_record
from xlt_bench.submissions.schema import base_model

RunCli = Callable[..., tuple[int, str, str]]
OPTIONS = ["--tasks", "massive", "--limit", 2, "--dtype", "float32", "--device", "cpu"]


@pytest.fixture
def changed(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with other weights."""
    folder = tmp_path / "changed"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    negated = {name: -weight for name, weight in weights.items()}
    save_file(negated, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def evaluate(made_up_root: Path, run_cli: RunCli) -> RunCli:
    def run(*words: object) -> tuple[int, str, str]:
        return run_cli("evaluate", *OPTIONS, "--data-dir", made_up_root, *words)

    return run


def answers(run: Path) -> list[str]:
    paths = sorted(run.glob("predictions/*/*.zst"))
    return [answer.hypothesis for path in paths for answer in read_predictions(path)]


def test_a_run_does_not_go_on_with_another_commit(
    loopback_hub: Hub, tiny_model: Path, changed: Path, evaluate: RunCli, tmp_path: Path
) -> None:
    repository = loopback_hub.repository("org/tiny")
    old = repository.commit(tiny_model)
    run, local = tmp_path / "run", tmp_path / "local"
    words = ["--languages", "de,sw", "--output", run]
    assert evaluate("--model", "org/tiny", *words)[0] == 0
    # As if it had been killed after the first language.
    (run / "record.json").unlink()
    (run / "predictions" / "massive" / "sw.jsonl.zst").unlink()
    before = answers(run)
    new = repository.commit(changed)
    code, _, said = evaluate("--model", "org/tiny", *words)
    assert code == 2
    assert said == (
        f"error: {run} was started with commit {old} of org/tiny, and would go on with commit "
        f"{new}; pass --model org/tiny@{old}, or choose another --output\n"
    )
    assert answers(run) == before
    assert evaluate("--model", f"org/tiny@{old}", *words)[0] == 0
    record = read_record(run)
    assert (record.model.name, record.model.revision) == ("org/tiny", old)
    assert evaluate("--model", tiny_model, "--languages", "de,sw", "--output", local)[0] == 0
    assert answers(run) == answers(local)


def test_a_run_does_not_go_on_with_another_commit_of_the_adapter(
    loopback_hub: Hub, tiny_model: Path, tiny_adapter: Path, evaluate: RunCli, tmp_path: Path
) -> None:
    repository = loopback_hub.repository("org/lora")
    old = repository.commit(tiny_adapter)
    words = ["--model", tiny_model, "--languages", "de", "--output", tmp_path / "run"]
    assert evaluate("--adapter", "org/lora", *words)[0] == 0
    adapter = read_record(tmp_path / "run").adapter
    assert adapter
    assert (adapter.name, adapter.revision) == ("org/lora", old)
    assert read_plan(tmp_path / "run").adapter_revision == old
    new = repository.commit(tiny_adapter)
    code, _, said = evaluate("--adapter", "org/lora", *words)
    assert code == 2
    assert f"was started with commit {old} of org/lora, and would go on with commit {new}" in said
    assert evaluate("--adapter", f"org/lora@{old}", *words)[0] == 0


def test_two_commits_are_two_systems_and_two_names_of_one_commit_are_one(
    loopback_hub: Hub, tiny_model: Path, changed: Path, evaluate: RunCli, tmp_path: Path
) -> None:
    repository = loopback_hub.repository("org/tiny")
    repository.commit(tiny_model, "v1")
    repository.commit(changed, "v2")
    for name in ("org/tiny", "org/tiny@v1", "org/tiny@v2"):
        output = tmp_path / name[-2:]
        assert evaluate("--model", name, "--languages", "de", "--output", output)[0] == 0
    main, one, two = (base_model(read_plan(tmp_path / end)) for end in ("ny", "v1", "v2"))
    assert main == two != one


def test_the_model_is_the_one_that_the_adapter_names(
    loopback_hub: Hub, tiny_model: Path, tiny_adapter: Path, evaluate: RunCli, tmp_path: Path,
    edit: Callable[..., None],
) -> None:  # fmt: skip
    commit = loopback_hub.repository("org/tiny").commit(tiny_model)
    shutil.copytree(tiny_adapter, tmp_path / "lora")
    named = {"base_model_name_or_path": "org/tiny"}
    edit(tmp_path / "lora" / "adapter_config.json", lambda config: config.update(named))
    words = ["--adapter", tmp_path / "lora", "--languages", "de", "--output", tmp_path / "run"]
    assert evaluate(*words)[0] == 0
    record = read_record(tmp_path / "run")
    assert (record.model.name, record.model.revision) == ("org/tiny", commit)
    given = ["--model", tiny_model, *words[:-1], tmp_path / "given"]
    assert evaluate(*given)[0] == 0
    assert answers(tmp_path / "run") == answers(tmp_path / "given")
    assert evaluate("--output", tmp_path / "none")[2] == (
        "error: give --model, or --adapter, which names its base model\n"
    )


def test_a_hub_model_is_submitted_with_its_commit_only(
    loopback_hub: Hub,
    tiny_model: Path,
    evaluate: RunCli,
    run_cli: RunCli,
    made_up_root: Path,
    tmp_path: Path,
) -> None:
    loopback_hub.repository("org/tiny").commit(tiny_model)
    run = tmp_path / "run"
    assert evaluate("--model", "org/tiny", "--languages", "de", "--output", run)[0] == 0

    def submit() -> tuple[int, str, str]:
        folder = tmp_path / "submissions"
        return run_cli("submit", run, "--submissions", folder, "--data-dir", made_up_root)

    assert submit()[0] == 0
    for lacking in (None, "main"):
        for name in ("plan.json", "record.json"):
            text = re.sub(r'"(model_)?revision": [^,]*', rf'"\1revision": {json.dumps(lacking)}',
                          (run / name).read_text(), count=2)  # fmt: skip
            (run / name).write_text(text)
        code, _, said = submit()
        assert code == 2
        assert "does not say which commit of org/tiny answered" in said
    assert len(list((tmp_path / "submissions").iterdir())) == 1
