"""Every page of the leaderboard in Streamlit's AppTest, over small databases."""

import gzip
import html
import io
import json
import re
import shutil
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl

import duckdb
import numpy as np
import pandas as pd
import pytest
import streamlit
from streamlit.testing.v1 import AppTest

from xlt_bench.results.record import Record
from xlt_bench.results.run_folder import predictions_path
from xlt_bench.store.build import build, connect, is_current
from xlt_bench.submissions.move import move
from xlt_bench.submissions.safe_read import read_answers
from xlt_bench.tasks.registry import get_task

APP = Path(__file__).parents[2] / "leaderboard" / "app.py"
# Those with data, and those with texts.
DATA = "overview systems gains transfer families size layers correlation compare submission".split()
PAGES = [*DATA, "how_to_submit", "about"]
HANG = 1800  # seconds; a page that takes longer hangs, also on a busy machine


@pytest.fixture
def app(board, made_up_root, monkeypatch):
    """Opens a page of the board with query parameters. A page that raises fails the test."""
    serve(board[0], monkeypatch)
    monkeypatch.setenv("XLT_BENCH_DATA", str(made_up_root))
    return visit


def serve(folder, monkeypatch, db=None):
    """Have the app show the submissions of a folder, and its database or another one."""
    monkeypatch.setenv("XLT_BENCH_LEADERBOARD", str(db or folder / "leaderboard.duckdb"))
    monkeypatch.setenv("XLT_BENCH_SUBMISSIONS", str(folder / "submissions"))


def visit(page="overview", /, **params):
    app = AppTest.from_file(APP, default_timeout=HANG)
    if page != "overview":
        app.switch_page(f"views/{page}.py")
    app.query_params = params
    app.run()
    assert not app.exception, app.exception[0].stack_trace
    return app


def again(app):
    app.run()
    assert not app.exception, app.exception[0].stack_trace
    return app


def widget(app, label):
    kinds = (app.selectbox, app.multiselect, app.text_input, app.segmented_control, app.pills)
    return next(one for kind in kinds for one in kind if one.label == label)


def link(app):
    """The query parameters that `Link to this view` shows, once it is opened."""
    app.session_state["link"] = True
    again(app)
    (text,) = [code.value for code in app.code if "?" in code.value and "=" in code.value]
    found = {}
    for key, value in parse_qsl(text.split("?")[1], keep_blank_values=True):
        found.setdefault(key, []).append(value)
    return found


def charts(app):
    return [json.loads(chart.proto.spec) for chart in app.get("vega_lite_chart")]


def test_every_page_shows_rows_a_caption_and_downloads(app):
    for page in PAGES:
        seen = app(page)
        assert seen.title[0].value
        assert not seen.error
        assert seen.caption, page
        if page in DATA:
            labels = [button.label for button in seen.get("download_button")]
            assert {"CSV", "Parquet", "LaTeX"} <= set(labels), page


@pytest.mark.parametrize("page", PAGES)
def test_hostile_names_are_text_and_are_cut(app, board, hostile, page):
    _, ids = board
    for name in ("script", "long", "markup"):
        params = {"system": ids[name], "systems": ids[name], "task": "massive", "open": ids[name]}
        seen = app(page, **params)
        for element in seen.main:
            if element.type in (
                "markdown",
                "html",
                "header",
                "subheader",
                "title",
                "caption",
                "info",
            ):
                assert not any(
                    bad in str(element.value) for bad in (hostile["script"], "<b>", ":red[")
                )
        # Streamlit renders labels of controls as Markdown, and their options as text.
        controls = [*seen.selectbox, *seen.multiselect, *seen.text_input, *seen.metric]
        for control in [*controls, *seen.expander]:
            assert "<" not in control.label
            assert "**" not in control.label
        for control in [*seen.selectbox, *seen.multiselect]:
            assert all(len(option) <= 120 for option in control.options), control.label
        assert all(
            len(text.value) <= 400 for text in seen.text if text.value.startswith("long <b>")
        )
        for spec in charts(seen):
            assert "long <b> " * 20 not in json.dumps(spec)


def test_overview_holds_the_scores_of_the_records(app, board):
    folder, ids = board
    shown = app("systems", task="massive").dataframe[0].value
    record = folder / "submissions" / ids["good"] / "record.json"
    means = Record.model_validate_json(record.read_bytes()).results.means
    wanted = {m.split: m.value for m in means if (m.task, m.metric) == ("massive", "slot_f1")}
    row = shown[shown["system"] == "good adapter"].iloc[0]
    for split in ("aligned", "transfer"):
        assert row[split] == pytest.approx(wanted[split])
    assert row["gap"] == pytest.approx(91 - wanted["transfer"])
    assert list(shown["transfer"]) == sorted(shown["transfer"], reverse=True)


def test_overview_marks_retrieval_of_what_was_trained_on_its_sentences(app, board, hostile):
    for task in ("massive", "retrieval"):
        shown = app("systems", task=task).dataframe[0].value
        marked = shown[shown["retrieval is inflated"] == "trained on FLORES dev"]
        assert [name[:8] for name in marked["system"]] == [hostile["script"][:8]]
        assert marked["retrieval"].notna().all()


