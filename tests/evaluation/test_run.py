"""The main job on a tiny random model: results, damage, a full disk, and every refusal."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import xlt_bench
from tiny import byte_tokenizer, load_model, save_adapter, with_lora
from xlt_bench.evaluation.config import Options, run_folder
from xlt_bench.models.chat import encode_prompt, render_chat, set_chat_template
from xlt_bench.results.run_folder import predictions_path, read_predictions, read_record
from xlt_bench.submissions.schema import missing
from xlt_bench.tasks.registry import get_task, get_text_task, text_tasks


def arguments(model, root, output, *more):
    return [
        "evaluate", "--model", str(model), "--output", str(output), "--data-dir", str(root),
        "--tasks", "massive,wmt23,uner,retrieval", "--languages", "de,en,sw,da", "--device", "cpu",
        "--dtype", "float32", *map(str, more),
    ]  # fmt: skip


@pytest.fixture
def root(made_up_root, monkeypatch):
    """The made-up data under a table of languages that has no more than it."""
    for benchmark in map(get_text_task, text_tasks()):
        monkeypatch.setattr(benchmark, "max_new_tokens", 6)
    from xlt_bench.evaluation import config as asked

    chosen = {
        "massive": ["de", "sw"],
        "wmt23": ["de-en", "en-de"],
        "uner": ["da"],
        "retrieval": ["de", "en", "sw"],
    }
    monkeypatch.setattr(asked, "plan_units", lambda options: chosen)
    return made_up_root


def test_a_run_records_everything_and_score_repeats_it(
    root, tiny_model, tiny_adapter, tmp_path, run_cli
):
    run = tmp_path / "run"
    argv = arguments(tiny_model, root, run, "--adapter", tiny_adapter)
    code, out, err = run_cli(*argv)
    assert code == 0
    record = read_record(run)
    assert "wmt23 has no unit for sw da" in record.notes
    assert "wmt23 has no unit for sw da" in err
    assert record.adapter is not None
    assert record.adapter.alignment_languages == ["sw"]
    assert record.adapter.recipe == "massive-align-middle"
    assert record.adapter.probe_differing > 0
    assert record.adapter.merged
    assert set(record.adapter.change_norms) == {"q_proj", "up_proj"}
    assert record.bos_per_prompt == [0]
    aligned = {(row.task, row.unit) for row in record.results.scores if row.aligned}
    assert aligned == {("massive", "sw"), ("retrieval", "sw")}
    transfer = next(
        mean for mean in record.results.means if (mean.task, mean.split) == ("massive", "transfer")
    )
    assert transfer.units == ["de", "sw"]
    assert "af" in transfer.missing
    assert [layer.layer for layer in record.results.layers] == [2, 4]
    assert not (run / "retrieval" / "states").exists()
    code, out, _ = run_cli("score", run, "--format", "json", "--data-dir", root)
    assert code == 0
    units = json.loads(out)["units"]
    assert {
        (task, unit, metric): found["value"]
        for task, by_unit in units.items()
        for unit, by_metric in by_unit.items()
        for metric, found in by_metric.items()
    } == {(row.task, row.unit, row.metric): row.value for row in record.results.scores}


def test_a_forged_score_and_a_swapped_item_are_seen(root, tiny_model, tmp_path, run_cli, edit):
    run = tmp_path / "run"
    run_cli(*arguments(tiny_model, root, run))

    def forge(record):
        record["results"]["scores"][0]["value"] = 99.0

    edit(run / "record.json", forge)
    code, _, err = run_cli("score", run, "--data-dir", root)
    assert code == 1
    assert "differs from the scores of its predictions" in err
    from xlt_bench.results.run_folder import predictions_path, write_predictions

    answers = read_predictions(predictions_path(run, "uner", "da"))
    write_predictions(predictions_path(run, "uner", "da"), [answers[1], answers[0], *answers[2:]])
    code, _, err = run_cli("score", run, "--data-dir", root)
    assert code == 2
    assert "item test-0 expected, test-1 found" in err


def test_batch_sizes_give_the_same_answers(root, tiny_model, tmp_path, run_cli):
    answers = []
    for size in (1, 7, 32):
        run = tmp_path / str(size)
        run_cli(*arguments(tiny_model, root, run, "--batch-size", size))
        files = sorted((run / "predictions").glob("*/*.zst"))
        assert len(files) == 5
        answers.append([read_predictions(path) for path in files])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.filterwarnings("ignore")
def test_adapters_of_any_kinds_on_one_command_line_answer_as_alone(
    root, tiny_model, tiny_adapter, tmp_path, run_cli
):
    """As plain peft has each alone, in whatever order."""
    folders = [save_adapter(tiny_model, tmp_path / "dora", seed=2, use_dora=True)]
    folders += [tmp_path / "ia3", shutil.copytree(tiny_adapter, tmp_path / "embeddings")]
    scaled = get_peft_model(
        load_model(tiny_model),
        IA3Config(
            "CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
    )
    for weight in scaled.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, 1, 0.9)
    scaled.save_pretrained(folders[1])
    weights = folders[2] / "adapter_model.safetensors"
    own = load_model(tiny_model).get_input_embeddings().weight.detach().flip(0)
    named = {"base_model.model.model.embed_tokens.weight": own.contiguous()}
    save_file(load_file(weights) | named, weights)
    folders.append(tiny_adapter)

    named = [word for folder in folders for word in ("--adapter", folder)]
    out = tmp_path / "out"
    argv = arguments(tiny_model, root, out, *named, "--limit", "2")
    code, _, err = run_cli(*argv)
    assert code == 0, err
    task, tokenizer = get_text_task("massive"), byte_tokenizer()
    set_chat_template(tokenizer, None)
    prompts = [
        encode_prompt(tokenizer, render_chat(tokenizer, item.messages, add_generation_prompt=True))
        for item in task.load(root, "de")[:2]
    ]
    seen = set()
    for folder in folders:
        plain = PeftModel.from_pretrained(load_model(tiny_model), str(folder)).eval()
        expected = [answer(plain, tokenizer, prompt, task.max_new_tokens) for prompt in prompts]
        options = Options(model=str(tiny_model), adapters=list(map(str, folders)), output=out)
        found = read_predictions(
            predictions_path(run_folder(options, str(folder)), "massive", "de")
        )
        assert [row.hypothesis for row in found] == expected
        record = read_record(run_folder(options, str(folder)))
        assert record.model.parameters == load_model(tiny_model).num_parameters()
        seen.add(tuple(expected))
    assert len(seen) == len(folders)


@pytest.mark.parametrize("resized", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_an_adapters_added_tokens_need_embeddings(root, tiny_model, tmp_path, run_cli, resized):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<|turn|>"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}<|turn|>{{ m['content'] }}{% endfor %}"
    model = load_model(tiny_model)
    if resized:
        model.resize_token_embeddings(len(tokenizer))
    adapter = tmp_path / "adapter"
    with_lora(model, seed=2).save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    code, _, err = run_cli(
        *arguments(tiny_model, root, tmp_path / "run", "--adapter", adapter, "--limit", "1")
    )
    if resized:
        assert code == 0
        assert read_record(tmp_path / "run").adapter.probe_differing > 0
    else:
        assert code == 2
        assert "prompts contain <|turn|>, token 258, and there are embeddings for 258 only" in err


def test_an_adapters_template_that_refuses_answers(
    root, tiny_model, tiny_adapter, tmp_path, run_cli
):
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}"
        "{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    argv = arguments(tiny_model, root, tmp_path / "run", "--adapter", adapter, "--limit", "1")
    assert run_cli(*argv)[0] == 0
    assert read_record(tmp_path / "run").plan.template == "adapter"


def test_a_model_whose_answers_nothing_ends_is_a_warning(root, tiny_model, tmp_path, run_cli):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        values = json.loads((model / name).read_text())
        kept = {key: value for key, value in values.items() if not key.startswith("eos_token")}
        (model / name).write_text(json.dumps(kept))
    argv = arguments(model, root, tmp_path / "run", "--limit", "1")
    code, _, err = run_cli(*argv)
    assert code == 0
    assert "WARNING: nothing ends an answer but the length limit" in " ".join(err.split())
    code, _, err = run_cli(*arguments(tiny_model, root, tmp_path / "other", "--limit", "1"))
    assert code == 0
    assert "nothing ends" not in err


def answer(model, tokenizer, prompt, limit):
    """The greedy answer of plain transformers to a prompt."""
    ids = torch.tensor([prompt])
    tokens = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False
    )
    return tokenizer.decode(tokens[0, len(prompt) :], skip_special_tokens=True)


def test_an_adapter_without_effect_is_a_warning(root, tiny_model, tmp_path, run_cli):
    from tiny import save_adapter

    save_adapter(tiny_model, tmp_path / "zero", seed=1, init_lora_weights=True)
    argv = arguments(tiny_model, root, tmp_path / "run", "--adapter", tmp_path / "zero")
    _, _, err = run_cli(*argv)
    assert "changes no weight" in err
    assert "bare model's answer to all" in err


def test_another_command_on_the_same_run_is_refused(
    root, tiny_model, tiny_adapter, tmp_path, run_cli
):
    run = tmp_path / "run"
    run_cli(*arguments(tiny_model, root, run, "--limit", 2))
    code, _, err = run_cli(*arguments(tiny_model, root, run, "--limit", 3))
    assert code == 2
    assert "started with another limit: 2 there, 3 now" in err


def test_other_items_under_the_same_ids_are_refused(root, tiny_model, tmp_path, run_cli):
    """Both when a run resumes and when it is scored: answers belong to what was asked."""
    run, other = tmp_path / "run", tmp_path / "other"
    run_cli(*arguments(tiny_model, root, run))
    shutil.copytree(root, other)
    (path,) = other.glob("massive/**/sw-KE.jsonl.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace('_utt": "', '_utt": "x ').encode()))
    (run / "record.json").unlink()
    code, _, err = run_cli(*arguments(tiny_model, other, run))
    assert code == 2
    assert "started with other items of massive/sw" in err
    argv = ["score", str(run), "--data-dir", str(other)]
    code, _, err = run_cli(*argv)
    assert code == 2
    assert "the answers to massive sw are to other items than those in" in err


def test_a_finished_run_keeps_its_record(root, tiny_model, tmp_path, run_cli):
    run = tmp_path / "run"
    run_cli(*arguments(tiny_model, root, run))
    before = (run / "record.json").read_bytes()
    code, out, _ = run_cli(*arguments(tiny_model, root, run, "--batch-size", 3))
    assert code == 0
    assert "massive" in out
    assert (run / "record.json").read_bytes() == before


def test_an_adapter_that_lacks_weights_is_refused(
    root, tiny_model, tiny_adapter, tmp_path, run_cli
):
    """Peft would leave the rest at zero, and the adapter would count as applied."""
    half = shutil.copytree(tiny_adapter, tmp_path / "half")
    tensors = load_file(half / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if ".layers.0." in name}
    assert 0 < len(kept) < len(tensors)
    save_file(kept, half / "adapter_model.safetensors")
    argv = arguments(tiny_model, root, tmp_path / "run", "--adapter", half)
    code, _, err = run_cli(*argv)
    assert code == 2
    assert f"lacks {len(tensors) - len(kept)} of {len(tensors)} weights" in err


BAD = {
    "--model {none}": "no such folder",
    "--model {other} --adapter {adapter}": "does not fit",
    "--adapter {pickled}": "only pickled weights",
    "--adapter {full}": "no adapter_config.json",
    "--chat-template lama3": "did you mean 'llama3-midalign'",
    "--dtype float8": "unknown dtype",
    "--limit 0": "--limit must be at least 1",
    "--layers 9": "layers 1 to 4",
    "--output {full}": "is not empty and not a run folder",
}
UNKNOWN_OR_BROKEN = {
    "--tasks masive": "did you mean 'massive'",
    "--languages sv-SE,xx": "unknown language 'xx'",
    "--tasks massive --languages sw": "truncated or corrupt",
    "--tasks retrieval --languages de,sw": "de has 8 sentences, sw has 7; delete the file that",
    "--tasks massive --languages de": "xlt-bench data fetch massive",
    "--tasks retrieval --languages en": "at least two languages, and has only en of those chosen",
}


@pytest.fixture(scope="module")
def places(tiny_model, tiny_adapter, tmp_path_factory):
    """What the bad command lines name."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = tmp_path_factory.mktemp("places")
    pickled, full = folder / "pickled", folder / "full"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_text("{}")
    torch.save({}, pickled / "adapter_model.bin")
    config = LlamaConfig.from_pretrained(tiny_model, hidden_size=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "other")
    full.mkdir()
    (full / "thesis.tex").write_text("")
    return {
        "none": folder / "none", "other": folder / "other", "adapter": tiny_adapter,
        "pickled": pickled, "full": full,
    }  # fmt: skip


