"""BLEU and chrF++ against sacreBLEU's own corpus scores; faults against real references."""

import random
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from cases import slow_but
from xlt_bench.data import wmt23
from xlt_bench.data.wmt23 import ALL_DIRECTIONS
from xlt_bench.metrics.significance import interval, percent
from xlt_bench.metrics.translation import (
    FAULTS,
    LABELS,
    SCORES,
    _identifier_among,
    bleu,
    chrf,
    faults,
    identifier_label,
    is_copied_source,
    is_identifiable,
    is_wrong_language,
    language_signature,
    metrics_of,
    segment_counts,
    signature,
)
from xlt_bench.tasks.registry import get_task

EXPECTED_TOKENIZER = {"ja": "ja-mecab", "zh": "zh"}

CANDIDATES = tuple(get_task("wmt23").test_set(1).identifier_languages)


def by_sacrebleu(metric, target, hypotheses, references):
    """SacreBLEU's corpus score, from its public interface only."""
    hypotheses = [hypothesis.strip() for hypothesis in hypotheses]
    if metric == "chrf":
        return sacrebleu.corpus_chrf(hypotheses, [references], word_order=2).score
    tokenizer = "13a" if metric == "bleu_13a" else EXPECTED_TOKENIZER.get(target, "13a")
    return sacrebleu.corpus_bleu(hypotheses, [references], tokenize=tokenizer).score


def corrupted(references, seed=0):
    """Imperfect translations: words and characters dropped, moved or repeated, some empty."""
    chance = random.Random(seed)
    hypotheses = []
    for reference in references:
        unit = reference.split() if " " in reference else list(reference)
        kept = [word for word in unit if chance.random() > 0.2]
        if chance.random() < 0.5 and len(kept) > 3:
            at = chance.randrange(len(kept) - 1)
            kept[at], kept[at + 1] = kept[at + 1], kept[at]
        kept = [] if chance.random() < 0.05 else kept
        hypotheses.append((" " if " " in reference else "").join(kept) + " \n")
    return hypotheses


# Few words, so that orders without a match, without an n-gram and with some all occur.
words = st.lists(st.sampled_from(["a", "b", "c.", "de", "的", "ありがとう", "(f)", ""]), max_size=7)
segments = st.tuples(words.map(" ".join), words.map(" ".join))


@settings(max_examples=300)
@given(st.lists(segments, min_size=1, max_size=5), st.sampled_from(["de", "ja", "zh"]))
@example([("", "a")], "de")
@example([("a", "")], "de")
@example([("", "")], "zh")
@example([("a b c", "a b c")], "de")  # no 4-gram: 0, not 100
@example([("a b c. de", "a b c. (f)")], "de")
@example([("a c. b de", "a b c. de")], "de")  # smoothed twice
def test_scores_of_any_segments_are_sacrebleus(pairs, target):
    hypotheses, references = [list(side) for side in zip(*pairs, strict=True)]
    for metric in metrics_of(target):
        counts = segment_counts(metric, target, hypotheses, references)
        found = float(SCORES[metric](counts.sum(axis=0)))
        expected = by_sacrebleu(metric, target, hypotheses, references)
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("score", "width"), [(bleu, 10), (chrf, 24)])
def test_scores_are_vectorised(score, width):
    metric = BLEU() if score is bleu else CHRF(word_order=2)
    generator = np.random.default_rng(0)
    if score is bleu:
        lengths = generator.integers(0, 30, size=(200, 2))
        totals = np.maximum(lengths[:, :1] - np.arange(4), 0)
        rows = np.hstack([lengths, generator.integers(0, totals + 1), totals])
    else:
        sizes = generator.integers(0, 5, size=(200, 8, 2))
        matches = generator.integers(0, sizes.min(axis=2) + 1)
        rows = np.concatenate([sizes, matches[..., None]], axis=2).reshape(200, 24)
    assert rows.shape == (200, width)
    expected = [metric._compute_score_from_stats(row.tolist()).score for row in rows]
    assert score(rows) == pytest.approx(expected, abs=1e-9)
    assert score(rows.reshape(20, 10, width)).shape == (20, 10)
    assert (score(rows) > 0).sum() > 20
    assert (score(rows) == 0).any()


