"""How an adapter was trained, from the settings of recipes and merges, without any answers."""

import pytest

from xlt_bench.results.record import Training
from xlt_bench.submissions.trainings import (
    Trained,
    _kind,
    _readable,
    aligned_layers,
    oracle_key,
    sft_key,
)
from xlt_bench.training.recipe import load_recipe, parse_recipe


def trained(settings, seed=3):
    assert _readable(settings)
    return Trained(_kind(settings), "m", None, Training(settings=settings, seed=seed))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("massive-oracle", "sft"),
        ("massive-translate-train", "sft"),
        ("massive-align-shuffled", "aligned"),
        ("massive-align-random-layer", "aligned"),
        ("massive-translation", "aligned"),
        ("intents-baseline", "sft"),
    ],
)
def test_controls_have_a_kind_and_their_layers(name, kind):
    recipe = load_recipe(name, ["training.seed=3"])
    one = trained(recipe.settings)
    assert one.kind == kind
    expected = recipe.alignment.block_numbers(12, 3) if recipe.alignment else []
    assert aligned_layers(one, 12) == expected


def test_a_user_s_own_pairs_are_aligned_at_their_layers():
    raw = {"title": "t", "alignment": {"data": {"cy-en": "x.tsv"}, "layers": [0.25, 7]}}
    assert aligned_layers(trained(parse_recipe(raw, "t").settings), 12) == [3, 7]


def test_merges_of_every_kind_are_merges():
    task = Training(settings=load_recipe("massive-baseline").settings, seed=1, overlap={"a": 1})
    other = Training(settings=load_recipe("intents-baseline").settings, seed=2, overlap={"a": 4})
    swap = task.merged_with(
        {"merged": other}, {"merged.alignment_blocks": "5-12", "merged.combination": "cat"}
    )
    references = {"reference_source": other, "reference_target": other}
    moved = task.merged_with(references, {"merged.weight": 1.0, "merged.combination": "cat"})
    for merged in (swap, moved):
        assert _kind(merged.settings) == "merged"
        assert merged.overlap == {"a": 4}
        assert merged.seed == 1
    assert moved.settings["reference_target.training.seed"] == 2
    assert (
        task.merged_with({"merged": other.model_copy(update={"overlap": None})}, {}).overlap is None
    )


@pytest.mark.parametrize("name", ["massive-baseline", "massive-align-middle"])
def test_what_is_steered_has_the_sft_of_its_adapter(name):
    settings = load_recipe(name, ["training.max_steps=100"]).settings
    below, one = trained(settings), trained(settings | {"steering.layer": 4, "steering.scale": 2.0})
    assert (one.kind, aligned_layers(one, 12)) == ("steered", [4])
    assert (sft_key(one), oracle_key(one)) == (sft_key(below), oracle_key(below))
    bare = trained({"steering.layer": 4})
    assert (bare.kind, sft_key(bare), oracle_key(bare)) == ("steered", None, None)


@pytest.mark.parametrize("layer", [True, 0, -1, 10**15, 4.5, "4", None, [4]])
def test_an_impossible_steered_layer_is_none(layer):
    assert aligned_layers(trained({"steering.layer": layer}), 12) == []


@pytest.mark.parametrize(
    "change",
    [
        {"alignment.layers": ["top"]},
        {"merged.training.seed": -1},
        {"alignment.layers": "random"},
        # These ended the build of the whole leaderboard.
        {"alignment.layers": [True]},
        {"alignment.layers": [2**53]},
        {"merged.alignment.layers": [1e300]},
    ],
    ids=str,
)
def test_hostile_settings_are_not_computed_with(change):
    assert not _readable(load_recipe("massive-align-middle").settings | change)
