"""Times the leaderboard in a browser with 1,000 generated submissions: first paint and filters.

    python performance/leaderboard_app.py [--submissions 1000] [--repeats 5] [--keep FOLDER]

The server is that of `xlt-bench leaderboard serve`, the browser is Debian's Chromium, headless, and
the submissions come from store_build.py. First paint lasts from a request with an empty cache until
the page is idle with its tables and charts drawn; a filter lasts from the click on an option until
the page is idle again. Each time is the median of several repeats on a server that has been visited
before. Beside it are the processor seconds of the server, which other work on the machine does not
lengthen. Compare is left out: it reads answers, and generated submissions have none. The last line
has the slowest page and the slowest filter. The exit code is 1 if either misses its goal.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright
from side_by_side import machine
from store_build import generate, make_pool, measure

PAINT_GOAL, FILTER_GOAL = 1.5, 0.3  # seconds
ROWS = 25  # per page of the table
LOST = 5000  # milliseconds after which a click is taken for lost
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
AT_REST = """() => {
    const all = name => [...document.querySelectorAll(`[data-testid=${name}]`)];
    return all('stApp')[0]?.dataset.testScriptState === 'notRunning' &&
        all('stPopover').length > 0 && all('stSkeleton').length === 0 &&
        document.querySelector('[data-stale=true]') === null &&
        all('stDataFrame').every(one => one.querySelector('canvas') || !one.checkVisibility()) &&
        all('stVegaLiteChart').every(one => one.querySelector('svg'));
}"""
# By page: each control, and the options to choose in turn.
TABS = ("Task", "Places")
PLACES = {"Places": ("among all rows", "Places among verified rows")}
TASK = {"Task": ("Named entities (UNER)", "Slot filling (MASSIVE)")}
FILTERS: dict[str, dict[str, tuple[str, str]]] = {
    "": {**TASK, **PLACES},
    "systems": {
        **PLACES,
        "Score": ("exact_match", "slot_f1"),
        "Adapter": ("aligned", "any or none"),
        "Show": ("partial", "complete"),
        "Sort by": ("newest first", "the ranking score"),
        "Page": ("2 of {pages}", "1 of {pages}"),
    },
    "gains": {"Colour by": ("language family", "script")},
    "families": {"By": ("script", "family")},
    "size": TASK,
    "layers": {"Layer": ("2", "16")},
    "correlation": {"Over": ("all languages", "transfer languages")},
    "submission": {"File": ("counts.parquet", "record.json")},
    "how_to_submit": {},
    "about": {},
}


@contextmanager
def served(db: Path, submissions: Path) -> Iterator[tuple[str, int]]:
    """Start a server; its address and process id, once it answers."""
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
        yield address, server.pid
    finally:
        server.terminate()
        server.wait()


@dataclass(frozen=True)
class Timed:
    """Seconds on the clock, and seconds of the processors that the server used meanwhile."""

    clock: float
    server: float

    @classmethod
    def since(cls, started: tuple[float, float], server: int) -> Timed:
        """From what `now` returned before."""
        clock, used = now(server)
        return cls(clock - started[0], used - started[1])


def now(server: int) -> tuple[float, float]:
    """The clock, and the processor seconds of a process and those that it started."""
    one = psutil.Process(server)
    times = [part.cpu_times() for part in (one, *one.children(recursive=True))]
    return time.perf_counter(), sum(part.user + part.system for part in times)


def median(times: list[Timed]) -> Timed:
    """The medians of both."""
    return Timed(
        statistics.median(one.clock for one in times),
        statistics.median(one.server for one in times),
    )


def at_rest(page: Page) -> None:
    """Wait until the page is idle with its tables and charts drawn."""
    page.wait_for_function(AT_REST, timeout=0)
    if page.url.partition("?")[0].endswith("/"):  # Overview
        page.locator(".methods tbody").first.wait_for(timeout=0)


def first_paint(browser: Browser, url: str, server: int) -> Timed:
    """A visit with an empty cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    started = now(server)
    page.goto(url, wait_until="commit")
    at_rest(page)
    found = Timed.since(started, server)
    context.close()
    return found


def choice(page: Page, label: str, option: str, server: int) -> Timed:
    """From the click on an option until the page is idle; opening the list is not timed."""
    if label in TABS:
        found = page.get_by_role("radio", name=option, exact=True)
    else:
        box = page.get_by_role("combobox", name=label, exact=True)
        box.scroll_into_view_if_needed()  # a list closes when the page is scrolled
        box.click(timeout=0)
        found = page.get_by_role("option", name=option, exact=True)
    found.wait_for(timeout=0)
    before = page.url
    while True:
        started = now(server)
        found.click(timeout=0)
        # The choice appears in the address while the page is still running. A click on a list that
        # is still opening is lost.
        with suppress(TimeoutError):
            page.wait_for_function("before => location.href !== before", arg=before, timeout=LOST)
            break
    at_rest(page)
    return Timed.since(started, server)


def check(page: Page, number: int) -> None:
    """Check that the table counts all submissions but was sent only the rows on screen."""
    page.get_by_text(f"{number} systems.", exact=False).wait_for(timeout=0)
    grid = page.get_by_test_id("stDataFrame").first.locator("[role=grid]")
    rows = grid.get_attribute("aria-rowcount")
    if int(rows or 0) > ROWS + 1:  # and the heading
        raise SystemExit(f"the page got {rows} rows, of which it shows {ROWS}")


def measured(address: str, server: int, number: int, repeats: int) -> tuple[float, float]:
    """The slowest first paint and the slowest filter, in seconds. Prints every median."""
    paints: list[Timed] = []
    filters: list[Timed] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        for path, controls in FILTERS.items():
            url, name = f"{address}/{path}", path or "overview"
            cold = first_paint(browser, url, server)
            paints.append(median([first_paint(browser, url, server) for _ in range(repeats)]))
            said = f"{paints[-1].clock:.2f} s (server {paints[-1].server:.2f} s)"
            more = f"the first visitor's {cold.clock:.2f} s (server {cold.server:.2f} s)"
            print(f"{name}: first paint {said}; {more}", flush=True)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(url)
            at_rest(page)
            if path == "systems":
                check(page, number)
            for label, options in controls.items():
                options = tuple(one.format(pages=-(-number // ROWS)) for one in options)
                times = [choice(page, label, options[i % 2], server) for i in range(2 * repeats)]
                filters.append(median(times))
                said = f"{filters[-1].clock:.2f} s (server {filters[-1].server:.2f} s)"
                print(f"{name}: {label} {said}", flush=True)
            page.close()
        browser.close()
    return max(one.clock for one in paints), max(one.clock for one in filters)


def main() -> None:
    """Generate submissions, build the database, serve it and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="folder to generate in, or to use again")
    options = parser.parse_args()
    if shutil.which("chromium") is None:
        raise SystemExit("Chromium is not installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        folder, db = root / "submissions", root / "leaderboard.duckdb"
        if not db.exists():
            generate(folder, make_pool(root / "pool", 20), range(options.submissions))
            measure(folder, db)
        with served(db, folder) as (address, server):
            paint, filtered = measured(address, server, options.submissions, options.repeats)
    met = paint < PAINT_GOAL and filtered < FILTER_GOAL
    print(
        f"leaderboard_app first_paint={paint:.2f} goal={PAINT_GOAL} filter={filtered:.2f} "
        f"goal={FILTER_GOAL} {'met' if met else 'missed'}"
    )
    raise SystemExit(not met)


if __name__ == "__main__":
    print(machine(), flush=True)
    main()
