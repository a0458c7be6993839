"""Tests the database against the submissions it is built from, and its statistics against scipy."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cases import slow_but
from xlt_bench.errors import InputError
from xlt_bench.metrics.significance import percent
from xlt_bench.results.record import Record
from xlt_bench.store import build as build_module
from xlt_bench.store import gains as gains_module
from xlt_bench.store import reuse
from xlt_bench.store import rows as rows_module
from xlt_bench.store.build import build, connect, is_current, is_leaderboard
from xlt_bench.store.export import VIEWS, export, page
from xlt_bench.submissions.create import About, submit
from xlt_bench.tasks.registry import get_task
from xlt_bench.tasks.test_set import path_of


@pytest.fixture(scope="module")
def board(make_run, made_up_root, tmp_path_factory, edit, accept):
    """Two base models. On the first: a bare run, two adapters, a newer run and a limited one."""
    folder = tmp_path_factory.mktemp("board")
    submissions = folder / "submissions"

    def add(name, seed, about=None, **options):
        run = make_run(folder / name, seed, **options)
        return submit(run, about or About(name=name), submissions, made_up_root).folder.name

    ids = {
        "bare": add("bare", 0, right=0.3),
        "old": add("old", 1, adapter="lora", right=0.6),
        "new": add(
            "new",
            2,
            adapter="lora",
            right=0.8,
            recipe="massive-align-middle",
        ),
        "limited": add("limited", 3, adapter="lora", limit=3),
        "other base": add("other base", 4, model="large"),
    }
    declared = About(name="<script>alert(1)</script>", baseline=ids["new"])
    # Older records do not have this key.
    edit(submissions / ids["old"] / "record.json", lambda record: record["adapter"].pop("recipe"))
    ids["declared"] = add("declared", 5, declared, adapter="next", right=0.9)
    accept(submissions, ids["old"], ids["new"])
    db = folder / "leaderboard.duckdb"
    built = build(submissions, db)
    assert (built.loaded, built.refused) == (6, [])
    return submissions, db, ids


@pytest.fixture
def store(board):
    with connect(board[1]) as connection:
        yield connection


def rows(store, query, **given):
    found = store.execute(query, given)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_the_database_has_every_score_of_every_record(board, store):
    submissions, _, ids = board
    for name in ids.values():
        record = Record.model_validate_json((submissions / name / "record.json").read_bytes())
        found = rows(store, "SELECT * FROM scores WHERE submission = $id", id=name)
        key = ("task", "unit", "metric", "setting", "aligned", "value", "n")
        assert {tuple(row[k] for k in key) for row in found} == {
            tuple(getattr(row, k) for k in key) for row in record.results.scores
        }
        ends = {(row["task"], row["unit"], row["metric"]): row for row in found}
        for score in record.results.scores:
            row = ends[score.task, score.unit, score.metric]
            if get_task(score.task).metric(score.metric).score is percent:
                assert row["low"] <= score.value <= row["high"]
                assert row["low"] < row["high"], "an accuracy is never certain"
            else:
                assert (row["low"], row["high"]) == (score.low, score.high)
        found = rows(store, "SELECT * FROM split_means WHERE submission = $id", id=name)
        key = ("task", "split", "metric", "value", "low", "high", "units", "missing")
        wanted = [[getattr(row, k) for k in key] for row in record.results.means]
        assert sorted([row[k] for k in key] for row in found) == sorted(wanted)
        found = rows(store, "SELECT * FROM layer_curves WHERE submission = $id", id=name)
        assert {(row["layer"], row["value"]) for row in found} == {
            (row.layer, row.value) for row in record.results.layers
        }
        query = "SELECT record FROM records JOIN submissions USING (number) WHERE id = $id"
        (found,) = rows(store, query, id=name)
        assert json.loads(found["record"]) == record.model_dump(mode="json", exclude={"results"})


def test_the_database_has_recipes_and_families(board, store):
    found = {row["id"]: row["recipe"] for row in rows(store, "SELECT id, recipe FROM submissions")}
    ids = board[2]
    assert found[ids["new"]] == "massive-align-middle"
    assert {found[ids[name]] for name in ("bare", "old")} == {None}
    query = "SELECT DISTINCT language, family FROM scores WHERE task = 'massive'"
    families = {row["language"]: row["family"] for row in rows(store, query)}
    assert families == {"de": "Indo-European", "sw": "Niger-Congo"}


def test_pairs_and_languages_of_a_layer(board, store):
    import pyarrow.parquet as pq

    submissions, _, ids = board
    path = submissions / ids["new"] / "retrieval" / "layer-002.parquet"
    table = {
        (r["source"], r["target"]): np.unpackbits(np.array(r["hits"], np.uint8))[: r["sentences"]]
        for r in pq.read_table(path).to_pylist()
    }
    found = rows(
        store, "SELECT * FROM pair_accuracies WHERE submission = $id AND layer = 2", id=ids["new"]
    )
    assert len(found) == 6
    for row in found:
        hits = table[row["source"], row["target"]]
        assert len(hits) == 8
        assert row["accuracy"] == pytest.approx(100 * np.mean(hits))
    query = "SELECT * FROM language_curves WHERE submission = $id AND layer = 2"
    for row in rows(store, query, id=ids["new"]):
        mine = [r["accuracy"] for r in found if row["language"] in (r["source"], r["target"])]
        assert len(mine) == 4
        assert row["accuracy"] == pytest.approx(np.mean(mine))


def test_newer_runs_supersede_and_bare_models_are_baselines(board, store):
    ids = board[2]
    names = {value: key for key, value in ids.items()}
    query = (
        "SELECT s.id, n.id AS newer FROM submissions s "
        "JOIN submissions n ON n.number = s.superseded_by"
    )
    assert [(names[r["id"]], names[r["newer"]]) for r in rows(store, query)] == [("old", "new")]
    found = rows(store, "SELECT DISTINCT * EXCLUDE (task, version, units) FROM baselines")
    chosen = {(names[r["submission"]], names[r["baseline"]]): r for r in found}
    # No bare model has the limit, and none is on the other base model.
    assert set(chosen) == {
        ("old", "bare"),
        ("new", "bare"),
        ("declared", "bare"),
        ("declared", "new"),
    }
    defaults = {pair for pair, row in chosen.items() if row["is_default"]}
    assert defaults == {("old", "bare"), ("new", "bare"), ("declared", "bare")}
    second = chosen["declared", "new"]
    assert (second["kind"], second["is_declared"]) == ("declared", True)


def test_gains_are_on_one_base_model_and_the_same_items(board, store):
    ids = board[2]
    pairs = rows(store, "SELECT DISTINCT submission, baseline, is_default, is_declared FROM gains")
    one_base = {ids[name] for name in ("bare", "old", "new", "declared")}
    assert {(row["submission"], row["baseline"]) for row in pairs} == {
        (a, b) for a in one_base for b in one_base if a != b
    }
    defaults = {row["submission"]: row["baseline"] for row in pairs if row["is_default"]}
    assert defaults == dict.fromkeys((ids["old"], ids["new"], ids["declared"]), ids["bare"])
    declared = [(r["submission"], r["baseline"]) for r in pairs if r["is_declared"]]
    assert declared == [(ids["declared"], ids["new"])]
    query = "SELECT * FROM gains WHERE submission = $a AND baseline = $b"
    for row in rows(store, query, a=ids["new"], b=ids["old"]):
        assert row["gain"] == row["value"] - row["baseline_value"]


def test_partial_submissions_have_no_place(store):
    found = rows(store, "SELECT * FROM split_means")
    assert found
    assert not any(row["complete"] or row["place"] or row["place_all"] for row in found)


@pytest.fixture
def complete(board, tmp_path, monkeypatch):
    """The same board, as if every run without a limit had all units."""
    monkeypatch.setattr(
        "xlt_bench.store.rows.missing",
        lambda record, task: ["limit"] if record.plan.limit else [],
    )
    build(board[0], tmp_path / "complete.duckdb")
    with connect(tmp_path / "complete.duckdb") as store:
        yield store


def test_complete_ones_are_ranked_and_superseded_ones_are_not(board, complete):
    ids = board[2]
    query = (
        "SELECT submission, place_all AS place, value, outcome FROM split_means "
        "WHERE task = 'massive' AND metric = '{}' AND split = '{}' ORDER BY place, value DESC"
    )
    found = rows(complete, query.format("slot_f1", "transfer"))
    placed = {row["submission"]: row["place"] for row in found if row["place"]}
    assert placed.keys() == set(ids.values()) - {ids["old"], ids["limited"]}
    first = max(found, key=lambda row: row["value"] if row["place"] else -1)
    assert first["place"] == 1
    # Another metric than the one that ranks the task gives no places.
    assert not any(row["place"] for row in rows(complete, query.format("ill_formed", "all")))
    # The aligned languages differ from adapter to adapter.
    assert not any(row["place"] for row in rows(complete, query.format("slot_f1", "aligned")))
    outcomes = {row["submission"]: row["outcome"] for row in found}
    assert outcomes[ids["bare"]] is None, "it has no baseline"
    assert outcomes[ids["new"]] in ("better", "not shown")


def test_places_are_shared_by_those_that_a_test_cannot_tell_from_the_first(board, complete):
    """The places worked out again from the submissions, by `compare`'s own test."""
    from xlt_bench.submissions.compare import compare_systems, load_system

    submissions, _, _ = board
    query = (
        "SELECT submission, place_all AS place, tied_all AS tied, value FROM split_means "
        "WHERE task = 'retrieval' AND split = 'all' AND place_all IS NOT NULL ORDER BY value DESC"
    )
    found = rows(complete, query)
    assert len({row["place"] for row in found}) > 1, "otherwise nothing is tested"
    head, place = found[0], 1
    for position, row in enumerate(found, 1):
        if row is not head:
            pair = [load_system(one["submission"], submissions, submissions) for one in (row, head)]
            compared, _ = compare_systems(*pair)
            means = next(one.means for one in compared if one.task == "retrieval")
            if next(one.gain.p for one in means if one.split == "all") < 0.05:
                head, place = row, position
        assert row["place"] == place
        assert row["tied"] == sum(other["place"] == row["place"] for other in found)


