"""Takes the documentation's pictures of the leaderboard from a running server.

xlt-bench leaderboard serve &
python docs/screenshots.py http://localhost:8501
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 1280, "height": 800}
# By the name of the picture: page and query parameters.
PICTURES = {
    "leaderboard-overview": "",
    "leaderboard-gains": "gains",
    "leaderboard-layers": "layers",
    "leaderboard-families": "families",
    "leaderboard-compare": "compare?unit=ar",
}
AT_REST = "[data-testid=stApp][data-test-script-state=notRunning] [data-testid=stCaptionContainer]"


def main() -> None:
    """Save the pictures, in light mode, each with few colours to keep the files small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, path in PICTURES.items():
            page = browser.new_page(viewport=SIZE)
            page.goto(f"{options.address}/{path}", timeout=0)
            page.locator(AT_REST).first.wait_for(timeout=0)
            page.wait_for_timeout(2000)  # until the fonts and the chart's size have settled
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            few = picture.quantize(128, dither=Image.Dither.NONE)
            few.save(IMAGES / f"{name}.png", optimize=True)
            print(IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
