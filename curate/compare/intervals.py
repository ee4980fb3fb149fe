"""Computes the difference between two selectors, with an interval over both sources of chance: seeds and records.

Shape letters: S seeds, R records of an evaluation set, B bootstrap replicates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm
from scipy.stats import t as student_t

from curate.types import CurateError, FloatArray, IntArray

Covers = Literal["seeds and records", "records", "seeds", "nothing"]

_BATCH = 256  # bootstrap replicates computed at a time, to bound memory


@dataclass(frozen=True, slots=True)
class Difference:
    """How much larger a mean is than the mean of the reference.

    value      mean of ours - mean of the reference, in the unit of the losses
    low, high  ends of the interval; None if it covers nothing
    covers     which sources of chance the interval covers; with one seed on a side it does not cover the draw
    level      confidence level of the interval
    records    number of records that have a loss on both sides
    dropped    number of records that lack one on either side
    """

    value: float
    low: float | None
    high: float | None
    covers: Covers
    level: float
    records: int
    dropped: int


def mean_difference(
    ours_SR: FloatArray,
    reference_SR: FloatArray,
    weights_R: FloatArray | None = None,
    *,
    without_seed: Literal["ours", "reference"] | None = None,
    level: float = 0.95,
    replicates: int = 4_000,
    seed: int = 0,
) -> Difference:
    """Return the difference of two means over seeds and records, with a bootstrap interval.

        D = 1/S * sum_s sum_r w_r ours_sr / sum_r w_r  -  the same of the reference

    A replicate draws records once for both sides (paired, since an easy record is easy for both) and seeds for each
    side separately, all with replacement. The ends of the interval are percentiles of the replicates. The interval
    covers only what varies: with one seed on a side the records alone, with one record the seeds alone.

    With few seeds a plain bootstrap gives too short intervals: the variance of a mean over S seeds drawn from S is
    (S-1)/S of what it should be. At three seeds, where seeds matter most, a 95 % interval would miss the truth one time
    in five. So the part of every replicate that comes from the drawn seeds is multiplied by sqrt(S/(S-1)) * t/z. Here t
    is the quantile of Student's t at S + S' - 2 degrees of freedom, and z that of the normal. With many seeds the
    factor is 1.

    A record that is NaN in any row is left out on both sides, and counted as dropped.

    Args:
        ours_SR: float [S, R], a loss per seed and record; a metric without records has R = 1.
        reference_SR: float [S', R], of the same records.
        weights_R: weight of each record: its tokens for the mean over tokens; None means 1, the mean over records.
        without_seed: the side that depends on no seed (the untuned model): its one row is all there is to draw from.
        level: confidence level of the interval.
        replicates: B.
        seed: seed of the draws; the same arguments give the same interval.

    Raises:
        CurateError: no record is left, or the two sides have different numbers of records.

    Source: Efron and Tibshirani 1993, chapter 13; Hesterberg 2015, arXiv 1411.5279, section 4.2 (few observations).

    One seed on each side; every record is worse by .5, so no draw of records changes the difference:

    >>> mean_difference(np.array([[1.0, 2.0, 4.0]]), np.array([[0.5, 1.5, 3.5]]))
    Difference(value=0.5, low=0.5, high=0.5, covers='records', level=0.95, records=3, dropped=0)
    """
    there = _have_losses(ours_SR, reference_SR)
    ours, reference = ours_SR[:, there], reference_SR[:, there]
    weights = np.ones(ours.shape[1]) if weights_R is None else np.asarray(weights_R, np.float64)[there]
    value = float(((ours.mean(0) - reference.mean(0)) @ weights) / weights.sum())
    sides = {"ours": ours, "reference": reference}
    drawn = [len(side) for name, side in sides.items() if name != without_seed]  # seeds of each side that has any
    seeds_vary = min(drawn) > 1
    covers = _covers(seeds_vary, ours.shape[1] > 1)
    low = high = None
    if covers != "nothing":
        degrees = sum(drawn) - len(drawn)
        rng = np.random.default_rng(seed)
        values_B = _replicates(ours, reference, weights, rng, replicates, _stretch(degrees, level) if seeds_vary else 0)
        low, high = (float(x) for x in np.quantile(values_B, [(1 - level) / 2, (1 + level) / 2]))
    return Difference(value, low, high, covers, level, len(weights), int((~there).sum()))


def with_standard_errors(difference: Difference, ours: float, reference: float, *, records: int) -> Difference:
    """Return a difference that has no interval with the one that follows from the standard errors of its two means.

        value -+ z * sqrt(ours^2 + reference^2)        z: quantile of the normal distribution at the level

    For metrics of tasks that are no mean over examples (BLEU). That both models answer the same records is left out, so
    the interval is wider than it need be.

    Args:
        difference: of two means.
        ours: standard error of our mean over records, in the unit of the mean.
        reference: that of the reference.
        records: number of records that each is a mean over.

    Source: Miller 2024, arXiv 2411.00640 (the unpaired comparison of two models).

    >>> d = with_standard_errors(Difference(0.1, None, None, "nothing", 0.95, 1, 0), 0.03, 0.04, records=200)
    >>> f"{d.low:.3f} to {d.high:.3f}, {d.covers}"
    '0.002 to 0.198, records'
    """
    half = float(norm.ppf((1 + difference.level) / 2)) * math.hypot(ours, reference)
    low, high = difference.value - half, difference.value + half
    return replace(difference, low=low, high=high, covers="records", records=records)


def _have_losses(ours_SR: FloatArray, reference_SR: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which records have a loss in every row of both sides: bool [R]; refuse two sides without any."""
    if ours_SR.shape[1:] != reference_SR.shape[1:]:
        raise CurateError(f"expected losses of the same records, got {ours_SR.shape[1]} and {reference_SR.shape[1]}")
    there: npt.NDArray[np.bool_]
    there = np.isfinite(ours_SR.sum(0) + reference_SR.sum(0))  # a sum is finite only if every loss in it is
    if not there.any() or not len(ours_SR) or not len(reference_SR):
        raise CurateError(f"expected records with a loss on both sides, got none of {len(there)}")
    return there


def _covers(seeds_vary: bool, records_vary: bool) -> Covers:
    """Say in words which sources of chance an interval covers."""
    if seeds_vary:
        return "seeds and records" if records_vary else "seeds"
    return "records" if records_vary else "nothing"


def _stretch(degrees: int, level: float) -> float:
    """Return the quantile of Student's t divided by that of the normal; 2.2 for 2 degrees of freedom at 95 %."""
    tail = (1 + level) / 2
    return float(student_t.ppf(tail, degrees) / norm.ppf(tail))


def _replicates(
    ours: FloatArray,
    reference: FloatArray,
    weights: FloatArray,
    rng: np.random.Generator,
    replicates: int,
    stretch: float,
) -> FloatArray:
    """Return differences of means over drawn seeds and records: float64 [B]; with stretch 0 no seeds are drawn."""
    # scipy.stats.bootstrap cannot stretch one source of chance, and would hold all drawn records at once. Counts of how
    # often each record is drawn give the same replicates by one matrix product.
    num_records = len(weights)
    means = []
    for start in range(0, replicates, _BATCH):
        size = min(_BATCH, replicates - start)
        drawn_BR = _counts(rng, size, num_records) * weights
        # The difference is taken record by record first, so that equal sides give exactly zero. Divided at the end, so
        # that sums of answers that are right or wrong are exact: an end at zero must not be a rounding error beside it.
        batch_B = drawn_BR @ (ours.mean(0) - reference.mean(0))
        if stretch:
            batch_B += stretch * (_seed_part(ours, drawn_BR, rng) - _seed_part(reference, drawn_BR, rng))
        means.append(batch_B / drawn_BR.sum(1))
    return np.concatenate(means)


def _seed_part(losses_SR: FloatArray, drawn_BR: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return how far the sum of a mean over drawn seeds is from that over all seeds, in each replicate: float64 [B]."""
    num_seeds = len(losses_SR)
    if num_seeds == 1:
        return np.zeros(len(drawn_BR))
    deviations_SR = losses_SR - losses_SR.mean(0)
    counts_BS = _counts(rng, len(drawn_BR), num_seeds)
    part_B: FloatArray = ((drawn_BR @ deviations_SR.T) * counts_BS).sum(1)
    part_B *= np.sqrt(num_seeds / (num_seeds - 1)) / num_seeds
    return part_B


def _counts(rng: np.random.Generator, size: int, n: int) -> IntArray:
    """Draw n of n items with replacement, `size` times, and count how often each is drawn: int64 [size, n]."""
    # Row i draws numbers from n * i up, so that one bincount counts all rows.
    drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
