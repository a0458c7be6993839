import logging
import shutil

import pytest

from xlt_bench.tasks import lm_eval_yaml as stubs
from xlt_bench.tasks.registry import get_text_task, text_tasks

ASKED = [("massive", "sw"), ("uner", "da")]


@pytest.fixture(scope="module")
def logged(made_up_root, tiny_model, tiny_adapter, tmp_path_factory):
    """The output of `lm_eval --model hf --model_args ...,peft=... --log_samples --output_path`."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    from xlt_bench.models.chat import set_chat_template

    logging.disable(logging.WARNING)
    model = shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(model)
    set_chat_template(tokenizer, "plain")
    tokenizer.save_pretrained(model)
    output = tmp_path_factory.mktemp("lm-eval")
    tracker = EvaluationTracker(output_path=str(output))
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={model},peft={tiny_adapter},dtype=float32,device=cpu",
        tasks=[f"xlt_{task}_{unit}" for task, unit in ASKED],
        task_manager=TaskManager(
            include_path=str(stubs.tasks_dir()),
            include_defaults=False,
            metadata={"data_dir": str(made_up_root)},
        ),
        apply_chat_template=True,
        gen_kwargs={"max_gen_toks": 6},
        log_samples=True,
        bootstrap_iters=0,
        limit=4,
        evaluation_tracker=tracker,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for name in results["configs"]:
        tracker.save_results_samples(task_name=name, samples=samples[name])
    return output, results


@pytest.fixture
def short_answers(monkeypatch):
    for benchmark in map(get_text_task, text_tasks()):
        monkeypatch.setattr(benchmark, "max_new_tokens", 6)


@pytest.fixture
def output(logged, tmp_path, short_answers):
    return shutil.copytree(logged[0], tmp_path / "output")