@pytest.fixture(scope="module")
def broken_root(made_up_root, tmp_path_factory):
    """The made-up data with a file missing, one cut off, and one short of a line."""
    root = shutil.copytree(made_up_root, tmp_path_factory.mktemp("broken") / "data")
    packed = root / "massive" / "1.1" / "data" / "sw-KE.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:40])
    (root / "massive" / "1.1" / "data" / "de-DE.jsonl.gz").unlink()
    dev = root / "flores200_dataset" / "dev" / "swh_Latn.dev"
    dev.write_text("".join(dev.read_text().splitlines(keepends=True)[:-1]))
    return root


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line(line, root, tiny_model, places, tmp_path, run_cli):
    words = [word.format(**places) for word in line.split()]
    code, _, err = run_cli(*arguments(tiny_model, root, tmp_path / "run", *words))
    assert (code, BAD[line] in err, "Traceback" in err) == (2, True, False), err
    assert err.count("\n") == 1


@pytest.mark.parametrize("line", UNKNOWN_OR_BROKEN)
def test_unknown_names_and_broken_data_are_one_line(
    line, broken_root, tiny_model, tmp_path, run_cli
):
    code, _, err = run_cli(*arguments(tiny_model, broken_root, tmp_path / "run", *line.split()))
    assert (code, UNKNOWN_OR_BROKEN[line] in err) == (2, True), err
    assert err.count("\n") == 1


