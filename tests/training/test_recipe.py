"""The recipes that ship are valid, and wrong ones are refused in one line."""

import pytest

from xlt_bench.errors import InputError
from xlt_bench.tasks.registry import get_task
from xlt_bench.training.recipe import Recipe, load_recipe, names, parse_recipe

TASK = {"name": "massive", "units": ["en"]}
ALIGNMENT = {"data": "tatoeba", "pairs": ["cy-en"]}


@pytest.mark.parametrize("name", names())
def test_shipped_recipes_are_valid_and_say_where_they_belong(name: str) -> None:
    recipe = load_recipe(name)
    beside = recipe.title.startswith("Control: ") or name.startswith("intents-")
    assert bool(recipe.paper) != beside
    # Table 2's slot-filling rows and table 10: what the paper trains on.
    others = "massive-english-only", "massive-oracle", "massive-translate-train"
    if recipe.task and recipe.task.name == "massive" and name not in others:
        assert recipe.task.units == ["ar", "en", "es", "ru", "zh"]


@pytest.mark.parametrize(
    ("name", "other", "differs"),
    [
        ("massive-align-shuffled", "massive-align-middle", {"alignment.shuffled"}),
        ("massive-align-random-layer", "massive-align-middle", {"alignment.layers"}),
        ("massive-translation", "massive-align-middle", {"alignment.loss"}),
        ("massive-oracle", "massive-baseline", {"task.units"}),
        ("massive-translate-train", "massive-baseline", {"task.units"}),
        ("uner-oracle", "uner-baseline", {"task.units"}),
    ],
)
def test_a_control_differs_in_one_thing(name: str, other: str, differs: set[str]) -> None:
    control, method = (load_recipe(recipe).identity for recipe in (name, other))
    assert control.keys() == method.keys()
    found = {
        f"{section}.{key}"
        for section, settings in control.items()
        for key in settings or {}
        if settings[key] != method[section][key]
    }
    assert found == differs


@pytest.mark.parametrize("name", ["massive", "uner"])
def test_the_oracle_learns_every_ranked_language(name: str) -> None:
    task = load_recipe(f"{name}-oracle").task
    assert task is not None
    assert task.units == list(get_task(name).test_set().units)


def test_a_random_layer_is_the_seeds() -> None:
    alignment = load_recipe("massive-align-random-layer").alignment
    assert alignment is not None
    drawn = [alignment.block_numbers(8, seed) for seed in range(200)]
    assert drawn == [alignment.block_numbers(8, seed) for seed in range(200)]
    assert {tuple(numbers) for numbers in drawn} == {(n,) for n in range(1, 9)}


def test_every_table_of_training_has_its_recipes() -> None:
    rows = [row for name in names() for row in load_recipe(name).paper]
    assert {row.table for row in rows} == {2, 3, 4, 5, 6, 7, 8, 9, 13}
    by_table = {t: sum(row.table == t for row in rows) for t in range(2, 14)}
    # Rows of the paper's tables with a training behind them (its printed rows, counted by hand).
    assert by_table[3] == 8
    assert by_table[5] == 4
    assert by_table[6] == 7
    assert by_table[7] == 6
    assert by_table[8] == 2


def test_settings_are_the_papers() -> None:
    recipe = load_recipe("massive-align-middle")
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout) == (8, 16, 0.1)
    assert recipe.training.learning_rate == 5e-4
    assert (recipe.training.batch_size, recipe.training.micro_batch_size) == (128, 32)
    assert recipe.alignment is not None
    assert recipe.alignment.languages == ["cy", "jv", "ja", "sw", "tl"]
    assert recipe.alignment.block_numbers(32, 1) == [16]
    assert load_recipe("massive-align-top").alignment.block_numbers(28, 1) == [28]  # type: ignore[union-attr]


