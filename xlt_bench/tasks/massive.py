"""MASSIVE slot filling, 20 languages (sections 4.1, 4.2 and D.2 of the paper).

System      Given a command from the user, a voice assistant will extract ... (three lines)
User        wake me up at five am this week
Assistant   time: five am; date: this week

A third of the answers are `None`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlt_bench.data import massive
from xlt_bench.data.root import data_root
from xlt_bench.languages import language
from xlt_bench.metrics import slots
from xlt_bench.metrics.entities import f1
from xlt_bench.metrics.significance import Counts, percent
from xlt_bench.tasks.base import Item, Metric, flags, lm_eval_counts, lm_eval_dataset

VERSION = 1
PRIMARY = "slot_f1"
MAX_NEW_TOKENS = 128

# The middle line is in the authors' code and not in the paper's appendix.
SYSTEM = (
    "Given a command from the user, a voice assistant will extract entities essential for carry "
    "out the command.\n"
    "For example, for a command about playing a specific song, the name of the song mentioned by "
    'the user would be an entity, falling under the type of "song name".\n'
    "Your task is to extract the entities as words from the command if they fall under a "
    "predefined list of entity types."
)

# MASSIVE scores these by character, ASCII words kept whole (`char_split_locales` upstream).
BY_CHARACTER = frozenset({"ja", "zh"})

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

# Named here because lm-eval's YAML refers to them one by one.
slot_f1 = Metric(f1)
slot_f1_midalign = Metric(f1)
exact_match = Metric(percent)
ill_formed = Metric(percent, higher_is_better=False)
unknown_slot = Metric(percent, higher_is_better=False)
not_in_utterance = Metric(percent, higher_is_better=False)

METRICS: Mapping[str, Metric] = {
    "slot_f1": slot_f1,
    "slot_f1_midalign": slot_f1_midalign,
    "exact_match": exact_match,
    "ill_formed": ill_formed,
    "unknown_slot": unknown_slot,
    "not_in_utterance": not_in_utterance,
}

CEILINGS: Mapping[str, tuple[float, float]] = {
    "af": (100, 99.95), "ar": (100, 99.91), "az": (100, 99.86), "cy": (100, 99.95),
    "de": (100, 99.91), "el": (100, 99.96), "en": (99.96, 99.91), "es": (100, 99.78),
    "fr": (100, 99.87), "hi": (100, 99.73), "is": (100, 100), "ja": (99.96, 97.23),
    "jv": (100, 99.82), "ru": (100, 99.96), "sw": (100, 99.86), "th": (100, 99.93),
    "tl": (100, 99.93), "tr": (100, 99.91), "ur": (100, 99.70), "zh": (99.89, 99.59),
}  # fmt: skip
"""What MASSIVE's own answers score on the whole test set, by `slot_f1` and `slot_f1_midalign`."""


def load(root: Path, unit: str, split: massive.Split = "test") -> list[Item]:
    """The items of a language, in the order of MASSIVE's file."""
    locale = language(unit).massive_locale
    if locale is None:
        raise ValueError(f"MASSIVE has no {unit!r}")
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


def count(items: Sequence[Item], hypotheses: Sequence[str]) -> dict[str, Counts]:
    """Span counts of both scorers, exact match, and the kinds of failure."""
    results = [
        slots.score_item(item.gold, hypothesis, item.unit in BY_CHARACTER, SLOT_TYPES)
        for item, hypothesis in zip(items, hypotheses, strict=True)
    ]
    return {
        "slot_f1": np.array([result.counts for result in results]).reshape(-1, 3),
        "slot_f1_midalign": np.array([r.counts_midalign for r in results]).reshape(-1, 3),
        "exact_match": flags([result.exact for result in results]),
        "ill_formed": flags([result.ill_formed for result in results]),
        "unknown_slot": flags([result.unknown_slot for result in results]),
        "not_in_utterance": flags([result.not_in_utterance for result in results]),
    }


def dataset(unit: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """`custom_dataset` of lm-eval; `data_dir` may come from `--metadata`."""
    return lm_eval_dataset(load(data_root(data_dir), unit))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, list[float]]:
    """`process_results` of lm-eval."""
    return lm_eval_counts(sys.modules[__name__], doc, results)
