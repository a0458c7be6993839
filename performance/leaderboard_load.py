"""Load test of the leaderboard: how long pages take with many visitors at once, and what fails.

    python performance/leaderboard_load.py [--sessions 50] [--submissions 200]

The server is that of `xlt-bench leaderboard serve`, over the generated submissions of
store_build.py. A visitor is a websocket session like a browser's, but draws nothing: it asks for
Overview, then Gains, then another task, each as soon as the one before has arrived. A step is timed
from the request to the end of the page's script. First one visitor comes alone, several times; then
all come at once. An error is a lost connection, a page that shows an exception, or one without a
table or chart.

The ratio, for the worst step, is the median time under load divided by the median time alone and by
the number of sessions. One Python process computes all pages, so visitors at once cannot be served
much faster than one after another (only DuckDB uses the second core). The goal is 1: a crowd costs
no more than a queue.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import websockets
from leaderboard_app import served
from side_by_side import run, verdict
from store_build import generate, make_pool, measure
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Delta_pb2 import Delta
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.Selectbox_pb2 import Selectbox

STEPS = ("Overview", "Gains", "another task")
GOAL = 1.0
LONGEST = 300  # seconds


@dataclass
class Page:
    """What one run of a page's script sent."""

    pages: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, Selectbox] = field(default_factory=dict)
    drawn: int = 0
    faults: list[str] = field(default_factory=list)

    def take(self, delta: Delta) -> None:
        """Register an element of the page."""
        element = delta.new_element
        kind = element.WhichOneof("type")
        if kind == "exception":
            self.faults.append(element.exception.message)
        elif kind == "selectbox":
            self.boxes[element.selectbox.label] = element.selectbox
        elif kind in ("dataframe", "vega_lite_chart"):
            self.drawn += 1


async def page(socket: websockets.ClientConnection, message: BackMsg) -> Page:
    """Ask for a page and receive its elements until its script has ended."""
    await socket.send(message.SerializeToString())
    got = Page()
    while True:
        data = await asyncio.wait_for(socket.recv(), LONGEST)
        assert isinstance(data, bytes)
        told = ForwardMsg.FromString(data)
        kind = told.WhichOneof("type")
        if kind == "delta":
            got.take(told.delta)
        elif kind == "navigation":
            got.pages = {
                one.url_pathname: one.page_script_hash for one in told.navigation.app_pages
            }
        elif kind == "script_finished":
            status = ForwardMsg.ScriptFinishedStatus.Name(told.script_finished)
            if status == "FINISHED_EARLY_FOR_RERUN":
                continue
            if status == "FINISHED_SUCCESSFULLY":
                if not got.drawn:
                    got.faults.append("nothing was drawn")
                return got
            if status == "FINISHED_WITH_COMPILE_ERROR":
                got.faults.append(status)
                return got


async def visit(address: str) -> tuple[list[float], list[str]]:
    """Make one visit. Returns the seconds of each step, and what went wrong."""
    seconds, faults = [], []
    try:
        started = time.perf_counter()
        url = address.replace("http", "ws", 1) + "/_stcore/stream"
        async with websockets.connect(
            url,
            subprotocols=[websockets.Subprotocol("streamlit")],
            max_size=None,
            open_timeout=LONGEST,
        ) as socket:
            ask = BackMsg()
            ask.rerun_script.query_string = ""
            for step in STEPS:
                got = await page(socket, ask)
                seconds.append(time.perf_counter() - started)
                faults += [f"{step}: {fault}" for fault in got.faults]
                ask = BackMsg()
                ask.rerun_script.page_script_hash = got.pages["gains"]
                if step == "Gains":
                    box = got.boxes["Task"]
                    state = ask.rerun_script.widget_states.widgets.add()
                    state.id = box.id
                    state.string_value = box.options[(box.default + 1) % len(box.options)]
                started = time.perf_counter()
    except (OSError, TimeoutError, KeyError, websockets.WebSocketException) as error:
        faults.append(f"{type(error).__name__}: {error}")
    return seconds, faults


async def visits(address: str, alone: int, sessions: int) -> tuple[list[list[float]], ...]:
    """Make `alone` visits one after another, then all sessions at once.

    Returns:
        The seconds by step and visit, of the visits alone and of those at once.
    """
    await visit(address)  # opens the database
    single = [await visit(address) for _ in range(alone)]
    loaded = await asyncio.gather(*(visit(address) for _ in range(sessions)))
    faults = [fault for _, some in [*single, *loaded] for fault in some]
    print(f"{len(faults)} errors in {alone + sessions} sessions", flush=True)
    for fault in faults[:5]:
        print(f"  {fault}")
    if faults:
        raise SystemExit(1)
    return tuple(
        [list(row) for row in zip(*(s for s, _ in some), strict=True)] for some in (single, loaded)
    )


def main() -> int:
    """Generate submissions, build the database, serve it and visit it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--submissions", type=int, default=200)
    parser.add_argument("--alone", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, db = Path(temporary) / "submissions", Path(temporary) / "leaderboard.duckdb"
        generate(folder, make_pool(Path(temporary) / "pool", 20), range(options.submissions))
        measure(folder, db)
        before = hashlib.sha256(db.read_bytes()).digest()
        with served(db, folder) as (address, _):
            single, loaded = asyncio.run(visits(address, options.alone, options.sessions))
        print(f"peak memory of the server: {getrusage(RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")
        if hashlib.sha256(db.read_bytes()).digest() != before:
            raise SystemExit("the database was written to")
    ratios = []
    for step, one, many in zip(STEPS, single, loaded, strict=True):
        median = statistics.median(many)
        tail = statistics.quantiles(many, n=20)[-1]
        ratios.append(median / statistics.median(one) / options.sessions)
        print(
            f"{step}: {statistics.median(one):.2f} s alone; {options.sessions} at once: median "
            f"{median:.2f} s, 95th percentile {tail:.2f} s"
        )
    return verdict("leaderboard_load", max(ratios), GOAL, max(ratios) <= GOAL)


if __name__ == "__main__":
    run(main)
