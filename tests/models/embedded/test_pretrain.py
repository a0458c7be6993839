"""The embedded model: its corpus, its tokenizer, its training, and the folder that ships."""

import gettext
import json
import math
import random
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import polib
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from xlt_bench.data import alma
from xlt_bench.data import massive as utterances
from xlt_bench.errors import InputError
from xlt_bench.models.chat import encode_prompt, render_chat
from xlt_bench.models.embedded import corpus, pretrain
from xlt_bench.models.embedded.corpus import Texts
from xlt_bench.models.embedded.messages import load_messages, plain
from xlt_bench.models.embedded.tokenizer import train_tokenizer
from xlt_bench.tasks import massive, retrieval, uner

SHIPPED = Path(pretrain.__file__).with_name("model")
MESSAGES = ["--messages", "unpacked"]
NAMES = ("ada", "bo", "cem", "dana", "eva")
MADE_UP = Texts(
    [
        {"en": f"call {name} at {i}", "de": f"ruf {name} um {i} an", "ja": f"{i}時に{name}"}
        for i in range(1, 7)
        for name in NAMES
    ],
    {"de": [(f"Das ist {name}.", f"This is {name}.") for name in NAMES]},
    {"da": [f"Her er {name}, og hun bor i Aarhus." for name in NAMES], "zh": ["他住在北京。"]},
)


@pytest.fixture(scope="module")
def shipped() -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(SHIPPED), AutoTokenizer.from_pretrained(SHIPPED)


# The corpus


def test_training_text_is_of_massives_train_split_alone(data_dir: Path) -> None:
    ids = {split: {row.id for row in utterances.load(data_dir, "sw-KE", split)}
           for split in ("train", "validation", "test")}  # fmt: skip
    swahili = {row.id: row.text for row in utterances.load(data_dir, "sw-KE", "train")}
    commands = corpus.load_commands(data_dir, "train")
    assert [row["sw"] for row in commands] == list(swahili.values())
    assert not ids["train"] & (ids["validation"] | ids["test"])
    assert {code for row in commands for code in row} == set(massive.TASK.test_set(1).units)


def test_nothing_of_flores_is_trained_on(data_dir: Path) -> None:
    sides = {
        side for rows in corpus.load_pairs(data_dir).values() for pair in rows for side in pair
    }
    for code in ("en", "cs", "de", "is", "ru", "zh"):
        assert not sides & set(retrieval.TASK.load(data_dir, code))
    # The same check sees FLORES in ALMA's files where it is not left out.
    whole = {row.reference for row in alma.load_train(data_dir, "cs-en")}
    assert whole & set(retrieval.TASK.load(data_dir, "en"))


def test_no_translation_test_is_trained_on(data_dir: Path) -> None:
    sides = {
        side for rows in corpus.load_pairs(data_dir).values() for pair in rows for side in pair
    }
    for direction in ("de-en", "en-de", "ru-en", "zh-en", "cs-en"):
        sources = [row.source for row in alma.load_test(data_dir, direction)]
        long = {source for source in sources if len(source) > 40}
        assert len(long) > 500
        assert len(long & sides) <= 0.01 * len(long), direction


def test_no_sentence_of_uners_other_splits_is_trained_on(data_dir: Path) -> None:
    sentences = corpus.load_sentences(data_dir, "train")
    assert set(sentences) == set(uner.TASK.test_set(1).units)
    for code in ("da", "zh"):
        unseen = {item.user.rsplit("\n\n", 1)[1] for item in uner.TASK.load(data_dir, code)}
        assert len({text for text in unseen & set(sentences[code]) if len(text) > 40}) <= 2


def test_json_answers_name_words_of_the_sentence_in_order() -> None:
    rng = random.Random(2)
    found = 0
    for _ in range(200):
        turns = corpus.entities(MADE_UP, rng).text.split(corpus.USER_TURN)[1:]
        for turn in turns:
            question, answer = turn.split(f"{corpus.EOS}{corpus.ASSISTANT_TURN} ")
            sentence, end = question.removeprefix(" "), 0
            rows = json.loads(answer.removesuffix(corpus.EOS))["Results"]
            for row in rows:
                assert list(row) == ["TypeName", "Text", "Start", "End"]
                assert sentence[row["Start"] : row["End"]] == row["Text"]
                assert row["Start"] >= end
                end = row["End"]
            found += len(rows)
    assert found > 100


