"""What gains are counted from: the rule, and attempts to turn it to someone's advantage."""

import pytest

from boards import verify
from xlt_bench.store.build import build, connect
from xlt_bench.submissions import accepted
from xlt_bench.submissions.create import About, submit

TASK = {"task.name": "massive", "task.units": ["de"], "training.max_steps": 100}
ALIGNED = {
    **TASK,
    "training.max_steps": 200,
    "alignment.data": "tatoeba",
    "alignment.pairs": ["sw-en"],
}
UNITS = {"massive": ["de", "sw"]}
OLD, NEW = "2026-01-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00"


class Board:
    """A folder of submissions that is built after each change."""

    def __init__(self, folder, make_run, root):
        self.folder, self.make_run, self.root = folder, make_run, root
        self.ids: dict[str, str] = {}

    def add(
        self, name, *, right=0.5, settings=None, seed=1, baseline=None, verified=False, **options
    ):
        training = settings and {"settings": settings, "seed": seed}
        aligned = ("sw",) if settings is None or "alignment.data" in settings else ()
        options = {"units": UNITS, "aligned": aligned, "created": OLD, **options}
        run = self.make_run(
            self.folder / "runs" / name, len(self.ids), right=right, training=training, **options
        )
        about = About(name=name, baseline=baseline and self.ids[baseline])
        made = submit(run, about, self.folder / "submissions", self.root).folder
        self.ids[name] = made.name
        others = [one.folder.name for one in accepted.of_one_system(made)]
        over = [accepted.Supersession(newer=made.name, older=o, why="a test") for o in others]
        accepted.accept(made.parent, [made.name], over)
        if verified:
            verify(made)

    def chosen(self, name, task="massive"):
        """(kind, baseline, default, declared) of a submission in a task, the default one first."""
        built = build(self.folder / "submissions", self.folder / "db")
        assert not built.refused
        names = {value: key for key, value in self.ids.items()}
        with connect(self.folder / "db") as store:
            found = store.execute(
                "SELECT kind, baseline, is_default, is_declared FROM baselines "
                "WHERE submission = ? AND task = ? ORDER BY is_default DESC",
                [self.ids[name], task],
            ).fetchall()
        return [(kind, names[one], default, declared) for kind, one, default, declared in found]

    def default(self, name, task="massive"):
        found = [(kind, one) for kind, one, default, _ in self.chosen(name, task) if default]
        assert len(found) < 2
        return found[0] if found else None


@pytest.fixture
def board(make_run, made_up_root, tmp_path):
    """A bare model, SFT and its aligned counterpart."""
    board = Board(tmp_path, make_run, made_up_root)
    board.add("bare", right=0.2)
    board.add("sft", right=0.5, adapter="sft", settings=TASK)
    board.add("aligned", right=0.8, adapter="aligned", settings=ALIGNED)
    return board


def test_sft_of_the_same_training_comes_first_and_else_the_bare_model(board):
    board.add("other adapter", adapter="other")
    assert board.chosen("aligned") == [("sft", "sft", True, False)]
    assert board.default("sft") == ("bare", "bare")
    assert board.default("other adapter") == ("bare", "bare")
    assert board.chosen("bare") == []


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("seed", {"seed": 2}),
        ("data", {"settings": {**TASK, "task.units": ["en"]}}),
        ("updates", {"settings": {**TASK, "training.max_steps": 10}}),
        ("learning rate", {"settings": {**TASK, "training.learning_rate": 0.1}}),
        ("number format", {"dtype": "bfloat16"}),
        ("limit", {"limit": 3}),
        ("base model", {"model": "large"}),
        ("alignment", {"settings": {**ALIGNED, "training.max_steps": 100}}),
        # Its settings say SFT, and its record that it was aligned.
        ("what its record says", {"aligned": ("sw",)}),
    ],
)
def test_an_sft_that_differs_is_none(board, what, options):
    """A straw man: an untrained or otherwise different SFT, newer and with more units."""
    board.add("lonely", right=0.8, adapter="lonely", settings=ALIGNED, seed=7)
    straw = {"adapter": "straw", "settings": TASK, "seed": 7, "right": 0.0, "created": NEW}
    board.add("straw man", **{**straw, **options})
    assert board.default("lonely") == ("bare", "bare"), what


def test_the_same_sft_with_another_precision_is_one_and_says_so(board):
    board.add("seed 7", right=0.8, adapter="seven", settings=ALIGNED, seed=7)
    board.add("sft 7", adapter="sft7", settings={**TASK, "training.precision": "float32"}, seed=7)
    assert board.default("seed 7") == ("sft", "sft 7")
    with connect(board.folder / "db") as store:
        found = store.execute(
            "SELECT differs FROM baselines WHERE kind = 'sft' AND len(differs) > 0"
        )
        assert found.fetchall() == [(["training.precision"],)]


def test_a_newer_bare_run_of_one_language_moves_no_baseline(board):
    """It used to become the baseline of every submission on its base model."""
    before = [board.default(name) for name in ("aligned", "sft")]
    board.add("one language", right=1.0, units={"massive": ["de"]}, created=NEW)
    board.add("another task", right=1.0, units={"uner": ["da"]}, created=NEW)
    assert [board.default(name) for name in ("aligned", "sft")] == before
    assert board.default("aligned", "uner") is None


