"""BLEU and chrF++ from additive counts of sacreBLEU, and the faults of translations.

sacreBLEU (Post, 2018) tokenizes, matches n-grams and counts them for each segment. Only the last
step, from summed counts to a score, is repeated here, vectorised, so that the bootstrap can score a
thousand resamples at once; tests compare it with `corpus_score`.

The paper (section 4) scores Japanese with ja-mecab and Chinese with zh, the authors' code (github
dannigt/mid-align) uses 13a for all; we compute both, `bleu` and `bleu_13a`. COMET runs in an
environment of its own: see xlt_bench.evaluation.comet.

metrics_of, signature           the scores of a target language, and their settings
segment_counts                  counts of each segment
bleu, chrf                      scores of summed counts
identifier_label, is_identifiable               what the language identifier knows
is_wrong_language, is_copied_source, faults    faults of a segment
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xlt_bench.metrics.significance import Floats

Metric = Literal["bleu", "bleu_13a", "chrf"]

TOKENIZERS = {"ja": "ja-mecab", "zh": "zh"}
"""BLEU's tokenizer by target language, where it is not DEFAULT_TOKENIZER."""

DEFAULT_TOKENIZER = "13a"

FAULTS = ("empty", "copied_source", "wrong_language")
"""The columns of `faults`; a segment can have several."""

MIN_PROBABILITY = 0.05
MIN_LETTER_BYTES = 10

_ORDER = 4  # of BLEU's n-grams
_BETA = 2  # of chrF++: recall weighs twice as much


def metrics_of(target: str) -> tuple[Metric, ...]:
    """List the scores of a target language.

    Args:
        target: The code of the target language (`ja`).

    Returns:
        BLEU and chrF++, and BLEU with 13a if the language has another tokenizer.
    """
    return ("bleu", "bleu_13a", "chrf") if target in TOKENIZERS else ("bleu", "chrf")


@cache
def _sacrebleu(metric: Metric, target: str) -> Any:
    """The sacreBLEU object of a metric; cached, since loading MeCab's dictionary takes a while."""
    from sacrebleu.metrics import BLEU, CHRF  # here, since importing it takes a fifth of a second

    if metric == "chrf":
        return CHRF(word_order=2)
    default = metric == "bleu_13a"
    tokenizer = DEFAULT_TOKENIZER if default else TOKENIZERS.get(target, DEFAULT_TOKENIZER)
    # force silences a warning about input that looks tokenized; it does not change the score.
    return BLEU(tokenize=tokenizer, force=True)


def signature(metric: Metric, target: str) -> str:
    """Return sacreBLEU's signature of a metric.

    Args:
        metric: The metric.
        target: The code of the target language.

    Returns:
        Such as `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0`.
    """
    scorer = _sacrebleu(metric, target)
    scorer.num_refs = 1  # sacreBLEU sets it when it sees references
    return str(scorer.get_signature())


def segment_counts(
    metric: Metric, target: str, hypotheses: Sequence[str], references: Sequence[str]
) -> NDArray[np.int64]:
    """Count n-grams of each segment.

    Args:
        metric: The metric.
        target: The code of the target language.
        hypotheses: n translations; white space around them is stripped.
        references: n references, as published.

    Returns:
        (n, 10) for BLEU: lengths of hypothesis and reference, then matches and totals of orders 1
        to 4. (n, 24) for chrF++: n-grams of hypothesis, reference and both, for 6 orders of
        characters and 2 of words.

    Raises:
        ValueError: If there are no segments, or the numbers differ.
    """
    if not hypotheses or len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    stripped = [hypothesis.strip() for hypothesis in hypotheses]
    scorer = _sacrebleu(metric, target)
    rows = scorer._extract_corpus_statistics(stripped, [list(references)])
    return np.array(rows, dtype=np.int64)


def bleu(sums: Floats) -> Floats:
    """Compute corpus BLEU with exponential smoothing and without effective order.

    The j-th order without a match counts 1/2^j matches.

    Args:
        sums: (..., 10), summed counts.

    Returns:
        (...): 0 to 100; 0 if nothing matches, or the output is too short for an n-gram of each
        order.
    """
    sums = np.asarray(sums, dtype=np.float64)
    hypothesis, reference = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + _ORDER], sums[..., 2 + _ORDER :]
    missed = matches == 0
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), matches)
    defined = (matches.max(axis=-1) > 0) & (totals.min(axis=-1) > 0)
    precision = smoothed / np.where(defined[..., None], totals, 1.0)
    brevity = np.minimum(0.0, 1.0 - reference / np.where(defined, hypothesis, 1.0))
    score = 100.0 * np.exp(brevity + np.log(precision).mean(axis=-1))
    return np.where(defined, score, 0.0)