def test_translations_are_translations() -> None:
    foreign = {"de": "Das ist ", "ja": "時に"}
    for seed in range(20):
        for other, english in corpus.translations(MADE_UP, random.Random(seed), 5):
            assert max(len(other), len(english)) <= 120
            names = [name for name in NAMES if name in english]
            assert names == [name for name in NAMES if name in other]
            assert any(words in other for words in (*foreign.values(), "ruf "))


def test_messages_are_read_as_gettext_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "app/usr/share/locale/fil/LC_MESSAGES"
    folder.mkdir(parents=True)
    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    messages = {
        "_Open the file": "_Buksan ang file",
        "Open the <b>last</b>\nfile": "Buksan ang <b>huling</b>\nfile",
        "Open %d of the files": "Buksan ang %d file",
        "Open the %(name)s now": "Buksan ang %(name)s",
        "Quit": "Umalis",
        "not yet translated text": "",
        "The same in both": "The same in both",
    }
    for english, foreign in messages.items():
        catalogue.append(polib.POEntry(msgid=english, msgstr=foreign))
    catalogue.save_as_mofile(str(folder / "app.mo"))
    pairs = load_messages(tmp_path, ["de", "tl"])
    assert pairs == {
        "tl": [
            ("Buksan ang huling file", "Open the last file"),
            ("Buksan ang file", "Open the file"),
        ]
    }
    with (folder / "app.mo").open("rb") as file:
        other = gettext.GNUTranslations(file)
    assert plain(other.gettext("_Open the file")) == pairs["tl"][1][0]
    (folder / "broken.mo").write_bytes(b"not a catalogue")
    assert load_messages(tmp_path, ["tl"]) == pairs


def test_a_language_of_another_script_has_no_latin_messages(tmp_path: Path) -> None:
    folder = tmp_path / "app/usr/share/locale/ka/LC_MESSAGES"
    folder.mkdir(parents=True)
    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    catalogue.append(polib.POEntry(msgid="a copy of it", msgstr="asli misi kopia"))
    catalogue.append(polib.POEntry(msgid="a copy of this", msgstr="ამის ასლი"))
    catalogue.save_as_mofile(str(folder / "app.mo"))
    assert load_messages(tmp_path, ["ka"]) == {"ka": [("ამის ასლი", "a copy of this")]}


def test_a_document_copies_what_it_says_it_copies() -> None:
    rng = random.Random(0)
    copies = 0
    for _ in range(400):
        document = corpus.document(MADE_UP, rng)
        before, copied = document.text[: document.copied], document.text[document.copied :]
        if copied:
            copies += 1
            assert copied.removesuffix(corpus.EOS).strip() in before
        assert "[time" not in document.text  # slots would be `[time : ...]`
    assert copies > 100


def test_chat_answers_hold_words_of_the_utterance_in_order() -> None:
    rng = random.Random(1)
    for _ in range(300):
        command = rng.choice(MADE_UP.commands)
        code = rng.choice(sorted(command))
        rest = command[code]
        answer = corpus._answer(command[code], code, MADE_UP, rng)
        for part in answer.split("; ") if ": " in answer else [answer]:
            value = part.split(": ")[-1]
            assert value in rest or answer.startswith("first: ")
            rest = rest[rest.find(value) + len(value) :]


def test_chats_are_written_as_the_template_writes_them(shipped: tuple[Any, Any]) -> None:
    _, tokenizer = shipped
    turns = [("wake me", "wake"), ("now", "None")]
    messages = [{"role": "system", "content": massive.SYSTEM}]
    for question, answer in turns:
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    text = corpus._chat(massive.SYSTEM, turns)
    assert render_chat(tokenizer, messages) == text
    prompt = render_chat(tokenizer, messages[:-1], add_generation_prompt=True)
    ids = tokenizer(text)["input_ids"]
    prompt_ids = encode_prompt(tokenizer, prompt)
    assert ids[: len(prompt_ids)] == prompt_ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


# The tokenizer


def test_every_text_comes_back_as_it_was(shipped: tuple[Any, Any], data_dir: Path) -> None:
    _, tokenizer = shipped
    codes = list(retrieval.TASK.test_set(1).units)
    assert len(codes) == 35
    for code in codes:
        for sentence in retrieval.TASK.load(data_dir, code)[:40]:
            ids = tokenizer(sentence)["input_ids"]
            assert ids.count(tokenizer.bos_token_id) == 1
            assert tokenizer.decode(ids, skip_special_tokens=True) == sentence


