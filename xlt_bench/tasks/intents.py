"""MASSIVE intents: classify a command, on the items of `massive`. Not one of the paper's tasks.

System      Given a command from the user, a voice assistant will decide what it is for. ...
User        wake me up at five am this week
Assistant   alarm_set

The prompt is ours and in English, as the paper's are, and lists the 60 intents. Version 1 ranks the
languages of `massive` with their settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlt_bench.data import massive
from xlt_bench.data.root import data_root
from xlt_bench.languages import LANGUAGES, language
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

# In the order of the alphabet, since another one may help the answers that come first.
INTENTS = tuple(
    "alarm_query alarm_remove alarm_set audio_volume_down audio_volume_mute audio_volume_other "
    "audio_volume_up calendar_query calendar_remove calendar_set cooking_query cooking_recipe "
    "datetime_convert datetime_query email_addcontact email_query email_querycontact "
    "email_sendemail general_greet general_joke general_quirky iot_cleaning iot_coffee "
    "iot_hue_lightchange iot_hue_lightdim iot_hue_lightoff iot_hue_lighton iot_hue_lightup "
    "iot_wemo_off iot_wemo_on lists_createoradd lists_query lists_remove music_dislikeness "
    "music_likeness music_query music_settings news_query play_audiobook play_game play_music "
    "play_podcasts play_radio qa_currency qa_definition qa_factoid qa_maths qa_stock "
    "recommendation_events recommendation_locations recommendation_movies social_post "
    "social_query takeaway_order takeaway_query transport_query transport_taxi transport_ticket "
    "transport_traffic weather_query".split()
)

SYSTEM = (
    "Given a command from the user, a voice assistant will decide what it is for.\n"
    f"The possible intents are: {', '.join(INTENTS)}.\n"
    "Your task is to answer with the one intent of the command, and nothing else."
)

# lm-eval's YAML refers to these by name.
accuracy = Metric(percent, 2)
unknown_intent = Metric(percent, 2, higher_is_better=False)


class Intents(TextTask):
    """Intent classification on MASSIVE 1.1."""

    name = "intents"
    title = "Intents (MASSIVE)"
    primary = "accuracy"
    metrics = text_metrics(accuracy=accuracy, unknown_intent=unknown_intent)
    shown = ("accuracy", "unknown_intent", "cut_off")
    item_metric = "accuracy"
    format_metric = "unknown_intent"
    parallel = True
    # A tokenizer of bytes needs 24 for the longest intent.
    max_new_tokens = 32
    trainable = True
    ceilings = ("accuracy",)

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
                target=row.intent,
                gold=row.intent,
            )
            for row in massive.load_intents(root, locale, split)
        ]

    def count(
        self, items: Sequence[Item], hypotheses: Sequence[str], test_set: TestSet
    ) -> dict[str, Counts]:
        """Flags for answers that are the gold intent, and for those that are no intent."""
        answers = [hypothesis.strip() for hypothesis in hypotheses]
        right = [answer == item.gold for item, answer in zip(items, answers, strict=True)]
        return {
            "accuracy": flags(right),
            "unknown_intent": flags([answer not in INTENTS for answer in answers]),
        }


TASK = Intents()


def dataset(unit: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """`custom_dataset` of lm-eval; `data_dir` may come from `--metadata`."""
    return lm_eval_dataset(TASK.load(data_root(data_dir), unit))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, list[float]]:
    """`process_results` of lm-eval."""
    return lm_eval_counts(TASK, doc, results)