def chrf(sums: Floats) -> Floats:
    """Compute corpus chrF++.

    F2 of the mean precision and the mean recall over the orders of which both sides have n-grams.

    Args:
        sums: (..., 24), summed counts.

    Returns:
        (...): 0 to 100.
    """
    sums = np.asarray(sums, dtype=np.float64)
    hypothesis, reference, matches = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    used = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=-1), 1)
    precision = (matches / np.where(used, hypothesis, np.inf)).sum(axis=-1) / orders
    recall = (matches / np.where(used, reference, np.inf)).sum(axis=-1) / orders
    weight = _BETA**2
    denominator = weight * precision + recall
    score = 100.0 * (1 + weight) * precision * recall
    defined = denominator > 0
    return np.where(defined, score / np.where(defined, denominator, 1.0), 0.0)


SCORES: dict[Metric, Callable[[Floats], Floats]] = {"bleu": bleu, "bleu_13a": bleu, "chrf": chrf}


@cache
def _identifier() -> Any:
    """py3langid's model with all of its labels as candidates; half a second to load."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _identifier_among(candidates: tuple[str, ...]) -> Any:
    """py3langid's model with these labels as candidates; copies share the tables of the whole."""
    identifier = copy(_identifier())
    identifier.set_languages(list(candidates))
    return identifier


# The labels of py3langid 0.4: loading the model to ask for them takes half a second.
LABELS = frozenset(
    "ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu "
    "ext fa fi fo fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is "
    "it ja jv ka kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne "
    "nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta "
    "te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx".split()
)
# What py3langid calls a language where its label is not the table's code.
_IDENTIFIED_AS = {"ff": "fuv", "gn": "gug", "ki": "kik", "nb": "no", "zho_Hant": "zh"}


def identifier_label(code: str) -> str | None:
    """What the language identifier calls a language; None if it does not know it.

    Args:
        code: A code of the language table.
    """
    label = _IDENTIFIED_AS.get(code, code)
    return label if label in LABELS else None


def is_identifiable(target: str) -> bool:
    """Whether the language identifier knows a language (a code of the language table)."""
    return identifier_label(target) is not None


def _known(codes: Sequence[str]) -> tuple[str, ...]:
    """The labels of the languages that the identifier knows, each once; it takes no others."""
    labels = (identifier_label(code) for code in codes)
    return tuple(dict.fromkeys(label for label in labels if label))


def is_wrong_language(text: str, target: str, candidates: tuple[str, ...]) -> bool:
    """Whether the text is clearly not in the target language.

    True where py3langid gives the target a probability under MIN_PROBABILITY among the candidates,
    to which the target is added. Texts of fewer than MIN_LETTER_BYTES bytes (UTF-8) of letters are
    not judged and count as right: names and interjections belong to no language, and bytes weigh a
    Han or Hebrew letter more than a Latin one. Simplified and Traditional Chinese are one language.

    With these two values and the 41 candidates of version 1, 0 to 0.4 % of the correct references
    of each direction are called wrong (ru-en 1.1 %: 15 of its 19 are indeed left in Russian), and
    96.5 to 100 % of the sources.

    Args:
        text: A hypothesis.
        target: A code of the language table for which `is_identifiable` is true.
        candidates: Codes of the language table, as the test set pins them; languages that py3langid
            does not know are left out.
    """
    letters = "".join(character for character in text if character.isalpha())
    if len(letters.encode(errors="surrogatepass")) < MIN_LETTER_BYTES:
        return False
    (label,) = _known([target])
    probability: float = dict(_identifier_among(_known([*candidates, target])).rank(text))[label]
    return probability < MIN_PROBABILITY


def language_signature(candidates: tuple[str, ...]) -> str:
    """What the wrong-language rate depends on, in the manner of sacreBLEU's signatures."""
    from importlib.metadata import version

    return (
        f"candidates:{len(_known(candidates))}|probability:{MIN_PROBABILITY}"
        f"|letters:{MIN_LETTER_BYTES}|py3langid:{version('py3langid')}"
    )


def is_copied_source(hypothesis: str, source: str, reference: str) -> bool:
    """Check whether a hypothesis is a copy of the source, to which COMET gives about 66.

    Args:
        hypothesis: The translation.
        source: The source.
        reference: The reference.

    Returns:
        Whether hypothesis and source are equal, ignoring white space, and the reference is not.
    """
    folded = " ".join(source.split())
    return " ".join(hypothesis.split()) == folded != " ".join(reference.split())


def faults(
    hypotheses: Sequence[str],
    sources: Sequence[str],
    references: Sequence[str],
    target: str,
    candidates: tuple[str, ...],
) -> NDArray[np.bool_]:
    """Find the faults of each segment.

    Args:
        hypotheses: n translations.
        sources: n sources.
        references: n references.
        target: The code of the target language; one that the identifier does not know is never
            called wrong.
        candidates: The candidates of the language identifier, as the test set pins them.

    Returns:
        (n, 3): whether a segment has each of FAULTS.

    Raises:
        ValueError: If the numbers differ.
    """
    judged = is_identifiable(target)
    rows = [
        (
            not hypothesis.strip(),
            is_copied_source(hypothesis, source, reference),
            judged and is_wrong_language(hypothesis, target, candidates),
        )
        for hypothesis, source, reference in zip(hypotheses, sources, references, strict=True)
    ]
    return np.array(rows, dtype=np.bool_).reshape(-1, len(FAULTS))
