"""Which rows are kept: an order of preference among the eligible rows, cut at the quota.

Shapes: N rows, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from curate.selection.pool import (
    DUPLICATE,
    ELIGIBLE,
    KEPT,
    NO_SCORE,
    NOT_EMBEDDED,
    OUTRANKED,
    Reasons,
    count_reasons,
)
from curate.selection.quotas import Quota, cluster_quotas
from curate.types import CurateError, FloatArray

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
    duplicate_ids: npt.NDArray[np.integer] | None = None,
    lengths: npt.NDArray[np.integer] | None = None,
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
        duplicate_ids: int [N] from 0, equal for exact duplicates: of every group only the first eligible row stays so.
            Negative where the row has no duplicate. None keeps duplicates.
        lengths: int [N], response tokens; needed by method longest.
        seed: of method random.

    Raises:
        CurateError: fewer eligible rows than `count`, or an unknown method.
    """
    if method not in get_args(Method):
        raise CurateError(f"unknown method {method!r}; valid: {', '.join(get_args(Method))}")
    labels = clusters if method == "clusters" else None
    assert labels is not None or method != "clusters", "method clusters needs clusters"
    reason = _refuse(reason, scores, labels, duplicate_ids)
    if np.count_nonzero(reason == ELIGIBLE) < count:
        raise CurateError(_too_few(reason, count))

    members = _members(reason == ELIGIBLE, labels)
    quotas = cluster_quotas(np.array([len(rows) for rows in members]), count, quota=quota)
    rank = np.full(len(scores), -1, np.int32)
    for rows, num_kept in zip(members, quotas, strict=True):
        ordered = rows[np.argsort(_preference(rows, scores, method, order, lengths, seed), kind="stable")]
        rank[ordered] = np.arange(len(ordered), dtype=np.int32)
        reason[ordered[num_kept:]] = OUTRANKED  # the others are KEPT, which is the same code as ELIGIBLE
    return Selection(reason == KEPT, rank, reason)


def _refuse(
    reason: Reasons,
    scores: FloatArray,
    labels: npt.NDArray[np.integer] | None,
    duplicate_ids: npt.NDArray[np.integer] | None,
) -> Reasons:
    """A copy of `reason` in which rows without score or cluster, and then later duplicates, are refused too."""
    reason = reason.copy()
    reason[(reason == ELIGIBLE) & ~np.isfinite(scores)] = NO_SCORE
    if labels is not None:
        reason[(reason == ELIGIBLE) & (labels < 0)] = NOT_EMBEDDED
    if duplicate_ids is not None:
        rows = np.flatnonzero((reason == ELIGIBLE) & (duplicate_ids >= 0))
        rows = rows[np.argsort(duplicate_ids[rows], kind="stable")]
        reason[rows[1:][duplicate_ids[rows[1:]] == duplicate_ids[rows[:-1]]]] = DUPLICATE
    return reason


def _members(eligible: npt.NDArray[np.bool_], labels: npt.NDArray[np.integer] | None) -> list[npt.NDArray[np.int32]]:
    """The eligible rows of every cluster, or of all as one where there are no clusters; ascending."""
    if labels is None:
        return [np.flatnonzero(eligible).astype(np.int32)]
    ends = np.cumsum(np.bincount(labels[eligible]))
    by_label = np.argsort(labels, kind="stable").astype(np.int32)  # half of what numpy's own indices take
    return np.split(by_label[eligible[by_label]], ends[:-1])


def _preference(
    rows: npt.NDArray[np.int32],
    scores: FloatArray,
    method: Method,
    order: Literal["lowest", "highest"],
    lengths: npt.NDArray[np.integer] | None,
    seed: int,
) -> npt.NDArray[np.integer | np.floating]:
    """One key per row of `rows`, smaller first; equal keys keep the order of the rows."""
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