def test_an_sft_run_of_one_of_three_languages_does_not_displace_the_bare_model(board):
    units = {"retrieval": ["de", "en", "sw"]}
    board.add("bare retrieval", units=units)
    board.add("aligned retrieval", adapter="a", settings=ALIGNED, seed=3, units=units)
    board.add("sft", adapter="s", settings=TASK, seed=3, units={"retrieval": ["de", "sw"]})
    # Retrieval among other languages is another question, so no unit is shared.
    assert board.default("aligned retrieval", "retrieval") == ("bare", "bare retrieval")


def test_a_superseded_system_is_no_baseline(board):
    """A newer run of the same SFT, with other answers, takes its place."""
    board.add("sft again", right=0.6, adapter="sft", settings=TASK, created=NEW)
    assert board.default("aligned") == ("sft", "sft again")
    board.add("declares the old one", adapter="x", baseline="sft")
    assert board.chosen("declares the old one") == [("bare", "bare", True, False)]


def test_a_declared_straw_man_is_second_and_marked(board):
    board.add("straw man", right=0.0, adapter="straw")
    board.add("mine", right=0.9, adapter="mine", settings=ALIGNED, baseline="straw man")
    assert board.chosen("mine") == [
        ("sft", "sft", True, False),
        ("declared", "straw man", False, True),
    ]
    with connect(board.folder / "db") as store:
        query = (
            "SELECT is_default, is_declared, gain FROM gain_means "
            "WHERE submission = ? AND split = 'all' ORDER BY is_default DESC"
        )
        first, second = store.execute(query, [board.ids["mine"]]).fetchall()
    assert first[:2] == (True, False)
    assert second[:2] == (False, True)
    assert second[2] > first[2], "a gain over the straw man is larger, and is not the default"


def test_a_declared_baseline_that_is_the_default_is_shown_once(board):
    board.add("mine", adapter="mine", settings=ALIGNED, baseline="sft")
    assert board.chosen("mine") == [("sft", "sft", True, True)]


@pytest.mark.parametrize("options", [{"limit": 3}, {"units": {"uner": ["da"]}}])
def test_a_declared_baseline_that_cannot_be_compared_is_none(board, options):
    board.add("odd", right=0.0, adapter="odd", **options)
    board.add("mine", adapter="mine", settings=ALIGNED, baseline="odd")
    assert board.chosen("mine") == [("sft", "sft", True, False)]


def test_only_comparable_systems_are_offered(board):
    board.add("limited", adapter="limited", limit=3)
    board.add("large", model="large")
    board.add("entities", adapter="e", units={"uner": ["da"]})
    board.add("sft again", right=0.6, adapter="sft", settings=TASK, created=NEW)
    board.default("aligned")
    names = {value: key for key, value in board.ids.items()}
    with connect(board.folder / "db") as store:
        found = store.execute(
            "SELECT other, is_default, kind, units FROM comparable WHERE submission = ?",
            [board.ids["aligned"]],
        ).fetchall()
    assert {(names[other], *rest) for other, *rest in found} == {
        ("bare", False, None, 2),
        ("sft again", True, "sft", 2),
    }


def test_every_gain_says_what_it_is_counted_from(board):
    board.default("aligned")
    with connect(board.folder / "db") as store:
        for view in ("significance", "gain_means", "method_gains", "method_gain_means"):
            kinds = store.execute(f"SELECT DISTINCT baseline_kind FROM {view}").fetchall()
            assert set(kinds) == {("sft",), ("bare",)}, view


def test_a_forged_sft_or_bare_model_moves_no_gain_of_a_verified_submission(board):
    """Anybody can declare the settings of the SFT that a verified submission has none of."""
    verified = {"settings": ALIGNED, "verified": True}
    board.add("bare 16", dtype="bfloat16", verified=True)
    board.add("aligned 16", dtype="bfloat16", adapter="a16", **verified)
    board.add("seed 2", adapter="a2", seed=2, **verified)
    assert board.default("seed 2") == ("bare", "bare"), "none with its number format is verified"
    forged = {"right": 1.0, "settings": TASK}
    board.add("forged 16", adapter="f16", dtype="bfloat16", **forged)
    board.add("forged 2", adapter="f2", seed=2, **forged)
    assert board.default("aligned 16") == ("bare", "bare 16")
    assert board.default("seed 2") == ("sft", "forged 2")
    board.add("sft 2", adapter="s2", seed=2, settings=TASK, verified=True)
    assert board.default("seed 2") == ("sft", "sft 2"), "verified, though it is newer"
    board.add("self-reported", adapter="sr", seed=2, settings=ALIGNED)
    assert board.default("self-reported") == ("sft", "sft 2")


def test_a_forged_seed_of_a_verified_method_takes_the_place_of_no_system_of_it(board):
    settings = {**ALIGNED, "training.learning_rate": 0.1}
    sft = {**TASK, "training.learning_rate": 0.1}

    def gain():
        board.default("mine")
        query = (
            "SELECT submissions, baseline_kind, gain FROM method_gain_means g JOIN submissions s "
            "USING (method) WHERE s.id = ? AND split = 'all'"
        )
        with connect(board.folder / "db") as store:
            return store.execute(query, [board.ids["mine"]]).fetchall()

    board.add("mine", adapter="m", right=0.8, settings=settings, verified=True)
    before = gain()
    assert [(ids, kind) for ids, kind, _ in before] == [([board.ids["mine"]], "bare")]
    board.add("seed 9", adapter="m9", right=0.0, settings=settings, seed=9)
    board.add("sft 9", adapter="s9", right=1.0, settings=sft, seed=9)
    board.add("seed 1 again", adapter="m1", right=0.0, settings=settings, created=OLD)
    assert gain() == before