def test_metrics_and_signatures():
    assert metrics_of("he") == ("bleu", "chrf")
    assert metrics_of("ja") == metrics_of("zh") == ("bleu", "bleu_13a", "chrf")
    plain = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
    for target in ("en", "de", "he", "uk"):
        assert signature("bleu", target) == plain
    assert signature("bleu_13a", "ja") == signature("bleu_13a", "zh") == plain
    assert "|tok:zh|" in signature("bleu", "zh")
    assert "|tok:ja-mecab-0.996-IPA|" in signature("bleu", "ja")
    assert signature("chrf", "ja") == "nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:2.6.0"


def test_hypotheses_are_stripped():
    for metric in metrics_of("ja"):
        bare = segment_counts(metric, "ja", ["これは本です。"], ["これは本です。"])
        assert np.array_equal(
            segment_counts(metric, "ja", [" これは本です。\n"], ["これは本です。"]), bare
        )


def test_numbers_must_agree():
    with pytest.raises(ValueError, match="1 hypotheses for 2 references"):
        segment_counts("bleu", "de", ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 hypotheses"):
        segment_counts("bleu", "de", [], [])
    with pytest.raises(ValueError, match="longer"):
        faults(["a"], ["a", "b"], ["a"], "de", CANDIDATES)


def test_copied_source():
    assert is_copied_source(" Ada  sings\n", "Ada sings", "Ada singt")
    assert not is_copied_source("Ada singt", "Ada sings", "Ada singt")
    assert not is_copied_source("Windows 11", "Windows 11", "Windows  11")  # it is the translation
    assert not is_copied_source("ada sings", "Ada sings", "Ada singt")


ENGLISH = "The committee will meet again on Tuesday to discuss the budget."
RUSSIAN = "Комитет снова соберётся во вторник, чтобы обсудить бюджет."
UKRAINIAN = "Комітет знову збереться у вівторок, щоб обговорити бюджет."
CHINESE = "委员会将于星期二再次开会讨论预算。"
TRADITIONAL = "委員會將於星期二再次開會討論預算。"
JAPANESE = "委員会は火曜日に再び会合を開き、予算について話し合います。"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (ENGLISH, "de"),
        (ENGLISH, "is"),
        (RUSSIAN, "uk"),
        (UKRAINIAN, "ru"),
        (CHINESE, "ja"),
        (JAPANESE, "zh"),
        (RUSSIAN, "en"),
    ],
)
def test_wrong_language(text, target):
    assert is_wrong_language(text, target, CANDIDATES)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (ENGLISH, "en"),
        (RUSSIAN, "ru"),
        (UKRAINIAN, "uk"),
        (CHINESE, "zh"),
        (TRADITIONAL, "zh"),
        (JAPANESE, "ja"),
        ("OK.", "ja"),  # too short to judge
        ("1:0 (0:0) 2023-11-24 ... 100 000 000", "he"),  # no letters
        ("", "de"),
        ("\ud800" * 9, "de"),  # nor does a lone surrogate crash it
    ],
)
def test_right_language(text, target):
    assert not is_wrong_language(text, target, CANDIDATES)


def test_faults_of_segments():
    found = faults(
        ["", ENGLISH, "Gut."], [ENGLISH] * 3, ["Das Komitee tagt.", "Ja.", "Gut."], "de", CANDIDATES
    )
    assert FAULTS == ("empty", "copied_source", "wrong_language")
    assert found.tolist() == [[True, False, False], [False, True, True], [False, False, False]]
    assert faults([], [], [], "de", CANDIDATES).shape == (0, 3)


def test_the_labels_are_those_of_py3langid():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    assert set(LanguageIdentifier.from_model_file(MODEL_FILE).labels) == LABELS


def test_sets_of_candidates_do_not_disturb_each_other():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    for candidates in (("de", "en"), ("ru", "uk", "zh"), ("de", "en")):
        alone = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        alone.set_languages(candidates)
        for text in (ENGLISH, RUSSIAN, CHINESE):
            assert _identifier_among(candidates).rank(text) == alone.rank(text)


@pytest.mark.parametrize(
    ("code", "label"),
    [("de", "de"), ("nb", "no"), ("zho_Hant", "zh"), ("ki", "kik"), ("quc", None), ("yi", None)],
)
def test_the_identifier_knows_some_languages_by_another_label_and_some_not(code, label):
    assert identifier_label(code) == label
    assert is_identifiable(code) == (label is not None)


@pytest.mark.parametrize("more", ["nb", "zho_Hant", "yi", "de"])
def test_a_candidate_that_the_identifier_knows_otherwise_or_not_at_all_fails_no_language(more):
    texts = [("Das Komitee tagt heute im Rathaus.", "de"), (ENGLISH, "en"), (ENGLISH, "de")]
    for candidates in ((*CANDIDATES, more), (more, *CANDIDATES)):
        found = [is_wrong_language(text, target, candidates) for text, target in texts]
        assert found == [False, False, True]


