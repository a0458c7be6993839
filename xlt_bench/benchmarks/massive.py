"""MASSIVE slot filling, 20 languages (sections 4.1, 4.2 and D.2 of the paper).

System      Given a command from the user, a voice assistant will extract ... (three lines)
User        wake me up at five am this week
Assistant   time: five am; date: this week

A third of the answers are `None`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlt_bench.benchmarks.base import Counts, Item, Metric, f1, flag, lm_eval_dataset, share
from xlt_bench.data import massive
from xlt_bench.data.root import data_root
from xlt_bench.languages import language
from xlt_bench.metrics import slots

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
exact_match = Metric(share)
ill_formed = Metric(share, higher_is_better=False)
unknown_slot = Metric(share, higher_is_better=False)
not_in_utterance = Metric(share, higher_is_better=False)

METRICS: Mapping[str, Metric] = {
    "slot_f1": slot_f1,
    "slot_f1_midalign": slot_f1_midalign,
    "exact_match": exact_match,
    "ill_formed": ill_formed,
    "unknown_slot": unknown_slot,
    "not_in_utterance": not_in_utterance,
}


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


def score(item: Item, hypothesis: str) -> dict[str, Counts]:
    """Counts of one answer: spans of both scorers, exact match, and the kinds of failure."""
    result = slots.score_item(item.gold, hypothesis, item.unit in BY_CHARACTER, SLOT_TYPES)
    return {
        "slot_f1": result.counts,
        "slot_f1_midalign": result.counts_midalign,
        "exact_match": flag(result.exact),
        "ill_formed": flag(result.ill_formed),
        "unknown_slot": flag(result.unknown_slot),
        "not_in_utterance": flag(result.not_in_utterance),
    }


def dataset(unit: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """`custom_dataset` of lm-eval; `data_dir` may come from `--metadata`."""
    return lm_eval_dataset(load(data_root(data_dir), unit))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Counts]:
    """`process_results` of lm-eval."""
    return score(Item(**doc), results[0])
