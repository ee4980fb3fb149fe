"""Take pictures of pages that curate made: python tests/screenshots.py OUT_FOLDER PAGE.html ...

Each page in light, in dark, and as a phone shows it; the README's pictures are made so. Needs Chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from browser import Browser

LOOKS: tuple[tuple[str, int, int, Literal["light", "dark"]], ...] = (
    ("light", 1280, 1000, "light"),
    ("dark", 1280, 1000, "dark"),
    ("phone", 390, 844, "light"),
)


def main() -> None:
    """Write OUT_FOLDER/PAGE-LOOK.png for every page and look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("pages", type=Path, nargs="+", help="HTML files")
    parser.add_argument("--full", action="store_true", help="the whole page rather than what is in view")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    # A page with charts says when they are drawn.
    ready = "!document.querySelector('.chart') || document.documentElement.dataset.charts === 'ready'"
    for page in words.pages:
        for look, width, height, scheme in LOOKS:
            with Browser(width=width, height=height, scheme=scheme) as browser:
                browser.open(page, until=ready)
                browser.screenshot(words.out / f"{page.stem}-{look}.png", full=words.full)


if __name__ == "__main__":
    main()
