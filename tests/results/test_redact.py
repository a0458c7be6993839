"""Records are published, so they keep no secrets, folders or inner addresses."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_bench.models.model_args import answer_settings
from xlt_bench.results.redact import (
    command_line,
    reduced,
    reduced_command,
    without_home,
    without_secrets,
)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "hf_" + "Ab1" * 11], "--model ***"),
        (["--model-args", "base_url=http://h/v1,api_key=s3cr3t x,top=1"],
         "--model-args base_url=http://***/v1,api_key=***,top=1"),
        (["--api-key", "s3cr3t"], "--api-key ***"),
        (["--api-key=s3cr3t"], "--api-key=***"),
        (["--hf-token", "s3cr3t", "--limit", "5"], "--hf-token *** --limit 5"),
        (["--server", "https://ada:p@ss@host:8000/v1"], "--server https://***@***/v1"),
        (["--header", "Authorization: Bearer s3cr3t"], "--header 'Authorization: Bearer ***'"),
        (["--extra", '{"api_key": "s3cr3t", "a": 1}'],
         """--extra '{"api_key": "***", "a": 1}'"""),
        (["--header", "Authorization: Basic czNjcjN0"], "--header 'Authorization: Basic ***'"),
        (["--model-args", '{"header": {"Authorization": "Basic czNjcjN0", "Cookie": "a=b, c"}}'],
         """--model-args '{"header": {"Authorization": "***", "Cookie": "***"}}'"""),
        (["--extra", '{"api_key": "s3cr3t},x", "pwd": "a", "credentials": "b"}'],
         """--extra '{"api_key": "***", "pwd": "***", "credentials": "***"}'"""),
        (["--url", "http://h/?access_key=s3cr3t&x=1"], "--url 'http://***/?access_key=***&x=1'"),
    ],
)  # fmt: skip
def test_secrets_are_masked(words, told, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/xlt-bench", "evaluate", *words])
    assert command_line() == f"xlt-bench evaluate {told}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("403 for url 'https://cdn.example.org/a?X-Amz-Signature=s3cr3t&Expires=1'",
         "403 for url 'https://cdn.example.org/a'"),
        ("cannot reach s3://key:s3cr3t@bucket/a#b: refused", "cannot reach s3://bucket/a refused"),
        (f"illegal header b'Bearer hf_{'Ab1' * 11}'", "illegal header b'Bearer ***'"),
        ("peer closed connection", "peer closed connection"),
    ],
)  # fmt: skip
def test_secrets_in_an_error_of_a_server(text, told):
    assert without_secrets(text) == told


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--model /lustre/users/ada/models/llama", "--model llama"),
        ("--model=/lustre/users/ada/models/llama/", "--model=llama"),
        ("--model '/scratch/ada b/my model'", "--model 'my model'"),
        ("--adapter runs/secret-project/lora", "--adapter lora"),
        ("--adapter org/name@main", "--adapter org/name@main"),
        ("--output runs/x --corpus ../ntrex", "--output x --corpus ntrex"),
        ("--output ~/x --data-dir ~", "--output x --data-dir ~"),
        ("--output /home/ada", "--output ***"),
        ("--set task.corpora=/data/ada/c,b", "--set task.corpora=c,b"),
        ("--model-args base_url=http://10.1.2.3:8000/v1,seed=1",
         "--model-args base_url=http://***/v1,seed=1"),
        ("--model-args base_url=http://gpu7.cluster.internal/v1",
         "--model-args base_url=http://***/v1"),
        ("--model-args base_url=https://api.openai.com/v1",
         "--model-args base_url=https://api.openai.com/v1"),
        ("""--model-args '{"download_dir": "/lustre/ada/hub"}'""",
         """--model-args '{"download_dir": "hub"}'"""),
        (r"--model 'C:\Users\ada\m'", "--model m"),
        ("--languages de,sw --limit 5", "--languages de,sw --limit 5"),
    ],
)  # fmt: skip
def test_folders_and_inner_addresses_are_not_told(words, told, monkeypatch):
    assert reduced_command(f"xlt-bench evaluate {words}") == f"xlt-bench evaluate {told}"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/xlt-bench", "evaluate", *shlex.split(words)])
    assert command_line() == f"xlt-bench evaluate {told}"


def test_the_runs_of_a_join_are_paths():
    found = reduced_command("xlt-bench join /work/out/massive/a ret/a --output /work/out/j")
    assert found == "xlt-bench join a a --output j"


def test_a_relative_folder_is_told_from_a_hub_name_if_it_exists(tmp_path, monkeypatch):
    (tmp_path / "ada" / "llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    words = ["xlt-bench", "evaluate", "--model", "ada/llama", "--adapter", "ada/other"]
    monkeypatch.setattr(sys, "argv", words)
    assert command_line() == "xlt-bench evaluate --model llama --adapter ada/other"


def test_a_command_in_a_note():
    note = "joined from 2 runs; command of the first: xlt-bench evaluate --output /a/b/c --limit 3"
    told = "joined from 2 runs; command of the first: xlt-bench evaluate --output c --limit 3"
    assert reduced(note) == told
    assert reduced("read /data/ada/notes.txt, then 24/7 and/or n/a") == (
        "read notes.txt, then 24/7 and/or n/a"
    )


@given(st.lists(st.text("ab/~.=,:-*' {}", max_size=12), max_size=4))
def test_what_is_reduced_stays_as_it_is(words):
    once = reduced_command(shlex.join(["xlt-bench", "evaluate", *words]))
    assert reduced_command(once) == once


def test_a_plan_keeps_no_secret_of_its_model_args():
    """It is published; vLLM takes a token, and some gateways a key among the extra fields."""
    given = "download_dir=/x,hf_token=s3cr3t,seed=1"
    assert answer_settings("vllm", given) == '{"hf_token": "***", "seed": 1}'
    extra = {"api_key": "s3cr3t", "a": [{"Authorization": "Basic x"}, "Bearer s3cr3t"], "b": 1}
    given = json.dumps({"base_url": "http://h", "extra_body": extra, "auth_token": "s3cr3t"})
    told = {"a": [{"Authorization": "***"}, "Bearer ***"], "api_key": "***", "b": 1}
    assert json.loads(answer_settings("openai", given)) == told
