"""The command in a record, which is published, and the notes on its units."""

import shutil
import sys
from pathlib import Path

import pytest

from xlt_bench.evaluation.build_record import command_line, remarks, without_home
from xlt_bench.evaluation.config import Options, prepare
from xlt_bench.results.run_folder import read_plan, read_record


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "hf_" + "Ab1" * 11], "--model ***"),
        (["--model-args", "base_url=http://h/v1,api_key=s3cr3t x,top=1"],
         "--model-args base_url=http://h/v1,api_key=***,top=1"),
        (["--api-key", "s3cr3t"], "--api-key ***"),
        (["--api-key=s3cr3t"], "--api-key=***"),
        (["--hf-token", "s3cr3t", "--limit", "5"], "--hf-token *** --limit 5"),
        (["--server", "https://ada:p@ss@host:8000/v1"], "--server https://***@host:8000/v1"),
        (["--header", "Authorization: Bearer s3cr3t"], "--header 'Authorization: Bearer ***'"),
        (["--extra", '{"api_key": "s3cr3t", "a": 1}'],
         """--extra '{"api_key": "***", "a": 1}'"""),
        (["--url", "http://h/?access_key=s3cr3t&x=1"], "--url 'http://h/?access_key=***&x=1'"),
    ],
)  # fmt: skip
def test_secrets_are_masked(words, told, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/xlt-bench", "evaluate", *words])
    assert command_line() == f"xlt-bench evaluate {told}"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/srv/ada/base/m", "~/base/m"),
        ("/srv/ada", "~"),
        ("/srv/adamant/m", "/srv/adamant/m"),
        ("../../srv/ada/m", "../../srv/ada/m"),
        ("/home/grace/m", "/home/***/m"),
        ("../../home/grace/m", "../../home/***/m"),
        ("/Users/grace", "/Users/***"),
        ("/homes/m", "/homes/m"),
    ],
)
def test_home_folders_are_not_told(path, told, monkeypatch):
    monkeypatch.setenv("HOME", "/srv/ada")
    assert without_home(f"--model {path} --adapter={path}") == f"--model {told} --adapter={told}"
    assert without_home(f'{{"name": "{path}"}}') == f'{{"name": "{told}"}}'


def test_a_user_without_a_home_folder_has_a_record(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 987_654)  # who is not in /etc/passwd
    with pytest.raises(RuntimeError):
        Path.home()
    assert without_home("--model /home/ada/m") == "--model /home/***/m"


def test_what_is_no_secret_stays(monkeypatch):
    words = "evaluate --model org/name@main --chat-template tokenizer --max-tokens 5 --adapter a"
    monkeypatch.setattr(sys, "argv", ["xlt-bench", *words.split()])
    assert command_line() == f"xlt-bench {words}"


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
