"""The real COMET on a small checkpoint with random weights: our scores are COMET's own."""

import json
import subprocess
from pathlib import Path

import pytest

from xlt_bench.data.root import MINI
from xlt_bench.errors import InputError
from xlt_bench.evaluation.comet.environment import clean_environ, find_python
from xlt_bench.evaluation.comet.score import score_segments
from xlt_bench.evaluation.comet.stored import segments_path
from xlt_bench.evaluation.predict import untracked
from xlt_bench.results.run_folder import (
    Prediction,
    predictions_path,
    read_predictions,
    write_predictions,
)
from xlt_bench.tasks.registry import get_text_task

SCRIPT = Path(__file__).with_name("tiny_checkpoint.py")


@pytest.fixture(scope="module")
def script():
    """Runs tiny_checkpoint.py in COMET's environment."""
    try:
        python = find_python()
    except InputError as error:
        pytest.skip(f"needs COMET's environment: {error}")

    def run(*argv):
        command = [str(python), "-I", str(SCRIPT), *map(str, argv)]
        done = subprocess.run(command, capture_output=True, text=True, env=clean_environ())
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def checkpoint(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comet") / "tiny"
    folder.mkdir()
    script("make", folder)
    return folder


def test_scores_are_those_of_comet(script, checkpoint, make_run, tmp_path):
    units = ["de-en", "en-ja"]
    run = make_run(tmp_path / "run", units={"wmt23": units}, root=MINI)
    for unit in units:
        items = get_text_task("wmt23").load(MINI, unit)
        # Empty, padded, copied, right, in part right.
        texts = ["", f"  {items[1].user}\n", items[2].user, items[3].target, items[4].target[:9]]
        texts += [item.target[::-1] for item in items[5:]]
        answers = [Prediction(i.id, text, False) for i, text in zip(items, texts, strict=True)]
        write_predictions(predictions_path(run, "wmt23", unit), answers)
    done = []

    def track(name, total):
        done.append((name, total))
        return untracked(name, total)

    score_segments(run, MINI, str(checkpoint), track)
    for unit in units:
        items = get_text_task("wmt23").load(MINI, unit)
        answers = read_predictions(predictions_path(run, "wmt23", unit))
        segments = [
            {"src": item.user, "mt": answer.hypothesis.strip(), "ref": item.gold}
            for item, answer in zip(items, answers, strict=True)
        ]
        path = tmp_path / f"{unit}.json"
        path.write_text(json.dumps(segments))
        wanted = json.loads(script("direct", checkpoint, path))
        found = json.loads(segments_path(run, unit).read_bytes())
        assert found["scores"] == pytest.approx(wanted, abs=1e-6)
        assert len(set(wanted)) > len(wanted) / 2
        assert len(found["sha256"]) == 64
    assert done == [("comet checkpoint", 1), ("comet de-en", 20), ("comet en-ja", 20)]
    score_segments(run, MINI, str(checkpoint), track)
    assert done[3:] == [("comet checkpoint", 1)]
