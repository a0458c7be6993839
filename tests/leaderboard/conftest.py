"""Fixtures of the app's tests: small leaderboards, a server that shows one, and a browser."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import duckdb
import pytest

from xlt_bench.data.root import MINI
from xlt_bench.store.build import build
from xlt_bench.submissions.create import About, submit
from xlt_bench.tasks.registry import get_task
from xlt_bench.tasks.test_set import path_of

# The made-up runs have two languages of slot filling. Splits and correlations need more.
MORE = """
CREATE TEMP TABLE more AS SELECT * FROM (VALUES ('en', 91.0, 80.0), ('fr', 70.0, 60.0),
    ('th', 30.0, 45.0), ('ja', 35.0, 20.0)) AS more (unit, score, retrieval);
INSERT INTO unit_scores SELECT u.* REPLACE (m.unit AS unit, m.score AS value, false AS aligned)
FROM unit_scores u JOIN submissions s USING (number), more m
WHERE s.name = 'good adapter' AND u.task = 'massive' AND u.metric = 'slot_f1' AND u.unit = 'de';
INSERT INTO unit_scores SELECT u.* REPLACE (m.unit AS unit, m.retrieval AS value)
FROM unit_scores u JOIN submissions s USING (number), more m
WHERE s.name = 'good adapter' AND u.task = 'retrieval' AND u.unit = 'de' AND m.unit <> 'en';
INSERT INTO mean_scores SELECT u.* REPLACE ('supervised' AS split, 91.0 AS value)
FROM mean_scores u JOIN submissions s USING (number)
WHERE s.name = 'good adapter' AND u.task = 'massive' AND metric = 'slot_f1' AND split = 'transfer';
"""
# `submit` refuses the last name. The pages must cope with it all the same.
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "markup": "# [a](https://example.org) **b** :red[c] $x$ <b>d</b>",
    "long": "long <b> " * 625,
}


@pytest.fixture(scope="session")
def hostile() -> dict[str, str]:
    """Names of submissions that would do harm if they were not shown as text."""
    return HOSTILE


@pytest.fixture(scope="session")
def built():
    """Builds a database and adds rows that `submit` would refuse."""

    def make(submissions: Path, db: Path) -> None:
        assert not build(submissions, db).refused
        with duckdb.connect(db) as store:
            query = "UPDATE submissions SET name = $name WHERE name = 'long'"
            store.execute(query, {"name": HOSTILE["long"]})
            store.execute(MORE)

    return make


@pytest.fixture(scope="session")
def board(make_run, made_up_root, built, tmp_path_factory):
    """A bare model, adapters with hostile names, a limited run, and another base model.

    Returns the folder of `submissions/` and `leaderboard.duckdb`, and the ids by a short name.
    """
    folder = tmp_path_factory.mktemp("board")

    def add(name, seed, **options):
        run = make_run(folder / f"run {seed}", seed, **options)
        about = About(name=name, notes=HOSTILE["markup"])
        return submit(run, about, folder / "submissions", made_up_root).folder.name

    ids = {
        "bare": add("bare model", 0, right=0.3),
        "good": add("good adapter", 1, adapter="good", right=0.9, recipe="massive-align-middle"),
        "script": add(
            HOSTILE["script"],
            2,
            adapter="script",
            right=0.6,
            recipe=HOSTILE["script"],
            trained_on_flores=True,
        ),
        "long": add("long", 3, adapter="long", right=0.1),
        "markup": add(HOSTILE["markup"], 4, adapter="markup", right=0.5, recipe=HOSTILE["markup"]),
        "limited": add("limited run", 5, adapter="limited", limit=3),
        "other": add("other base", 6, model="large"),
    }
    built(folder / "submissions", folder / "leaderboard.duckdb")
    return folder, ids


@pytest.fixture(scope="session")
def two_versions(board, built, make_run, made_up_root, tmp_path_factory, accept):
    """The board with three more systems on a made-up version 3 of massive, without Swahili."""
    folder, ids = tmp_path_factory.mktemp("versions"), dict(board[1])
    shutil.copytree(board[0] / "submissions", folder / "submissions")
    task = get_task("massive")
    pins = shutil.copytree(task.pins, folder / "pinned")
    pin = json.loads(path_of(pins, "massive", task.version).read_text())
    del pin["units"]["sw"]
    path_of(pins, "massive", task.version + 1).write_text(
        json.dumps({**pin, "version": task.version + 1})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task), "pins", pins)
        for name, seed, options in (
            ("second bare", 30, {"right": 0.2}),
            ("second adapter", 31, {"right": 0.8, "adapter": "second"}),
            ("only beyond", 32, {"adapter": "third", "units": {"massive": ["sw"]}}),
        ):
            run = make_run(folder / name, seed, **options)
            done = submit(run, About(name=name), folder / "submissions", made_up_root)
            ids[name] = done.folder.name
        accept(folder / "submissions", ids["bare"], ids["second bare"])
        built(folder / "submissions", folder / "leaderboard.duckdb")
    return folder, ids


PROGRAM = Path(sys.executable).with_name("xlt-bench")
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
HANG = 900  # seconds after which a server or a build is considered to hang
PATIENCE = 300_000  # milliseconds; a limit for hangs on a busy machine, not an expectation
DONE = "[data-testid=stApp][data-test-script-state=notRunning]"


@pytest.fixture(scope="module")
def shelf(context, board, built, make_run, tmp_path_factory):
    """The small board, and three systems that answered the mini suite, which has real scripts.

    It requests `context`, so that nothing is built where Chromium is missing.
    """
    folder = tmp_path_factory.mktemp("shelf")
    shutil.copytree(board[0] / "submissions", folder / "submissions")
    asked = {
        "massive": list(get_task("massive").test_set().units),
        "wmt23": ["he-en", "en-he"],
        "retrieval": list(get_task("retrieval").test_set().units)[:12],
    }
    ids = dict(board[1])
    for name, seed, right, recipe in (
        ("mini bare", 10, 0.4, None),
        ("mini baseline", 11, 0.5, "massive-baseline"),
        ("mini aligned", 12, 0.6, "massive-align-middle"),
    ):
        options = {"right": right, "adapter": recipe and name, "recipe": recipe, "model": "mini"}
        run = make_run(folder / name, seed, units=asked, root=MINI, **options)
        ids[name] = submit(run, About(name=name), folder / "submissions", MINI).folder.name
    built(folder / "submissions", folder / "leaderboard.duckdb")
    return folder, ids


@pytest.fixture(scope="module")
def address(shelf):
    """The URL of a server that shows the shelf."""
    with serving(shelf[0]) as url:
        yield url


@pytest.fixture
def small_address(board):
    """The URL of a server that shows the small board; it needs no browser."""
    with serving(board[0]) as url:
        yield url


@contextmanager
def serving(folder):
    # Another process may take the free port before the server does; the server then ends.
    for _ in range(3):
        server, url = start(folder)
        try:
            if not comes_up(server, url):
                continue
            yield url
            return
        finally:
            stop(server)
    pytest.fail((folder / "log").read_text())


def start(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [PROGRAM, "leaderboard", "serve", "--port", str(port)]
    command += ["--db", folder / "leaderboard.duckdb", "--submissions", folder / "submissions"]
    environment = {**os.environ, "XLT_BENCH_DATA": str(MINI)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    return server, f"http://localhost:{port}"


def comes_up(server, url):
    """Whether the server answers; False if it ends or hangs."""
    until = time.monotonic() + HANG
    while not answers(f"{url}/_stcore/health"):
        if server.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.2)
    return server.poll() is None  # else another process answers on this port


def stop(server):
    server.terminate()
    try:
        server.wait(HANG)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        raise


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=60):
            return True
    except (http.client.HTTPException, OSError):
        return False


@pytest.fixture(scope="module")
def context():
    """A browser that all tests of the module share."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        context = browser.new_context(accept_downloads=True)
        context.set_default_timeout(PATIENCE)
        sync_api.expect.set_options(timeout=PATIENCE)
        yield context
        browser.close()


