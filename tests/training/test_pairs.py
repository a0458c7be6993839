"""Alignment pairs: the paper's filter and counts, and micro-batches without false negatives."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.training.pairs import Pair, batches, is_one_sentence, load_pairs, shuffled, split_dev
from xlt_bench.training.recipe_data import Alignment


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("I am here.", True),
        ("I am here. You are there.", False),
        ("Mr. Smith is here.", True),
        ('"Stop!" he said.', False),  # the simple rule takes this for two sentences
        ("这是书。那是笔。", False),
        ("这是书。", True),
        ("Wyt ti yma? Ydw.", False),
        ("It costs 3.50 now.", True),
        ("I don't. Do you?", False),
        ("We met at 3 p.m. on Sunday.", True),
        ("   ", False),
    ],
)
def test_one_sentence(text: str, one: bool) -> None:
    assert is_one_sentence(text) is one


def test_filtered_tatoeba_is_about_as_large_as_the_papers(data_dir: Path) -> None:
    """Appendix B: Javanese 264, Swahili 371, Welsh 823 in the release of a month earlier."""
    alignment = Alignment(data="tatoeba", pairs=["jv-en", "sw-en", "cy-en"])
    counts = {name: len(rows) for name, rows in load_pairs(data_dir, alignment).items()}
    for name, published in {"jv-en": 264, "sw-en": 371, "cy-en": 823}.items():
        assert counts[name] == pytest.approx(published, rel=0.05)


def test_real_micro_batches_hold_no_sentence_twice(data_dir: Path) -> None:
    alignment = Alignment(data="tatoeba", pairs=["jv-en", "sw-en", "ja-en"])
    train, dev = split_dev(load_pairs(data_dir, alignment), seed=1)
    drawn: Counter[str] = Counter()
    for batch in islice(batches(train, 32, seed=1), 60):
        sides = [side for pair in batch for side in (pair.anchor, pair.candidate)]
        assert len(set(sides)) == 64
        drawn.update(pair.languages for pair in batch)
    assert min(drawn.values()) > 0.8 * 60 * 32 / 3  # ja has 50 times jv's pairs
    held_out = {(pair.anchor, pair.candidate) for pair in dev}
    assert not held_out & {(p.anchor, p.candidate) for rows in train.values() for p in rows}


def test_shuffled_pairs_are_the_same_sentences_and_no_translations(data_dir: Path) -> None:
    """Many sentences of Tatoeba have several translations."""
    pairs = load_pairs(data_dir, Alignment(data="tatoeba", pairs=["cy-en", "jv-en"]))
    mixed = shuffled(pairs, seed=1)
    for name, rows in pairs.items():
        given = {(row.anchor, row.candidate) for row in rows}
        assert len(mixed[name]) >= 0.98 * len(rows)
        assert not given & {(row.anchor, row.candidate) for row in mixed[name]}
        assert {row.anchor for row in mixed[name]} <= {row.anchor for row in rows}
        candidates = Counter(row.candidate for row in mixed[name])
        assert not candidates - Counter(row.candidate for row in rows)
    assert mixed == shuffled(pairs, seed=1) != shuffled(pairs, seed=2)
    assert shuffled({"cy-en": [Pair("cy-en", "Ie.", "Yes.")]}, seed=1) == {"cy-en": []}


def test_a_pair_is_not_held_out_in_one_order_and_learned_in_the_other() -> None:
    there = [Pair("de-fr", f"Satz {i}.", f"Phrase {i}.") for i in range(50)]
    back = [Pair("fr-de", pair.candidate, pair.anchor) for pair in there[:40]]
    train, dev = split_dev({"de-fr": there, "fr-de": back}, seed=1)
    assert len(dev) == 5 + 4
    learned = {frozenset((p.anchor, p.candidate)) for rows in train.values() for p in rows}
    assert not learned & {frozenset((p.anchor, p.candidate)) for p in dev}


def test_pairs_without_english_meet_in_english(tmp_path: Path) -> None:
    for three, name, rows in [
        ("deu", "deu-eng", [("Hallo.", "Hi."), ("Ja.", "Yes.")]),
        ("fra", "eng-fra", [("Oui.", "Yes."), ("Non.", "No.")]),
    ]:
        folder = tmp_path / "tatoeba" / "challenge_v2021-08-07" / name
        folder.mkdir(parents=True)
        for side, code in enumerate((three, "eng")):
            text = "".join(row[side] + "\n" for row in rows)
            (folder / f"tatoeba-test-v2021-08-07.{code}").write_text(text)
    found = load_pairs(tmp_path, Alignment(data="tatoeba", pairs=["de-fr"]))
    assert found == {"de-fr": [Pair("de-fr", "Ja.", "Oui.")]}


def test_too_few_sentences_for_a_micro_batch() -> None:
    rows = [Pair("de-en", f"Satz {i}.", "The same.") for i in range(5)]
    with pytest.raises(InputError, match="cannot fill a micro-batch of 4"):
        next(batches({"de-en": rows}, 4, seed=0))
