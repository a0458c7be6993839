"""Takes the README's two pictures of the leaderboard from a running server.

xlt-bench leaderboard serve &
python docs/screenshots.py http://localhost:8501 [--system ID]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
# By the name of the picture: page, query parameters, the key of the system, height in pixels.
PICTURES = {
    "leaderboard-gains": ("gains", {}, "system", 1000),
    "leaderboard-overview": (
        "",
        {"shown": "complete", "recipe": "massive-align-middle"},
        "open",
        900,
    ),
}
AT_REST = "[data-testid=stApp][data-test-script-state=notRunning] [data-testid=stCaptionContainer]"


def main() -> None:
    """Save both pictures, in light mode and 1280 pixels wide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--system", help="id of the submission to show; else the newest")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (path, filters, key, height) in PICTURES.items():
            page = browser.new_page(viewport={"width": 1280, "height": height})
            given = {**filters, key: options.system} if options.system else filters
            page.goto(f"{options.address}/{path}?{urlencode(given)}")
            page.locator(AT_REST).first.wait_for()
            page.wait_for_timeout(2000)  # until the fonts and the chart's size have settled
            page.screenshot(path=IMAGES / f"{name}.png")
            print(IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