def test_nothing_is_inflated_in_a_corpus_that_is_not_flores_dev(board, tmp_path, monkeypatch):
    db = shutil.copy(board[0] / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        store.execute("UPDATE tasks SET on_flores_dev = false")
    serve(board[0], monkeypatch, db)
    for task in ("massive", "retrieval"):
        assert "retrieval is inflated" not in visit("systems", task=task).dataframe[0].value


def test_layers_show_mexa_over_layers(board, tmp_path, monkeypatch):
    _, ids = board
    db = shutil.copy(board[0] / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        for layer, value in ((2, 30.0), (4, 50.0)):
            store.execute(
                "INSERT INTO alignments SELECT number, ?, 'sw', 'mexa_weighted', ? "
                "FROM submissions WHERE id = ?",
                [layer, value, ids["good"]],
            )
    serve(board[0], monkeypatch, db)
    for over, wanted in (("max", 50), ("mean", 40)):
        (shown,) = visit("layers", systems=ids["good"], mexa=over).dataframe
        assert shown.value.iloc[0].tolist() == ["Swahili", "sw", wanted]


def test_overview_filters_and_sorts(app, board):
    def systems(**params):
        frames = [frame.value for frame in app("systems", task="massive", **params).dataframe]
        return frames[0]["system"].tolist() if "base model" in frames[0] else []

    assert len(systems()) == 7
    assert set(systems(adapter="bare")) == {"bare model", "other base"}
    assert "bare model" not in systems(adapter="aligned")
    assert systems(recipe="massive-align-middle") == ["good adapter"]
    assert systems(find="good") == ["good adapter"]
    assert systems(find="o%d") == [], "% must match itself alone"
    ours = connect(board[0] / "leaderboard.duckdb")
    query = "SELECT base_model FROM submissions WHERE name = 'other base'"
    assert systems(base=ours.execute(query).fetchall()[0][0]) == ["other base"]
    assert systems(sort="newest", find="adapter") == ["good adapter"]


@pytest.fixture
def ranked(board, tmp_path, monkeypatch):
    """A database of the board as if whatever has no limit had all units; none is verified."""
    monkeypatch.setattr(
        "xlt_bench.store.rows.missing",
        lambda record, task: ["limit"] if record.plan.limit else [],
    )
    assert not build(board[0] / "submissions", tmp_path / "db").refused
    serve(board[0], monkeypatch, tmp_path / "db")
    return tmp_path / "db"


def test_places_are_among_the_verified_and_a_switch_gives_them_among_all(
    board, ranked, monkeypatch
):
    ids = board[1]
    seen = visit("systems", task="massive")
    unverified = "Nothing here is verified yet, so no row has a place."
    assert any(text.value.startswith(unverified) for text in seen.caption)
    shown = seen.dataframe[0].value
    assert len(shown) == len(ids), "every row is shown"
    assert "place" not in shown
    assert set(shown["rank"]) == {"self-reported"}
    widget(seen, "Places").set_value("all")
    again(seen)
    assert link(seen)["places"] == ["all"]
    assert not any(text.value.startswith(unverified) for text in seen.caption)
    places = seen.dataframe[0].value["place"]
    assert places.min() == 1
    assert places.notna().sum() == len(ids) - 1, "one is limited"
    assert visit("systems", task="massive", places="all").dataframe[0].value["place"].equals(places)
    verified = shutil.copy(ranked, ranked.with_name("verified"))
    with duckdb.connect(verified) as store:
        query = "UPDATE submissions SET rank_class = 'verified' WHERE id = $id"
        store.execute(query, {"id": ids["script"]})
        store.execute(
            "INSERT INTO places SELECT * REPLACE ('verified' AS among, 1 AS place) FROM places p "
            "WHERE number = (SELECT number FROM submissions WHERE id = $id)",
            {"id": ids["script"]},
        )
    serve(board[0], monkeypatch, verified)
    seen = visit("systems", task="massive")
    assert not any(text.value.startswith(unverified) for text in seen.caption)
    shown = seen.dataframe[0].value
    assert len(shown) == len(ids)
    placed = shown[shown["place"].notna()]
    assert placed[["place", "rank"]].to_numpy().tolist() == [[1, "verified"]]
    for page, label in (("gains", "System"), ("layers", "Systems"), ("compare", "First system")):
        badges = [one.rpartition(" · ")[2] for one in options(visit(page), label)]
        assert badges.count("verified") == 1, page
        assert set(badges) == {"verified", "self-reported"}, page


def test_overview_has_places_of_methods(board, ranked):
    ids = board[1]
    seen = visit("overview", task="massive")
    assert any(text.value.startswith("Nothing here is verified yet") for text in seen.caption)
    for ranks_all in (False, True):
        seen = visit("overview", task="massive", **({"places": "all"} if ranks_all else {}))
        (table,) = [json.loads(one.proto.json) for one in seen.get("bidi_component")]
        rows = {row["id"]: row for group in table["groups"] for row in group["rows"] if row["id"]}
        assert len(rows) == len(ids)
        assert table["places"]
        assert any(row["place"] for row in rows.values()) == ranks_all
        for row in rows.values():
            assert "self-reported" in dict(row["badges"])
    with connect(ranked) as store:
        query = "SELECT left(method, 12), place_all, tied_all FROM method_means "
        query += "WHERE task = 'massive' AND split = 'transfer'"
        stored = {name: numbers for name, *numbers in store.execute(query).fetchall()}
    shown = {name: row["place"] for name, row in rows.items() if row["place"]}
    assert {name: [one["place"], one["tied"]] for name, one in shown.items()} == stored


def test_a_filter_that_nothing_fits_says_what_to_do(app):
    seen = app("systems", find="there is no such system")
    assert "Remove a filter" in seen.info[0].value
    assert "base model" not in seen.dataframe[0].value, "only the published figures are left"


def test_a_row_opens_its_languages(app, board):
    _, ids = board
    assert len(charts(app("systems", task="massive"))) == 0
    seen = app("systems", task="massive", open=ids["good"])
    (spec,) = charts(seen)
    text = json.dumps(spec)
    assert all(label in text for label in ("SUPERVISED (1)", "ALIGNED (1)", "TRANSFER (4)"))


def test_published_rows_are_apart(app):
    shown = app("systems", task="massive").dataframe
    assert "Llama 3" not in shown[0].value["base model"].tolist()
    assert set(shown[1].value["model"]) >= {"Llama 3", "Qwen 2.5"}


def test_every_choice_is_in_the_link_and_comes_back_from_it(app, board):
    _, ids = board
    seen = app("gains")
    widget(seen, "Task").set_value("wmt23")
    again(seen)
    widget(seen, "System").set_value(ids["script"])
    again(seen)
    widget(seen, "Baseline").set_value(ids["good"])
    widget(seen, "Colour by").set_value("script")
    again(seen)
    found = link(seen)
    wanted = {"task": "wmt23", "system": ids["script"], "baseline": ids["good"], "colour": "script"}
    assert {key: found[key] for key in wanted} == {key: [value] for key, value in wanted.items()}
    other = app("gains", **found)
    for label in ("Task", "System", "Baseline", "Colour by"):
        assert widget(other, label).value == widget(seen, label).value
    assert charts(other) == charts(seen)


def test_the_link_of_overview_holds_the_open_row_and_the_pins(app):
    (table,) = [json.loads(one.proto.json) for one in app().get("bidi_component")]
    first = next(row["id"] for group in table["groups"] for row in group["rows"] if row["id"])
    pin = first.partition("-")[0]
    found = link(app(open=first, pin=pin))
    assert (found["open"], found["pin"]) == ([first], [pin])
    assert link(app(open="no-such-row"))["open"] == [""]


def test_charts_are_specified_once_for_the_same_data(app, board, monkeypatch):
    app("about")  # which imports the modules of the app
    specs = sys.modules["specs"]
    made = []
    specified = specs.specified
    monkeypatch.setattr(specs, "specified", lambda chart: (made.append(1), specified(chart))[1])
    shown = []
    for name in ("good", "bare") * 2:
        seen = app("systems", task="uner", open=board[1][name])
        (frame,) = [f for f in data(seen, 0) if "value" in f]
        shown.append((charts(seen), frame["value"].dropna().to_list()))
    assert shown[:2] == shown[2:]
    assert shown[0][1] != shown[1][1]
    assert len(made) == 2


@pytest.mark.parametrize("page", DATA)
def test_links_that_make_no_sense_say_so_and_show_no_other_system(app, page):
    keys = "task system systems baseline page open unit file layer from to sort base pin".split()
    odd = "../../etc/passwd' OR 1=1 --"
    seen = app(page, **dict.fromkeys(keys, odd))
    told = [warning.value for warning in seen.warning]
    # Layers has one task, and no tabs; a submission has all.
    if page not in ("layers", "submission"):
        assert "The address asks for a task that is not here:" in told
    assert "The address asks for a method that is not here:" in told
    assert odd in [text.value for text in seen.text]
    if page in ("gains", "correlation", "compare", "submission"):
        assert "The address asks for a system that is not here:" in told
        assert not charts(seen)
        assert not seen.dataframe


def test_an_empty_choice_of_systems_stays_empty_and_has_a_link(app, board):
    seen = app("layers", systems="")
    assert link(seen)["systems"] == [""]
    assert widget(seen, "Systems").value == []
    assert "Choose a system" in seen.info[0].value


def test_gains_are_those_of_the_database(app, board):
    folder, ids = board
    seen = app("gains", task="massive", system=ids["good"])
    assert widget(seen, "Baseline").value == ids["bare"], "the default"
    with connect(folder / "leaderboard.duckdb") as store:
        query = "SELECT unit, gain FROM significance WHERE submission = ? AND task = 'massive'"
        stored = dict(store.execute(query, [ids["good"]]).fetchall())
    metrics = {metric.label: metric.value for metric in seen.metric}
    for label, sign in (("Languages that gain", 1), ("Languages that lose", -1)):
        wanted = sum(gain * sign > 0 for gain in stored.values())
        assert metrics[label] == f"{wanted} of {len(stored)}"


def test_gains_over_any_other_baseline_are_tested_on_the_spot(app, board):
    folder, ids = board
    seen = app("gains", task="massive", system=ids["good"], baseline=ids["long"])
    with connect(folder / "leaderboard.duckdb") as store:
        query = (
            "SELECT avg(gain) FROM gains "
            "WHERE submission = ? AND baseline = ? AND task = ? AND metric = ?"
        )
        ((mean,),) = store.execute(
            query, [ids["good"], ids["long"], "massive", "slot_f1"]
        ).fetchall()
    assert seen.metric[0].value == f"{mean:+.1f}"


def test_layers_of_chosen_pairs(app, board):
    folder, ids = board
    seen = app("layers", systems=ids["good"], to="de", **{"from": "sw"})
    text = json.dumps(charts(seen)[0])
    with connect(folder / "leaderboard.duckdb") as store:
        query = (
            "SELECT accuracy FROM pair_accuracies "
            "WHERE submission = ? AND layer = 2 AND source = 'sw' AND target = 'de'"
        )
        ((accuracy,),) = store.execute(query, [ids["good"]]).fetchall()
    (frame,) = [f for f in data(seen, 0) if {"layer", "value"} <= set(f)]
    assert frame.set_index("layer")["value"].to_dict()[2] == pytest.approx(accuracy)
    assert "low" not in text, "only the mean over all pairs has an interval"


@pytest.mark.parametrize(("chosen", "wanted"), [({}, "en"), ({"to": "sw"}, "sw")])
def test_a_side_without_a_choice_is_the_ranked_languages(
    board, tmp_path, monkeypatch, chosen, wanted
):
    folder, ids = board
    db = shutil.copy(folder / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        store.execute("UPDATE units SET ranked = false WHERE task = 'retrieval' AND unit = 'sw'")
        query = (
            "SELECT layer, accuracy FROM pair_accuracies "
            "WHERE submission = ? AND source = 'de' AND target = ?"
        )
        stored = dict(store.execute(query, [ids["good"], wanted]).fetchall())
    serve(folder, monkeypatch, db)
    seen = visit("layers", systems=ids["good"], **{"from": "de"}, **chosen)
    (frame,) = [f for f in data(seen, 0) if {"layer", "value"} <= set(f)]
    assert frame.set_index("layer")["value"].to_dict() == pytest.approx(stored)


def test_a_system_with_one_ranked_language_has_the_pairs_of_all(board, tmp_path, monkeypatch):
    folder, ids = board
    db = shutil.copy(folder / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        query = "UPDATE units SET ranked = (unit = 'en') WHERE task = 'retrieval'"
        store.execute(query)
        query = (
            "SELECT layer, avg(accuracy) FROM pair_accuracies "
            "WHERE submission = ? AND source = 'de' GROUP BY layer"
        )
        stored = dict(store.execute(query, [ids["good"]]).fetchall())  # de-en and de-sw
    serve(folder, monkeypatch, db)
    seen = visit("layers", systems=ids["good"], **{"from": "de"})
    (frame,) = [f for f in data(seen, 0) if {"layer", "value"} <= set(f)]
    assert frame.set_index("layer")["value"].to_dict() == pytest.approx(stored)
    told = "of all languages for a system with fewer than two ranked ones"
    assert told in captions(visit("layers", systems=ids["good"]))[0]
    assert told not in captions(seen)[0]


def data(app, place):
    """The tables of the chart at a place of the page."""
    import pyarrow as pa

    proto = app.get("vega_lite_chart")[place].proto
    given = [one.data.data for one in proto.datasets] or [proto.data.data]
    return [pa.ipc.open_stream(io.BytesIO(one)).read_pandas() for one in given]


def test_the_matrix_has_the_pairs_of_one_layer(app, board):
    _, ids = board
    seen = app("layers", systems=ids["good"], layer="4")
    (frame,) = [f for f in data(seen, 1) if "accuracy" in f]
    assert len(frame) == 3 * 2


def test_correlation_shows_r_of_the_points(app, board):
    _, ids = board
    seen = app("correlation", task="massive", system=ids["good"], split="all")
    (points,) = [f for f in data(seen, 0) if "unit" in f]
    r = points["retrieval"].corr(points["value"])
    assert seen.metric[0].value == f"{r:.2f}"
    (line,) = [f for f in data(seen, 0) if "unit" not in f]
    fitted = np.polyval(np.polyfit(points["retrieval"], points["value"], 1), line["retrieval"])
    assert line["value"].to_numpy() == pytest.approx(fitted)


def test_compare_shows_the_answers_of_both(app, board):
    _, ids = board
    params = {"task": "massive", "system": ids["good"], "baseline": ids["bare"], "unit": "sw"}
    every = app("compare", **params, verdict="every")
    texts = [cell for _, cell in cells(every)]
    assert texts.count("play song 0 now") == 1
    assert texts.count("nothing of it") + texts.count("song_name: song 0; time: now") > 0
    better = cells(app("compare", **params, verdict="system"))
    firsts = [text for title, text in better if title.startswith("good adapter · self-reported (")]
    seconds = [text for title, text in better if title.startswith("bare model · self-reported (")]
    assert firsts
    assert all(text != "nothing of it" for text in firsts)
    assert set(seconds) == {"nothing of it"}


def test_compare_shows_the_answers_of_all_pinned_methods(app, board):
    folder, ids = board
    names = ("good", "script", "long", "bare")
    with connect(folder / "leaderboard.duckdb") as store:
        query = "SELECT left(method, 12) FROM submissions WHERE id = ?"
        pins = [store.execute(query, [ids[name]]).fetchall()[0][0] for name in names]
    params = {"task": "massive", "unit": "sw", "pin": pins}
    every = app("compare", **params, verdict="every")
    assert [widget(every, f"{n} system").value for n in ("First", "Second")] == [
        ids["good"],
        ids["script"],
    ]
    shown = cells(every)
    items = [shown[i : i + 6] for i in range(0, len(shown), 6)]
    submissions = folder / "submissions"
    told = {
        name: {
            one.id: one.hypothesis
            for one in read_answers(predictions_path(submissions / ids[name], "massive", "sw"))
        }
        for name in names
    }
    for (_, source), _, *answered in items:
        assert source
        titles, texts = zip(*answered, strict=True)
        assert [title.rpartition(" (")[0] for title in titles][3] == "bare model · self-reported"
        assert tuple(texts) in {tuple(told[name][one] for name in names) for one in told["good"]}
    best = cells(app("compare", **params, verdict="system"))
    scores = [[float(title.rpartition("(")[2][:-1]) for title, _ in best[i + 2 : i + 6]]
              for i in range(0, len(best), 6)]  # fmt: skip
    assert all(first > max(others) for first, *others in scores)
    verdicts = widget(every, "Show where").options
    assert "all are right" in verdicts


def cells(app):
    """The title and the text of each cell of the items on Compare."""
    found, title = [], None
    for element in app.main:
        if element.type == "text":
            title = element.value
        elif element.type == "html" and 'class="answer"' in element.value:
            found.append((title, html.unescape(re.sub("<.*?>", "", element.value))))
    return found


def test_compare_shows_the_sentence_without_the_prompt_around_it(app, board):
    _, ids = board
    params = {"task": "uner", "system": ids["good"], "baseline": ids["bare"], "unit": "da"}
    shown = dict(cells(app("compare", **params, verdict="every")))
    assert re.fullmatch(r"Ada bor i Oslo \d\.", shown["Source"])


def test_gains_draws_every_language_of_a_task_without_settings(app, board):
    _, ids = board
    seen = app("gains", task="retrieval", system=ids["good"])
    (rows,) = [f for f in data(seen, 0) if "group" in f]
    groups = rows.dropna(subset=["unit"]).set_index("unit")["group"].to_dict()
    assert groups == {
        **dict.fromkeys(("de", "en"), "not aligned"),
        "sw": "aligned",
    }
    spec = json.dumps(charts(seen)[0])
    assert "NOT ALIGNED (2)" in spec
    assert "ALIGNED (1)" in spec


def test_gains_shows_the_mean_gain_of_each_split_with_its_interval(app, board):
    folder, ids = board
    with connect(folder / "leaderboard.duckdb") as store:
        query = (
            "SELECT split, gain, low, high FROM gain_means "
            "WHERE submission = ? AND baseline = ? AND task = 'massive'"
        )
        stored = store.execute(query, [ids["good"], ids["bare"]]).fetchall()
    seen = app("gains", task="massive", system=ids["good"], baseline=ids["bare"])
    shown = {metric.label: (metric.value, metric.delta) for metric in seen.metric}
    splits = {split for split, *_ in stored} - {"all"}
    assert splits == {"transfer", "aligned"}
    for split, gain, low, high in stored:
        if split != "all":
            value, remark = shown[f"Mean gain, {split}"]
            assert value == f"{gain:+.1f}"
            assert remark.startswith(f"{low:+.1f} to {high:+.1f}, ")


def test_layers_opens_with_the_bare_model_an_sft_and_an_aligned_system(
    board, tmp_path, monkeypatch
):
    folder, ids = board
    db = shutil.copy(folder / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        query = "UPDATE submissions SET alignment_languages = [] WHERE id = ?"
        store.execute(query, [ids["long"]])
    serve(folder, monkeypatch, db)
    chosen = widget(visit("layers"), "Systems").value
    assert len(chosen) == 3
    assert chosen[:2] == [ids["bare"], ids["long"]]
    assert chosen[2] in (ids["good"], ids["script"], ids["markup"])


def test_systems_with_other_languages_have_a_chart_of_their_own(app, board, tmp_path, monkeypatch):
    folder, ids = board
    alike = app("layers", systems=[ids["good"], ids["bare"]])
    db = shutil.copy(folder / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        number = "(SELECT number FROM submissions WHERE name = 'bare model')"
        for column in ("source", "target"):
            store.execute(f"DELETE FROM pair_scores WHERE number = {number} AND {column} = 'sw'")
    serve(folder, monkeypatch, db)
    unlike = visit("layers", systems=[ids["good"], ids["bare"]])
    assert len(charts(unlike)) == len(charts(alike)) + 1
    for place, name in enumerate(("good adapter", "bare model")):
        (frame,) = [f for f in data(unlike, place) if {"layer", "value", "low"} <= set(f)]
        assert {one.rpartition(", ")[2] for one in frame["system"]} == {f"{name} · self-reported"}
    assert [text.value for text in unlike.text] == ["6 pairs: de en sw", "2 pairs: de en"]


def test_layers_marks_the_middle_and_the_aligned_layer(board, tmp_path, monkeypatch):
    _, ids = board
    folder, _ = board
    db = shutil.copy(folder / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        # The cards of the made-up adapters do not say how they were trained.
        query = "(SELECT method FROM submissions WHERE id = ?)"
        store.execute(f"UPDATE methods SET layers = [2] WHERE method = {query}", [ids["good"]])
    serve(folder, monkeypatch, db)
    seen = visit("layers", systems=ids["good"])
    (marks,) = [f for f in data(seen, 0) if "mark" in f]
    assert marks["mark"].tolist() == ["middle, aligned (2)"], "of four blocks"


def test_correlation_opens_on_a_system_that_has_both(board, tmp_path, monkeypatch):
    folder, ids = board
    db = shutil.copy(folder / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        keep = "(SELECT number FROM submissions WHERE name = 'good adapter')"
        store.execute(f"DELETE FROM unit_scores WHERE task = 'retrieval' AND number <> {keep}")
        store.execute(f"DELETE FROM language_layers WHERE number <> {keep}")
    serve(folder, monkeypatch, db)
    seen = visit("correlation", task="massive")
    assert widget(seen, "System").value == ids["good"]
    assert len(widget(seen, "System").options) == 1
    assert len(charts(seen)) == 1


@pytest.mark.parametrize(
    ("page", "told"), [("compare", "cannot be read here:"), ("gains", "cannot be compared here:")]
)
def test_without_the_folder_of_submissions_a_page_names_the_option(
    board, tmp_path, monkeypatch, page, told
):
    folder, ids = board
    serve(tmp_path, monkeypatch, folder / "leaderboard.duckdb")
    seen = visit(page, task="massive", system=ids["script"], baseline=ids["long"])
    assert told in seen.info[0].value
    assert any("--submissions DIR" in code.value for code in seen.code)


def test_compare_without_the_test_sets_shows_the_answers(app, board, tmp_path, monkeypatch):
    _, ids = board
    monkeypatch.setenv("XLT_BENCH_DATA", str(tmp_path))
    seen = app("compare", task="uner", system=ids["good"], baseline=ids["script"], verdict="every")
    assert "xlt-bench data fetch" in [code.value for code in seen.code]


def test_compare_reads_from_a_store_and_says_what_is_missing(
    board, made_up_root, tmp_path, monkeypatch
):
    folder, ids = board
    monkeypatch.setenv("XLT_BENCH_DATA", str(made_up_root))
    asked = {"task": "uner", "verdict": "every", "system": ids["good"], "baseline": ids["script"]}
    serve(folder, monkeypatch)
    streamlit.cache_data.clear()  # another test may have asked without the test sets
    before = visit("compare", **asked)
    submissions = shutil.copytree(folder / "submissions", tmp_path / "submissions")
    for name in (ids["good"], ids["script"]):
        move(submissions / name, str(submissions / "artifacts"))
    (submissions / "stores.txt").write_text("artifacts\n")
    serve(tmp_path, monkeypatch, folder / "leaderboard.duckdb")
    streamlit.cache_data.clear()
    seen = visit("compare", **asked)
    assert [html.proto.body for html in seen.get("html")] == [
        html.proto.body for html in before.get("html")
    ]
    shown = visit("submission", system=ids["good"])
    assert any("in an artifact store" in caption for caption in captions(shown))
    shutil.rmtree(submissions / "artifacts")
    streamlit.cache_data.clear()
    seen = visit("compare", **asked)
    assert "cannot be read here" in seen.info[0].value
    (line,) = [text.value for text in seen.text if "is missing in" in text.value]
    assert "git sparse-checkout disable" in line


def test_submission_has_the_record_the_command_and_the_files(app, board, hostile):
    _, ids = board
    seen = app("submission", system=ids["limited"])
    codes = [code.value for code in seen.code]
    assert "xlt-bench evaluate" in codes
    assert hostile["markup"] in [text.value for text in seen.text], "notes are text"
    listed = [frame.value for frame in seen.dataframe if "file" in frame.value]
    assert "predictions/massive/sw.jsonl.zst" in listed[0]["file"].tolist()
    facts = seen.dataframe[0].value.set_index("what")["value"]
    assert facts["item limit"] == "3"


def test_the_app_sees_a_new_database_without_a_restart(app, board, tmp_path, monkeypatch):
    folder, _ = board
    db = tmp_path / "db.duckdb"
    shutil.copy(folder / "leaderboard.duckdb", db)
    monkeypatch.setenv("XLT_BENCH_LEADERBOARD", str(db))
    seen = app("systems", task="massive")
    assert "good adapter" in seen.dataframe[0].value["system"].tolist()
    new = tmp_path / "new.duckdb"
    shutil.copy(folder / "leaderboard.duckdb", new)
    with duckdb.connect(new) as store:
        store.execute("UPDATE submissions SET name = 'renamed' WHERE name = 'good adapter'")
    new.replace(db)
    assert "renamed" in again(seen).dataframe[0].value["system"].tolist()


def test_first_start_builds_and_without_submissions_says_how(board, tmp_path, monkeypatch):
    folder, _ = board
    db = tmp_path / "db.duckdb"
    monkeypatch.setenv("XLT_BENCH_LEADERBOARD", str(db))
    monkeypatch.setenv("XLT_BENCH_SUBMISSIONS", str(tmp_path / "none"))
    seen = visit("systems")
    assert "could not be built" in seen.info[0].value
    assert not db.exists()
    monkeypatch.setenv("XLT_BENCH_SUBMISSIONS", str(folder / "submissions"))
    assert len(again(seen).dataframe[0].value) == 7


def captions(app):
    return [caption.value for caption in app.caption]


def options(app, label):
    return widget(app, label).options


def test_with_one_version_the_captions_name_it_and_nothing_is_to_choose(app, board):
    _, ids = board
    for page in ("systems", "gains", "correlation", "compare"):
        seen = app(page, task="massive", system=ids["good"], open=ids["good"])
        assert "Version" not in [box.label for box in seen.selectbox]
        about_tasks = [text for text in captions(seen) if "arXiv" not in text]
        assert all(text.startswith("massive v2") for text in about_tasks), page
        assert "version" not in link(seen)
    seen = app("layers")
    assert all(text.startswith("retrieval v1: ") for text in captions(seen))


def test_versions_are_shown_one_at_a_time(app, two_versions, monkeypatch):
    before = app("systems", task="massive").dataframe[0].value
    serve(two_versions[0], monkeypatch)
    newest = visit("systems", task="massive")
    assert options(newest, "Version") == ["v3", "v2"]
    assert widget(newest, "Version").value == "3", "the current version"
    systems = newest.dataframe[0].value["system"]
    assert set(systems) == {"second bare", "second adapter", "only beyond"}
    assert captions(newest)[0].startswith("massive v3, 3 systems. ")
    widget(newest, "Version").set_value("2")
    older = again(newest)
    # The second version leaves everything that the first one shows as it was.
    pd.testing.assert_frame_equal(older.dataframe[0].value, before)
    assert captions(older)[0].startswith("massive v2, 7 systems. ")
    assert link(older)["version"] == ["2"]
    widget(older, "Task").set_value("wmt23")
    assert "Version" not in [box.label for box in again(older).selectbox]
    widget(older, "Task").set_value("massive")
    assert widget(again(older), "Version").value == "3", "another task takes the choice back"


def test_a_version_offers_its_own_systems_and_baselines(two_versions, monkeypatch):
    folder, ids = two_versions
    serve(folder, monkeypatch)
    for page, second in (("gains", "Baseline"), ("compare", "Second system")):
        seen = visit(page, task="massive", version="3", system=ids["second adapter"])
        assert widget(seen, second).value == ids["second bare"]
        offered = {"bare model · self-reported", "only beyond · self-reported"}
        assert set(options(seen, second)) == offered
        assert all(text.startswith("massive v3") for text in captions(seen))
        seen = visit(page, task="massive", version="2", system=ids["good"])
        assert widget(seen, second).value == ids["bare"], "no baseline of another version"
        assert not any(one.startswith("second") for one in options(seen, second))
    seen = visit("correlation", task="massive", version="3", system=ids["second adapter"])
    assert captions(seen)[0].startswith("massive v3: ")
    assert "(retrieval v1; own, even layers)" in captions(seen)[0]
    (points,) = [f for f in data(seen, 0) if "unit" in f]
    assert points["unit"].tolist() == ["de"], "Swahili is not ranked"


def test_the_heat_map_has_one_version(two_versions, monkeypatch):
    folder, ids = two_versions
    serve(folder, monkeypatch)
    for version, system, wanted in (
        ("2", "good", {"good adapter"}),
        ("3", "second adapter", {"second adapter"}),
    ):
        seen = visit("gains", task="massive", version=version, system=ids[system])
        (frame,) = [f for f in data(seen, 1) if "system" in f]
        shown = set(frame["system"])
        assert wanted <= shown
        assert ("second adapter" in shown) == (version == "3")


def test_without_submissions_of_the_current_version_the_newest_is_shown(
    two_versions, tmp_path, monkeypatch
):
    db = shutil.copy(two_versions[0] / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        store.execute("UPDATE tasks SET current_version = 4 WHERE task = 'massive'")
    serve(two_versions[0], monkeypatch, db)
    seen = visit("systems", task="massive")
    assert widget(seen, "Version").value == "3"
    assert options(seen, "Version") == ["v3", "v2"]


def test_units_beyond_the_ranked_set_are_apart_and_in_no_mean(two_versions, monkeypatch):
    folder, ids = two_versions
    serve(folder, monkeypatch)
    seen = visit("systems", task="massive", version="3", open=ids["second adapter"])
    (frame,) = [f for f in data(seen, 0) if "group" in f]
    groups = frame.dropna(subset=["unit"]).set_index("unit")["group"].to_dict()
    assert groups == {"de": "transfer", "sw": "beyond the ranked set"}
    assert "BEYOND THE RANKED SET (1)" in json.dumps(charts(seen))
    assert "Languages beyond the ranked set are in no mean." in captions(seen)[1]
    # The same language is ranked in version 2, where the adapter is aligned on it.
    seen = visit("systems", task="massive", version="2", open=ids["script"])
    (frame,) = [f for f in data(seen, 0) if "group" in f]
    groups = frame.dropna(subset=["unit"]).set_index("unit")["group"].to_dict()
    assert groups == {"de": "transfer", "sw": "aligned"}
    assert not any("beyond the ranked set" in text for text in captions(seen))


def test_gains_beyond_the_ranked_set_are_in_no_count(two_versions, monkeypatch):
    folder, ids = two_versions
    serve(folder, monkeypatch)
    with connect(folder / "leaderboard.duckdb") as store:
        query = "SELECT unit, gain FROM significance WHERE submission = ? AND task = 'massive'"
        stored = dict(store.execute(query, [ids["second adapter"]]).fetchall())
    assert set(stored) == {"de", "sw"}
    assert stored["de"] != stored["sw"], "else the means could not tell"
    seen = visit("gains", task="massive", system=ids["second adapter"])
    counted = {metric.label: (metric.value, metric.delta) for metric in seen.metric}
    value, interval = counted["Mean gain, transfer"]
    assert value == f"{stored['de']:+.1f}"
    assert interval.endswith(", 1 units")
    assert counted["Languages that gain"][0] == f"{int(stored['de'] > 0)} of 1"
    assert "BEYOND THE RANKED SET (1)" in json.dumps(charts(seen)[0])
    assert "in no count and in no mean" in captions(seen)[0]
    (cells,) = [f for f in data(seen, 1) if "system" in f]
    assert set(cells["unit"]) == {"de"}


def test_a_run_of_nothing_but_units_beyond_is_listed_without_a_mean(two_versions, monkeypatch):
    folder, ids = two_versions
    serve(folder, monkeypatch)
    shown = visit("systems", task="massive").dataframe[0].value.set_index("system")
    assert pd.isna(shown.loc["only beyond", "transfer"])
    assert shown.index[-1] == "only beyond"
    seen = visit("gains", task="massive", system=ids["only beyond"], baseline=ids["second bare"])
    counted = {metric.label: (metric.value, metric.delta) for metric in seen.metric}
    assert not any(label.startswith("Mean gain") for label in counted)
    assert counted["Languages that gain"][0] == "0 of 0"


@pytest.fixture
def spinners(monkeypatch):
    """The texts that the app shows while it waits."""
    texts = []

    @contextmanager
    def spinner(text, **_):
        texts.append(text)
        yield

    monkeypatch.setattr(streamlit, "spinner", spinner)
    return texts


def test_a_database_of_another_version_is_rebuilt(board, tmp_path, monkeypatch, spinners):
    folder, _ = board
    db = tmp_path / "db.duckdb"
    shutil.copy(folder / "leaderboard.duckdb", db)
    serve(folder, monkeypatch, db)
    visit("systems")
    assert spinners == [], "a current database is left alone"
    old = tmp_path / "old.duckdb"
    shutil.copy(folder / "leaderboard.duckdb", old)
    with duckdb.connect(old) as store:
        # The first schema had neither of these tables.
        store.execute("DROP TABLE build; DROP TABLE tasks")
    old.replace(db)
    assert not is_current(db)
    seen = visit("systems", task="massive")
    assert len(seen.dataframe[0].value) == 7
    (said,) = spinners
    assert said.startswith("Another version of xlt-bench built this database.")
    assert is_current(db)


def test_a_database_that_cannot_be_rebuilt_is_kept_and_the_page_says_so(
    board, tmp_path, monkeypatch
):
    db = tmp_path / "db.duckdb"
    shutil.copy(board[0] / "leaderboard.duckdb", db)
    with duckdb.connect(db) as store:
        store.execute("UPDATE build SET schema_version = 1")
    before = db.read_bytes()
    serve(tmp_path, monkeypatch, db)
    seen = visit("systems")
    assert "could not be built" in seen.info[0].value
    assert "xlt-bench leaderboard build --submissions DIR --db FILE" in [c.value for c in seen.code]
    assert db.read_bytes() == before


@pytest.mark.parametrize("kind", ["database", "text"])
def test_a_file_that_is_not_a_leaderboard_database_is_never_replaced(
    board, tmp_path, monkeypatch, kind
):
    db = tmp_path / "db.duckdb"
    if kind == "text":
        db.write_text("not a database\n" * 1000)
    else:
        with duckdb.connect(db) as store:
            store.execute("CREATE TABLE submissions AS SELECT 'somebody else' AS owner")
    before = db.read_bytes()
    serve(board[0], monkeypatch, db)
    seen = visit("systems")
    assert "not a leaderboard database" in seen.info[0].value
    assert db.read_bytes() == before


def test_the_database_says_which_tasks_there_are(board, tmp_path, monkeypatch):
    """A task of a package that is not installed here is shown like any other."""
    folder, ids = board
    db = shutil.copy(folder / "leaderboard.duckdb", tmp_path)
    with duckdb.connect(db) as store:
        query = "SELECT table_name FROM duckdb_columns() WHERE column_name = 'task'"
        tables = {name for (name,) in store.execute(query).fetchall()}
        tables &= {
            name for (name,) in store.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        }
        assert {"tasks", "units", "runs", "unit_scores", "mean_gains"} <= tables
        for name in tables:
            store.execute(f"UPDATE {name} SET task = 'riddles' WHERE task = 'massive'")
        change = "title = 'Riddles', place = 9, ranked_by = 'all'"
        store.execute(f"UPDATE tasks SET {change} WHERE task = 'riddles'")
    serve(folder, monkeypatch, db)
    seen = visit("systems", task="riddles")
    assert options(seen, "Task")[-1] == "Riddles"
    assert len(options(seen, "Task")) == 4
    assert captions(seen)[0].startswith(f"riddles v{get_task('massive').version}, 7 systems. ")
    shown = seen.dataframe[0].value
    assert list(shown["all"]) == sorted(shown["all"], reverse=True), "ranked by the mean of `all`"
    seen = visit("gains", task="riddles", system=ids["good"])
    assert seen.metric[0].value.startswith("+")
    assert captions(seen)[0].startswith(f"riddles v{get_task('massive').version}: ")
    seen = visit("correlation", task="riddles", system=ids["good"])
    assert captions(seen)[0].startswith(f"riddles v{get_task('massive').version}: ")
    # Answers need the task itself.
    seen = visit("compare", task="riddles", system=ids["good"])
    assert "cannot be read here" in seen.info[0].value
    seen = visit("submission", system=ids["good"])
    (listed,) = [frame.value for frame in seen.dataframe if "lacks" in frame.value]
    assert listed["task"].tolist()[-1] == "Riddles"


def test_an_empty_leaderboard_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "submissions").mkdir()
    monkeypatch.setenv("XLT_BENCH_LEADERBOARD", str(tmp_path / "db.duckdb"))
    monkeypatch.setenv("XLT_BENCH_SUBMISSIONS", str(tmp_path / "submissions"))
    for page in DATA:
        seen = visit(page)
        assert seen.info, page
        assert any("xlt-bench submit" in code.value for code in seen.code), page


def test_downloads_hold_the_cells_and_no_formulas(monkeypatch):
    monkeypatch.syspath_prepend(str(APP.parent))
    import widgets

    frame = pd.DataFrame(
        {"text": ["=1+1", "plain", None], "x": [-1.5, 2.0, 3.0], "l": [["a"], [], []]}
    )
    back = pd.read_csv(io.BytesIO(widgets.csv(frame)))
    assert back["text"].tolist()[:2] == ["'=1+1", "plain"]
    assert back["x"].tolist() == [-1.5, 2.0, 3.0]
    same = pd.read_parquet(io.BytesIO(widgets.parquet(frame)))
    assert same["text"].tolist()[:2] == ["=1+1", "plain"]


def test_scripts_are_sent_compressed_and_deep_links_find_their_server(small_address):
    def get(path, **headers):
        asked = urllib.request.Request(small_address + path, headers=headers)
        with urllib.request.urlopen(asked, timeout=HANG) as answer:
            return answer.headers, answer.read()

    root, deep = get("/")[1], get("/gains?task=uner")[1]
    described = [
        re.findall(r'<meta name="description" content="(.+?)">', one.decode())
        for one in (root, deep)
    ]
    assert "in every language" in described[1][0]
    hint = re.compile(rb'<link rel="modulepreload" crossorigin href="\.(/static/js/[\w.-]+)">')
    same = root.replace(described[0][0].encode(), described[1][0].encode())
    assert hint.sub(b"", same) == hint.sub(b"", deep)
    hints = [path.decode() for path in hint.findall(deep)]
    assert len(hints) == len(set(hints))
    assert any("VegaLiteChart" in path for path in hints), "Gains has charts"
    assert not any("DataFrame" in path for path in hints), "and no table"
    scripts = re.findall(r'src="\.(/static/[^"]+\.js)"', deep.decode())
    for path in (*scripts, *hints, "/gains"):
        _, plain = get(path)
        headers, packed = get(path, **{"Accept-Encoding": "gzip, br"})
        assert headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed) == plain
    assert "immutable" in get(scripts[-1])[0]["Cache-Control"]
    assert get("/")[0]["Cache-Control"] == "no-cache"


def test_no_other_page_may_frame_the_leaderboard(small_address):
    for path in ("/", "/gains", "/_stcore/health", "/nothing/here"):
        try:
            answer = urllib.request.urlopen(small_address + path, timeout=HANG)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            assert answer.headers.get_all("Content-Security-Policy") == ["frame-ancestors 'none'"]
            assert answer.headers.get_all("X-Frame-Options") == ["DENY"]
            assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
