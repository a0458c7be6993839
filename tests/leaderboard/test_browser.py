"""The leaderboard on its real server, in headless Chromium.

The tests leave screenshots of all pages in build/screenshots/. They measure no times;
performance/leaderboard_app.py does.
"""

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cases import slow_but
from xlt_bench.store.build import connect
from xlt_bench.submissions.create import About, submit

expect = pytest.importorskip("playwright.sync_api").expect
PROGRAM = Path(sys.executable).with_name("xlt-bench")
HANG = 900  # seconds after which a build or a chart is considered to hang
TITLES = {
    "overview": "Overview",
    "gains": "Gains",
    "layers": "Layers",
    "correlation": "Correlation",
    "compare": "Compare",
    "submission": "Submission",
    "how_to_submit": "How to submit",
}


def shown(ids, page):
    """Parameters of a view with many rows."""
    params = {"system": ids["mini aligned"], "task": "massive", "open": ids["mini aligned"]}
    if page == "layers":
        params["systems"] = [ids[name] for name in ids if name.startswith("mini")]
    return {**params, "unit": "ar", "verdict": "every"} if page == "compare" else params


# A width is a layout and a theme is colours: a page has each once in two views.
@pytest.mark.parametrize(
    "views",
    [
        ((1280, False), (390, True)),
        pytest.param(((390, False), (1280, True)), marks=pytest.mark.slow),
    ],
    ids=["wide light, narrow dark", "narrow light, wide dark"],
)
@pytest.mark.parametrize("name", TITLES)
def test_every_page_in_light_and_dark_wide_and_narrow(tab, shelf, shoot, name, views):
    for width, dark in views:
        page = tab.open(name, width=width, dark=dark, **shown(shelf[1], name))
        assert page.get_by_test_id("stCaptionContainer").first.is_visible()
        colour = "part => getComputedStyle(part).backgroundColor"
        channels = re.findall(r"\d+", page.get_by_test_id("stApp").evaluate(colour))[:3]
        assert (sum(map(int, channels)) < 3 * 128) == dark
        assert tab.fits()
        if (width, dark) in ((1280, False), (390, True)):
            shoot(tab, f"{name}-{width}-{'dark' if dark else 'light'}")


def test_the_navigation_and_the_links_between_pages(tab, shelf):
    ids = shelf[1]
    page = tab.open("overview", task="massive", open=ids["good"])
    for link, title in (("Its submission", "Submission"), ("Its gains", "Gains")):
        page.get_by_role("link", name=link).click()
        expect(page.locator("h1")).to_have_text(title)
        tab.settle()
        assert f"system={ids['good']}" in page.url
        page.go_back()
        expect(page.locator("h1")).to_have_text("Overview")
        tab.settle()
    for title in TITLES.values():
        page.get_by_test_id("stTopNavLink").filter(has_text=title).first.click()
        expect(page.locator("h1")).to_have_text(title)
        tab.settle()


def test_the_filters_of_the_overview(tab, shelf):
    ids = shelf[1]
    page = tab.open("overview")
    counted = page.get_by_text(re.compile(r"^massive v2, \d+ systems\. "))
    expect(counted).to_have_text(re.compile(f", {len(ids)} systems"))
    for label, option, back, number in (
        ("Recipe", "massive-align-middle", "any", 2),
        ("Adapter", "none: the bare model", "any or none", 3),
        ("Show", "partial", "complete and partial", len(ids)),
        ("Sort by", "newest first", "the ranking score", len(ids)),
        ("Score", "exact_match", "slot_f1", len(ids)),
    ):
        tab.choose(label, option)
        expect(counted).to_have_text(re.compile(f", {number} systems"))
        tab.choose(label, back)
    page.get_by_label("Find").fill("mini")
    page.keyboard.press("Enter")
    expect(counted).to_have_text(re.compile(", 3 systems"))
    page.get_by_label("Find").fill("there is no such system")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Remove a filter")).to_be_visible()
    tab.settle()