def test_a_build_of_the_leaderboard_and_the_choice_of_metrics_load_no_identifier():
    code = (
        "import sys; from xlt_bench.tasks.registry import get_task; task = get_task('wmt23'); "
        "print(task.members(1, 'wrong_language')['transfer']); print('py3langid' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    units, loaded = done.stdout.splitlines()
    assert "en-he" in units
    assert loaded == "False"


def test_a_target_beyond_the_candidates_is_added_to_them():
    finnish = "Tämä on suomenkielinen lause, jossa on tarpeeksi kirjaimia."
    assert "fi" not in CANDIDATES
    assert not is_wrong_language(finnish, "fi", CANDIDATES)
    assert is_wrong_language("Dies ist ein deutscher Satz mit genug Buchstaben.", "fi", CANDIDATES)


def test_a_language_that_the_identifier_does_not_know_is_never_called_wrong():
    found = faults(["Ein deutscher Satz, lang genug."], ["x"], ["y"], "ace_Arab", CANDIDATES)
    assert not found.any()


def test_language_signature_names_what_the_rate_depends_on():
    assert (
        language_signature(CANDIDATES)
        == language_signature((*CANDIDATES, "yi"))
        == "candidates:41|probability:0.05|letters:10|py3langid:0.4.0"
    )


def test_language_model_is_loaded_only_where_needed():
    code = "import sys, xlt_bench.metrics.translation; sys.exit('py3langid' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def wmt(data_dir):
    def read(direction):
        rows = wmt23.test_segments(data_dir, direction)
        return [row.source for row in rows], [row.reference for row in rows]

    return read


# Each of sacreBLEU's tokenizers.
TOKENIZED = slow_but(("de-en", "en-ja", "en-zh"), ALL_DIRECTIONS)


@pytest.mark.parametrize("direction", TOKENIZED)
def test_references_are_perfect(wmt, direction):
    target = direction.split("-")[1]
    _, references = wmt(direction)
    for metric in metrics_of(target):
        sums = segment_counts(metric, target, references, references).sum(axis=0)
        assert float(SCORES[metric](sums)) == pytest.approx(100, abs=1e-9)


@pytest.mark.parametrize("direction", TOKENIZED)
def test_scores_of_real_segments_are_sacrebleus(wmt, direction):
    target = direction.split("-")[1]
    sources, references = (side[:300] for side in wmt(direction))
    for hypotheses in (corrupted(references), sources):
        for metric in metrics_of(target):
            sums = segment_counts(metric, target, hypotheses, references).sum(axis=0)
            expected = by_sacrebleu(metric, target, hypotheses, references)
            assert float(SCORES[metric](sums)) == pytest.approx(expected, abs=1e-9)
            assert hypotheses is sources or 10 < expected < 95


def test_interval_agrees_with_sacrebleus_bootstrap(wmt):
    references = wmt("is-en")[1]
    hypotheses = [hypothesis.strip() for hypothesis in corrupted(references)]
    theirs = sacrebleu.BLEU().corpus_score(hypotheses, [references], n_bootstrap=1000)
    ours = interval(segment_counts("bleu", "en", hypotheses, references), bleu)
    assert ours.value == pytest.approx(theirs.score, abs=1e-9)
    assert ours.low < ours.value < ours.high
    # Ends of 1000 replicates vary by about 4 % of the half width between seeds.
    assert (ours.high - ours.low) / 2 == pytest.approx(theirs._ci, rel=0.15)
    assert (ours.high + ours.low) / 2 == pytest.approx(theirs._mean, abs=theirs._ci / 5)


@pytest.mark.parametrize("direction", slow_but(("en-he", "is-en", "ru-en"), ALL_DIRECTIONS))
def test_language_check_on_references_and_sources(wmt, direction):
    target = direction.split("-")[1]
    sources, references = wmt(direction)
    wrong = FAULTS.index("wrong_language")

    def rate(hypotheses):
        flags = faults(hypotheses, sources, references, target, CANDIDATES)[:, wrong]
        return float(percent(np.array([flags.sum(), len(flags)])))

    # 15 of ru-en's references are the Russian source.
    assert rate(references) < (1.2 if direction == "ru-en" else 0.5)
    assert rate(sources) > 96
