"""Times the leaderboard in a browser with 1,000 generated submissions: first paint and filters.

    python performance/leaderboard_app.py [--submissions 1000] [--repeats 5]

The server is that of `xlt-bench leaderboard serve`, the browser is Debian's Chromium, headless, and
the submissions come from store_build.py. First paint lasts from a request with an empty cache until
the page is idle with its tables and charts drawn; a filter lasts from the click on an option until
the page is idle again. Each time is the median of several repeats on a server that has been visited
before. The last line has the slowest page and the slowest filter. The exit code is 1 if either
misses its goal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from side_by_side import machine
from store_build import generate, make_pool, measure

PAINT_GOAL, FILTER_GOAL = 1.5, 0.5  # seconds
ROWS = 25  # per page of the table
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
AT_REST = """() => {
    const all = name => [...document.querySelectorAll(`[data-testid=${name}]`)];
    return all('stApp')[0]?.dataset.testScriptState === 'notRunning' &&
        all('stPopover').length > 0 && all('stSkeleton').length === 0 &&
        document.querySelector('[data-stale=true]') === null &&
        all('stDataFrame').every(one => one.querySelector('canvas')) &&
        all('stVegaLiteChart').every(one => one.querySelector('svg'));
}"""
# By page: each control, and the options to choose in turn. Tasks are tabs.
FILTERS = {
    "": {"Task": ("Named entities (UNER)", "Slot filling (MASSIVE)")},
    "systems": {
        "Score": ("exact_match", "slot_f1"),
        "Adapter": ("aligned", "any or none"),
        "Show": ("partial", "complete"),
        "Sort by": ("newest first", "the ranking score"),
        "Page": ("2 of {pages}", "1 of {pages}"),
    },
    "gains": {
        "Colour by": ("language family", "script"),
    },
    "layers": {"Layer": ("2", "16")},
    "correlation": {"Over": ("all languages", "transfer languages")},
}


@contextmanager
def served(db: Path, submissions: Path) -> Iterator[str]:
    """Start a server and yield its address once it answers."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("xlt-bench")
    command = [program, "leaderboard", "serve", "--port", str(port), "--db", db]
    environment = {**os.environ, "STREAMLIT_LOGGER_LEVEL": "error"}
    server = subprocess.Popen(
        [*command, "--submissions", submissions], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        address = f"http://localhost:{port}"
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def first_paint(browser: Browser, url: str) -> float:
    """Seconds of a visit with an empty cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_function(AT_REST, timeout=0)
    seconds = time.perf_counter() - started
    context.close()
    return seconds


def choice(page: Page, label: str, option: str) -> float:
    """Seconds from the click on an option until the page is idle; opening the list is not timed."""
    if label == "Task":
        found = page.get_by_role("radio", name=option, exact=True)
    else:
        box = page.get_by_role("combobox", name=label, exact=True)
        box.scroll_into_view_if_needed()  # a list closes when the page is scrolled
        box.click(timeout=0)
        found = page.get_by_role("option", name=option, exact=True)
    found.wait_for(timeout=0)
    before = page.url
    started = time.perf_counter()
    found.click(timeout=0)
    # The choice appears in the address while the page is still running.
    page.wait_for_function("before => location.href !== before", arg=before, timeout=0)
    page.wait_for_function(AT_REST, timeout=0)
    return time.perf_counter() - started


def check(page: Page, number: int) -> None:
    """Check that the table counts all submissions but was sent only the rows on screen."""
    page.get_by_text(f"{number} systems.", exact=False).wait_for(timeout=0)
    grid = page.get_by_test_id("stDataFrame").first.locator("[role=grid]")
    rows = grid.get_attribute("aria-rowcount")
    if int(rows or 0) > ROWS + 1:  # and the heading
        raise SystemExit(f"the page got {rows} rows, of which it shows {ROWS}")


def measured(address: str, number: int, repeats: int) -> tuple[float, float]:
    """The slowest first paint and the slowest filter, in seconds. Prints every median."""
    paints, filters = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        for path, controls in FILTERS.items():
            url, name = f"{address}/{path}", path or "overview"
            first_paint(browser, url)
            paints.append(statistics.median(first_paint(browser, url) for _ in range(repeats)))
            print(f"{name}: first paint {paints[-1]:.2f} s", flush=True)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(url)
            page.wait_for_function(AT_REST, timeout=0)
            if path == "systems":
                check(page, number)
            for label, options in controls.items():
                options = tuple(one.format(pages=-(-number // ROWS)) for one in options)
                seconds = [choice(page, label, options[i % 2]) for i in range(2 * repeats)]
                filters.append(statistics.median(seconds))
                print(f"{name}: {label} {filters[-1]:.2f} s", flush=True)
            page.close()
        browser.close()
    return max(paints), max(filters)


def main() -> None:
    """Generate submissions, build the database, serve it and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("chromium") is None:
        raise SystemExit("Chromium is not installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as temporary:
        folder, db = Path(temporary) / "submissions", Path(temporary) / "leaderboard.duckdb"
        generate(folder, make_pool(Path(temporary) / "pool", 20), range(options.submissions))
        loaded, *_ = measure(folder, db)
        with served(db, folder) as address:
            paint, filtered = measured(address, loaded, options.repeats)
    met = paint < PAINT_GOAL and filtered < FILTER_GOAL
    print(
        f"leaderboard_app first_paint={paint:.2f} goal={PAINT_GOAL} filter={filtered:.2f} "
        f"goal={FILTER_GOAL} {'met' if met else 'missed'}"
    )
    raise SystemExit(not met)


if __name__ == "__main__":
    print(machine(), flush=True)
    main()
