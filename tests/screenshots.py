"""Take pictures of pages that curate made.

    python tests/screenshots.py                           # the README's pictures anew: report and preview of the demo
    python tests/screenshots.py OUT_FOLDER PAGE.html ...  # each page in light, in dark, and as a phone shows it

Needs Chromium, and for the README's pictures the extras demo and report.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Literal

from browser import Browser

import curate
from curate.cli import main as command
from curate.demo import demo_data_path, demo_model_path, embedder_path

LOOKS: tuple[tuple[str, int, int, Literal["light", "dark"]], ...] = (
    ("light", 1280, 1000, "light"),
    ("dark", 1280, 1000, "dark"),
    ("phone", 390, 844, "light"),
)
OF_README = Path(__file__).parents[1] / "notebooks" / "images"
# A page with charts says when they are drawn.
READY = "!document.querySelector('.chart') || document.documentElement.dataset.charts === 'ready'"


def main() -> None:
    """Write OUT_FOLDER/PAGE-LOOK.png for every page and look, or the pictures of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", help="folder of the pictures")
    parser.add_argument("pages", type=Path, nargs="*", help="HTML files")
    parser.add_argument("--full", action="store_true", help="the whole page rather than what is in view")
    words = parser.parse_args()
    if words.out is None:
        take_readme_pictures()
        return
    for page in words.pages:
        for look, width, height, scheme in LOOKS:
            take(page, words.out / f"{page.stem}-{look}.png", width, height, scheme=scheme, full=words.full)


def take(
    page: Path,
    picture: Path,
    width: int,
    height: int,
    *,
    scheme: Literal["light", "dark"] = "light",
    full: bool = False,
) -> None:
    """Write a PNG of a page in a window of that size."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    with Browser(width=width, height=height, scheme=scheme) as browser:
        browser.open(page, until=READY)
        browser.screenshot(picture, full=full)


def take_readme_pictures() -> None:
    """Score and select the demo, and write report.png and preview.png of it; nothing in them is anybody's data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"embed.model": embedder_path()}
        run = curate.run(demo_data_path(), model=demo_model_path(), dir=folder / "demo", settings=settings)
        preview = folder / "preview.html"
        assert command(["report", f"run.dir={run.path}"]) == 0
        assert command(["preview", f"run.dir={run.path}", "--n", "1", "--html", str(preview)]) == 0
        take(run.path / "report.html", OF_README / "report.png", 1180, 980)
        take(preview, OF_README / "preview.png", 860, 540)


if __name__ == "__main__":
    main()
