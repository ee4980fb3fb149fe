"""Makes texts of the table of a comparison, for the terminal and the report: a summary, and a list of differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curate.compare.cells import LOSS_OVER_RECORDS, LOSS_OVER_TOKENS, LOSSES
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
    """Make a table for every keep: a line per selector, a column per set with both means, then tokens and seconds.

    The mark after each number compares it with random of the same keep: + better, - worse, = no difference seen,
    ? not compared.
    """
    return [_summary(keep, [row for row in rows if row.keep == keep]) for keep in distinct(row.keep for row in rows)]


def difference_tables(rows: Sequence[Row]) -> list[TextTable]:
    """Make a table for every keep, set and metric: a line per selector with its difference, interval and verdict."""
    header = ("selector", "seeds", "to random", "interval", "verdict")
    found = []
    for keep, name, metric in distinct((row.keep, row.set, row.metric) for row in rows):
        some = [row for row in rows if (row.keep, row.set, row.metric) == (keep, name, metric)]
        lines = tuple(_difference_line(row) for row in some if row.verdict != "reference")
        if lines:
            # One table of all would be wider than a terminal. Means are in the summary.
            title = f"{_title(keep)}, {name}, {MEANS.get(metric, metric)}"
            found.append(TextTable(title, header, lines, _covers(some)))
    return found


def _title(keep: str) -> str:
    return f"kept: {keep}" if keep else "baselines"


def _summary(keep: str, rows: Sequence[Row]) -> TextTable:
    """Return the summary of one keep; both mean losses of a set share a column, other metrics have their own."""
    losses, others = (
        distinct((r.set, "" if r.metric in LOSSES else r.metric) for r in rows if (r.metric in LOSSES) == wanted)
        for wanted in (True, False)
    )
    header = ("selector", *(f"{s} {m}".strip() for s, m in [*losses, *others]), "tokens kept", "seconds")
    lines = []
    for selector in distinct(row.selector for row in rows):
        mine = {(row.set, row.metric): row for row in rows if row.selector == selector}
        cells = [" / ".join(_number(mine.get((s, metric))) for metric in LOSSES) for s, _ in losses]
        cells += [_number(mine.get(column)) for column in others]
        some = next(iter(mine.values()))  # tokens and seconds belong to the selector: all of its rows have the same
        lines.append((selector, *cells, _whole(some.kept_tokens), _whole(some.seconds)))
    return TextTable(_title(keep), header, tuple(lines), _notes(rows))


def _number(row: Row | None) -> str:
    return f"{row.mean:.4f} {MARKS[row.verdict]}".rstrip() if row else ""


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return what a reader must know to understand the numbers and marks of a table."""
    compared = [row.difference for row in rows if row.difference and row.difference.low is not None]
    notes = ["loss in nats per token: mean over records / mean over tokens; lower is better"]
    if compared:
        level = compared[0].level
        notes.append(f"to random of the same size, {level:.0%} intervals: + better, - worse, = no difference seen")
        # The intervals are not widened for many comparisons; the reader is told what to expect instead.
        notes.append(f"of {len(compared)} comparisons, {len(compared) * (1 - level):.1f} differ by chance alone")
    if any(difference.covers == "records" for difference in compared):
        notes.append("where a selector or random has one seed, its interval covers the records only, not the draw")
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
