"""Tests that a family of lm-eval's tasks gives lm-eval's own prompts, answers and scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lm_eval
import numpy as np
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import xlt_bench
from xlt_bench.errors import InputError
from xlt_bench.results.run_folder import predictions_path, read_predictions
from xlt_bench.store.build import connect
from xlt_bench.tasks import lm_eval_family
from xlt_bench.tasks.lm_eval_family import Family, families, make_task, read_family, stored
from xlt_bench.tasks.registry import get_task

LM_EVAL = Path(lm_eval.__file__).parent / "tasks"
N = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Invented rows in the publishers' layouts: xcopa it, sw; mgsm de, sw."""
    root = tmp_path_factory.mktemp("families")
    for code in ("it", "sw"):
        (root / "xcopa" / "data" / code).mkdir(parents=True)
        rows = [
            {
                "premise": f"The lamp {i} of {code} went out.",
                "choice1": f"Somebody {'slept ' * i}here.",
                "choice2": "The power failed.",
                "question": "cause" if i % 2 else "effect",
                "label": i % 2,
                "idx": i,
                "changed": False,
            }
            for i in range(N + 1)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / "xcopa" / "data" / code / f"test.{code}.jsonl").write_text(text)
    (root / "mgsm").mkdir()
    lines = [f"Anna has {i} books and buys 2. How many?\t{1000 + i:,}" for i in range(N + 1)]
    for code in ("de", "sw"):
        (root / "mgsm" / f"mgsm_{code}.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def runs(root, tiny_model, tiny_adapter, tmp_path_factory):
    """The runs of a bare model and of an adapter."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: xlt_bench.evaluate(
            tiny_model,
            adapter,
            tasks=["xcopa", "mgsm"],
            languages=["it", "sw", "de"],
            limit=N,
            dtype="float32",
            device="cpu",
            data_dir=root,
            output=folder / name,
            progress=False,
        )
        for name, adapter in (("bare", None), ("adapter", tiny_adapter))
    }


def _stock(folder, root, model, **loaded):
    """What lm-eval itself logs of each item, by task; its data are read by `datasets`."""
    rows = [line.split("\t") for line in (root / "mgsm" / "mgsm_de.tsv").read_text().splitlines()]
    text = [
        {"question": q, "answer": None, "answer_number": int(a.replace(",", ""))} for q, a in rows
    ]
    (folder / "de.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text))
    sources = {
        "xcopa_sw": (LM_EVAL / "xcopa/default_sw.yaml", root / "xcopa/data/sw/test.sw.jsonl"),
        "mgsm_de": (LM_EVAL / "mgsm/direct/mgsm_direct_de.yaml", folder / "de.jsonl"),
    }
    for name, (include, data) in sources.items():
        lines = f"include: {include}\ntask: stock_{name}\ndataset_path: json\ndataset_name: null\n"
        lines += "training_split: null\nvalidation_split: null\n"
        (folder / f"{name}.yaml").write_text(
            f"{lines}dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        )
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=4, **loaded),
        tasks=[f"stock_{name}" for name in sources],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        limit=N,
        bootstrap_iters=0,
    )
    return {name: found["samples"][f"stock_{name}"] for name in sources}


@pytest.mark.parametrize("name", ["bare", "adapter"])
def test_items_have_lm_evals_own_results(
    name, runs, root, tiny_model, tiny_adapter, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    loaded = {"peft": str(tiny_adapter)} if name == "adapter" else {}
    stock = _stock(tmp_path, root, tiny_model, **loaded)

    causes = runs[name].items("xcopa", "sw")
    wanted = [[float(ll) for ((ll, _),) in row["resps"]] for row in stock["xcopa_sw"]]
    given = [[ll for ll, _ in json.loads(answer)] for answer in causes.answer]
    np.testing.assert_allclose(given, wanted, rtol=1e-4)
    assert causes.score.tolist() == [100 * row["acc"] for row in stock["xcopa_sw"]]
    assert causes.prompt.tolist() == [row["arguments"][0][0] for row in stock["xcopa_sw"]]

    sums = runs[name].items("mgsm", "de")
    extracted = [row for row in stock["mgsm_de"] if row["filter"] == "flexible-extract"]
    assert len(extracted) == N
    assert sums.answer.tolist() == [row["resps"][0][0] for row in extracted]
    assert sums.score.tolist() == [100 * row["exact_match"] for row in extracted]
    assert sums.prompt.tolist() == [row["arguments"][0][0] for row in extracted]


def test_runs_are_scored_again_and_compared(runs, root, run_cli):
    gains = runs["adapter"].gains(runs["bare"])
    units = gains[gains.kind == "unit"]
    assert set(zip(units.task, units.unit, strict=True)) == {
        ("xcopa", "it"),
        ("xcopa", "sw"),
        ("mgsm", "de"),
        ("mgsm", "sw"),
    }
    code, out, _ = run_cli("score", runs["bare"].folder, "--data-dir", root)
    assert code == 0
    assert "xcopa" in out


def test_a_submission_is_checked_and_has_a_place_of_its_own(runs, root, run_cli, tmp_path):
    for name in ("bare", "adapter"):
        done = run_cli("submit", runs[name].folder, "--data-dir", root, "--submissions", tmp_path)
        assert done[0] == 0, done
    code, out, err = run_cli("submissions", "check", tmp_path, "--data-dir", root)
    assert (code, "2 checked" in out) == (0, True), err
    assert (
        run_cli("leaderboard", "build", "--submissions", tmp_path, "--db", tmp_path / "db")[0] == 0
    )
    with connect(tmp_path / "db") as store:
        found = store.sql(
            "SELECT DISTINCT task, title FROM runs JOIN tasks USING (task)"
        ).fetchall()
        gains = store.sql("SELECT DISTINCT task, unit FROM gains").fetchall()
    assert dict(found) == {
        "xcopa": "Side effects: Causes (XCOPA)",
        "mgsm": "Side effects: Arithmetic (MGSM)",
    }
    assert {("xcopa", "sw"), ("xcopa", "it"), ("mgsm", "de"), ("mgsm", "sw")} <= set(gains)


def test_the_adapter_changes_the_likelihoods(runs):
    bare, adapter = (
        read_predictions(predictions_path(runs[name].folder, "xcopa", "sw"))
        for name in ("bare", "adapter")
    )
    assert all(a.hypothesis != b.hypothesis for a, b in zip(bare, adapter, strict=True))


def test_right_answers_score_100_and_others_0(root):
    causes = get_task("xcopa")
    items = causes.load(root, "sw")[:2]
    right = [stored([(-1.0, False), (-2.0, False)]), stored([(-2.0, False), (-1.0, True)])]
    assert causes.item_scores(causes.count(items, right, causes.test_set())["acc"]).tolist() == [
        100,
        100,
    ]
    for text in ("", "0", "[[1, 0]]", "[[NaN, 0], [1, 0]]", "[" * 100_000, '[["a", 0], [1, 0]]'):
        counts = causes.count(items[:1], [text], causes.test_set())
        assert counts["acc"].tolist() == [[0, 1]], text
    sums = get_task("mgsm")
    items = sums.load(root, "de")[:3]
    answers = [" It is 1000.", "1,001", "1002 and 3"]
    counts = sums.count(items, answers, sums.test_set())
    assert sums.item_scores(counts["exact_match"]).tolist() == [100, 100, 0]


def test_lm_eval_has_the_tasks_of_every_family():
    assert {"belebele", "global_mmlu", "include", "mgsm", "sib200", "xcopa", "xnli", "xquad"} <= (
        families().keys()
    )
    for family in families().values():
        manager = TaskManager(include_path=str(LM_EVAL / family.folder), include_defaults=False)
        names = {family.lm_eval.format(code=code) for code in family.languages.values()}
        assert names <= set(manager.all_tasks), family.name


def test_a_chat_is_that_of_lm_eval(root, tmp_path):
    spec = families()["mgsm"].model_dump() | {"chat": True}
    (item, *_) = make_task(Family(**spec)).load(root, "de")
    plain = get_task("mgsm").load(root, "de")[0]
    assert item.messages == [{"role": "user", "content": plain.user}]


def test_what_a_family_cannot_do_is_said(root, tiny_model, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="needs backend hf"):
        xlt_bench.evaluate(
            "served",
            tasks="xcopa",
            backend="openai",
            model_args={"base_url": "http://localhost:1/v1/chat/completions"},
            data_dir=root,
            output=tmp_path / "a",
        )
    (tmp_path / "odd.yaml").write_text("name: odd\ntitle: Odd\n")
    with pytest.raises(InputError, match="is not a task family: lm_eval: Field required"):
        read_family(tmp_path / "odd.yaml")
    spec = families()["xcopa"].model_dump()
    with pytest.raises(ValueError, match="no language has the code xx"):
        Family(**spec | {"languages": {"xx": "xx"}})
    wrong = make_task(Family(**spec | {"metrics": ["perplexity"]}))
    items = wrong.load(root, "sw")[:1]
    with pytest.raises(InputError, match="perplexity of an item must be a number"):
        wrong.count(items, [stored([(-1.0, False), (-2.0, False)])], wrong.test_set())

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(InputError, match="xnli_de cannot be loaded"):
        get_task("xnli").load(root, "de")
    assert lm_eval_family.family_task("xnli") is get_task("xnli")


def test_a_folder_of_ones_own_has_families_too(tmp_path, root):
    (tmp_path / "own.yaml").write_text(
        "name: own\ntitle: Own\nlm_eval: xcopa_{code}\nfolder: xcopa\nlanguages: {sw: sw}\n"
        "metrics: [acc]\ndata: {files: {test: 'xcopa/data/{code}/test.{code}.jsonl'}}\n"
    )
    code = (
        "import sys; from pathlib import Path; from xlt_bench.tasks.registry import get_task; "
        "print(len(get_task(sys.argv[1]).load(Path(sys.argv[2]), 'sw')))"
    )

    def tried(name):
        environment = os.environ | {lm_eval_family.OWN: str(tmp_path)}
        words = [sys.executable, "-c", code, name, str(root)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)

    assert tried("own").stdout.split()[-1] == str(N + 1)
    (tmp_path / "again.yaml").write_text((tmp_path / "own.yaml").read_text())
    assert "the name own is taken" in tried("own").stderr
