"""Tests counts.parquet: the round trip, and the width of every metric."""

import numpy as np
import pytest

from xlt_bench.evaluation.score import count_answers, count_run
from xlt_bench.results.run_folder import Prediction, read_plan
from xlt_bench.submissions.counts import read_counts, write_counts
from xlt_bench.tasks.registry import get_text_task


@pytest.mark.parametrize(("task", "unit"), [("massive", "de"), ("wmt23", "en-de"), ("uner", "da")])
def test_every_metric_has_its_width(task, unit, make_run, made_up_root, tmp_path):
    plan = read_plan(make_run(tmp_path / "run"))
    items = get_text_task(task).load(made_up_root, unit)
    answers = [Prediction(item.id, item.target, False) for item in items]
    counts = count_answers(made_up_root, plan, task, unit, answers)
    for metric, matrix in counts.items():
        assert matrix.shape == (len(items), get_text_task(task).metric(metric).width), metric
    assert set(counts) <= set(get_text_task(task).metrics)
    assert get_text_task(task).primary in counts


def test_what_is_written_is_read(make_run, made_up_root, tmp_path):
    run = make_run(tmp_path / "run")
    tasks = count_run(read_plan(run), run, made_up_root).tasks
    write_counts(tmp_path / "counts.parquet", tasks)
    found = read_counts(tmp_path / "counts.parquet", read_plan(run))
    assert found.keys() == tasks.keys()
    for task, by_metric in tasks.items():
        assert found[task].keys() == by_metric.keys()
        for metric, by_unit in by_metric.items():
            assert list(found[task][metric]) == list(by_unit)
            for unit, matrix in by_unit.items():
                assert np.array_equal(found[task][metric][unit], matrix)
