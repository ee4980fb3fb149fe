"""Tables on the terminal."""

from __future__ import annotations

import os
from pathlib import Path

from curate.cli.terminal import say
from curate.compare.table import TextTable, difference_tables, summary_tables
from curate.tables.comparison import read_rows


def show_comparison(run_dir: Path) -> None:
    """Print what a comparison came to: a line per selector, then its differences to random; main process only."""
    if os.environ.get("RANK", "0") != "0":
        return
    rows = read_rows(run_dir / "comparison.json")
    for table in [*summary_tables(rows), *difference_tables(rows)]:
        _show(table)


def _show(table: TextTable) -> None:
    """Columns as wide as what they hold: numbers end, words begin, at the same place."""
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
