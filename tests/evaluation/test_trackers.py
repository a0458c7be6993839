"""What experiment trackers get of a run."""

import sys
from types import ModuleType

import pytest

import xlt_bench
from xlt_bench.errors import InputError
from xlt_bench.evaluation import trackers


@pytest.fixture
def run(make_run, made_up_root, tmp_path):
    return xlt_bench.load_run(make_run(tmp_path / "run", 1, right=0.9), data_dir=made_up_root)


@pytest.fixture
def baseline(make_run, tmp_path):
    return make_run(tmp_path / "baseline", 2, right=0.2)


def _expected(run):
    scores, means = run.scores(), run.means()
    units = zip(scores.task, scores.metric, scores.unit, scores.value, strict=True)
    splits = zip(means.task, means.metric, means.split, means.value, strict=True)
    return {f"{t}/{m}/{u}": v for t, m, u, v in units} | {
        f"{t}/{m}/mean_{s}": v for t, m, s, v in splits
    }


def test_tensorboard_without_a_network(run, baseline):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run.report("tensorboard", baseline=baseline)
    there = EventAccumulator(str(run.folder / "tensorboard"))
    there.Reload()
    for name, value in _expected(run).items():
        assert there.Scalars(name)[0].value == pytest.approx(value, rel=1e-6), name
    curve = {row.step: row.value for row in there.Scalars("retrieval/by_layer")}
    assert curve == pytest.approx(dict(zip(run.layers().layer, run.layers().value, strict=True)))
    gains = run.gains(baseline)
    for row in gains[gains.kind == "unit"].itertuples():
        value = there.Scalars(f"gain/{row.task}/{row.unit}")[0].value
        assert value == pytest.approx(row.gain, rel=1e-5)
    assert "gains/text_summary" in there.Tags()["tensors"]


@pytest.fixture
def recorded(monkeypatch):
    """Trackers that write down how they are called."""
    calls = []

    class Recorder(ModuleType):
        def __getattr__(self, name):
            def call(*args, **kwargs):
                calls.append((name, args, kwargs))
                return self

            return call

        def __enter__(self):
            return self

        def __exit__(self, *_):
            calls.append(("exit", (), {}))

    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, name, Recorder(name))
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    return calls


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio(name, run, baseline, recorded):
    run.report(name, baseline=baseline)
    called = [call for call, _, _ in recorded]
    assert called[0] == "init"
    assert called[-1] == "finish"
    assert recorded[0][2]["project"] == "xlt-bench"
    rows = [args[0] for call, args, _ in recorded if call == "log"]
    curve = {row["layer"]: row["retrieval/by_layer"] for row in rows if "layer" in row}
    assert curve == dict(zip(run.layers().layer, run.layers().value, strict=True))
    (numbers,) = [row for row in rows if "massive/slot_f1/sw" in row]
    assert numbers.items() >= _expected(run).items()
    assert any("gains" in row for row in rows)


def test_mlflow(run, baseline, recorded):
    run.report("mlflow", baseline=baseline)
    (numbers,) = [args[0] for call, args, _ in recorded if call == "log_metrics"]
    assert numbers.items() >= _expected(run).items()
    curve = {kw["step"]: args[1] for call, args, kw in recorded if call == "log_metric"}
    assert curve == dict(zip(run.layers().layer, run.layers().value, strict=True))
    (table,) = [args[0] for call, args, _ in recorded if call == "log_table"]
    assert table["gain"] == run.gains(baseline).gain.tolist()
    assert recorded[-1][0] == "exit"


def test_wandb_offline(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run.report("wandb")
    assert list(tmp_path.rglob("*.wandb"))


def test_a_tracker_that_is_unknown_or_missing_is_one_line(run, monkeypatch):
    with pytest.raises(InputError, match="unknown tracker 'tensorbord': did you mean 'tensorb"):
        run.report("tensorbord")
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install mlflow"):
        run.report("mlflow")