def test_a_click_on_a_row_opens_its_languages(tab):
    page = tab.open("overview", find="mini aligned")
    grid = page.get_by_test_id("stDataFrame").first
    grid.get_by_test_id("glide-cell-1-0").wait_for(state="attached")  # its rows are drawn
    grid.click(position={"x": 18, "y": 53})
    page.wait_for_url(re.compile("open=mini-mini-aligned"))
    tab.settle()
    expect(page.locator("svg text", has_text="TRANSFER (14)").first).to_be_attached()


# Choices on each page, in the order in which the test makes them.
CHOICES = {
    "gains": [
        ("Task", "Retrieval (FLORES-200)"),
        ("Task", "Slot filling (MASSIVE)"),
        ("Baseline", "mini baseline"),
        ("Colour by", "resource level"),
        ("Colour by", "script"),
        ("Colour by", "language family"),
    ],
    "layers": [("System", "mini baseline")],
    "correlation": [
        ("Retrieval of", "own, middle layer"),
        ("Over", "all languages"),
        ("System", "mini baseline"),
    ],
    "compare": [
        ("Second system", "mini baseline"),
        ("Language", "Urdu (ur)"),
        ("Show where", "the first is better"),
        ("Show where", "every item"),
        ("Page", "2 of 3"),
    ],
    "submission": [("Submission", "mini baseline")],
}


@pytest.mark.parametrize("name", CHOICES)
def test_every_control_and_the_link_that_restores_the_view(tab, another, shelf, name):
    params = {**shown(shelf[1], name)}
    params.pop("verdict", None)
    page = tab.open(name, **params)
    for label, option in CHOICES[name]:
        tab.choose(label, option)
    if name == "layers":
        tab.choose("Queries in", "German")
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Link to this view").click()
    link = page.get_by_test_id("stPopoverBody").get_by_test_id("stCode").inner_text().strip()
    page.keyboard.press("Escape")
    assert link.startswith(tab.address)
    other = another()
    other.page.goto(link)
    expect(other.page.locator("h1")).to_have_text(TITLES[name])
    other.settle()
    assert other.values() == tab.values()
    # Vega draws new data a bit later than the page.
    until = time.monotonic() + HANG
    while tab.drawn() != other.drawn() and time.monotonic() < until:
        page.wait_for_timeout(100)
    assert tab.drawn() == other.drawn()


@pytest.mark.parametrize("name", [name for name in TITLES if name != "how_to_submit"])
def test_downloads_of_data_and_of_charts(tab, shelf, name):
    page = tab.open(name, **shown(shelf[1], name))
    for kind, read in (("CSV", pd.read_csv), ("Parquet", pd.read_parquet)):
        buttons = page.get_by_test_id("stDownloadButton").get_by_role("button", name=kind)
        frames = [read(io.BytesIO(tab.download(button))) for button in buttons.all()]
        assert frames
        assert all(len(frame) for frame in frames)
    for chart in page.get_by_test_id("stFullScreenFrame").all():
        if not chart.get_by_test_id("stVegaLiteChart").count():
            continue
        chart.hover()
        png = tab.download(chart.get_by_role("button", name=re.compile("^Download as PNG")))
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        assert picture.width > 300
        assert len(picture.getcolors(1 << 24)) > 5, "nothing is drawn on it"
    if name == "submission":
        page.get_by_role("button", name="Download the file").click()
        data = tab.download(page.get_by_role("button", name="Download the file"))
        assert (
            data
            == (shelf[0] / "submissions" / shelf[1]["mini aligned"] / "record.json").read_bytes()
        )


def test_the_overviews_file_holds_what_the_database_holds(tab, shelf):
    page = tab.open("overview", task="massive")
    button = page.get_by_test_id("stDownloadButton").get_by_role("button", name="CSV").first
    found = pd.read_csv(io.BytesIO(tab.download(button))).set_index("submission")["score"]
    with connect(shelf[0] / "leaderboard.duckdb") as store:
        query = (
            "SELECT submission, value FROM split_means "
            "WHERE task = 'massive' AND metric = 'slot_f1' AND split = 'transfer'"
        )
        stored = dict(store.execute(query).fetchall())
    assert found.to_dict() == pytest.approx(stored)


# Every page and every kind of name, and the longest on the narrowest page; test_app.py has all.
HARM = [
    *(("overview", kind) for kind in ("script", "markup", "long")),
    *(("gains", "markup"), ("layers", "long"), ("correlation", "script")),
    *(("compare", "long"), ("submission", "markup")),
]


