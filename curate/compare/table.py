"""Makes the table of a comparison: each selector's mean over seeds, and its difference to the reference (random)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from curate.compare.cells import ALL, RANDOM, UNTUNED, Measurement
from curate.compare.intervals import Difference, mean_difference, with_standard_errors
from curate.types import FloatArray

T = TypeVar("T")
Verdict = Literal["better", "worse", "no difference seen", "reference", "not compared"]


@dataclass(frozen=True, slots=True)
class Row:
    """One selector at one keep, on one set, by one metric.

    keep             keep of the cells; a baseline has a row for every keep
    seeds            how many cells the mean is over
    mean             mean over seeds, in the unit of the metric
    lowest, highest  of the single seeds
    difference       difference to the reference of the same keep; None for the reference itself, or without one
    verdict          better, worse: the interval does not contain zero
                     no difference seen: it contains zero
                     reference: it is what the others are compared with
                     not compared: there is no reference, or no interval (one seed, and neither values by record nor
                     standard errors)
    kept_records, kept_tokens  means over seeds; None for `untuned`
    seconds          of scoring, embedding and training together, mean over seeds; None where nothing was measured
    steps, seen_tokens  optimizer steps, and response tokens seen in them (with repeats): means over seeds; None for
                     `untuned`, and in files of earlier versions
    """

    selector: str
    keep: str
    set: str
    metric: str
    higher_is_better: bool
    seeds: int
    mean: float
    lowest: float
    highest: float
    difference: Difference | None
    verdict: Verdict
    kept_records: float | None
    kept_tokens: float | None
    seconds: float | None
    steps: float | None = None
    seen_tokens: float | None = None


def table_rows(
    measurements: Sequence[Measurement],
    *,
    reference: str = RANDOM,
    level: float = 0.95,
    replicates: int = 4_000,
    seed: int = 0,
) -> list[Row]:
    """Compute the rows of the table: by keep, then set and metric, then selector, each in the order of its first cell.

    Args:
        measurements: measurements of all cells, in any order; each cell has one for each set and metric. One that is
            no mean over records is compared over seeds alone, or with one seed by its standard errors.
        reference: selector or baseline that every row of the same keep is compared with.
        level: confidence level of the intervals.
        replicates: bootstrap replicates.
        seed: seed of the bootstrap. Every row uses it anew, so a row does not depend on which other rows there are.
    """
    # Baselines have no keep of their own; a comparison of nothing else still gets one table.
    keeps = distinct(m.cell.keep for m in measurements if m.cell.selector not in (UNTUNED, ALL)) or [""]
    rows = []
    for keep in keeps:
        of_keep = [m for m in measurements if m.cell.keep == keep or m.cell.selector in (UNTUNED, ALL)]
        for set_name, metric in distinct((m.set, m.metric) for m in of_keep):
            column = [m for m in of_keep if (m.set, m.metric) == (set_name, metric)]
            by_selector = {s: _of(column, s) for s in distinct(m.cell.selector for m in column)}
            others = by_selector.get(reference, [])
            for mine in by_selector.values():
                difference = None
                if others and mine is not others:
                    difference = _difference(mine, others, level=level, replicates=replicates, seed=seed)
                rows.append(_row(keep, mine, difference, _verdict(mine[0], difference, reference)))
    return rows


def distinct(items: Iterable[T]) -> list[T]:
    """Return the different items, each at the place where it first occurs.

    >>> distinct(["b", "a", "b"])
    ['b', 'a']
    """
    return list(dict.fromkeys(items))


def _of(column: Sequence[Measurement], selector: str) -> list[Measurement]:
    """Return the measurements of a selector, in order of seed."""
    # Sorted: the bootstrap draws seeds by place, so the order in which cells were done would move the interval.
    return sorted((m for m in column if m.cell.selector == selector), key=lambda m: m.cell.seed)


def _difference(
    mine: Sequence[Measurement],
    reference: Sequence[Measurement],
    *,
    level: float,
    replicates: int,
    seed: int,
) -> Difference:
    """Compare the measurements of a selector with those of the reference, on one set by one metric."""
    without_seed: Literal["ours", "reference"] | None = None
    if mine[0].cell.selector == UNTUNED:
        without_seed = "ours"
    elif reference[0].cell.selector == UNTUNED:
        without_seed = "reference"
    found = mean_difference(
        *_by_record(mine, reference),
        without_seed=without_seed,
        level=level,
        replicates=replicates,
        seed=seed,
    )
    errors = [[m.stderr for m in side if m.stderr is not None] for side in (mine, reference)]
    if found.covers == "nothing" and all(errors):
        # Not divided by the number of seeds: all seeds answer the same records.
        ours, others = (float(np.mean(some)) for some in errors)
        return with_standard_errors(found, ours, others, records=mine[0].records)
    return found


def _by_record(
    mine: Sequence[Measurement], reference: Sequence[Measurement]
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """Return the values of both sides by seed and record, float64 [S, R], and the records' weights, float64 [R].

    Where a value is no mean over records, it stands for one record: [S, 1], without weights.
    """
    known = [m.by_record for m in (*mine, *reference) if m.by_record is not None]
    # Another number of records: the data of a task changed on the hub.
    if len(known) < len(mine) + len(reference) or len({len(found.values) for found in known}) > 1:
        return np.array([[m.value] for m in mine]), np.array([[m.value] for m in reference]), None
    # Both sides share the weights, so that every record counts the same on both: the largest over cells, since a cell
    # that has no loss for a record has 0 tokens there.
    weights_R = np.max([found.weights for found in known], axis=0)
    values_SR = np.array([found.values for found in known])
    return values_SR[: len(mine)], values_SR[len(mine) :], weights_R


def _row(keep: str, mine: Sequence[Measurement], difference: Difference | None, verdict: Verdict) -> Row:
    """Average the measurements of one selector, one per seed."""
    first, values = mine[0], [m.value for m in mine]
    costs = [m.cost for m in mine]
    seconds = [[c.scoring_seconds, c.embedding_seconds, c.training_seconds] for c in costs]
    return Row(
        first.cell.selector,
        keep,
        first.set,
        first.metric,
        first.higher_is_better,
        len(values),
        float(np.mean(values)),
        min(values),
        max(values),
        difference,
        verdict,
        _mean([c.kept_records for c in costs]),
        _mean([c.kept_tokens for c in costs]),
        # None where no stage was timed: a sum of nothing would read as free.
        _mean([sum(s for s in parts if s is not None) if any(parts) else None for parts in seconds]),
        _mean([c.steps for c in costs]),
        _mean([c.seen_tokens for c in costs]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _verdict(measurement: Measurement, difference: Difference | None, reference: str) -> Verdict:
    if measurement.cell.selector == reference:
        return "reference"
    if difference is None or difference.low is None or difference.high is None:
        return "not compared"
    if difference.low <= 0 <= difference.high:
        return "no difference seen"
    return "better" if (difference.value > 0) == measurement.higher_is_better else "worse"
