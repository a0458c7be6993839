"""Retrieval in FLORES devtest and NTREX-128: as tasks of their own, beside FLORES dev."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from xlt_bench.evaluation.build_record import _notes
from xlt_bench.results.run_folder import read_record
from xlt_bench.store.build import build, connect
from xlt_bench.submissions.create import About, submit
from xlt_bench.tasks.registry import BY_DEFAULT, get_task
from xlt_bench.training.overlap import holds_flores, overlaps

NTREX = "ntrex/NTREX-128/newstest2019-{}.txt"
SIDES = {"en": "src.eng", "de": "ref.deu", "sw": "ref.swa"}
LAYER, LIMIT = 2, 20


@pytest.fixture(scope="module")
def root(made_up_root, tmp_path_factory):
    """The made-up data, with other sentences in devtest and, in English and German alike, NTREX."""
    root = shutil.copytree(made_up_root, tmp_path_factory.mktemp("corpora") / "data")
    folder = root / "flores200_dataset" / "devtest"
    folder.mkdir()
    for code in ("deu_Latn", "eng_Latn", "swh_Latn"):
        lines = "".join(f"{code} devtest, line {i}\n" for i in range(8))
        (folder / f"{code}.devtest").write_text(lines)
    for code, side in SIDES.items():
        path = root / NTREX.format(side)
        path.parent.mkdir(parents=True, exist_ok=True)
        named = "sw" if code == "sw" else "one"
        path.write_text("".join(f"{named} news {i * i} of {i}\r\n" for i in range(8)), newline="")
    return root


def states(sentences):
    """Mean states at a layer, by transformers alone: (n, d), float64."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from xlt_bench.models.embedded import NAMES

    model = AutoModelForCausalLM.from_pretrained(NAMES["embedded"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(NAMES["embedded"])
    with torch.no_grad():
        found = [
            model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            for text in sentences
        ]
    return np.stack([one.hidden_states[LAYER][0].double().mean(dim=0).numpy() for one in found])


def accuracy(x, y, k=4):
    """Percent of rows of x that retrieve their row of y: Artetxe and Schwenk's ratio margin."""
    x, y = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, y))
    cosines = x @ y.T
    near_x = np.sort(cosines, axis=1)[:, -k:].mean(axis=1)
    near_y = np.sort(cosines, axis=0)[-k:].mean(axis=0)
    scores = cosines / ((near_x[:, None] + near_y) / 2)
    hits = 0
    for i in range(len(x)):
        candidates = np.argsort(-cosines[i], kind="stable")[:k]
        hits += candidates[np.argmax(scores[i, candidates])] == i
    return 100 * hits / len(x)