@pytest.mark.parametrize("text", ["क़लम", "ಕನ್ನಡ", "ខ្មែរ", "a\u0301  b\n\n c", "👩‍🚀 x", "ﬁ ½", " "])
def test_nothing_is_normalised(shipped: tuple[Any, Any], text: str) -> None:
    _, tokenizer = shipped
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("utterance", "value"),
    [
        (" wake me up at five am", " five am"),
        (" 明天早上叫醒我", "早上"),
        (" 明日の朝に起こして", "の朝"),
    ],
)
def test_a_value_is_the_same_tokens_in_the_utterance_and_alone(
    shipped: tuple[Any, Any], utterance: str, value: str
) -> None:
    _, tokenizer = shipped
    whole = tokenizer(utterance, add_special_tokens=False)["input_ids"]
    part = tokenizer(value, add_special_tokens=False)["input_ids"]
    assert any(whole[i : i + len(part)] == part for i in range(len(whole)))


def test_the_tokenizer_is_the_same_twice() -> None:
    first, second = (train_tokenizer(MADE_UP, 400).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


# The training


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up data and rows of 64 tokens, a checkpoint every third step."""
    monkeypatch.setattr(corpus, "load_training", lambda root, messages: MADE_UP)
    monkeypatch.setattr(corpus, "load_unseen", lambda root: MADE_UP)
    for name, value in {"ROW": 64, "LONG_ROW": 128, "BATCH_TOKENS": 256, "CHECKPOINT_EVERY": 3,
                        "HELD_OUT": 4, "TRANSLATIONS": 4, "WARM_UP_STEPS": 2}.items():  # fmt: skip
        monkeypatch.setattr(pretrain, name, value)


@pytest.mark.usefixtures("small")
def test_a_few_steps_lower_the_loss_and_the_folder_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain.main([*MESSAGES, "--output", str(tmp_path), "--steps", "12"])
    losses = [float(x) for x in re.findall(r"loss (\d+\.\d+),", capsys.readouterr().out)]
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    untrained = math.log(model.config.vocab_size)
    assert losses[-1] < untrained - 0.5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        "README.md chat_template.jinja config.json generation_config.json model.safetensors "
        "tokenizer.json tokenizer_config.json".split()
    )


def test_a_model_can_start_from_another(shipped: tuple[Any, Any]) -> None:
    old, tokenizer = shipped
    model = pretrain.new_model(len(tokenizer), 5)
    pretrain.start_from(model, tokenizer, SHIPPED)
    ids = torch.tensor([tokenizer("wake me up at five")["input_ids"]])
    with torch.no_grad():
        expected, found = (one(input_ids=ids).logits for one in (deepcopy(old).float(), model))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    other = train_tokenizer(MADE_UP, 400)
    model = pretrain.new_model(len(other), 5)
    pretrain.start_from(model, other, SHIPPED)
    token = other("Aarhus", add_special_tokens=False)["input_ids"]
    assert len(token) < len(tokenizer("Aarhus", add_special_tokens=False)["input_ids"])
    table = old.get_input_embeddings().weight.float()
    parts = [tokenizer(other.decode([i]), add_special_tokens=False)["input_ids"] for i in token]
    expected = torch.stack([table[part].mean(0) for part in parts])
    torch.testing.assert_close(model.get_input_embeddings().weight[token], expected)


def test_the_loss_of_translations_is_that_of_plain_states(shipped: tuple[Any, Any]) -> None:
    model, tokenizer = shipped
    pairs = [("Das ist Ada.", "This is Ada."), ("Guten Tag", "Good morning to you"), ("x", "y")]
    model = deepcopy(model).float().eval()
    loss = pretrain.translation_loss(model, tokenizer, pairs)
    means = []
    for text in [text for side in zip(*pairs, strict=True) for text in side]:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
        means.append(states[pretrain.BLOCK][0].float().mean(0))
    cosines = torch.nn.functional.cosine_similarity(
        torch.stack(means[:3])[:, None], torch.stack(means[3:])[None], dim=2
    ).double()
    odds = (cosines / pretrain.TEMPERATURE).exp()
    right = odds.diag()
    expected = -(torch.cat([right / odds.sum(0), right / odds.sum(1)]).log().mean())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)


def test_a_training_can_be_prolonged_until_its_rates_fall() -> None:
    short, long = pretrain.Plan(100, 0), pretrain.Plan(400, 0)
    assert short.decay_start == 75
    assert long.continues(short, 75)
    assert not long.continues(short, 76)
    assert not long.continues(pretrain.Plan(100, 1), 10)
    rates = [pretrain.schedule(step, short) for step in range(100)]
    assert rates == [pretrain.schedule(step, long) for step in range(75)] + rates[75:]
    assert rates[:59] == sorted(rates[:59])
    assert rates[75:] == sorted(rates[75:], reverse=True)
    assert 0 < rates[-1] < 0.05


class _KilledError(Exception):
    pass


@pytest.mark.usefixtures("small")
def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [*MESSAGES, "--output", str(tmp_path / "whole"), "--steps", "5"]
    pretrain.main(whole)
    broken = [*MESSAGES, "--output", str(tmp_path / "broken"), "--steps", "5"]
    rows = pretrain.rows

    def killed(texts: Texts, tokenizer: Any, plan: pretrain.Plan, step: int) -> torch.Tensor:
        if step == 4:
            raise _KilledError
        return rows(texts, tokenizer, plan, step)

    monkeypatch.setattr(pretrain, "rows", killed)
    with pytest.raises(_KilledError):
        pretrain.main(broken)
    seen = []

    def watched(texts: Texts, tokenizer: Any, plan: pretrain.Plan, step: int) -> torch.Tensor:
        seen.append(step)
        return rows(texts, tokenizer, plan, step)

    monkeypatch.setattr(pretrain, "rows", watched)
    pretrain.main(broken)
    assert seen == [3, 4]
    for name in ("model.safetensors", "tokenizer.json", "README.md"):
        first, second = ((tmp_path / run / name).read_bytes() for run in ("whole", "broken"))
        assert first == second, name


@pytest.mark.usefixtures("small")
def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    plan = pretrain.Plan(5, 0)
    run = pretrain.Run(pretrain.new_model(300, 0), plan, tmp_path)
    run.save()
    other = pretrain.Run(pretrain.new_model(300, 0), pretrain.Plan(5, 1), tmp_path)
    with pytest.raises(InputError, match="choose another --output"):
        other.load()
    run.path.write_bytes(run.path.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        run.load()


def test_missing_data_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        pretrain.main(["--data-dir", str(tmp_path), *MESSAGES, "--output", str(tmp_path / "model")])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "xlt-bench data fetch tatoeba" in lines[0]
    assert not (tmp_path / "model").exists()


# The folder that ships


def test_the_shipped_folder_is_small_and_safe() -> None:
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert sum(files.values()) <= 12_500_000
    assert not [name for name in files if Path(name).suffix in {".bin", ".pt", ".pkl", ".py"}]
    config = json.loads((SHIPPED / "config.json").read_text())
    assert config["num_hidden_layers"] % 2 == 0
    card = (SHIPPED / "README.md").read_text()
    for words in ("CC BY 4.0", "CC BY 2.0 FR", "WMT", "not an LLM"):
        assert words in card


def test_a_prompt_of_every_task_fits(shipped: tuple[Any, Any], data_dir: Path) -> None:
    model, tokenizer = shipped
    length = model.config.max_position_embeddings
    for benchmark, unit in ((massive.TASK, "th"), (uner.TASK, "zh")):
        item = benchmark.load(data_dir, unit)[0]
        text = render_chat(tokenizer, item.messages, add_generation_prompt=True)
        ids = encode_prompt(tokenizer, text)
        assert len(ids) + benchmark.max_new_tokens <= length
        with torch.inference_mode():
            assert model(input_ids=torch.tensor([ids])).logits.isfinite().all()


# A few documents differ from the card's 64, but not as weights of another model would.
@pytest.mark.slow
def test_the_shipped_model_copies_as_its_card_says(
    shipped: tuple[Any, Any], data_dir: Path
) -> None:
    """Measures the shipped weights again, on utterances that are not in the training data."""
    model, tokenizer = shipped
    results = pretrain.held_out(model, tokenizer, corpus.load_unseen(data_dir))
    card = (SHIPPED / "README.md").read_text()
    for kind in ("parallel", "repeat", "chat"):
        row = re.search(rf"\| {kind} \| ([\d.]+) \| ([\d.]+) % \|", card)
        assert row is not None
        # bfloat16 may be rounded differently on another machine.
        assert results[f"loss {kind}"] == pytest.approx(float(row[1]), abs=0.02)
        assert results[f"copied {kind}"] == pytest.approx(float(row[2]), abs=1.0)
