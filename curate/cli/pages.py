"""Previews and differences on the terminal, as JSON, and as pages."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from curate.cli.terminal import say
from curate.config import Recipe
from curate.runs.atomic import write_text


def show_preview(recipe: Recipe, *, count: int, rows: Sequence[int], as_json: bool, html: Path | None) -> None:
    """Show records token by token: in colours, with marks where there is no terminal, as JSON or as a page."""
    from curate.pipeline.preview import previews
    from curate.report.preview import preview_html, preview_objects, preview_text

    shown = previews(recipe, count=count, rows=rows)
    if html is not None:
        write_text(html, preview_html(shown))
        say(f"preview: {html}")
    elif as_json:
        say(json.dumps(preview_objects(shown), ensure_ascii=False, indent=1))
    else:
        say(preview_text(shown, color=sys.stdout.isatty()))


def show_diff(recipe: Recipe, name_a: str, name_b: str, *, html: Path | None) -> None:
    """Show how two selections differ, on the terminal or as a page."""
    from curate.pipeline import open_job
    from curate.pipeline.pages import selection_diff
    from curate.report.diff import diff_html, diff_text

    with open_job("diff", recipe, begin=False) as job:
        result = selection_diff(job, name_a, name_b)
    if html is not None:
        write_text(html, diff_html(result))
        say(f"diff: {html}")
    else:
        say(diff_text(result))
