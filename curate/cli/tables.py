"""Prints what is known of the worth of a selection, and the tables of a comparison."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from curate.cli.terminal import say
from curate.compare.text_table import TextTable, difference_tables, summary_tables
from curate.tables.comparison import read_compared

if TYPE_CHECKING:
    from curate.config import Recipe


def show_worth(recipe: Recipe) -> None:
    """Print where the comparison of this run is, or how to make one. Only the main process prints.

    Nothing is printed for a random selection: it is what others are compared with.
    """
    if not _is_main() or recipe.select.method == "random":
        return
    folder = Path(recipe.run.dir)
    if (folder / "comparison.json").is_file():
        say(f"was it worth it? this run was compared: {folder / 'comparison.json'}; curate report shows it")
        return
    chosen, where = recipe.select, "" if recipe.data.holdout or recipe.evaluate.sets else " data.holdout=5%"
    # A person must not take a selection for better than random because this package made it.
    easiest = chosen.method in ("clusters", "top") and (chosen.by, chosen.order) == ("complexity", "lowest")
    known = "in our own comparison such records taught less than random ones (README); " if easiest else ""
    say(
        f"was it worth it? {known}to see it on your data: "
        f"curate compare {shlex.quote(str(folder / 'recipe.yaml'))}{where}"
    )


def show_comparison(run_dir: Path) -> None:
    """Print the tables of a comparison: a line a selector, then differences. Only the main process prints."""
    if not _is_main():
        return
    rows = read_compared(run_dir / "comparison.json").rows
    for table in [*summary_tables(rows), *difference_tables(rows)]:
        _show(table)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"  # set by launchers; torch need not be loaded to ask for it


def _show(table: TextTable) -> None:
    """Print a table: the first column aligned left, the others right."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
    say(f"\n{table.title}\n")
    for line in lines:
        cells = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        say("  ".join(cells).rstrip())
    for note in table.notes:
        say(f"  {note}")
