"""Reads an adapter's card (README.md): alignment languages, recipe, settings, training data."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from xlt_bench.errors import InputError, one_line
from xlt_bench.languages import language
from xlt_bench.models.adapters import AdapterFiles, read_small
from xlt_bench.models.steering_config import PIVOT, STEERING_CORPORA
from xlt_bench.results.record import Training

_MAX_HEAD = 100_000


def alignment_languages(adapter: AdapterFiles) -> list[str]:
    """Read which languages the adapter was aligned on.

    Args:
        adapter: The adapter.

    Returns:
        The language codes under `alignment_languages` in the metadata of its card (README.md);
        empty if there are none. Of a steering folder, the languages that have a vector, after those
        of the adapter below.

    Raises:
        InputError: If the metadata cannot be read, or a language is unknown.
    """
    if adapter.steers:
        below = alignment_languages(adapter.under) if adapter.under else []
        return list(dict.fromkeys([*below, *adapter.shapes]))
    languages = _card_head(adapter).get("alignment_languages") or []
    if not isinstance(languages, list) or not all(isinstance(code, str) for code in languages):
        # YAML reads a bare `no` as false: Norwegian must be quoted.
        raise InputError(
            f"adapter {adapter.name}: alignment_languages in the metadata of README.md must be a "
            f'list of language codes such as [de, "no"], got {one_line(languages, 60)}'
        )
    return [language(one_line(code, 40)).code for code in languages]


def recipe_name(adapter: AdapterFiles) -> str | None:
    """Read which recipe made the adapter.

    Args:
        adapter: The adapter.

    Returns:
        The name in a card that `train` wrote; None for other cards. Of a steering folder layer and
        scale, after the recipe of the adapter below.

    Raises:
        InputError: If the card's metadata cannot be read.
    """
    if adapter.steers:
        below = [recipe_name(adapter.under) or "adapter"] if adapter.under else []
        layer, scale = adapter.config["layer"], adapter.config["scale"]
        times = "" if scale == 1 else f", scale {scale:g}"
        return " + ".join([*below, f"steering at layer {layer}{times}"])
    name = _card_entry(adapter).get("recipe")
    return name if isinstance(name, str) else None


def trained_on_flores(adapter: AdapterFiles) -> bool | None:
    """Read whether FLORES dev, on which retrieval is measured, was in the training text.

    Args:
        adapter: The adapter.

    Returns:
        What a card that `train` or `merge` wrote says; None for other cards. Of a steering folder,
        what the card of the adapter below says; vectors are never of FLORES dev.

    Raises:
        InputError: If the card's metadata cannot be read.
    """
    if adapter.steers:
        return trained_on_flores(adapter.under) if adapter.under else False
    stated = _card_entry(adapter).get("trained_on_flores")
    return stated if isinstance(stated, bool) else None


def training(adapter: AdapterFiles) -> Training | None:
    """Read how the adapter was trained.

    Args:
        adapter: The adapter.

    Returns:
        What a card that `train` or `merge` wrote says; None for other cards. A steering folder has
        settings of its own, beside those of the adapter below.

    Raises:
        InputError: If the card's metadata cannot be read.
    """
    entry = _card_entry(adapter)
    try:
        if adapter.steers:
            return _steered(adapter)
        return Training(
            settings=entry["settings"],
            seed=entry["seed"],
            data_digests=entry.get("data_digests", {}),
            overlap=entry.get("overlap"),
        )
    except (KeyError, ValidationError):
        return None


def _steered(adapter: AdapterFiles) -> Training | None:
    """The settings of a steering folder and the training of the adapter below, if that is known."""
    below = training(adapter.under) if adapter.under else Training(settings={}, seed=0, overlap={})
    if below is None:
        return None
    config = adapter.config
    own = {f"steering.{key}": config[key] for key in ("layer", "scale", "pooling", "corpus")}
    own["steering.languages"] = sorted(adapter.shapes)
    task, codes = STEERING_CORPORA[config["corpus"]].name, (PIVOT, *sorted(adapter.shapes))
    seen = {f"{task}/{code}": config["sentences"] for code in codes}
    return Training(
        settings={**below.settings, **own},
        seed=below.seed,
        data_digests={**below.data_digests, "steering": config["corpus_digest"]},
        overlap=None if below.overlap is None else {**below.overlap, **seen},
    )


def _card_entry(adapter: AdapterFiles) -> dict[Any, Any]:
    """The `xlt_bench` entry that `train` and `merge` write; empty for other cards."""
    entry = _card_head(adapter).get("xlt_bench")
    return entry if isinstance(entry, dict) else {}


def _card_head(adapter: AdapterFiles) -> dict[str, Any]:
    """The metadata of the card: the YAML block at the top of README.md; empty if there is none."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses aliases, which can expand a few lines to gigabytes; no card needs them."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has an alias (*name); write the value out")
            return super().compose_node(parent, index)

    card = adapter.folder / "README.md"
    if not card.is_file():
        return {}
    try:
        parts = read_small(card).split("---", 2)
        if len(parts) < 3 or parts[0].strip():
            return {}
        if len(parts[1]) > _MAX_HEAD:
            raise ValueError(f"it is longer than {_MAX_HEAD:,} characters")
        head = yaml.load(parts[1], Loader)
        str(head)  # raises for a number that is too long to print
    except UnicodeDecodeError as error:
        raise InputError(
            f"adapter {adapter.name}: README.md is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    except Exception as error:  # yaml does not catch what int(), datetime() and recursion raise
        line = one_line(str(error).split("\n")[0], 200) or type(error).__name__
        raise InputError(
            f"adapter {adapter.name}: the metadata of README.md cannot be read: {line}"
        ) from None
    return head if isinstance(head, dict) else {}
