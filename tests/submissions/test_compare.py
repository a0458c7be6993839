"""Tests `xlt-bench compare`: gains of runs and submissions, and what is not compared."""

import csv
import io
import json
import shutil
from dataclasses import replace

import pytest

from xlt_bench.errors import InputError
from xlt_bench.results.run_folder import read_record
from xlt_bench.store.build import build, connect
from xlt_bench.submissions.compare import compare_systems, load_system
from xlt_bench.submissions.create import About, submit


@pytest.fixture(scope="module")
def runs(make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "bare", 0, right=0.2)
    make_run(folder / "lora", 1, right=0.9, adapter="lora")
    make_run(folder / "limited", 2, limit=3)
    make_run(folder / "other", 3, model="large")
    two = {"retrieval": ["de", "sw"]}
    make_run(folder / "two languages", 5, units=two, layers=(2, 4))
    make_run(folder / "one layer", 6, units={"retrieval": ["de", "en", "sw"]}, layers=(2,))
    make_run(folder / "part", 4, units={"massive": ["de"], "uner": ["da"]})
    return folder


def scores(run, metric):
    record = read_record(run)
    return {row.unit: row.value for row in record.results.scores if row.metric == metric}


def compare(runs, root, system="lora", baseline="bare"):
    systems = [load_system(str(runs / name), runs, root) for name in (system, baseline)]
    return compare_systems(*systems)


def test_gains_are_differences_of_the_records(runs, made_up_root):
    found, notes = compare(runs, made_up_root)
    assert notes == []
    metrics = ["slot_f1", "bleu", "entity_f1", "retrieval_accuracy"]
    assert [one.metric for one in found] == metrics
    for one in found:
        ours, theirs = (scores(runs / name, one.metric) for name in ("lora", "bare"))
        assert [unit.unit for unit in one.units] == list(ours)
        for unit in one.units:
            difference = ours[unit.unit] - theirs[unit.unit]
            assert unit.gain.value == pytest.approx(difference)
            assert unit.gain.low <= unit.gain.high
            assert unit.aligned == (unit.unit == "sw")
        mean = next(mean for mean in one.means if mean.split == "all")
        assert mean.gain.value == pytest.approx(sum(u.gain.value for u in one.units) / len(ours))
        assert mean.units == tuple(ours)
    aligned = next(mean for mean in found[0].means if mean.split == "aligned")
    assert aligned.units == ("sw",)


def test_a_submission_is_compared_as_its_run_is_and_without_the_test_sets(
    runs, made_up_root, tmp_path
):
    folder = tmp_path / "submissions"
    ids = [
        submit(runs / name, About(), folder, made_up_root).folder.name for name in ("lora", "bare")
    ]
    nowhere = tmp_path / "no data"
    found = compare_systems(*(load_system(name, folder, nowhere) for name in ids))
    assert found == compare(runs, made_up_root)


def test_what_cannot_be_compared_is_noted(runs, made_up_root, tmp_path):
    _, notes = compare(runs, made_up_root, "lora", "other")
    assert notes == ["the base models differ, so a gain is not the effect of an adapter"]
    with pytest.raises(InputError, match=r"massive is left out: the limits differ \(None and 3\)"):
        compare(runs, made_up_root, "lora", "limited")
    found, notes = compare(runs, made_up_root, "lora", "part")
    assert [one.task for one in found] == ["massive", "uner"]
    assert notes == ["massive: only one of the two has sw; left out of the means"]
    assert [mean.units for mean in found[0].means] == [("de",), ("de",)]
    with pytest.raises(InputError, match="neither a finished run nor a submission"):
        load_system("nothing", runs, made_up_root)


@pytest.mark.parametrize("other", ["two languages", "one layer"])
def test_retrieval_over_other_languages_or_layers_is_not_compared(
    runs, made_up_root, tmp_path, other
):
    """The accuracy of a language is a mean over pairs and layers, which must be the same."""
    with pytest.raises(InputError, match=r"languages or even layers of retrieval/.* differ"):
        compare(runs, made_up_root, "lora", other)
    folder = tmp_path / "submissions"
    for name in ("lora", other):
        submit(runs / name, About(), folder, made_up_root)
    build(folder, tmp_path / "db")
    with connect(tmp_path / "db") as store:
        for view in ("gains", "significance", "gain_means"):
            rows = store.execute(f"SELECT count(*) FROM {view} WHERE task = 'retrieval'").fetchone()
            assert rows == (0,)


