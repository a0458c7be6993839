"""The command in a record, which is published."""

import sys

import pytest

from xlt_bench.evaluation.build_record import command_line, without_home


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


def test_what_is_no_secret_stays(monkeypatch):
    words = "evaluate --model org/name@main --chat-template tokenizer --max-tokens 5 --adapter a"
    monkeypatch.setattr(sys, "argv", ["xlt-bench", *words.split()])
    assert command_line() == f"xlt-bench {words}"