def test_retrieval_over_another_corpus(made_up_root, tiny_model, tmp_path, run_cli):
    corpus = tmp_path / "corpora" / "songs"
    corpus.mkdir(parents=True)
    for name in ("deu_Latn", "eng_Latn"):
        dev = made_up_root / "flores200_dataset" / "dev" / f"{name}.dev"
        shutil.copy(dev, corpus / f"{name}.txt")
    runs = {"dev": ["--languages", "de,en"], "songs": ["--corpus", str(corpus)]}
    for name, more in runs.items():
        argv = ["evaluate", "--model", str(tiny_model), "--output", str(tmp_path / name)]
        argv += ["--tasks", "retrieval", "--data-dir", str(made_up_root), "--device", "cpu", *more]
        code, _, err = run_cli(*argv)
        assert code == 0, err
    record = read_record(tmp_path / "songs")
    assert record.plan.corpus == "songs"
    assert record.plan.units == {"retrieval": ["de", "en"]}
    assert "retrieval is over songs, not FLORES dev, and cannot be submitted" in record.notes
    layers = [sorted((tmp_path / name / "retrieval").glob("layer-*")) for name in runs]
    assert len(layers[0]) == len(layers[1]) == 2
    for ours, theirs in zip(*layers, strict=True):  # the same sentences have the same answers
        assert ours.read_bytes() == theirs.read_bytes()
    argv = ["submit", str(tmp_path / "songs"), "--submissions", str(tmp_path / "submissions")]
    argv += ["--data-dir", str(made_up_root)]
    code, _, err = run_cli(*argv)
    assert (code, "retrieval is over 'songs', not FLORES dev" in err) == (2, True), err
    (corpus / "deu_Latn.txt").unlink()
    argv = ["evaluate", "--model", str(tiny_model), "--output", str(tmp_path / "one")]
    code, _, err = run_cli(*argv, "--corpus", corpus)
    assert (code, "needs the task retrieval and at least two languages" in err) == (2, True), err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_one_line_and_nothing_half_written(root, tiny_model, tmp_path, run_cli):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small])
    if mounted.returncode:
        pytest.skip("no permission to mount a tmpfs here")
    try:
        argv = arguments(tiny_model, root, small / "run")
        code, _, err = run_cli(*argv)
        assert code == 2
        assert "No space left" in err
        assert [line[:5] for line in err.splitlines() if " done" not in line] == ["error"]
        left = [path for path in Path(small).rglob("*") if path.is_file()]
        assert not [path for path in left if path.name.startswith(".")]
    finally:
        subprocess.run(["umount", small], check=True)


