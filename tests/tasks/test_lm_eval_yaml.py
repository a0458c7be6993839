"""The lm-eval tasks: not drifted, all load, and plain lm-eval gives our scores."""

import logging

import pytest
import yaml

from xlt_bench.tasks import lm_eval_yaml as stubs
from xlt_bench.tasks.registry import BUILT_IN, get_task, get_text_task, text_tasks


@pytest.fixture(scope="module")
def manager_of():
    from lm_eval.tasks import TaskManager

    def make(**metadata):
        return TaskManager(
            include_path=str(stubs.tasks_dir()), include_defaults=False, metadata=metadata
        )

    return make


def test_task_files_are_as_the_language_table_says():
    assert stubs.drifted(stubs.tasks_dir()) == []


def test_drift_is_seen(tmp_path):
    stubs.write(tmp_path)
    (tmp_path / "massive" / "xlt_massive_sw.yaml").write_text("task: other\n")
    (tmp_path / "uner" / "xlt_uner_da.yaml").unlink()
    (tmp_path / "uner" / "xlt_uner_xx.yaml").write_text("task: xlt_uner_xx\n")
    assert stubs.drifted(tmp_path) == [
        "massive/xlt_massive_sw.yaml",
        "uner/xlt_uner_da.yaml",
        "uner/xlt_uner_xx.yaml",
    ]
    stubs.write(tmp_path)
    assert stubs.drifted(tmp_path) == []


def test_every_file_resolves_and_is_indexed(manager_of):
    """lm-eval skips broken YAML in silence, so every file is loaded here, functions resolved."""
    from lm_eval.tasks._yaml_loader import load_yaml

    names = set()
    for path in stubs.tasks_dir().glob("*/*.yaml"):
        config = load_yaml(path)
        names |= {config["task"]} if isinstance(config.get("task"), str) else set()
        names |= {config["group"]} if "group" in config else set()
    index = manager_of()
    assert names == set(index.all_tasks)
    ranked = {task.name: len(task.test_set().units) for task in BUILT_IN}
    whole = [task.name for task in BUILT_IN if task.answers == "neighbours"]
    units = sum(number for name, number in ranked.items() if name not in whole)
    assert len(index.all_subtasks) == units + len(whole)
    assert set(index.all_groups) == {
        f"xlt_{family}{end}" for family in text_tasks() for end in ("", "_supervised", "_transfer")
    }


def test_groups_cover_each_unit_once():
    for family in text_tasks():
        folder = stubs.tasks_dir() / family
        members = [
            task
            for setting in ("supervised", "transfer")
            for task in yaml.safe_load((folder / f"xlt_{family}_{setting}.yaml").read_text())[
                "task"
            ]
        ]
        assert sorted(members) == sorted(
            f"xlt_{family}_{unit}" for unit in get_task(family).test_set().units
        )


@pytest.mark.parametrize("unit", ["massive sw", "uner da", "wmt23 en-de", "intents sw"])
def test_plain_lm_eval_gives_our_prompts_and_scores(
    unit, made_up_root, tiny_model, manager_of, monkeypatch
):
    """Stock `hf` through simple_evaluate, against our LM and our counting, on the same items."""
    import lm_eval
    from transformers import AutoTokenizer

    family, code = unit.split()
    task = f"xlt_{family}_{code}"

    from xlt_bench.models.chat import set_chat_template
    from xlt_bench.models.lm import XltLM
    from xlt_bench.models.load import load_base

    logging.disable(logging.WARNING)
    base = load_base(str(tiny_model), "float32", "cpu")
    set_chat_template(base.tokenizer, "plain")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    set_chat_template(tokenizer, "plain")
    stock = lm_eval.models.huggingface.HFLM(
        pretrained=base.model, tokenizer=tokenizer, batch_size=2
    )
    manager = manager_of(data_dir=str(made_up_root))
    generated = {"until": [], "do_sample": False, "max_gen_toks": 12}
    results = lm_eval.simple_evaluate(
        model=stock,
        tasks=[task],
        task_manager=manager,
        apply_chat_template=True,
        gen_kwargs=generated,
        log_samples=True,
        bootstrap_iters=0,
    )
    benchmark = get_text_task(family)
    items = benchmark.load(made_up_root, code)
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=2)
    prompts = [lm.apply_chat_template(item.messages) for item in items]
    answers = [answer.text for answer in lm.generate(prompts, 12)]
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    assert [sample["arguments"][0][0] for sample in samples] == prompts
    assert [sample["filtered_resps"][0] for sample in samples] == answers
    for metric, matrix in benchmark.count(items, answers, benchmark.test_set()).items():
        assert results["results"][task][f"{metric},none"] == pytest.approx(
            benchmark.metrics[metric](matrix)
        )


def test_retrieval_is_an_lm_eval_task(made_up_root, tiny_model, manager_of):
    import lm_eval

    from xlt_bench.models.lm import XltLM
    from xlt_bench.models.load import load_base

    base = load_base(str(tiny_model), "float32", "cpu")
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=4)
    manager = manager_of(data_dir=str(made_up_root), languages=["de", "en", "sw"], layers=[1, 2, 4])
    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=["xlt_retrieval"],
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,
    )
    scores = results["results"]["xlt_retrieval"]
    samples = results["samples"]["xlt_retrieval"]
    assert len(samples) == 6
    pairs = [sample["accuracy_layer_2"] for sample in samples]
    assert scores["accuracy_layer_2,none"] == pytest.approx(sum(pairs) / 6)
    even = (scores["accuracy_layer_2,none"] + scores["accuracy_layer_4,none"]) / 2
    assert scores["retrieval_accuracy,none"] == pytest.approx(even)
