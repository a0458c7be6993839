"""The leaderboard on its real server, in headless Chromium.

The tests leave screenshots of all pages in build/screenshots/. They measure no times;
performance/leaderboard_app.py does.
"""

import io
import os
import re
import subprocess
import sys
import time
from itertools import cycle, product
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
    "overview": "Which training carries a skill from a few languages over to the others?",
    "systems": "Systems",
    "gains": "Gains",
    "transfer": "Transfer",
    "families": "Families",
    "size": "Size",
    "layers": "Layers",
    "correlation": "Correlation",
    "compare": "Compare",
    "submission": "Submission",
    "how_to_submit": "How to submit",
    "about": "About",
}
LINKS = {**TITLES, "overview": "Overview"}
TEXTS = ("how_to_submit", "about")  # pages without data


def shown(ids, page):
    """Parameters of a view with many rows."""
    params = {"system": ids["mini aligned"], "task": "massive"}
    if page == "systems":
        params["open"] = ids["mini aligned"]
    if page == "layers":
        params["systems"] = [ids[name] for name in ids if name.startswith("mini")]
    return {**params, "unit": "ar", "verdict": "every"} if page == "compare" else params


def violations(page):
    """What axe-core finds serious or critical, and headings that are out of order."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    return [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in axe.run(page).response["violations"]
        if one["impact"] in ("serious", "critical") or one["id"] == "heading-order"
    ]


# Six pages by turns wide and light, narrow and dark; the other views are slow.
ONCE = [
    (name, *view)
    for name, view in zip(
        ("overview", "systems", "gains", "compare", "layers", "about"),
        cycle([(1280, False), (390, True)]),
        strict=False,
    )
]


@pytest.mark.parametrize(
    ("name", "width", "dark"), slow_but(ONCE, product(TITLES, (1280, 390), (False, True)))
)
def test_every_page_in_light_and_dark_wide_and_narrow(tab, shelf, shoot, name, width, dark):
    page = tab.open(name, width=width, dark=dark, **shown(shelf[1], name))
    assert page.title() == f"{LINKS[name]} · xlt-bench leaderboard"
    assert page.get_by_test_id("stCaptionContainer").first.is_visible()
    colour = "part => getComputedStyle(part).backgroundColor"
    channels = re.findall(r"\d+", page.get_by_test_id("stApp").evaluate(colour))[:3]
    assert (sum(map(int, channels)) < 3 * 128) == dark
    assert tab.fits()
    assert violations(page) == []
    shoot(tab, f"{name}-{width}-{'dark' if dark else 'light'}")


@pytest.mark.slow
def test_the_navigation_and_the_links_between_pages(tab, shelf):
    ids = shelf[1]
    page = tab.open("systems", task="massive", open=ids["good"])
    for link, title in (("Its submission", "Submission"), ("Its gains", "Gains")):
        page.get_by_role("link", name=link).click()
        expect(page.locator("h1")).to_have_text(title)
        tab.settle()
        assert f"system={ids['good']}" in page.url
        page.go_back()
        expect(page.locator("h1")).to_have_text("Systems")
        tab.settle()
    for name, title in TITLES.items():
        page.get_by_test_id("stTopNavLink").filter(has_text=LINKS[name]).first.click()
        expect(page.locator("h1")).to_have_text(title)
        tab.settle()


# Label, choice, the choice that undoes it, systems shown; None for all.
FILTERS = (
    ("Recipe", "massive-align-middle", "any", 2),
    ("Adapter", "none: the bare model", "any or none", 3),
    ("Show", "partial", "complete and partial", None),
    ("Sort by", "newest first", "the ranking score", None),
    ("Score", "exact_match", "slot_f1", None),
)


@pytest.mark.parametrize("number", slow_but([1], [1, len(FILTERS)]))
def test_the_filters_of_the_systems(tab, shelf, number):
    ids = shelf[1]
    page = tab.open("systems")
    counted = page.get_by_text(re.compile(r"^massive v2, \d+ systems\. "))
    expect(counted).to_have_text(re.compile(f", {len(ids)} systems"))
    for label, option, back, left in FILTERS[:number]:
        tab.choose(label, option)
        expect(counted).to_have_text(re.compile(f", {left or len(ids)} systems"))
        tab.choose(label, back)
    page.get_by_label("Find").fill("mini")
    page.keyboard.press("Enter")
    expect(counted).to_have_text(re.compile(", 3 systems"))
    page.get_by_label("Find").fill("there is no such system")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Remove a filter")).to_be_visible()
    tab.settle()


def rows_of(page):
    return page.locator(".methods tr.method")


def test_a_row_opens_by_mouse_and_by_keyboard_and_a_link_opens_it_again(tab, another):
    page = tab.open("overview")
    row = rows_of(page).filter(has_text="mini aligned").first
    row.locator("td.items").click()
    page.wait_for_url(re.compile("open="))
    tab.settle()
    beside = page.locator("svg text", has_text="TRANSFER (")
    expect(beside.first).to_be_attached()
    box, table = (page.locator(one).first.bounding_box() for one in ("svg.marks", ".methods"))
    assert box["x"] > table["x"] + table["width"], "the gains stand beside the table"
    link = page.url
    page.locator(".methods button[aria-expanded=true]").first.press("Enter")
    page.wait_for_url(re.compile("open=(&|$)"))
    tab.settle()
    expect(beside).to_have_count(0)
    other = another()
    other.page.goto(link)
    other.settle()
    expect(other.page.locator("tr.opened").first).to_contain_text("mini aligned")


def test_the_first_screen_needs_no_scrolling(tab):
    page = tab.open("overview")
    page.set_viewport_size({"width": 1280, "height": 800})
    tab.settle()
    right = page.locator(".methods table").bounding_box()
    assert right["x"] + right["width"] <= 1280
    row = rows_of(page).first
    for cell in row.locator("th, td").all():
        box = cell.bounding_box()
        assert box["x"] + box["width"] <= 1280
    assert row.bounding_box()["y"] < 800
    wide = [cell.get_attribute("class") for cell in row.locator("th, td").all()]
    page.set_viewport_size({"width": 390, "height": 800})
    tab.settle()
    assert tab.fits()
    narrow = row.locator("th, td")
    assert [cell.get_attribute("class") for cell in narrow.all()] == wide
    tops = [cell.bounding_box()["y"] for cell in narrow.all() if cell.is_visible()]
    assert tops == sorted(tops), "the same order on a phone"


PIN_PAGES = ("Gains", "Compare", "Layers", "Correlation", "Submission")


@pytest.mark.parametrize("number", slow_but([2], [2, len(PIN_PAGES)]))
def test_pinned_methods_and_the_task_survive_a_change_of_page(tab, another, number):
    page = tab.open("overview")
    tab.pick("Named entities (UNER)")
    tab.pick("Slot filling (MASSIVE)")
    for name in ("mini baseline", "mini aligned"):
        before = page.url
        page.get_by_role("button", name=f"Pin {name}", exact=True).first.click()
        page.wait_for_function("before => location.href !== before", arg=before)
        tab.settle()
    expect(page.locator(".methods tbody").first).to_contain_text("Pinned")
    for name in PIN_PAGES[:number]:
        page.get_by_test_id("stTopNavLink").filter(has_text=name).first.click()
        expect(page.locator("h1")).to_have_text(name)
        tab.settle()
        assert page.url.count("pin=") == 2, name
        expect(page.locator(".st-key-pins")).to_contain_text("mini aligned")
        if name == "Gains":
            expect(page.get_by_text("Pinned methods side by side")).to_be_visible()
    other = another()
    other.page.goto(page.url)
    other.settle()
    expect(other.page.locator(".st-key-pins")).to_contain_text("mini baseline")
    other.page.get_by_role("button", name="Unpin").first.click()
    expect(other.page.locator(".st-key-pins")).not_to_contain_text("mini baseline")


def test_a_wrong_id_says_so_and_shows_no_other_system(tab):
    page = tab.open("gains", system="no-such-system")
    expect(page.get_by_text("The address asks for a system that is not here:")).to_be_visible()
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(0)
    box = page.get_by_role("combobox", name="System")
    box.click()
    page.get_by_role("option").first.click()
    page.wait_for_function("!location.href.includes('no-such-system')")
    tab.settle()
    expect(page.get_by_test_id("stVegaLiteChart").first).to_be_visible()


# Choices on each page, in the order in which the test makes them.
CHOICES = {
    "gains": [
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


@pytest.mark.parametrize("name", slow_but(["compare"], CHOICES))
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


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["systems", "transfer"],
        [name for name in TITLES if name not in ("how_to_submit", "about")],
    ),
)
def test_downloads_of_data_and_of_charts(tab, shelf, name):
    page = tab.open(name, **shown(shelf[1], name))
    for kind, read in (("CSV", pd.read_csv), ("Parquet", pd.read_parquet)):
        buttons = page.get_by_test_id("stDownloadButton").get_by_role("button", name=kind)
        frames = [read(io.BytesIO(tab.download(button))) for button in buttons.all()]
        assert frames
        assert all(len(frame) for frame in frames)
    for button in page.get_by_test_id("stDownloadButton").get_by_role("button", name="LaTeX").all():
        assert tab.download(button).startswith(b"\\begin{table}")
    charts = page.get_by_test_id("stVegaLiteChart").count()
    for kind, start in (("SVG", b"<svg"), ("PDF", b"%PDF-")):
        buttons = page.get_by_test_id("stDownloadButton").get_by_role("button", name=kind)
        assert bool(buttons.count()) == bool(charts) or name == "overview"
        for button in buttons.all()[:1]:
            figure = tab.download(button)
            assert figure.startswith(start)
            if kind == "SVG":
                texts = re.findall(r">([^<>]+)</(?:text|tspan)>", figure.decode())
                assert any(re.search(r"xlt-bench, \d{4}-\d\d-\d\d", one) for one in texts)
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


def test_the_file_of_systems_holds_what_the_database_holds(tab, shelf):
    page = tab.open("systems", task="massive")
    button = page.get_by_test_id("stDownloadButton").get_by_role("button", name="CSV").first
    found = pd.read_csv(io.BytesIO(tab.download(button))).set_index("submission")["score"]
    with connect(shelf[0] / "leaderboard.duckdb") as store:
        query = (
            "SELECT submission, value FROM split_means "
            "WHERE task = 'massive' AND metric = 'slot_f1' AND split = 'transfer'"
        )
        stored = dict(store.execute(query).fetchall())
    assert found.to_dict() == pytest.approx(stored)


# Every kind of name, on pages that show names in ways of their own; test_app.py has all.
HARM = [("overview", "script"), ("systems", "long"), ("gains", "markup"), ("compare", "long")]


@pytest.mark.parametrize(
    ("name", "kind"),
    slow_but(
        HARM,
        [
            (name, kind)
            for name in TITLES
            if name not in TEXTS
            for kind in ("script", "markup", "long")
        ],
    ),
)
def test_hostile_names_do_no_harm(tab, shelf, name, kind):
    ids = shelf[1]
    params = {"system": ids[kind], "systems": [ids[kind]], "task": "massive"}
    if name == "systems":
        params["open"] = ids[kind]
    page = tab.open(name, width=390, **params)
    if name == "overview":
        rows_of(page).last.locator("button.open").click()
        page.wait_for_url(re.compile("open="))
        tab.settle()
    assert tab.fits()
    found = page.evaluate("() => [...document.querySelectorAll('script')].map(s => s.text).join()")
    assert "alert(1)" not in found
    main = page.get_by_test_id("stMain")
    own = "tr.heading > th > strong, td.counts b"  # of the table of methods
    assert main.locator(f":is(b, strong, em, mark):not({own})").count() == 0
    assert main.locator("a[href*='example.org']").count() == 0
    assert main.locator("h1").count() == 1


def test_a_hostile_name_is_shown_as_text(tab, shelf, hostile):
    page = tab.open("submission", system=shelf[1]["script"])
    assert page.get_by_text(f"Submitted as {hostile['script']}", exact=True).is_visible()


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
    wanted = ["Overview", "How to submit", "Link to this view", "System", "Baseline"]
    for name in (*wanted, "Colour by", "Download as PNG", "CSV", "Parquet"):
        assert name in everything, everything


def test_the_app_stays_up_and_shows_new_rows_while_the_database_is_rebuilt(
    tab, shelf, make_run, made_up_root
):
    folder, ids = shelf
    page = tab.open("systems")
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


def test_a_choice_survives_an_update_that_comes_with_an_older_address(tab, shelf):
    """As when the browser asks for news before it has seen what the choice wrote to its URL."""
    page = tab.open("systems")
    older = page.url
    tab.choose("Sort by", "newest first")
    assert "sort=newest" in page.url
    page.evaluate("older => history.replaceState(null, '', older)", older)
    os.utime(shelf[0] / "leaderboard.duckdb")
    page.wait_for_url(re.compile("sort=newest"))
    tab.settle()
    assert "newest first" in tab.values()["Sort by"]