def test_changes_reach_their_keys() -> None:
    recipe = load_recipe("massive-baseline", ["training.seed=7", "task.units=[en, es]"])
    assert recipe.training.seed == 7
    assert recipe.task is not None
    assert recipe.task.units == ["en", "es"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["training.sed=1"], "unknown key 'training.sed': did you mean 'training.seed'?"),
        (["training.learning_rate=-1"], "training.learning_rate"),
        (["task.units=[yo]"], "unknown unit of massive 'yo'"),
        (["training.batch_size=100"], "multiple of training.micro_batch_size"),
        (["seed"], "write it as key=value"),
        (["title.x=1"], "title has no keys of its own"),
        (["extra=1"], "unknown key 'extra'"),
        (["alignment={data: alma, pairs: [cs-en], layers: []}"], "alignment.layers"),
        (["alignment={data: alma, pairs: [cs-en], layers: [-0.5]}"], "alignment.layers"),
        (
            ["alignment={data: alma, pairs: [cs-en]}", "training.micro_batch_size=1"],
            "must be at least 2 for alignment",
        ),
        (
            ["alignment={data: alma, pairs: [cs-en], loss: cka}", "training.micro_batch_size=2"],
            "must be at least 4 for alignment",
        ),
        (["alignment={data: alma, pairs: [cs-en], loss: cosin}"], "alignment.loss"),
        (
            ["alignment={data: alma, pairs: [cs-en], loss: mse, symmetric: true}"],
            "symmetric needs loss: contrastive or translation",
        ),
        (
            ["alignment={data: alma, pairs: [cs-en], loss: transport, temperature: 0.001}"],
            "temperature must be at least 0.01",
        ),
        (["training.log_gradient_cosine=true"], "needs both task and alignment"),
        (
            [
                "alignment={data: alma, pairs: [cs-en]}",
                "training.log_gradient_cosine=true",
                "training.fsdp=true",
            ],
            "log_gradient_cosine and training.fsdp exclude each other",
        ),
        (
            [
                "alignment={data: alma, pairs: [cs-en]}",
                "training.alternation=microbatch",
                "training.fsdp=true",
            ],
            "training.fsdp needs training.alternation: step",
        ),
        (["training.device_map=auto", "training.fsdp=true"], "exclude each other"),
        (["training.device_map=cuda"], "training.device_map"),
        (["training.epochs=1e999"], "training.epochs"),
        (["training.epochs=1.0e+300"], "training.epochs"),
        (["training.epochs=.nan"], "training.epochs"),
        (["training.learning_rate=.inf"], "training.learning_rate"),
        (["training.learning_rate=.nan"], "training.learning_rate"),
        (["training.warmup_ratio=.nan"], "training.warmup_ratio"),
        (["training.seed=-1"], "training.seed"),
        ([f"training.seed={2**32}"], "training.seed"),
        ([f"training.batch_size={10**22}"], "training.batch_size"),
        ([f"training.max_steps={10**22}"], "training.max_steps"),
        (["training.seed=" + "9" * 5000], "not a valid YAML value"),
        (["title=2026-02-30"], "--set title=2026-02-30: not a valid YAML value"),
        (["lora.dropout=.nan"], "lora.dropout"),
        ([f"lora.r={10**22}"], "lora.r"),
        ([f"lora.alpha={10**22}"], "lora.alpha"),
        (
            ["alignment={data: alma, pairs: [cs-en], temperature: .inf}"],
            "alignment.temperature",
        ),
        (["alignment={data: alma, pairs: [cs-en], layers: [.nan]}"], "alignment.layers"),
    ],
)
def test_a_wrong_change_names_the_key(changes: list[str], said: str) -> None:
    with pytest.raises(InputError, match=r".+") as error:
        load_recipe("massive-baseline", changes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_recipes_and_languages_and_layers() -> None:
    with pytest.raises(InputError, match="did you mean 'massive-baseline'"):
        load_recipe("massive-basline")
    with pytest.raises(InputError, match="unknown language"):
        parse_recipe({"title": "t", "alignment": ALIGNMENT | {"pairs": ["xx-en"]}}, "t")
    with pytest.raises(InputError, match="task, alignment or both"):
        parse_recipe({"title": "t"}, "t")
    recipe = parse_recipe({"title": "t", "alignment": ALIGNMENT | {"layers": [9]}}, "t")
    assert recipe.alignment is not None
    with pytest.raises(InputError, match="between 1 and 8 for this model, got 9"):
        recipe.alignment.block_numbers(8, 1)


def test_an_aligned_run_has_two_updates_a_task_batch() -> None:
    baseline = Recipe(title="t", task=TASK)  # type: ignore[arg-type]
    aligned = Recipe(title="t", task=TASK, alignment=ALIGNMENT)  # type: ignore[arg-type]
    assert baseline.updates(1280) == 50
    assert aligned.updates(1280) == 100


@pytest.mark.parametrize("name", names())
def test_what_trains_on_the_sentences_of_retrieval(name: str) -> None:
    learns = load_recipe(name).learns_flores
    assert learns == (name.startswith("wmt23") or name.endswith(("alma", "flores")))
