"""MASSIVE slot filling (sections 4.1, 4.2 and D.2 of the paper).

System      Given a command from the user, a voice assistant will extract ... (three lines)
User        wake me up at five am this week
Assistant   time: five am; date: this week

A third of the answers are `None`. Versions 1 and 2 rank the paper's 20 languages; every locale of
MASSIVE 1.1 can be evaluated.

Version 2 has the items of version 1 and scores them differently: values are compared in Unicode's
normal form C, and `slot_f1_midalign` reads answers as the authors' script does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from xlt_bench.data import massive
from xlt_bench.data.root import data_root
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.metrics import midalign, slots
from xlt_bench.metrics.entities import f1
from xlt_bench.metrics.significance import Counts, percent
from xlt_bench.tasks.base import (
    Item,
    Metric,
    Split,
    TextTask,
    flags,
    lm_eval_counts,
    lm_eval_dataset,
    text_metrics,
)
from xlt_bench.tasks.test_set import TestSet

# The middle line is in the authors' code but not in the paper's appendix.
SYSTEM = (
    "Given a command from the user, a voice assistant will extract entities essential for carry "
    "out the command.\n"
    "For example, for a command about playing a specific song, the name of the song mentioned by "
    'the user would be an entity, falling under the type of "song name".\n'
    "Your task is to extract the entities as words from the command if they fall under a "
    "predefined list of entity types."
)

SLOT_TYPES = frozenset(
    "alarm_type app_name artist_name audiobook_author audiobook_name business_name business_type "
    "change_amount coffee_type color_type cooking_type currency_name date definition_word "
    "device_type drink_type email_address email_folder event_name food_type game_name game_type "
    "general_frequency house_place ingredient joke_type list_name meal_type media_type "
    "movie_name movie_type music_album music_descriptor music_genre news_topic order_type person "
    "personal_info place_name player_setting playlist_name podcast_descriptor podcast_name "
    "radio_name relation song_name sport_type time time_zone timeofday transport_agency "
    "transport_descriptor transport_name transport_type weather_descriptor".split()
)

# lm-eval's YAML refers to these by name.
slot_f1 = Metric(f1, 3)
slot_f1_midalign = Metric(f1, 3)
exact_match = Metric(percent, 2)
ill_formed = Metric(percent, 2, higher_is_better=False)
unknown_slot = Metric(percent, 2, higher_is_better=False)
not_in_utterance = Metric(percent, 2, higher_is_better=False)


def by_character(unit: str) -> bool:
    """Whether a language is scored by character rather than by word, which its locale decides."""
    return language(unit).massive in massive.SPLIT_BY_CHARACTER


class Massive(TextTask):
    """Slot filling on MASSIVE 1.1."""

    name = "massive"
    title = "Slot filling (MASSIVE)"
    primary = "slot_f1"
    metrics = text_metrics(
        slot_f1=slot_f1,
        slot_f1_midalign=slot_f1_midalign,
        exact_match=exact_match,
        ill_formed=ill_formed,
        unknown_slot=unknown_slot,
        not_in_utterance=not_in_utterance,
    )
    shown = ("slot_f1", "slot_f1_midalign", "exact_match", "ill_formed", "cut_off")
    item_metric = "exact_match"
    format_metric = "ill_formed"
    parallel = True
    ceilings = ("slot_f1", "slot_f1_midalign")
    max_new_tokens = 128
    trainable = True

    def units(self) -> list[str]:
        """The languages with a locale in MASSIVE 1.1."""
        return [row.code for row in LANGUAGES.values() if row.massive]

    def source(self, unit: str) -> tuple[str, str]:
        """The locale in MASSIVE."""
        return "massive", str(language(unit).massive)

    def load(self, root: Path, unit: str, split: Split = "test") -> list[Item]:
        """The items of a language, in the order of MASSIVE's file."""
        locale = language(unit).massive
        if locale is None:
            raise ValueError(f"MASSIVE has no locale for {unit!r}")
        return [
            Item(
                id=row.id,
                unit=unit,
                system=SYSTEM,
                user=row.text,
                target=slots.render(slots.slots(row.annotated)),
                gold=row.annotated,
            )
            for row in massive.load(root, locale, split)
        ]

    def count(
        self, items: Sequence[Item], hypotheses: Sequence[str], test_set: TestSet
    ) -> dict[str, Counts]:
        """Span counts of both scorers, and flags for exact matches and each kind of failure."""
        score = _score_version_1 if test_set.version == 1 else _score
        results = [
            score(item, hypothesis) for item, hypothesis in zip(items, hypotheses, strict=True)
        ]
        return {
            "slot_f1": np.array([result.counts for result in results]).reshape(-1, 3),
            "slot_f1_midalign": np.array([r.counts_midalign for r in results]).reshape(-1, 3),
            "exact_match": flags([result.exact for result in results]),
            "ill_formed": flags([result.ill_formed for result in results]),
            "unknown_slot": flags([result.unknown_slot for result in results]),
            "not_in_utterance": flags([result.not_in_utterance for result in results]),
        }

    def nothing_to_find(self, counts: Mapping[str, Counts]) -> NDArray[np.bool_]:
        """Items without slots: a third of them."""
        empty: NDArray[np.bool_] = counts["slot_f1"][:, 2] == 0
        return empty


