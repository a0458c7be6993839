"""The notes of a record on its units."""

import shutil

import pytest

from xlt_bench.evaluation.build_record import remarks
from xlt_bench.evaluation.config import Options, prepare
from xlt_bench.results.run_folder import read_plan, read_record

FEW = "ith fewer than two ranked languages, accuracies are over the pairs of all languages"


@pytest.mark.parametrize(("units", "few"), [(["en", "yo"], True), (["de", "en", "yo"], False)])
def test_readers_learn_which_pairs_count_in_retrieval(
    units, few, made_up_root, make_run, tmp_path, run_cli
):
    root = shutil.copytree(made_up_root, tmp_path / "data")
    dev = root / "flores200_dataset" / "dev"
    shutil.copy(dev / "swh_Latn.dev", dev / "yor_Latn.dev")
    run = make_run(tmp_path / "run", units={"retrieval": units}, root=root)
    options = Options(
        model="embedded", tasks=["retrieval"], languages=units, data_dir=str(root), output=run
    )
    notes = remarks(prepare(options), read_plan(run), read_record(run).data_digests)
    assert f"yo beyond the ranked set of version 1{f'; w{FEW}' if few else ', so in no mean'}" in (
        "; ".join(notes)
    )
    code, out, _ = run_cli("score", run, "--data-dir", root)
    assert (code, f"W{FEW}." in " ".join(out.split())) == (0, few), out
    assert "Beyond the ranked set, and in no mean: yo" in out