@pytest.mark.parametrize(
    ("name", "kind"),
    slow_but(
        HARM,
        [
            (name, kind)
            for name in TITLES
            if name != "how_to_submit"
            for kind in ("script", "markup", "long")
        ],
    ),
)
def test_hostile_names_do_no_harm(tab, shelf, name, kind):
    ids = shelf[1]
    params = {"system": ids[kind], "systems": [ids[kind]], "open": ids[kind], "task": "massive"}
    page = tab.open(name, width=390, **params)
    assert tab.fits()
    found = page.evaluate("() => [...document.querySelectorAll('script')].map(s => s.text).join()")
    assert "alert(1)" not in found
    main = page.get_by_test_id("stMain")
    assert main.locator("b, strong, em, mark").count() == 0
    assert main.locator("a[href*='example.org']").count() == 0
    assert main.locator("h1").count() == 1


def test_a_hostile_name_is_shown_as_text(tab, shelf, hostile):
    page = tab.open("submission", system=shelf[1]["script"])
    assert page.get_by_text(hostile["script"], exact=True).first.is_visible()


@pytest.mark.parametrize(
    ("unit", "direction"),
    slow_but([("ar", "rtl"), ("el", "ltr")], [("ar", "rtl"), ("ur", "rtl"), ("el", "ltr")]),
)
def test_right_to_left_scripts_run_from_right_to_left(tab, shelf, unit, direction):
    page = tab.open("compare", **{**shown(shelf[1], "compare"), "unit": unit})
    source, reference = page.locator("[class*='st-key-item-9'] .answer").all()[:2]
    assert source.evaluate("part => getComputedStyle(part).direction") == direction
    # The distances of the letters from the two ends of their cell.
    left, right = source.evaluate(
        "part => { const range = document.createRange(); range.selectNodeContents(part);"
        " const ink = range.getBoundingClientRect(), box = part.getBoundingClientRect();"
        " return [ink.left - box.left, box.right - ink.right]; }"
    )
    assert right < left if direction == "rtl" else left < right
    # A slot stands left of its value in every script.
    pieces = reference.locator("bdi").all()
    assert pieces
    ends = [piece.bounding_box()["x"] for piece in pieces]
    assert ends == sorted(ends)


def test_the_keyboard_reaches_and_moves_everything(tab, shelf):
    page = tab.open("gains", **shown(shelf[1], "gains"))
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => { const e = document.activeElement; return e.getAttribute('aria-label') "
                "|| e.innerText || e.closest('[data-testid=stSelectbox]')?.innerText || ''; }"
            )
        )
        if reached[-1] == "" and len(reached) > 40:
            break
        if reached[-1] == "Colour by":
            page.keyboard.press("ArrowDown")
            page.get_by_role("option", name="script").wait_for()
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
            page.wait_for_url(re.compile("colour=(script|family)"))
            tab.settle()
    everything = "\n".join(reached)
    wanted = ["Overview", "How to submit", "Link to this view", "Task", "System", "Baseline"]
    for name in (*wanted, "Colour by", "Download as PNG", "CSV", "Parquet"):
        assert name in everything, everything


def test_the_app_stays_up_and_shows_new_rows_while_the_database_is_rebuilt(
    tab, shelf, make_run, made_up_root
):
    folder, ids = shelf
    page = tab.open("overview")
    counted = page.get_by_text(re.compile(r"^massive v2, \d+ systems\. "))
    expect(counted).to_have_text(re.compile(f", {len(ids)} systems"))
    run = make_run(folder / "late", 20, adapter="late")
    submit(run, About(name="late"), folder / "submissions", made_up_root)
    command = [PROGRAM, "leaderboard", "build", "--db", folder / "leaderboard.duckdb"]
    building = subprocess.Popen([*command, "--submissions", folder / "submissions"])
    for _ in range(200):
        if building.poll() is not None:
            break
        tab.choose("Sort by", "newest first")
        tab.choose("Sort by", "the ranking score")
    assert building.wait(HANG) == 0
    # From here on, the page updates on its own.
    expect(counted).to_have_text(re.compile(f", {len(ids) + 1} systems"))
    tab.settle()