@pytest.mark.slow
def test_ntrex_from_the_files_to_the_board(data_dir, tmp_path, run_cli):
    """The accuracies are those of the publisher's files, and every command takes the run."""
    if not (data_dir / "ntrex").is_dir():
        pytest.skip("NTREX-128 is missing")

    def cli(*words):
        code, out, err = run_cli(*words)
        assert code == 0, out + err
        return out

    asked = ["--model", "embedded", "--tasks", "retrieval-ntrex", "--languages", "de,en,sw"]
    asked += ["--layers", LAYER, "--limit", LIMIT, "--data-dir", data_dir, "--device", "cpu"]
    cli("evaluate", *asked, "--output", tmp_path / "bare")
    adapter = ["--adapter", "embedded:massive-aligned"]
    cli("evaluate", *asked, *adapter, "--output", tmp_path / "aligned")
    lines = {
        code: (data_dir / NTREX.format(side)).read_bytes().decode().split("\r\n")[:LIMIT]
        for code, side in SIDES.items()
    }
    ours = {code: states(texts) for code, texts in lines.items()}
    table = pq.read_table(tmp_path / "bare" / "retrieval" / f"layer-{LAYER:03d}.parquet")
    stated = {(r["source"], r["target"]): r["accuracy"] for r in table.to_pylist()}
    assert stated == {(a, b): accuracy(ours[a], ours[b]) for a in SIDES for b in SIDES if a != b}
    assert len(set(stated.values())) > 1
    record = read_record(tmp_path / "bare")
    assert record.results.layers[0].value == pytest.approx(np.mean([*stated.values()]))
    assert "retrieval-ntrex" in cli("score", tmp_path / "bare", "--data-dir", data_dir)
    assert "retrieval-ntrex" in cli("compare", tmp_path / "aligned", tmp_path / "bare")
    board = tmp_path / "submissions"
    for name in ("bare", "aligned"):
        given = ("--submissions", board, "--data-dir", data_dir, "--name", name)
        cli("submit", tmp_path / name, *given)
    folders = sorted(path for path in board.iterdir() if path.is_dir())
    cli("submissions", "check", *folders, "--data-dir", data_dir)
    cli("leaderboard", "build", "--submissions", board, "--db", tmp_path / "db")
    with connect(tmp_path / "db") as store:
        rows = store.execute(
            "SELECT name, version, count(DISTINCT unit), any_value(n) FROM scores "
            "WHERE task = 'retrieval-ntrex' AND ranked GROUP BY ALL ORDER BY name"
        ).fetchall()
        assert rows == [("aligned", 1, 3, LIMIT), ("bare", 1, 3, LIMIT)]
        gains = "SELECT count(*) FROM significance WHERE task = 'retrieval-ntrex'"
        assert store.execute(gains).fetchall() == [(3,)]


@pytest.mark.parametrize("task", ["retrieval-devtest", "retrieval-ntrex"])
def test_a_corpus_that_is_not_there_is_told_in_one_line(task, tmp_path, run_cli):
    asked = ["--model", "embedded", "--output", tmp_path / "run", "--data-dir", "mini"]
    assert task not in BY_DEFAULT
    code, _, err = run_cli("evaluate", *asked, "--tasks", task)
    assert (code, err.strip()) == (2, f"error: {task} has no data in the mini suite")
    code, _, err = run_cli("evaluate", *asked, "--tasks", f"{task},retrieval")
    assert code == 2
    assert f"give {task} and retrieval an evaluation with another --output each" in err
    assert not (tmp_path / "run").exists()


def test_javanese_is_not_in_ntrex_and_is_left_out():
    dev, devtest, ntrex = (
        list(get_task(name).test_set().units)
        for name in ("retrieval", "retrieval-devtest", "retrieval-ntrex")
    )
    assert devtest == dev
    assert ntrex == [code for code in dev if code != "jv"]
    assert get_task("retrieval-ntrex").choose(["jv", "sw"]) == ["sw"]


def test_runs_of_two_corpora_are_not_joined(root, make_run, tmp_path, run_cli):
    runs = [
        make_run(tmp_path / name, units={name: ["de", "en"]}, root=root)
        for name in ("retrieval", "retrieval-devtest")
    ]
    code, _, err = run_cli("join", *runs, "--output", tmp_path / "both", "--data-dir", root)
    assert code == 2
    assert "a run has one task of retrieval" in err
    assert not (tmp_path / "both").exists()


def test_only_flores_dev_is_inflated_for_what_was_trained_on_it(root, make_run, tmp_path):
    told = {}
    for name in ("retrieval", "retrieval-devtest", "retrieval-ntrex"):
        units = {name: ["de", "en", "sw"]}
        run = make_run(
            tmp_path / name, units=units, root=root, adapter="lora", trained_on_flores=True
        )
        record = read_record(run)
        told[name] = any("inflated" in note for note in _notes(record.plan, record.adapter))
    assert told == {"retrieval": True, "retrieval-devtest": False, "retrieval-ntrex": False}


