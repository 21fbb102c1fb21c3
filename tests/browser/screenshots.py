"""Pictures of the quickstart's report for the README: light, dark, and on a phone.

python -m tests.browser.screenshots docs
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from resdeploy import run
from tests.browser.conftest import CHROMIUM, FLAGS
from tests.conftest import ROOT

# Name, colour scheme, width and height in CSS pixels, pixels of the screen for each.
SHOTS = (
    ("report", "light", 1180, 1500, 1.0),
    ("report-dark", "dark", 1180, 1500, 1.0),
    ("report-phone", "light", 390, 1500, 1.5),
)


def taken(browser: Any, page: Path, folder: Path) -> None:
    """One file for each row."""
    for name, scheme, width, height, scale in SHOTS:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            device_scale_factor=scale,
        )
        opened = context.new_page()
        opened.goto(page.as_uri())
        path = folder / f"{name}.png"
        opened.screenshot(path=str(path))
        context.close()
        # Some hundred colours are enough for a page, and take a third of the room.
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(path, optimize=True)


def main(folder: Path) -> None:
    """Run the quickstart, and take pictures of its report."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        finished = run(ROOT / "recipes" / "quickstart.toml", out=Path(name) / "out")
        assert finished.report is not None
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM), headless=True, args=list(FLAGS)
        )
        taken(browser, finished.report.resolve(), folder)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
