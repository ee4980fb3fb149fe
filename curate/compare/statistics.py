"""Computes what is shown beside the table: correlations of scores, overlaps of selections, lengths of kept records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from curate.types import FloatArray, IntArray

QUANTILES = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class RankCorrelations:
    """Spearman's rank correlation between score columns.

    names    names of the K columns
    rho      float64 [K, K], in [-1, 1]; NaN where a column is constant or fewer than two rows have both values
    records  int64 [K, K], number of rows that have both values
    """

    names: tuple[str, ...]
    rho: FloatArray
    records: IntArray


@dataclass(frozen=True, slots=True)
class Overlaps:
    """How many records selections have in common.

    names      names of the K selections
    count      int64 [K, K], records that both keep; on the diagonal those that one keeps
    jaccard    float64 [K, K], (records that both keep) / (records that either keeps); NaN where neither keeps any
    by_chance  float64 [K, K], how many records two random draws of these sizes would have in common on average
    """

    names: tuple[str, ...]
    count: IntArray
    jaccard: FloatArray
    by_chance: FloatArray


@dataclass(frozen=True, slots=True)
class Lengths:
    """Response lengths of the records of a selection.

    records    number of records
    tokens     their response tokens in all
    mean       response tokens per record
    median     likewise
    quantiles  at 5, 25, 75 and 95 %, likewise
    """

    records: int
    tokens: int
    mean: float
    median: float
    quantiles: tuple[float, ...]


def rank_correlations(columns: Mapping[str, FloatArray]) -> RankCorrelations:
    """Compute Spearman's rank correlation of every two columns, over the rows that have both values.

    Directions are not considered: where a score that is low for easy records and one that is high for them agree, the
    correlation is negative. Equal values share their mean rank.

    >>> found = rank_correlations({"a": np.array([1.0, 2, 3, np.nan]), "b": np.array([9.0, 5, 1, 0])})
    >>> found.rho.tolist(), found.records.tolist()
    ([[1.0, -1.0], [-1.0, 1.0]], [[3, 3], [3, 4]])
    """
    names, values = tuple(columns), [np.asarray(column, np.float64) for column in columns.values()]
    # Pair by pair, since columns lack values in different rows.
    rho, records = np.full((len(names),) * 2, np.nan), np.zeros((len(names),) * 2, np.int64)
    for i, a in enumerate(values):
        for j, b in enumerate(values[: i + 1]):
            both = ~(np.isnan(a) | np.isnan(b))
            records[i, j] = records[j, i] = both.sum()
            rho[i, j] = rho[j, i] = _spearman(a[both], b[both])
    return RankCorrelations(names, rho, records)


def overlaps(kept: Mapping[str, npt.NDArray[np.bool_]]) -> Overlaps:
    """Count how many records every two selections have in common, also as Jaccard's index.

    >>> found = overlaps({"a": np.array([True, True, False, False]), "b": np.array([False, True, True, False])})
    >>> found.count.tolist(), found.jaccard[0, 1].round(3).item(), found.by_chance[0, 1].item()
    ([[2, 1], [1, 2]], 0.333, 1.0)
    """
    names = tuple(kept)
    # As floats: a product of integer matrices has no fast kernel. Counts below 2**53 are exact.
    matrix_KN = np.array([kept[name] for name in names], np.float64).reshape(len(names), -1)
    count = np.rint(matrix_KN @ matrix_KN.T).astype(np.int64)
    sizes = count.diagonal()  # two random draws of a and b of N records have a * b / N in common on average
    either = sizes[:, None] + sizes - count
    jaccard = np.divide(count, either, out=np.full(count.shape, np.nan), where=either > 0)
    return Overlaps(names, count, jaccard, sizes[:, None] * sizes / max(matrix_KN.shape[1], 1))


def length_statistics(response_tokens: npt.NDArray[np.integer], kept: npt.NDArray[np.bool_]) -> Lengths:
    """Compute count, sum, mean, median and quantiles of the response tokens of kept records; NaN if none is kept.

    >>> length_statistics(np.array([5, 1, 3, 100]), np.array([True, True, True, False])).median
    3.0
    """
    tokens = np.asarray(response_tokens)[kept].astype(np.float64)
    if not len(tokens):
        return Lengths(0, 0, np.nan, np.nan, (np.nan,) * len(QUANTILES))
    quantiles = tuple(float(q) for q in np.quantile(tokens, QUANTILES))
    return Lengths(len(tokens), int(tokens.sum()), float(tokens.mean()), float(np.median(tokens)), quantiles)


def _spearman(a: FloatArray, b: FloatArray) -> float:
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():  # a constant has no ranks; scipy would warn
        return float("nan")
    return float(spearmanr(a, b).statistic)