@dataclass(frozen=True)
class _Result:
    """The score of one answer: span counts of both scorers, and faults."""

    counts: tuple[int, int, int]
    """Correct, predicted and gold spans for `slot_f1`."""
    counts_midalign: tuple[int, int, int]
    """The same for `slot_f1_midalign`."""
    exact: bool
    """Whether the slots are exactly the gold ones, in any order."""
    ill_formed: bool
    unknown_slot: bool
    """Whether a slot type is not MASSIVE's."""
    not_in_utterance: bool
    """Whether a value was not found in the utterance."""


def _score(item: Item, hypothesis: str) -> _Result:
    """Score an answer by the rules of version 2."""
    answered, well_formed = slots.parse(hypothesis)
    read = midalign.read(hypothesis, by_character(item.unit))
    annotated = normalize("NFC", item.gold)
    return _result(item, annotated, slots.normalised(answered), well_formed, read)


def _score_version_1(item: Item, hypothesis: str) -> _Result:
    """Score an answer by the rules of version 1, so that its submissions can be checked."""
    answered, well_formed = slots.parse(hypothesis)
    words = midalign.words_of(answered, by_character(item.unit))
    return _result(item, item.gold, answered, well_formed, words)


def _result(
    item: Item,
    annotated: str,
    answered: list[slots.Slot],
    well_formed: bool,
    words: list[tuple[str, midalign.Words]],
) -> _Result:
    """The result of an answer: `answered` is what `slot_f1` read in it, `words` the other scorer.

    `annotated` is the gold that `slot_f1` compares with; the other scorer's is as published.
    """
    characters = by_character(item.unit)
    tokens, gold = slots.gold_labels(annotated, characters)
    predicted, lost = slots.place(tokens, answered, characters)
    official_tokens, official = slots.gold_labels(item.gold, characters, official=True)
    return _Result(
        counts=slots.span_counts(gold, predicted),
        counts_midalign=slots.span_counts(official, midalign.place(official_tokens, words)),
        exact=well_formed and Counter(answered) == Counter(slots.slots(annotated)),
        ill_formed=not well_formed,
        unknown_slot=any(slot not in SLOT_TYPES for slot, _ in answered),
        not_in_utterance=bool(lost),
    )


TASK = Massive()


def dataset(unit: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """`custom_dataset` of lm-eval; `data_dir` may come from `--metadata`."""
    return lm_eval_dataset(TASK.load(data_root(data_dir), unit))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, list[float]]:
    """`process_results` of lm-eval."""
    return lm_eval_counts(TASK, doc, results)