def test_differences_other_than_the_adapter_are_noted(runs, made_up_root):
    ours, theirs = (load_system(str(runs / n), runs, made_up_root) for n in ("lora", "bare"))
    halved = theirs.plan.model_copy(update={"dtype": "bfloat16", "backend": "vllm"})
    _, notes = compare_systems(ours, replace(theirs, plan=halved))
    assert notes == [
        f"the two also differ in dtype: {ours.plan.dtype} and bfloat16",
        "the two also differ in backend: hf and vllm",
    ]


def test_other_items_are_not_compared(runs, made_up_root, tmp_path):
    other = shutil.copytree(runs / "bare", tmp_path / "bare")
    record = json.loads((other / "record.json").read_text())
    record["data_digests"]["uner/da"] = "0" * 16
    (other / "record.json").write_text(json.dumps(record))
    systems = [load_system(str(path), runs, made_up_root) for path in (runs / "lora", other)]
    found, notes = compare_systems(*systems)
    assert "uner" not in [one.task for one in found]
    assert notes == ["uner is left out: the items of uner/da differ"]


def test_the_command_prints_every_format(runs, made_up_root, run_cli):
    both = ("compare", runs / "lora", runs / "bare", "--data-dir", made_up_root)
    code, out, _ = run_cli(*both)
    assert code == 0
    assert "massive slot_f1" in out
    assert "p (Holm)" in out
    assert "mean of 2" in out
    code, out, _ = run_cli(*both, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    (da,) = [row for row in rows if row["unit"] == "da"]
    ours, theirs = (scores(runs / name, "entity_f1")["da"] for name in ("lora", "bare"))
    assert float(da["gain"]) == pytest.approx(ours - theirs, abs=1e-5)
    assert da["significant"] == ("yes" if float(da["p_holm"]) < 0.05 else "no")
    assert float(da["p"]) <= float(da["p_holm"])
    for form, mark in (("md", "|---|"), ("latex", r"\begin{tabular}")):
        code, out, _ = run_cli(*both, "--format", form)
        assert (code, mark in out) == (0, True)
    code, _, err = run_cli(*both, "--format", "html")
    assert (code, err.count("\n")) == (2, 1)


def test_the_commands_of_the_leaderboard(runs, made_up_root, tmp_path, monkeypatch, run_cli):
    monkeypatch.chdir(tmp_path)
    data = ("--data-dir", made_up_root)
    code, out, _ = run_cli("submit", runs / "bare", "--name", "x", *data)
    assert (code, "git add submissions/base-" in out) == (0, True)
    assert "massive is partial and will not be ranked; missing: af" in out
    code, out, _ = run_cli("submit", runs / "bare", *data)
    assert (code, out.startswith("nothing written: ")) == (0, True)
    code, out, _ = run_cli("submissions", "check", *data)
    assert (code, out.endswith("1 checked\n")) == (0, True)
    code, _, err = run_cli("submissions", "check", "--data-dir", tmp_path / "none")
    assert (code, "not fully checked" in err) == (3, True)
    code, out, _ = run_cli("leaderboard", "build")
    assert (code, out) == (0, "1 submissions in build/leaderboard.duckdb\n")
    code, out, _ = run_cli("leaderboard", "export", "--format", "md")
    assert (code, out) == (0, "build/export/leaderboard.md\n")
    (tmp_path / "submissions" / "stray").mkdir()
    code, _, err = run_cli("submissions", "check", *data)
    assert (code, "stray: refused" in err) == (1, True)
    code, _, err = run_cli("leaderboard", "build")
    assert (code, "stray: left out" in err) == (1, True)
    code, _, err = run_cli("submit", tmp_path / "nothing", *data)
    assert (code, err.count("\n")) == (2, 1)