def _writable(board):
    import duckdb

    copy = board[1].with_name("copy.duckdb")
    shutil.copy(board[1], copy)
    return duckdb.connect(copy)


def test_correlations_are_scipys(board):
    from scipy import stats

    store = _writable(board)
    generator = np.random.default_rng(0)
    # Scores of all 20 languages, with ties, for one submission.
    store.execute("DELETE FROM unit_scores; DELETE FROM language_layers")
    query = "SELECT DISTINCT unit FROM units WHERE task = 'massive'"
    units = [r["unit"] for r in rows(store, query)]
    x = np.round(generator.uniform(0, 100, 20), -1)
    y = np.round(0.5 * x + generator.uniform(0, 60, 20), -1)
    for unit, retrieval, score in zip(units, x, y, strict=True):
        for task, metric, value in (
            ("massive", "slot_f1", score),
            ("retrieval", "retrieval_accuracy", retrieval),
        ):
            store.execute(
                "INSERT INTO unit_scores VALUES (0, ?, ?, false, ?, ?, 0, 100, 10, '')",
                [task, unit, metric, float(value)],
            )
    (row,) = rows(store, "SELECT * FROM transfer_correlation WHERE split = 'all'")
    pearson = stats.pearsonr(x, y)
    line = stats.linregress(x, y)
    interval = pearson.confidence_interval()
    assert row["n"] == 20
    assert len(set(x)) < 20
    assert row["retrieval_of"] == "own, even layers"
    assert row["pearson"] == pytest.approx(pearson.statistic)
    assert row["pearson_low"] == pytest.approx(interval.low, abs=1e-6)
    assert row["pearson_high"] == pytest.approx(interval.high, abs=1e-6)
    assert row["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (row["slope"], row["intercept"]) == pytest.approx((line.slope, line.intercept))
    (row,) = rows(store, "SELECT * FROM transfer_correlation WHERE split = 'transfer'")
    assert row["n"] == 15
    store.execute("UPDATE unit_scores SET value = 50 WHERE task = 'retrieval'")
    flat = rows(store, "SELECT * FROM transfer_correlation")
    assert [(r["pearson"], r["spearman"], r["slope"]) for r in flat] == [(None, None, None)] * 2
    store.close()


def test_points_of_figure_1b_take_the_bare_models_middle_layer(board, store):
    ids = board[2]
    query = (
        "SELECT unit, retrieval FROM transfer_points WHERE submission = $id "
        "AND task = 'massive' AND retrieval_of = $of ORDER BY unit"
    )
    curve = "SELECT language, accuracy FROM language_curves WHERE submission = $id AND layer = 2"
    for of, source in (("bare model, middle layer", "bare"), ("own, middle layer", "new")):
        middle = {r["language"]: r["accuracy"] for r in rows(store, curve, id=ids[source])}
        found = rows(store, query, id=ids["new"], of=of)
        assert [(r["unit"], r["retrieval"]) for r in found] == [
            ("de", middle["de"]),
            ("sw", middle["sw"]),
        ]


def test_significance_is_that_of_compare(board, store, made_up_root):
    from xlt_bench.submissions.compare import compare_systems, load_system

    submissions, _, ids = board
    systems = [load_system(ids[name], submissions, made_up_root) for name in ("new", "bare")]
    found, notes = compare_systems(*systems)
    assert notes == []
    stored = rows(store, "SELECT * FROM significance WHERE submission = $id", id=ids["new"])
    assert len(stored) == sum(len(one.units) for one in found) == 8
    by_unit = {(row["task"], row["unit"]): row for row in stored}
    for one in found:
        for unit in one.units:
            row = by_unit[one.task, unit.unit]
            gain = unit.gain
            numbers = [gain.value, gain.low, gain.high, gain.p, unit.p_holm]
            assert [row[k] for k in ("gain", "low", "high", "p", "p_holm")] == numbers
            assert row["significant"] == (unit.p_holm < 0.05)
            assert row["p"] <= row["p_holm"] <= 1
    means = rows(store, "SELECT * FROM gain_means WHERE submission = $id", id=ids["new"])
    assert {(r["task"], r["split"], r["gain"], r["p"]) for r in means} == {
        (one.task, m.split, m.gain.value, m.gain.p) for one in found for m in one.means
    }


def test_building_again_gives_the_same_content(board, tmp_path):
    # No made-up run is complete, so none has a place, and none is an oracle.
    # Nor do they state measures of states.
    empty = (
        "places",
        "method_places",
        "method_means",
        "gaps",
        "gaps_closed",
        "alignments",
        "mexa_scores",
        "left_out",
    )
    submissions, db, _ = board
    built = build(submissions, tmp_path / "again.duckdb")
    assert built.loaded == 6
    with connect(db) as one, connect(tmp_path / "again.duckdb") as two:
        tables = [name for (name,) in one.execute("SHOW TABLES").fetchall()]
        assert {*VIEWS} <= {*tables}
        for name in tables:
            query = f"SELECT * FROM {name} ORDER BY ALL"
            assert one.execute(query).fetchall() == two.execute(query).fetchall(), name
            assert one.execute(query).fetchall() or name in empty, name


def test_a_reader_keeps_the_file_that_it_opened(board, tmp_path):
    submissions, _, ids = board
    folder = shutil.copytree(submissions, tmp_path / "submissions")
    db = tmp_path / "db"
    build(folder, db)
    query = "SELECT count(*) FROM submissions"
    with connect(db) as before:
        assert before.execute(query).fetchall() == [(6,)]
        shutil.rmtree(folder / ids["other base"])
        with pytest.raises(InputError, match=r"of which 1 would be lost.*nothing was changed"):
            build(folder, db)
        assert before.execute(query).fetchall() == [(6,)]
        assert build(folder, db, fewer=True).loaded == 5
        with connect(db) as after:
            assert after.execute(query).fetchall() == [(5,)]
        assert before.execute(query).fetchall() == [(6,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "submissions"]


def test_wrong_submissions_are_left_out_with_one_line_each(board, tmp_path, edit):
    submissions, _, ids = board
    folder = shutil.copytree(submissions, tmp_path / "submissions")

    def forge(name, file, change):
        edit(folder / ids[name] / file, change)

    forge("bare", "record.json", lambda r: r["results"]["scores"][0].update(value=99.5))
    forge("old", "record.json", lambda r: r["results"]["means"][0].update(value=99.5))
    forge("new", "record.json", lambda r: r["results"]["layers"][0].update(value=99.5))
    forge("limited", "submission.json", lambda s: s.update(name="x" * 5000))
    twin = folder / ("z" + ids["other base"])
    shutil.copytree(folder / ids["other base"], twin)
    (folder / "stray").write_text("")
    built = build(folder, tmp_path / "db")
    assert built.loaded == 2
    lines = {report.name: report.detail for report in built.refused}
    assert "massive de slot_f1: value is 99.5" in lines[ids["bare"]]
    assert "mean slot_f1: value is 99.5" in lines[ids["old"]]
    assert "retrieval layer 2: value is 99.5" in lines[ids["new"]]
    assert "name: String should have at most 200" in lines[ids["limited"]]
    assert "are already submitted as" in lines[twin.name]
    assert "'stray'" in lines["stray"]
    assert not any("\n" in line for line in lines.values())


def test_a_connection_reads_the_database_and_nothing_else(store):
    import duckdb

    for query in (
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        "SET enable_external_access = true",
        "DELETE FROM submissions",
        "ATTACH '/tmp/other.db'",
    ):
        with pytest.raises(duckdb.Error):
            store.execute(query)


def test_a_missing_or_broken_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="build it with: xlt-bench leaderboard build"):
        connect(tmp_path / "none")
    (tmp_path / "broken").write_bytes(b"not a database" * 1000)
    with pytest.raises(InputError, match="is not a leaderboard"):
        connect(tmp_path / "broken")
    assert not is_leaderboard(tmp_path / "none")
    assert not is_leaderboard(tmp_path / "broken")


def test_a_database_of_another_program_is_not_one_of_ours(tmp_path):
    import duckdb

    with duckdb.connect(tmp_path / "db") as store:
        store.execute("CREATE TABLE build AS SELECT 1 AS number")
    assert not is_leaderboard(tmp_path / "db")
    with pytest.raises(InputError, match="is not a leaderboard"):
        connect(tmp_path / "db")


@pytest.mark.parametrize(
    "change", ["DROP TABLE build; DROP TABLE tasks", "UPDATE build SET schema_version = 1"]
)
def test_a_database_of_another_schema_is_refused_in_one_line(board, tmp_path, run_cli, change):
    import duckdb

    db = tmp_path / "old.duckdb"
    shutil.copy(board[1], db)
    assert is_current(db)
    with duckdb.connect(db) as store:
        store.execute(change)
    assert not is_current(db)
    assert is_leaderboard(db)
    words = ["leaderboard", "export", "--format", "csv", "--db", db, "--output", tmp_path / "out"]
    code, out, told = run_cli(*words)
    assert (code, out) == (2, "")
    assert "was built by another version of xlt-bench" in " ".join(told.split())
    assert f"leaderboard build --db {db}".replace(" ", "") in "".join(told.split())
    assert not (tmp_path / "out").exists()


def test_exports(board, store, tmp_path):
    import csv

    import pyarrow.parquet as pq

    for form in ("parquet", "csv"):
        paths = export(store, form, tmp_path / form)
        assert {path.stem for path in paths} == set(VIEWS)
        assert sorted(tmp_path.joinpath(form).iterdir()) == sorted(paths)
    for name, query in VIEWS.items():
        (count,) = store.execute(f"SELECT count(*) FROM ({query})").fetchall()[0]
        assert pq.read_metadata(tmp_path / "parquet" / f"{name}.parquet").num_rows == count
        with (tmp_path / "csv" / f"{name}.csv").open(newline="") as file:
            assert sum(1 for _ in csv.reader(file)) == count + 1
    for form in ("md", "latex"):
        (path,) = export(store, form, tmp_path)
        text = path.read_text()
        assert "<script>" not in text
        assert "partial: not ranked" in text
        assert "Published in the paper" in text
    with pytest.raises(InputError, match="did you mean 'latex'"):
        export(store, "latec", tmp_path)


def test_the_page_shows_means_with_intervals(board, store):
    ids = board[2]
    tables = {table.title: table for table in page(store)}
    table = tables["massive v2, partial: not ranked"]
    names = [row[1] for row in table.rows]
    assert "old" not in names  # superseded
    assert {"bare", "new", "limited", "other base", "<script>alert(1)</script>"} == set(names)
    query = (
        "SELECT value, low, high FROM split_means WHERE submission = $id AND task = 'massive' "
        "AND split = 'transfer' AND metric = 'slot_f1'"
    )
    (row,) = rows(store, query, id=ids["new"])
    cells = next(cells for cells in table.rows if cells[1] == "new")
    shown = f"{row['value']:.1f} ({row['low']:.1f}–{row['high']:.1f})"
    assert cells[table.columns.index("transfer")] == shown
    assert cells[-1] == "20 units or layers"


def test_the_page_has_tasks_that_only_the_database_knows(board):
    store = _writable(board)
    for name in ("tasks", "runs", "units", "metrics", "mean_scores"):
        store.execute(f"UPDATE {name} SET task = 'riddles' WHERE task = 'uner'")
    titles = [table.title for table in page(store)]
    store.close()
    assert "riddles v2, partial: not ranked" in titles
    assert not any(title.startswith("uner") for title in titles)


def test_a_bare_model_of_a_newer_version_leaves_older_baselines_alone(
    board, make_run, made_up_root, tmp_path, monkeypatch, accept
):
    submissions, db, ids = board
    folder = shutil.copytree(submissions, tmp_path / "submissions")
    task = get_task("massive")
    pins = shutil.copytree(task.pins, tmp_path / "pinned")
    pin = json.loads(path_of(pins, "massive", task.version).read_text())
    next_version = task.version + 1
    path_of(pins, "massive", next_version).write_text(json.dumps({**pin, "version": next_version}))
    monkeypatch.setattr(type(task), "pins", pins)
    for name, seed, adapter, older in (
        ("bare next", 6, None, "bare"),
        ("adapter next", 7, "lora", "new"),
    ):
        run = make_run(tmp_path / name, seed, adapter=adapter)
        ids = {**ids, name: submit(run, About(), folder, made_up_root).folder.name}
        accept(folder, ids[older], ids[name])
    assert build(folder, tmp_path / "db").refused == []
    added = [ids["bare next"], ids["adapter next"]]
    with connect(db) as before, connect(tmp_path / "db") as after:
        same = {
            "scores": "* EXCLUDE (current)",
            "split_means": "* EXCLUDE (current, place_all)",
            "significance": "*",
            "gain_means": "*",
        }
        for view, columns in same.items():
            # In the other tasks, the newer run supersedes the older bare run, and is the baseline.
            query = (
                f"SELECT {columns} FROM {view} WHERE NOT submission = ANY(?) "
                f"AND (task = 'massive' OR '{view}' IN ('scores', 'split_means')) ORDER BY ALL"
            )
            found = before.execute(query, [added]).fetchall()
            assert found == after.execute(query, [added]).fetchall(), view
            assert found, view
        query = "SELECT DISTINCT version, baseline FROM significance WHERE task = 'massive' "
        query += "AND submission = ?"
        found = after.execute(query, [ids["adapter next"]]).fetchall()
        assert found == [(next_version, ids["bare next"])]
        query = "SELECT DISTINCT task, baseline FROM baselines WHERE submission = ? AND is_default"
        found = dict(after.execute(query, [ids["new"]]).fetchall())
        assert found.pop("massive") == ids["bare"]
        assert set(found.values()) == {ids["bare next"]}
        # The older run stays in the ranking of its version, and leaves those that both are in.
        for task in ("massive", "uner", "wmt23", "retrieval"):
            query = (
                "SELECT DISTINCT submission FROM split_means WHERE current AND task = ? "
                "AND submission = ANY(?)"
            )
            found = after.execute(query, [task, [ids["bare"], ids["bare next"]]]).fetchall()
            both = {(ids["bare"],), (ids["bare next"],)}
            assert set(found) == (both if task == "massive" else {(ids["bare next"],)}), task


def test_the_store_imports_no_torch():
    code = (
        "import sys, xlt_bench.store.build, xlt_bench.store.export, xlt_bench.submissions.compare\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_csv_runs_no_formula_and_parquet_keeps_the_text(make_run, made_up_root, tmp_path):
    """Any text of a submission may start like a formula, for example its model's name."""
    import csv

    import pyarrow.parquet as pq

    run = make_run(tmp_path / "run", 0, model="=1+1", units={"massive": ["sw"]})
    submit(run, About(name="plain", notes="-5\nof it"), tmp_path / "submissions", made_up_root)
    build(tmp_path / "submissions", tmp_path / "board.duckdb")
    with connect(tmp_path / "board.duckdb") as store:
        for form in ("csv", "parquet"):
            export(store, form, tmp_path / form)
    with (tmp_path / "csv" / "submissions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    kept = pq.read_table(tmp_path / "parquet" / "submissions.parquet").to_pylist()[0]
    assert (row["model"], kept["model"]) == ("'=1+1", "=1+1")
    assert (row["notes"], kept["notes"]) == ("'-5\nof it", "-5\nof it")
    with (tmp_path / "csv" / "published.csv").open(newline="") as file:
        values = [row["value"] for row in csv.DictReader(file) if row["value"]]
    assert values
    assert all(float(value) is not None for value in values)


def dump(db):
    """The tables of a database, with ids in place of numbers."""
    with connect(db) as store:
        ids = dict(store.execute("SELECT number, id FROM submissions").fetchall())
        tables = {}
        for (table,) in store.execute("SHOW TABLES").fetchall():
            found = rows(store, f"SELECT * FROM {table}")
            for row in found:
                for column in {"number", "baseline", "bare", "superseded_by"} & row.keys():
                    row[column] = ids.get(row[column], row[column])
                for column in {"systems", "baselines"} & row.keys():
                    row[column] = [ids[number] for number in row[column]]
            tables[table] = sorted(map(repr, found))
        return tables


@pytest.fixture
def copied(board, tmp_path):
    """A copy of the submissions, and a database of all but one, which two gains need."""
    submissions, _, ids = board
    folder, db = tmp_path / "submissions", tmp_path / "leaderboard.duckdb"
    shutil.copytree(submissions, folder)
    later = tmp_path / ids["bare"]
    shutil.move(folder / ids["bare"], later)
    assert build(folder, db).loaded == 5
    return folder, db, later


def test_a_build_on_an_earlier_one_is_that_of_a_fresh_one(copied, tmp_path, monkeypatch):
    folder, db, later = copied
    shutil.move(later, folder / later.name)
    read = []
    check = rows_module.check_results
    monkeypatch.setattr(
        rows_module, "check_results", lambda *args: (read.append(args), check(*args))
    )
    build(folder, db)
    assert len(read) == 1  # the rows of the others are copied
    build(folder, tmp_path / "fresh.duckdb")
    assert len(read) == 7
    assert dump(db) == dump(tmp_path / "fresh.duckdb")
    computed = []
    replicates = gains_module.replicates
    monkeypatch.setattr(
        gains_module, "replicates", lambda *args: (computed.append(args), replicates(*args))[1]
    )
    build(folder, db)
    assert (len(read), computed) == (7, [])
    assert dump(db) == dump(tmp_path / "fresh.duckdb")


@pytest.mark.slow
def test_a_build_in_processes_is_that_of_one(board, tmp_path, monkeypatch, edit):
    folder, damaged = tmp_path / "submissions", board[2]["limited"]
    shutil.copytree(board[0], folder)
    edit(folder / damaged / "record.json", lambda record: record.update(created="yesterday"))
    alone = build(folder, tmp_path / "alone.duckdb")
    monkeypatch.setattr("xlt_bench.store.build._MANY", 1)
    monkeypatch.setattr("xlt_bench.store.build.cores", lambda: 2)
    assert build(folder, tmp_path / "many.duckdb") == alone
    assert [one.name for one in alone.refused] == [damaged]
    assert dump(tmp_path / "many.duckdb") == dump(tmp_path / "alone.duckdb")


@pytest.mark.parametrize(
    "change",
    slow_but(["counts", "code", "damaged"], ["counts", "record", "gone", "code", "damaged"]),
)
def test_what_changed_is_not_copied(board, copied, tmp_path, monkeypatch, edit, change):
    folder, db, later = copied
    _, _, ids = board
    shutil.move(later, folder / later.name)
    build(folder, db)
    one = folder / ids["new"]
    if change == "counts":
        other = (folder / ids["old"] / "counts.parquet").read_bytes()
        (one / "counts.parquet").write_bytes(other)
    elif change == "record":
        edit(one / "record.json", lambda record: record["results"]["scores"][0].update(value=1.5))
    elif change == "gone":
        shutil.rmtree(one)
    elif change == "code":
        monkeypatch.setattr(build_module, "code_digest", lambda: "other")
        monkeypatch.setattr(reuse, "code_digest", lambda: "other")
    else:
        db.write_bytes(b"not a database")
    built = build(folder, db, fewer=True)
    fresh = build(folder, tmp_path / "fresh.duckdb")
    names = [[report.name for report in one.refused] for one in (built, fresh)]
    assert names[0] == names[1] == ([ids["new"]] if change in ("counts", "record") else [])
    assert dump(db) == dump(tmp_path / "fresh.duckdb")


def test_what_fits_neither_memory_nor_disk_is_refused_in_one_line(board, tmp_path, monkeypatch):
    db = tmp_path / "board.duckdb"
    build(board[0], db)
    before = db.read_bytes()
    monkeypatch.setattr(build_module, "_MEMORY", "3MB")
    with pytest.raises(InputError, match="nothing was changed; free disk space"):
        build(board[0], db)
    assert db.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [db.name]
