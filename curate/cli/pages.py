"""Prints previews and differences: as text, as JSON, or as pages."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from curate.cli.terminal import say
from curate.config import Recipe
from curate.runs.atomic import DISK_FULL, write_text
from curate.types import CurateError


def show_preview(recipe: Recipe, *, count: int, rows: Sequence[int], as_json: bool, html: Path | None) -> None:
    """Show records token by token.

    Args:
        recipe: as the person wrote it.
        count: how many records.
        rows: rows to show instead.
        as_json: print JSON.
        html: write a page to this file.

    Raises:
        CurateError: what `previews` refuses; `html` is no file.
    """
    from curate.pipeline.preview import previews
    from curate.report.preview import preview_html, preview_objects, preview_text

    _refuse_what_is_no_page(html)  # before the work
    shown = previews(recipe, count=count, rows=rows)
    if html is not None:
        _write_page(html, preview_html(shown))
    if as_json:
        say(json.dumps(preview_objects(shown), ensure_ascii=False, indent=1))
    elif html is not None:
        say(f"preview: {html}")
    else:
        say(preview_text(shown, color=_has_colors()))


def show_diff(recipe: Recipe, name_a: str, name_b: str, *, html: Path | None) -> None:
    """Show how two selections differ, on the terminal or as a page.

    Raises:
        CurateError: there is no such selection; `html` is no file.
    """
    from curate.pipeline import open_job
    from curate.pipeline.pages import selection_diff
    from curate.report.diff import diff_html, diff_text

    _refuse_what_is_no_page(html)
    with open_job("diff", recipe, begin=False) as job:
        result = selection_diff(job, name_a, name_b)
    if html is not None:
        _write_page(html, diff_html(result))
        say(f"diff: {html}")
    else:
        say(diff_text(result, width=shutil.get_terminal_size((100, 24)).columns))


def _has_colors() -> bool:
    """Say whether stdout is a terminal with colours, and the person has not asked for none (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _refuse_what_is_no_page(path: Path | None) -> None:
    """Refuse to write a page over a folder or a device, whose place it would take."""
    if path is not None and path.exists() and not path.is_file():
        raise CurateError(f"expected a file to write the page to, got {path}, which is {_kind(path)}; name a new file")


def _kind(path: Path) -> str:
    return "a folder" if path.is_dir() else "no file"


def _write_page(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        if error.errno in DISK_FULL:  # `terminal.outcome` has a message for that
            raise
        raise CurateError(f"cannot write {path}: {error.strerror}") from None
