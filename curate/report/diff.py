"""Shows how two selections of a run differ: their overlap, their figures, and records that only one keeps."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curate.report.names import cluster_names
from curate.report.pages import number, page, rough, signed
from curate.report.records import collect
from curate.report.run_table import LENGTH, Labels, RunTable, read_run
from curate.report.spread import QUANTILES, Count, Spread, counts, spread
from curate.report.visible import visible
from curate.types import CurateError, Example, IntArray

MAX_NAMED = 20_000  # records whose texts are read to name the clusters: names hardly change with more


@dataclass(frozen=True, slots=True)
class OnlyOne:
    """A record that one selection keeps and the other does not.

    score         the score that the keeping selection went by; None if it has none
    rank          the place of the record in that selection, from 1; None if it has none
    other_reason  why the other selection does not keep it
    turns         role and text of every turn
    """

    row: int
    score: float | None
    response_tokens: int
    cluster: str
    rank: int | None
    other_reason: str
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SelectionDiff:
    """How selections A and B differ.

    records          number of input records
    kept_a, kept_b   records that A keeps, and B
    both             records that both keep
    by_chance        records that both would keep on average if each drew its number at random from all records
    jaccard          both / (kept by A or B); 1 if neither keeps any
    spreads          distributions of lengths and scores
    clusters, groups kept records of each, the largest difference first; empty if the run has none
    only_a, only_b   the first records that only A keeps, or only B, in its own order
    """

    name_a: str
    name_b: str
    records: int
    kept_a: int
    kept_b: int
    both: int
    by_chance: float
    jaccard: float
    spreads: tuple[Spread, ...]
    clusters: tuple[Count, ...]
    groups: tuple[Count, ...]
    only_a: tuple[OnlyOne, ...]
    only_b: tuple[OnlyOne, ...]


def diff(folder: Path, name_a: str, name_b: str, examples: Iterable[Example], *, texts: int = 5) -> SelectionDiff:
    """Return how two selections of a run differ.

    Args:
        folder: folder of the run.
        name_a: name of selection A.
        name_b: name of selection B.
        examples: all records of the input, as the run read them; they are read once.
        texts: how many of the records to list that only A keeps, and that only B keeps.

    Raises:
        CurateError: no such run or selection, or the same selection twice.
    """
    if name_a == name_b:
        raise CurateError(f"expected two selections, got {name_a} twice")
    a, b = read_run(folder, name_a), read_run(folder, name_b)
    first_a, first_b = (_first(one, one.kept & ~other.kept, texts) for one, other in ((a, b), (b, a)))
    # The file of a selection that does not use clusters may hold none.
    cluster = a if (a.cluster >= 0).any() else b
    rng = np.random.default_rng(0)  # a fixed seed, so that clusters have the same names every time
    named = rng.permutation(len(a))[:MAX_NAMED]
    found = collect(examples, np.union1d(named, np.concatenate([first_a, first_b])))
    names = cluster_names(
        (int(cluster.cluster[row]), next((text for role, text in turns if role == "user"), ""))
        for row, turns in found.items()
    )
    both, either = int((a.kept & b.kept).sum()), int((a.kept | b.kept).sum())
    return SelectionDiff(
        name_a,
        name_b,
        len(a),
        int(a.kept.sum()),
        int(b.kept.sum()),
        both,
        float(a.kept.mean() * b.kept.sum()),
        both / either if either else 1.0,
        _spreads(a, b),
        counts(cluster.cluster, names, a.kept, b.kept),
        _groups(a, b),
        tuple(_only(a, b, row, names, found) for row in first_a.tolist()),
        tuple(_only(b, a, row, names, found) for row in first_b.tolist()),
    )


def diff_text(result: SelectionDiff, *, width: int = 100) -> str:
    """Return the difference as plain text for a terminal of that width; control characters are made visible."""
    a, b = visible(result.name_a), visible(result.name_b)
    blocks = ["\n".join(textwrap.fill(line, width) for line in _overlap_text(result).splitlines())]
    blocks.append(_spread_table(result, a, b, width))
    for what, rows in (("cluster", result.clusters), ("group", result.groups)):
        if rows:
            blocks.append(_table(((what, a, b, "difference"), *_count_lines(rows[:12], max(20, width - 36)))))
            if len(rows) > 12:
                blocks[-1] += f"\n({len(rows) - 12} more with smaller differences)"
    for name, other, total, only in (
        (a, b, result.kept_a - result.both, result.only_a),
        (b, a, result.kept_b - result.both, result.only_b),
    ):
        lines = [f"only {name} keeps {total:,}" + (f"; the first {len(only)} by rank:" if only else "")]
        lines += [_record_text(record, other, width) for record in only]
        blocks.append("\n\n".join(lines))
    return "\n\n".join(blocks)


def diff_html(result: SelectionDiff) -> str:
    """Return the difference as a self-contained HTML page without scripts."""
    return page("diff.html.jinja", diff=result, quantiles=QUANTILES, quantile_names=quantile_names())


def quantile_names() -> tuple[str, ...]:
    """Return the names of `QUANTILES`: p10 to p90, and the median."""
    return tuple("median" if q == 0.5 else f"p{q * 100:.0f}" for q in QUANTILES)


def _first(table: RunTable, only: npt.NDArray[np.bool_], limit: int) -> IntArray:
    """Return the first rows of `only` in the order of the selection, at most `limit`."""
    rows = np.flatnonzero(only)
    return rows[np.argsort(table.rank[rows], kind="stable")][:limit]


def _spreads(a: RunTable, b: RunTable) -> tuple[Spread, ...]:
    lengths = {"response tokens": a.response_tokens, "prompt tokens": a.prompt_tokens}
    # A selection may go by a score that no file holds (complexity of chosen exits), so both tables are asked.
    scores = {name: values for name, values in {**a.scores, **b.scores}.items() if name != LENGTH}
    return (
        *(spread(name, values.astype(np.float64), a.kept, b.kept) for name, values in lengths.items()),
        *(spread(name.replace("_", " "), values, a.kept, b.kept) for name, values in scores.items()),
    )


def _groups(a: RunTable, b: RunTable) -> tuple[Count, ...]:
    labels: Labels = a.group if a.group.names else b.group
    return counts(labels.codes, dict(enumerate(labels.names)), a.kept, b.kept)


def _only(
    one: RunTable, other: RunTable, row: int, names: Mapping[int, str], found: Mapping[int, Sequence[tuple[str, str]]]
) -> OnlyOne:
    """Return the record of a row that `one` keeps and `other` does not."""
    score, cluster, code = float(one.score[row]), int(one.cluster[row]), int(other.reason.codes[row])
    return OnlyOne(
        row,
        score if np.isfinite(score) else None,
        int(one.response_tokens[row]),
        names.get(cluster, "" if cluster < 0 else str(cluster)),
        int(one.rank[row]) + 1 if one.rank[row] >= 0 else None,
        other.reason.names[code].replace("_", " ") if code >= 0 else "",
        tuple(found.get(row, ())),
    )


def _overlap_text(result: SelectionDiff) -> str:
    return (
        f"{visible(result.name_a)} keeps {result.kept_a:,}, {visible(result.name_b)} keeps {result.kept_b:,} of "
        f"{result.records:,} records\n"
        f"both keep {result.both:,} (by chance {rough(result.by_chance)}); Jaccard {result.jaccard:.3f}"
    )


def _spread_table(result: SelectionDiff, a: str, b: str, width: int) -> str:
    """Length and scores in columns; in a narrow terminal with fewer quantiles."""
    rows = [("", "", "mean", *quantile_names()), *_spread_lines(result, a, b)]
    for shown in ((0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3, 5, 7), (0, 1, 2, 5)):
        table = _table([[row[i] for i in shown if i < len(row)] for row in rows])
        if max(map(len, table.splitlines())) <= width:
            break
    return table


def _spread_lines(result: SelectionDiff, a: str, b: str) -> Iterator[tuple[str, ...]]:
    for row in result.spreads:
        # Lengths are whole numbers, scores lie between 0 and 1 or are a few nats.
        digits = 0 if row.name.endswith("tokens") else 3
        for of, mean, quantiles, name in (
            (a, row.mean_a, row.quantiles_a, row.name),
            (b, row.mean_b, row.quantiles_b, ""),
        ):
            yield name, of, number(mean, max(digits, 1)), *(number(value, digits) for value in quantiles)


def _count_lines(rows: Sequence[Count], limit: int) -> Iterator[tuple[str, ...]]:
    for row in rows:
        yield _short(visible(row.name), limit), f"{row.a:,}", f"{row.b:,}", signed(row.b - row.a)


def _record_text(record: OnlyOne, other: str, width: int) -> str:
    rank = f"rank {record.rank:,}, " if record.rank else ""
    head = f"  record {record.row}: {rank}score {number(record.score)}, {record.response_tokens:,} response tokens"
    head += (f", cluster {visible(record.cluster)}" if record.cluster else "") + f"; {other}: {record.other_reason}"
    lines = [head, *(f"    {role}: {_short(visible(text))}" for role, text in record.turns)]
    return "\n".join(textwrap.fill(line, width, subsequent_indent="      ") for line in lines)


def _short(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns as wide as their widest cell; numbers and their headings end on the right."""
    width = max(map(len, rows))
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in padded) for i in range(width)]
    lines = []
    for row in padded:
        cells = [
            cell.rjust(size) if cell[:1] in "+-0123456789–" or (row is padded[0] and i > 1) else cell.ljust(size)
            for i, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