def test_states_that_overflow_are_one_line_after_the_first_language(
    root, tiny_model, tmp_path, monkeypatch, run_cli
):
    from xlt_bench.models.lm import XltLM

    computed = []

    def overflown(self, sentences, layers, progress, few):
        import torch

        computed.append(len(sentences))
        return torch.full((len(sentences), len(layers), 4), torch.inf), torch.zeros(0)

    monkeypatch.setattr(XltLM, "pooled_states", overflown)
    argv = arguments(tiny_model, root, tmp_path / "run")
    code, _, err = run_cli(*argv)
    assert code == 2
    assert "hidden states of de are not finite in float32; check the weights" in err
    assert "Traceback" not in err
    assert computed == [2, 8]  # the first are those that try the model out


def test_a_disk_that_fills_while_states_are_stored(
    root, tiny_model, tmp_path, monkeypatch, run_cli
):
    import errno

    from xlt_bench.results import run_folder as runs

    real = os.fsync

    def full(handle):
        if "states" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(runs.os, "fsync", full)
    run = tmp_path / "run"
    code, _, err = run_cli(*arguments(tiny_model, root, run))
    assert code == 2
    assert "No space left" in err
    assert "Traceback" not in err
    assert list((run / "retrieval" / "states").iterdir()) == []


def test_fertility_leaves_out_a_missing_file_and_names_a_broken_one(made_up_root, tmp_path):
    from types import SimpleNamespace

    from xlt_bench.errors import InputError
    from xlt_bench.evaluation.build_record import _fertility

    plan = SimpleNamespace(units={"massive": ["sw"]}, corpus=None)
    assert _fertility(None, plan, tmp_path) == {}
    with pytest.raises(InputError, match="is missing"):  # it was there for retrieval's answers
        _fertility(None, SimpleNamespace(units={"retrieval": ["sw"]}, corpus=None), tmp_path)
    path = tmp_path / "flores200_dataset" / "dev" / "swh_Latn.dev"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="is not UTF-8"):
        _fertility(None, plan, tmp_path)