@pytest.fixture
def another(context, address):
    """Makes tabs. Errors in a page, and requests to other hosts, fail the test."""
    tabs = []

    def make():
        tabs.append(Tab(context.new_page(), address))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.page.close()
        assert tab.complaints == []


@pytest.fixture
def tab(another):
    return another()


class Tab:
    """A browser tab that shows the leaderboard."""

    def __init__(self, page, address):
        self.page, self.address, self.complaints = page, address, []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", self._request)

    def _console(self, message):
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def _dialog(self, dialog):
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request):
        if urlsplit(request.url).hostname not in ("localhost", None):
            self.complaints.append(f"asked another host: {request.url}")

    def open(self, page="overview", *, width=1280, dark=False, **params):
        """Open a page with query parameters, in light or dark mode."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        path = "" if page == "overview" else page
        self.page.goto(f"{self.address}/{path}?{urlencode(params, doseq=True)}")
        # The first page's heading is a question.
        title = "?" if page == "overview" else page.replace("_", " ").capitalize()
        self.page.locator("h1", has_text=title).wait_for()
        self.settle()
        return self.page

    def settle(self):
        """Wait until the page has run without an exception and its charts are drawn."""
        self.page.locator(f"{DONE} [data-testid=stPopover]").first.wait_for()
        self.page.wait_for_function(
            "document.querySelectorAll('[data-stale=true], [data-testid=stSkeleton]').length === 0"
            " && [...document.querySelectorAll('[data-testid=stVegaLiteChart]')]"
            ".every(chart => chart.querySelector('svg text'))"
        )
        assert self.page.get_by_test_id("stException").count() == 0

    def choose(self, label, option):
        """Choose an option of a select box, and wait for the page."""
        before = self.page.url
        box = self.page.get_by_role("combobox", name=label, exact=True)
        # Scrolling closes an open list, so scroll first.
        box.scroll_into_view_if_needed()
        box.click()
        # The name of a system begins with its base model where several are offered.
        pattern = re.compile(rf"^(.*, )?{re.escape(option)}( · self-reported)?$")
        listed = self.page.get_by_role("option", name=pattern)
        listed.click()
        until = time.monotonic() + PATIENCE / 1000
        while self.page.url == before:
            assert time.monotonic() < until, f"choosing {option} changed nothing"
            self.page.wait_for_timeout(100)
            # A click on a list that is still opening is lost, and the list stays open.
            if option not in self.values()[label] and listed.is_visible():
                listed.click()
        self.settle()

    def pick(self, option):
        """Choose a tab or a chip, and wait for the page."""
        before = self.page.url
        self.page.get_by_role("radio", name=option, exact=True).or_(
            self.page.get_by_role("button", name=option, exact=True)
        ).first.click()
        self.page.wait_for_function("before => location.href !== before", arg=before)
        self.settle()

    def values(self):
        """What each select box shows, by its label."""
        return self.page.evaluate(
            "() => Object.fromEntries([...document.querySelectorAll('[data-testid=stSelectbox], "
            "[data-testid=stMultiSelect]')].map(box => [box.querySelector('label').innerText, "
            "box.innerText + [...box.querySelectorAll('input')].map(i => i.value).join()]))"
        )

    def drawn(self):
        """The texts of all charts, sorted, because Vega keeps old marks in their old order."""
        texts = self.page.locator("[data-testid=stVegaLiteChart] svg text")
        return sorted(texts.all_text_contents())

    def fits(self):
        """Whether nothing on the page is wider than the window."""
        return self.page.evaluate(
            "() => [document.documentElement, document.querySelector('[data-testid=stMain]')]"
            ".every(part => part.scrollWidth <= part.clientWidth)"
        )

    def download(self, button):
        """The bytes of the file that a click saves."""
        with self.page.expect_download() as found:
            button.click()
        return Path(found.value.path()).read_bytes()


@pytest.fixture
def shoot(record_property):
    """Takes a screenshot of a whole page."""

    def take(tab, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        page = tab.page
        width, _ = page.viewport_size.values()
        height = page.get_by_test_id("stMain").evaluate("part => part.scrollHeight")
        page.set_viewport_size({"width": width, "height": max(900, height)})
        tab.settle()
        page.screenshot(path=SHOTS / f"{name}.png")
        record_property("screenshot", str(SHOTS / f"{name}.png"))

    return take


def pytest_terminal_summary(terminalreporter, config) -> None:
    """List the screenshots."""
    for report in terminalreporter.getreports("passed"):
        for name, path in report.user_properties:
            if name == "screenshot" and report.when == "call":
                terminalreporter.write_line(
                    f"screenshot: {Path(path).relative_to(config.rootpath)}"
                )