def test_overlap_is_counted_in_each_corpus(root):
    """A training text with sentences of one corpus is not said to hold another."""
    texts = {name: get_task(name).load(root, "de") for name in ("retrieval", "retrieval-devtest")}
    found = overlaps(root, [("de", text) for text in texts["retrieval-devtest"]])
    assert (found["retrieval-devtest/de"], found["retrieval/de"]) == (8, 0)
    assert not holds_flores(found)
    assert overlaps(root, [("de", text) for text in texts["retrieval"]])["retrieval/de"] == 8


def test_scores_are_held_against_retrieval_in_one_corpus(root, make_run, tmp_path, accept):
    """The bare model's states are those of the corpus in which the adapter was evaluated."""

    def add(name, seed, pairing, **options):
        units = {"massive": ["de", "sw"], pairing: ["de", "en", "sw"]}
        run = make_run(tmp_path / name, seed, units=units, root=root, **options)
        return submit(run, About(name=name), tmp_path / "board", root).folder.name

    names = [add("bare dev", 0, "retrieval"), add("bare news", 0, "retrieval-ntrex")]
    accept(tmp_path / "board", *names)
    for seed, task in enumerate(("retrieval", "retrieval-devtest", "retrieval-ntrex"), start=1):
        add(f"tuned {task}", seed, task, adapter=f"lora-{seed}")
    built = build(tmp_path / "board", tmp_path / "db")
    assert not built.refused
    with connect(tmp_path / "db") as store:
        bare = store.execute(
            "SELECT s.name, b.name FROM submissions s LEFT JOIN submissions b ON b.number = s.bare "
            "WHERE s.adapter IS NOT NULL ORDER BY s.name"
        ).fetchall()
        points = store.execute(
            "SELECT DISTINCT s.name, retrieval_task FROM transfer_points p "
            "JOIN submissions s ON s.id = p.submission WHERE s.adapter IS NOT NULL ORDER BY s.name"
        ).fetchall()
        marked = store.execute("SELECT task FROM tasks WHERE on_flores_dev").fetchall()
    assert bare == [
        ("tuned retrieval", "bare dev"),
        ("tuned retrieval-devtest", None),
        ("tuned retrieval-ntrex", "bare news"),
    ]
    assert points == [(f"tuned {task}", task) for _, task in sorted(points)]
    assert marked == [("retrieval",)]


def test_a_record_with_two_corpora_is_refused(root, make_run, tmp_path, edit, run_cli):
    run = make_run(tmp_path / "run", units={"retrieval": ["de", "en"]}, root=root)
    folder = submit(run, About(name="one"), tmp_path / "board", root).folder

    def add(record):
        record["plan"]["units"]["retrieval-ntrex"] = ["de", "en"]
        record["plan"]["task_versions"]["retrieval-ntrex"] = 1

    edit(folder / "record.json", add)
    code, out, err = run_cli("submissions", "check", folder, "--data-dir", root)
    assert code != 0
    assert "retrieval and retrieval-ntrex cannot be in one run" in out + err


def test_plain_lm_eval_answers_each_corpus_with_its_own_sentences(root, tiny_model):
    import lm_eval
    from lm_eval.tasks import TaskManager

    from xlt_bench.models.lm import XltLM
    from xlt_bench.models.load import load_base
    from xlt_bench.tasks import lm_eval_yaml

    base = load_base(str(tiny_model), "float32", "cpu")
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=4)
    given = {"data_dir": str(root), "languages": ["de", "en"], "layers": [2]}
    folder = str(lm_eval_yaml.tasks_dir())
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=["xlt_retrieval", "xlt_retrieval-ntrex"],
        task_manager=TaskManager(include_path=folder, include_defaults=False, metadata=given),
        bootstrap_iters=0,
    )["results"]
    # NTREX's sentences are here the same in both languages, those of FLORES dev are not.
    assert found["xlt_retrieval-ntrex"]["retrieval_accuracy,none"] == 100
    assert found["xlt_retrieval"]["retrieval_accuracy,none"] < 100
