"""Methods in the database: their systems, and gains that are those of `compare`."""

import pytest

from xlt_bench.errors import InputError
from xlt_bench.store.build import build, connect
from xlt_bench.submissions.compare import compare_methods, load_system
from xlt_bench.submissions.create import About, submit

TASK = {"task.name": "massive", "task.units": ["de"], "training.max_steps": 100}
ALIGNED = {
    **TASK,
    "training.max_steps": 200,
    "alignment.data": "tatoeba",
    "alignment.pairs": ["sw-en"],
}
UNITS = {"massive": ["de", "sw"], "retrieval": ["de", "en", "sw"]}


@pytest.fixture(scope="module")
def board(make_run, made_up_root, tmp_path_factory):
    """Three seeds of SFT and of alignment, and an adapter that nothing is known of."""
    folder = tmp_path_factory.mktemp("methods")
    ids = {}

    def add(name, seed, **options):
        run = make_run(folder / name, seed, units=UNITS, **options)
        submissions = folder / "submissions"
        ids[name] = submit(run, About(name=name), submissions, made_up_root).folder.name

    for seed in (1, 2, 3):
        training = {"settings": TASK, "seed": seed}
        add(f"sft {seed}", seed, adapter=f"sft{seed}", right=0.4, training=training, aligned=())
        training = {"settings": ALIGNED, "seed": seed}
        add(f"aligned {seed}", 9 + seed, adapter=f"a{seed}", right=0.8, training=training)
    # The same training again: a repeat of one seed does not count twice.
    add("again 3", 20, adapter="a3 again", right=0.8, training={"settings": ALIGNED, "seed": 3})
    add("unknown", 30, adapter="unknown")
    build(folder / "submissions", folder / "db")
    return folder, ids


def load(board, root, *names):
    folder, ids = board
    return [load_system(ids[name], folder / "submissions", root) for name in names]


def rows(board, query, *given):
    with connect(board[0] / "db") as store:
        found = store.execute(query, given)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_the_systems_of_a_method_differ_in_their_seed(board):
    found = rows(board, "SELECT DISTINCT method, kind, name, seed FROM method_systems")
    by_method = {}
    for row in found:
        by_method.setdefault((row["method"], row["kind"]), []).append((row["name"], row["seed"]))
    assert sorted(sorted(one) for one in by_method.values()) == [
        [("again 3", 3), ("aligned 1", 1), ("aligned 2", 2), ("aligned 3", 3)],
        [("sft 1", 1), ("sft 2", 2), ("sft 3", 3)],
        [("unknown", None)],
    ]
    assert {kind for _, kind in by_method} == {"aligned", "sft", "unknown"}


def test_the_store_and_compare_give_the_same_verdict_on_methods(board, made_up_root):
    ours = load(board, made_up_root, "aligned 1", "aligned 2", "aligned 3")
    theirs = load(board, made_up_root, "sft 3", "sft 1", "sft 2")
    compared, notes = compare_methods(ours, theirs)
    assert notes == []
    stored = rows(board, "SELECT * FROM method_gains WHERE seeds = 3")
    assert {row["verdict"] for row in stored} == {"methods"}
    assert len(stored) == sum(len(one.units) for one in compared) == 5
    by_unit = {(row["task"], row["unit"]): row for row in stored}
    for one in compared:
        assert one.covers_seeds
        for unit in one.units:
            row, gain = by_unit[one.task, unit.unit], unit.gain
            given = (gain.value, gain.low, gain.high, gain.p, unit.p_holm, unit.spread)
            keys = ("gain", "low", "high", "p", "p_holm", "spread")
            assert tuple(row[key] for key in keys) == pytest.approx(given)
            assert row["significant"] == (unit.p_holm < 0.05)
    means = rows(board, "SELECT * FROM method_gain_means WHERE seeds = 3")
    by_split = {(row["task"], row["split"]): row for row in means}
    for one in compared:
        for mean in one.means:
            row = by_split[one.task, mean.split]
            assert (row["gain"], row["p"]) == pytest.approx((mean.gain.value, mean.gain.p))


def test_with_one_seed_only_the_systems_are_said_to_differ(board, made_up_root, run_cli):
    folder, ids = board
    options = ["--submissions", folder / "submissions"]
    code, out, _ = run_cli("compare", ids["aligned 1"], ids["sft 1"], *options)
    text = " ".join(out.split())
    assert code == 0
    assert "the two systems differ" in text or "the two systems are not shown to differ" in text
    assert "Whether their methods do needs several seeds" in text
    assert "the two methods" not in text
    methods = [",".join(ids[f"{name} {seed}"] for seed in (1, 2, 3)) for name in ("aligned", "sft")]
    code, out, _ = run_cli("compare", *methods, *options)
    text = " ".join(out.split())
    assert code == 0
    assert "the two methods" in text
    assert "the two systems" not in text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("aligned 1", "sft 2"), "differ in more than their seed"),
        (("aligned 3", "again 3"), "both have seed 3"),
        (("aligned 1", "aligned 1"), "are one system"),
    ],
)
def test_what_is_not_a_method_is_refused(board, made_up_root, names, message):
    sft = load(board, made_up_root, "sft 1")
    with pytest.raises(InputError, match=message):
        compare_methods(load(board, made_up_root, *names), sft)


def test_what_is_not_paired_or_not_known_is_noted(board, made_up_root):
    ours = load(board, made_up_root, "aligned 1", "aligned 2")
    found, notes = compare_methods(ours, load(board, made_up_root, "sft 2", "sft 3"))
    assert notes == ["the seeds are not the same in both methods, so the systems are not paired"]
    assert all(one.covers_seeds for one in found)
    found, notes = compare_methods(ours, load(board, made_up_root, "sft 2"))
    assert notes == ["sft 2 is one training: intervals cover test items alone"]
    assert not any(one.covers_seeds for one in found)
    _, notes = compare_methods([*ours, *load(board, made_up_root, "unknown")], ours)
    assert "nothing says how unknown was trained; is its seed all that differs?" in notes