def test_an_adapter_called_by_its_parent_stays_inside_the_output(tmp_path, monkeypatch):
    (tmp_path / "lora" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "lora" / "inner")
    asked = Options(model="m", output=tmp_path / "runs", adapters=["..", "."])
    assert run_folder(asked, "..") == tmp_path / "runs" / "lora"
    assert run_folder(asked, ".") == tmp_path / "runs" / "inner"


def test_a_record_keeps_no_secrets(monkeypatch):
    from xlt_bench.results.redact import command_line

    secret = "hf_" + "Ab1" * 8
    words = [
        f"--model=org/name?token={secret}",
        "--model-args",
        "base_url=http://me:pass-word@host:8000/v1,auth_token=s3cret,num_concurrent=4",
        str(Path.home() / "runs"),
        secret,
    ]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/xlt-bench", "evaluate", *words])
    line = command_line()
    assert line.startswith("xlt-bench evaluate ")
    assert "base_url=http://***@***/v1,auth_token=***,num_concurrent=4" in line
    assert " runs " in line
    for hidden in (secret, "s3cret", "pass-word", str(Path.home())):
        assert hidden not in line


def test_scores_that_are_not_finite_are_no_answer_and_finished_units_are_kept(
    root, tiny_model, tmp_path, run_cli
):
    said = {
        name: "".join(
            m["content"] for item in get_text_task(task).load(root, name) for m in item.messages
        )
        for task, name in (("massive", "sw"), ("massive", "de"), ("wmt23", "de-en"))
    }
    only = min(set(said["de-en"]) - set(said["de"]) - set(said["sw"]))
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_model, model)
    weights = load_file(model / "model.safetensors")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    weights["model.embed_tokens.weight"][tokenizer["model"]["vocab"][only]] = float("inf")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    code, _, errors = run_cli(*arguments(model, root, run))
    assert code == 2
    last = errors.strip().splitlines()[-1]
    assert "wmt23 de-en: logits are not finite in float32; check the weights" in last
    kept = sorted(path.name.split(".")[0] for path in run.glob("predictions/*/*"))
    assert kept == ["de", "sw"]
    assert not (run / "record.json").exists()


