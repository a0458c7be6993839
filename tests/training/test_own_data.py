"""A recipe on a user's own files: task, pairs, counts and overlap in the card and the record."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from xlt_bench.data.root import MINI
from xlt_bench.errors import InputError
from xlt_bench.models.adapter_card import trained_on_flores, training
from xlt_bench.models.adapters import find_adapter
from xlt_bench.tasks.registry import get_task
from xlt_bench.training.dataset import load_items
from xlt_bench.training.pairs import Pair, load_pairs
from xlt_bench.training.recipe import parse_recipe
from xlt_bench.training.recipe_data import Alignment, TaskData

RunCli = Callable[..., tuple[int, str, str]]  # a fixture of conftest.py


def chat(language: str, question: str, answer: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"language": language, "messages": messages}) + "\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Sums asked in German and Swahili, and FLORES dev of the mini suite as parallel text."""
    for name, numbers in (("train", range(8)), ("dev", range(8, 11))):
        rows = [
            chat(code, text.format(n), str(n + 1))
            for code, text in (("de", "Was ist {} plus eins?"), ("sw", "Nini {} ongeza moja?"))
            for n in numbers
        ]
        extra = [rows[0], chat("de", "What is this sentence doing here, tell me?", "")]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows + extra))
    german, swahili = (get_task("retrieval").load(MINI, code) for code in ("de", "sw"))
    rows = [f"{a}\t{b}" for a, b in zip(german, swahili, strict=True)]
    odd = ["Eins. Zwei.\tMoja. Mbili.", "\tTupu.", rows[0]]
    (tmp_path / "pairs.tsv").write_text("\n".join([*rows, *odd]) + "\n", encoding="utf-8")
    return {
        "title": "Sums",
        "task": {
            "name": "chats",
            "train": str(tmp_path / "train.jsonl"),
            "dev": str(tmp_path / "dev.jsonl"),
        },
        "alignment": {"data": {"de-swh_Latn": str(tmp_path / "pairs.tsv")}},
        "training": {
            "batch_size": 8, "micro_batch_size": 4, "max_steps": 4, "eval_steps": 2,
        },
    }  # fmt: skip


def test_own_files_are_trained_on(
    files: dict[str, Any], tiny_model: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(files))
    words = ["train", recipe, "--model", tiny_model, "--output", out, "--data-dir", "mini"]
    code, _, err = run_cli(*words)
    assert code == 0
    pairs = len(get_task("retrieval").load(MINI, "de"))
    assert "note: the training text contains test items in part: " in err
    assert f"{pairs} of retrieval/de" in err
    head = yaml.safe_load((out / "README.md").read_text().split("---")[1])["xlt_bench"]
    examples = head["examples"]
    assert examples["task"] == 18
    assert examples["task, repeated"] == examples["task, empty"] == 1
    assert examples["task_dev"] == 8
    assert examples["alignment de-sw, read"] == pairs + 3
    assert examples["alignment de-sw, several sentences"] == 1
    assert examples["alignment de-sw, empty"] == examples["alignment de-sw, repeated"] == 1
    assert examples["alignment de-sw"] + examples["alignment_dev"] <= pairs
    adapter = find_adapter(str(out))
    assert trained_on_flores(adapter) is True
    stated = training(adapter)
    assert stated is not None
    assert stated.overlap is not None
    assert stated.overlap["retrieval/de"] == stated.overlap["retrieval/sw"] == pairs
    assert stated.overlap["massive/de"] == 0
    assert stated.settings["task.name"] == "chats"
    assert stated.settings["task.train"] == "train.jsonl"  # without its folder
    assert stated.settings["alignment.data.de-sw"] == "pairs.tsv"
    assert head["data_digests"].keys() == {"task", "task_dev", "alignment"}


def test_units_and_items_choose_chats(files: dict[str, Any]) -> None:
    task = TaskData.model_validate(files["task"] | {"units": ["sw"], "items": 3})
    asked = [item.messages[-1]["content"] for item in load_items(MINI, task, "train")]
    assert asked == [f"Nini {n} ongeza moja?" for n in range(3)]
    assert len(load_items(MINI, task, "validation")) == 3
    without = TaskData.model_validate({**files["task"], "dev": None})
    assert load_items(MINI, without, "validation") == []
    with pytest.raises(InputError, match="has no chats in ja"):
        load_items(MINI, task.model_copy(update={"units": ["ja"]}), "train")


def test_pairs_of_files_in_both_orders(tmp_path: Path) -> None:
    for code, text in (("cy", "Ie.\nNage.\n"), ("en", "Yes.\nNo.\n")):
        (tmp_path / f"x.{code}").write_text(text)
    data = {"cy-en": [str(tmp_path / "x.cy"), str(tmp_path / "x.en")]}
    found = load_pairs(MINI, Alignment(data=data, pairs=["cy-en", "en-cy"]))  # type: ignore[arg-type]
    assert found["cy-en"] == [Pair("cy-en", "Ie.", "Yes."), Pair("cy-en", "Nage.", "No.")]
    assert found["en-cy"] == [Pair("en-cy", "Yes.", "Ie."), Pair("en-cy", "No.", "Nage.")]


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("task", {"train": None}, "name: chats needs train"),
        ("task", {"name": "massive"}, "name: chats needs train"),
        ("task", {"name": "massive", "train": None, "units": ["en"]}, "dev needs name: chats"),
        ("task", {"units": ["deu_Latn"]}, "units must be codes such as de"),
        ("task", {"units": ["xx"]}, "unknown language 'xx'"),
        ("alignment", {"data": "tatoba"}, "did you mean 'tatoeba'"),
        ("alignment", {"data": {"de": "x.tsv"}}, "must be pairs of two languages such as cy-en"),
        ("alignment", {"pairs": ["de-fr"]}, "unknown pair of alignment.data 'de-fr'"),
        ("alignment", {"data": {}}, "alignment.pairs"),
    ],
)
def test_a_wrong_section_is_one_line(
    files: dict[str, Any], section: str, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as error:
        parse_recipe(files | {section: files[section] | change}, "own")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
