"""Makes texts of the table of a comparison, for the terminal and the report: a summary, and a list of differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from curate.compare.cells import ALL, LOSS_OVER_RECORDS, LOSS_OVER_TOKENS, LOSSES, RANDOM, UNTUNED
from curate.compare.table import Row, Verdict, distinct

MARKS: dict[Verdict, str] = {
    "better": "+",
    "worse": "-",
    "no difference seen": "=",
    "reference": "",
    "not compared": "?",
}


MEANS = {LOSS_OVER_RECORDS: "over records", LOSS_OVER_TOKENS: "over tokens"}
"""Over what each loss is a mean, in words."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table as texts: a title, a header, rows of as many cells as the header has, and notes below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def summary_tables(rows: Sequence[Row]) -> list[TextTable]:
    """Make tables for every keep: one for each mean of the loss, one of the tasks, one of the costs.

    Each has a line per selector and a column per set. The mark after each number compares it with the reference
    (random) of the same keep: + better, - worse, = no difference seen, ? not compared.
    """
    found = []
    for keep in distinct(row.keep for row in rows):
        some = [row for row in rows if row.keep == keep]
        # One table of all would be wider than a terminal.
        others = [metric for metric in distinct(row.metric for row in some) if metric not in LOSSES]
        tables = [_means(f"{_title(keep)}, loss {MEANS[metric]}", some, [metric]) for metric in LOSSES]
        tables = [table for table in (*tables, _means(f"{_title(keep)}, tasks", some, others)) if table.rows]
        found += [*tables[:-1], replace(tables[-1], notes=_notes(some)), _cost(f"{_title(keep)}, cost", some)]
    return found


def difference_tables(rows: Sequence[Row]) -> list[TextTable]:
    """Make a table for every keep, set and metric: a line per selector with its difference, interval and verdict."""
    header = ("selector", "seeds", f"to {reference_of(rows) or RANDOM}", "interval", "verdict")
    found = []
    for keep, name, metric in distinct((row.keep, row.set, row.metric) for row in rows):
        some = [row for row in rows if (row.keep, row.set, row.metric) == (keep, name, metric)]
        lines = tuple(_difference_line(row) for row in some if row.verdict != "reference")
        if lines:
            # One table of all would be wider than a terminal. Means are in the summary.
            title = f"{_title(keep)}, {name}, {MEANS.get(metric, metric)}"
            found.append(TextTable(title, header, lines, _covers(some)))
    return found


def reference_of(rows: Sequence[Row]) -> str | None:
    """Return the selector that the others are compared with; None where nothing is compared."""
    return next((row.selector for row in rows if row.verdict == "reference"), None)


def _title(keep: str) -> str:
    return f"kept: {keep}" if keep else "baselines"


def _means(title: str, rows: Sequence[Row], metrics: Sequence[str]) -> TextTable:
    """Return the means of some metrics of one keep; the column of a loss has the name of its set alone."""
    by_place = {(row.selector, row.set, row.metric): row for row in rows if row.metric in metrics}
    columns = distinct((row.set, row.metric) for row in by_place.values())
    header = ("selector", *(name if metric in LOSSES else f"{name} {metric}" for name, metric in columns))
    lines = (
        (selector, *(_number(by_place.get((selector, *column))) for column in columns))
        for selector in distinct(row.selector for row in by_place.values())
    )
    return TextTable(title, header, tuple(lines), ())


def _cost(title: str, rows: Sequence[Row]) -> TextTable:
    """Return tokens, steps and seconds of every selector of one keep; all rows of a selector have the same."""
    by_selector = {row.selector: row for row in rows}
    header = ("selector", "tokens kept", "steps", "tokens seen", "seconds")
    lines = (
        (name, *map(_whole, (row.kept_tokens, row.steps, row.seen_tokens, row.seconds)))
        for name, row in by_selector.items()
    )
    return TextTable(title, header, tuple(lines), ())


def _number(row: Row | None) -> str:
    # The mark has its place in every cell, so that the numbers stand below each other.
    return f"{row.mean:.4f} {MARKS[row.verdict] or ' '}" if row else ""


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return what a reader must know to understand the numbers and marks of a table."""
    compared = [row.difference for row in rows if row.difference and row.difference.low is not None]
    notes, name = ["loss in nats per token, lower is better"], reference_of(rows)
    if compared:
        level = compared[0].level
        size = "" if name in (ALL, UNTUNED) else " of the same size"
        notes.append(f"to {name}{size}, {level:.0%} intervals: + better, - worse, = no difference seen")
        # The intervals are not widened for many comparisons; the reader is told what to expect instead.
        notes.append(f"of {len(compared)} comparisons, {len(compared) * (1 - level):.1f} differ by chance alone")
    if any(difference.covers == "records" for difference in compared):
        who = "a selector" if name == UNTUNED else f"a selector or {name}"
        notes.append(f"where {who} has one seed, its interval covers the records only, not the draw")
    return tuple(notes)


def _difference_line(row: Row) -> tuple[str, ...]:
    d = row.difference
    interval = f"{d.low:+.4f} to {d.high:+.4f}" if d and d.low is not None and d.high is not None else ""
    return row.selector, str(row.seeds), f"{d.value:+.4f}" if d else "", interval, row.verdict


def _covers(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return a note on what the intervals of a table cover, with the selectors that it holds for."""
    by_cover: dict[str, list[str]] = {}
    for row in rows:
        if row.difference and row.difference.low is not None:
            by_cover.setdefault(row.difference.covers, []).append(row.selector)
    if len(by_cover) < 2:
        return tuple(f"intervals cover {covers}" for covers in by_cover)
    return tuple(f"the interval of {', '.join(names)} covers {covers}" for covers, names in by_cover.items())