def test_a_prompt_of_ones_own_is_answered_recorded_and_not_ranked(
    root, tiny_model, tmp_path, run_cli
):
    file, run = tmp_path / "mine.jinja", tmp_path / "run"
    file.write_text(
        "{% block system %}{{ system }}{% endblock %}{% block user %}{{ user }} {% endblock %}"
    )
    argv = [*arguments(tiny_model, root, run), "--prompt", f"massive={file}"]
    code, _, err = run_cli(*argv)
    assert code == 0
    assert "massive: answered to the prompt of mine.jinja, so not ranked" in err
    record = read_record(run)
    prompt = record.plan.prompts["massive"]
    assert (prompt.name, prompt.sha256) == ("mine.jinja", sha256(file.read_bytes()).hexdigest())
    assert "the benchmark's prompt" in missing(record, "massive")
    assert "the benchmark's prompt" not in missing(record, "uner")
    # It renders to the benchmark's own messages, so the answers are the same.
    usual = tmp_path / "usual"
    run_cli(*arguments(tiny_model, root, usual))
    for task, unit in (("massive", "sw"), ("uner", "da")):
        first, second = (
            read_predictions(predictions_path(one, task, unit)) for one in (run, usual)
        )
        assert first == second
    code, out, _ = run_cli("compare", run, usual, "--data-dir", root)
    assert code == 0
    assert "the prompts differ (mine.jinja and the benchmark's)" in " ".join(out.split())
    assert run_cli("score", run, "--data-dir", root)[0] == 0
    file.write_text("{{ sentence }}")
    code, _, err = run_cli(*argv)
    assert code == 2
    assert "prompts" in err
    file.write_text("the same for all")
    code, _, err = run_cli(
        *arguments(tiny_model, root, tmp_path / "new"), "--prompt", f"uner={file}"
    )
    assert code == 2
    assert "the same prompt" in err
    assert not (tmp_path / "new").exists()


def test_the_record_says_how_alike_states_and_those_of_english_are(
    root, tiny_model, tmp_path, run_cli
):
    """Against torch's and numpy's own operations on states of transformers' forward."""
    argv = arguments(tiny_model, root, tmp_path / "run")
    argv[argv.index("--tasks") + 1] = "retrieval"
    assert run_cli(*argv)[0] == 0
    record = read_record(tmp_path / "run")
    found = {(row.layer, row.language): row for row in record.alignment}
    assert set(found) == {(layer, code) for layer in (2, 4) for code in ("de", "sw")}
    model, tokenizer = load_model(tiny_model), byte_tokenizer()

    def states(code):
        hidden = []
        for sentence in get_task("retrieval").load(root, code):
            ids = torch.tensor([tokenizer(sentence)["input_ids"]])
            with torch.no_grad():
                hidden.append(model(ids, output_hidden_states=True).hidden_states[2][0])
        return hidden

    ours, english = states("de"), states("en")
    last = [torch.stack([one[-1] for one in side]) for side in (ours, english)]
    cosines = torch.cosine_similarity(last[0][:, None], last[1][None], dim=-1)
    best = torch.eye(len(cosines), dtype=torch.bool)
    rest = cosines.masked_fill(best, -2)
    right = cosines.diagonal() > torch.maximum(rest.amax(0), rest.amax(1))
    assert found[2, "de"].mexa_last == pytest.approx(100 * right.float().mean().item())
    means = [torch.stack([one.mean(0) for one in side]) for side in (ours, english)]
    cosines = torch.cosine_similarity(means[0][:, None], means[1][None], dim=-1)
    margin = cosines[best].mean() - cosines[~best].mean()
    assert found[2, "de"].cosine_margin == pytest.approx(margin.item(), abs=1e-5)
    frame = xlt_bench.load_run(tmp_path / "run").alignment()
    assert frame.cka.tolist() == [row.cka for row in record.alignment]
