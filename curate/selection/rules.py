"""Which rows are kept: an order of preference among the eligible rows, cut at the quota.

Shapes: N rows, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from curate.selection.quotas import Quota, cluster_quotas
from curate.selection.reasons import (
    DUPLICATE,
    ELIGIBLE,
    KEPT,
    NO_SCORE,
    NOT_EMBEDDED,
    OUTRANKED,
    Reasons,
    count_reasons,
)
from curate.types import CurateError, FloatArray, IntArray

Method = Literal["clusters", "top", "random", "longest"]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a rule decided.

    kept    bool [N]
    rank    int32 [N]: place in the order of preference, from 0, among the eligible rows (of the same cluster, for
            method "clusters"); -1 for the others
    reason  uint8 [N]: index into `REASONS`, "kept" for the kept rows
    """

    kept: npt.NDArray[np.bool_]
    rank: npt.NDArray[np.int32]
    reason: Reasons


def select(
    scores: FloatArray,
    *,
    reason: Reasons,
    count: int,
    method: Method = "clusters",
    order: Literal["lowest", "highest"] = "lowest",
    quota: Quota = "proportional",
    clusters: npt.NDArray[np.integer] | None = None,
    groups: IntArray | None = None,
    lengths: IntArray | None = None,
    seed: int = 0,
) -> Selection:
    """Exactly `count` of the eligible rows.

    clusters  the rows with the lowest (or highest) score of every cluster, so many as `cluster_quotas` says
    top       the rows with the lowest (or highest) score of all
    random    uniform without replacement; a smaller count of the same seed keeps a subset
    longest   the rows with the most response tokens

    Ties go to the lower row. The pool is the same for every method but for rows without an embedding, which only
    "clusters" refuses.

    Args:
        scores: float64 [N]; a row whose score is not finite is not eligible.
        reason: uint8 [N], what speaks against a row so far (see `reason_codes`); 0 is eligible.
        count: rows to keep.
        method: the rule.
        order: which end of the score is kept, by methods clusters and top.
        quota: how `count` is divided among clusters.
        clusters: int [N] from 0, negative where the row has none; needed by method clusters.
        groups: int [N], equal for exact duplicates: of every group only the first eligible row stays so. None keeps
            duplicates.
        lengths: int [N], response tokens; needed by method longest.
        seed: of method random.

    Raises:
        CurateError: fewer eligible rows than `count`, or an unknown method.
    """
    if method not in get_args(Method):
        raise CurateError(f"unknown method {method!r}; valid: {', '.join(get_args(Method))}")
    labels = clusters if method == "clusters" else np.zeros(len(scores), np.int32)
    assert labels is not None, "method clusters needs clusters"
    reason = _refuse(reason, scores, labels, groups)
    rows = np.flatnonzero(reason == ELIGIBLE)
    if len(rows) < count:
        raise CurateError(_too_few(reason, count))

    ordered = rows[np.lexsort((_preference(rows, scores, method, order, lengths, seed), labels[rows]))]
    sizes = np.bincount(labels[ordered])
    rank = np.full(len(scores), -1, np.int32)
    rank[ordered] = np.arange(len(ordered)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.zeros(len(scores), bool)
    kept[ordered] = rank[ordered] < np.repeat(cluster_quotas(sizes, count, quota=quota), sizes)
    reason[rows] = np.where(kept[rows], KEPT, OUTRANKED)
    return Selection(kept, rank, reason)


def _refuse(reason: Reasons, scores: FloatArray, labels: npt.NDArray[np.integer], groups: IntArray | None) -> Reasons:
    """A copy of `reason` in which rows without score or cluster, and then later duplicates, are refused too."""
    reason = reason.copy()
    reason[(reason == ELIGIBLE) & ~np.isfinite(scores)] = NO_SCORE
    reason[(reason == ELIGIBLE) & (labels < 0)] = NOT_EMBEDDED
    if groups is not None:
        rows = np.flatnonzero(reason == ELIGIBLE)
        _, first = np.unique(groups[rows], return_index=True)
        reason[np.delete(rows, first)] = DUPLICATE
    return reason


def _preference(
    rows: npt.NDArray[np.intp],
    scores: FloatArray,
    method: Method,
    order: Literal["lowest", "highest"],
    lengths: IntArray | None,
    seed: int,
) -> npt.NDArray[np.int64 | np.float64]:
    """One key per eligible row, smaller first; equal keys keep the order of the rows."""
    if method == "random":
        return np.random.default_rng(seed).permutation(len(rows))
    if method == "longest":
        assert lengths is not None, "method longest needs lengths"
        return -lengths[rows]
    return scores[rows] if order == "lowest" else -scores[rows]


def _too_few(reason: Reasons, count: int) -> str:
    counts = count_reasons(reason)
    eligible = counts.pop("kept", 0)
    others = ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"
    return (
        f"expected {count} records to keep, but only {eligible} of {len(reason)} are eligible (not eligible: {others})"
        f"; set select.keep to at most {eligible}"
    )
