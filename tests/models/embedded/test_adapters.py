"""The shipped adapters: each task of the mini suite gives scores that a guess does not."""

import pytest

import xlt_bench
from cases import slow_but
from xlt_bench.models.embedded import MODEL, PAIRS

# At least this much in the languages that the adapters were fine-tuned on, so that a model that
# was replaced by a worse one, or a prompt that it no longer reads, is noticed.
FLOORS = {
    "massive": ("slot_f1", 10.0, ["en", "es"]),
    "wmt23": ("chrf", 3.0, ["de"]),
    "uner": ("entity_f1_text", 2.0, ["en", "pt", "zh"]),
}


@pytest.mark.parametrize("pair", slow_but(PAIRS[:1], PAIRS), ids=lambda pair: pair.task)
def test_supervised_scores_reach_a_floor(pair, tmp_path):
    metric, floor, languages = FLOORS[pair.task]
    for adapter in (pair.baseline, pair.aligned):
        run = xlt_bench.evaluate(
            MODEL, adapter=adapter, tasks=[pair.task], languages=languages,
            limit=4 if pair.task == "wmt23" else 12, data_dir="mini", dtype="float32",
            device="cpu", progress=False, output=tmp_path / adapter.rpartition(":")[2],
        )  # fmt: skip
        values = run.scores().groupby("metric").value.mean()
        assert values[metric] >= floor
        assert values.get("invalid_json", 0) <= 10


def test_every_text_task_of_the_paper_has_adapters():
    assert [pair.task for pair in PAIRS] == ["massive", "wmt23", "uner"]
