"""The pool: says which rows may be kept, and why the others may not; a byte a row, an index into `REASONS`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curate.selection.orders import Order, keys
from curate.types import STATUSES, CurateError, FloatArray

Reasons = npt.NDArray[np.uint8]
Within = tuple[FloatArray | npt.NDArray[np.integer], float | None, float | None]

KEPT, OUTRANKED, NEAR_DUPLICATE, DUPLICATE, SHORT_RESPONSE, NO_SCORE, NOT_EMBEDDED, HELD_OUT, OUT_OF_RANGE, NO_GROUP = (
    range(10)
)
ELIGIBLE = KEPT  # one code for both: an eligible row is kept unless something later gives it another reason

REASONS: tuple[str, ...] = (
    "kept",
    "outranked",  # eligible, but others came first
    "near_duplicate",  # eligible, but too close to a kept record
    "duplicate",
    "short_response",
    "no_score",  # scored, but the column that is ordered by has no finite value
    "not_embedded",
    "held_out",
    "out_of_range",
    "no_group",
    *STATUSES[1:],
)
"""Names of the codes: reasons of eligible rows, then of rows that the pool refuses, then the other statuses."""


def pool(
    status: npt.NDArray[np.integer],
    response_tokens: npt.NDArray[np.integer],
    *,
    min_response_tokens: int = 1,
    score: FloatArray | None = None,
    embedded: npt.NDArray[np.bool_] | None = None,
    held_out: npt.NDArray[np.bool_] | None = None,
    within: Sequence[Within] = (),
    groups: npt.NDArray[np.integer] | None = None,
) -> Reasons:
    """Return why each row may not be kept: uint8 [N], `ELIGIBLE` (0) or the first reason that applies.

    Reasons are checked in this order: status, short_response, no_score, not_embedded, held_out, out_of_range, no_group.
    An argument that is None is not checked.

    Args:
        status: int [N], index into `curate.types.STATUSES`.
        response_tokens: int [N]; only read where the row was scored.
        min_response_tokens: a scored row with fewer is short_response.
        score: float64 [N]; a row without a finite value is no_score.
        embedded: bool [N].
        held_out: bool [N].
        within: (values [N], low, high) for every range, both ends inclusive, None is no bound; NaN is out of range.
        groups: int [N]; negative is no_group.

    The second row has too short a response; the third has status 1, empty_response:

    >>> tokens = np.array([5, 1, 9])
    >>> [REASONS[code] for code in pool(np.array([0, 0, 1]), tokens, min_response_tokens=2)]
    ['kept', 'short_response', 'empty_response']
    """
    offset = len(REASONS) - len(STATUSES)  # status 1, the first that is not "scored", follows the pool's reasons
    reason = np.where(status > 0, status + offset, ELIGIBLE).astype(np.uint8, copy=False)
    reason[(reason == ELIGIBLE) & (response_tokens < min_response_tokens)] = SHORT_RESPONSE
    if score is not None:
        reason[(reason == ELIGIBLE) & ~np.isfinite(score)] = NO_SCORE
    if embedded is not None:
        reason[(reason == ELIGIBLE) & ~embedded] = NOT_EMBEDDED
    if held_out is not None:
        reason[(reason == ELIGIBLE) & held_out] = HELD_OUT
    for values, low, high in within:
        reason[(reason == ELIGIBLE) & ~_inside(values, low, high)] = OUT_OF_RANGE
    if groups is not None:
        reason[(reason == ELIGIBLE) & (groups < 0)] = NO_GROUP
    return reason


def _inside(
    values: FloatArray | npt.NDArray[np.integer], low: float | None, high: float | None
) -> npt.NDArray[np.bool_]:
    """Return which values lie in the range, ends included; NaN lies in none."""
    inside = ~np.isnan(values)
    if low is not None:
        inside &= values >= low
    if high is not None:
        inside &= values <= high
    return inside


def refuse_duplicates(reason: Reasons, duplicate_ids: npt.NDArray[np.integer], order: Order | None) -> Reasons:
    """Return a copy of `reason` in which only the best eligible row of exact duplicates stays eligible.

    The best is the first by the order; with ties, or without an order, the lowest row. This comes before strata and
    quotas, so that no record counts twice in their sizes.

    Rows 0 and 1 are duplicates, and row 1 has the lower value:

    >>> refuse_duplicates(np.zeros(3, np.uint8), np.array([7, 7, -1]), Order(np.array([0.9, 0.1, 0.5]))).tolist()
    [3, 0, 0]
    """
    reason = reason.copy()
    rows = np.flatnonzero((reason == ELIGIBLE) & (duplicate_ids >= 0))
    by = (duplicate_ids[rows],) if order is None else (keys(order, rows), duplicate_ids[rows])
    rows = rows[np.lexsort(by)]  # by id, then by order, then by row: the first of every id stays
    reason[rows[1:][duplicate_ids[rows[1:]] == duplicate_ids[rows[:-1]]]] = DUPLICATE
    return reason


def holdout_rows(
    num_rows: int,
    count: int,
    *,
    seed: int,
    eligible: npt.NDArray[np.bool_] | None = None,
    duplicate_ids: npt.NDArray[np.integer] | None = None,
) -> npt.NDArray[np.bool_]:
    """Draw `count` distinct records without replacement, to be held out for evaluation: bool [N].

    All exact duplicates of a drawn record are held out too, so that no record is both evaluated and trained on. So more
    than `count` rows may be held out. A smaller count with the same seed holds out a subset.

    Args:
        num_rows: N.
        count: distinct records to hold out.
        seed: seed of the draw; a random selection with the same seed draws other rows.
        eligible: bool [N], rows that can be drawn (those that were scored); None means all.
        duplicate_ids: int [N], equal for exact duplicates, negative where a row has none.

    Raises:
        CurateError: there are fewer distinct eligible records than `count`.

    Four rows are three records, since rows 1 and 2 are duplicates:

    >>> ids = np.array([-1, 0, 0, -1])
    >>> int(holdout_rows(4, 3, seed=0, duplicate_ids=ids).sum())
    4
    """
    reason = np.full(num_rows, ELIGIBLE, np.uint8)
    if eligible is not None:
        reason[~eligible] = NO_SCORE
    if duplicate_ids is not None:
        reason = refuse_duplicates(reason, duplicate_ids, None)
    candidates = np.flatnonzero(reason == ELIGIBLE)
    if len(candidates) < count:
        raise CurateError(
            f"expected {count} records to hold out, but only {len(candidates)} of {num_rows} can be; "
            f"set data.holdout to at most {len(candidates)}"
        )
    # [seed, 1] is another stream than `orders.random_key` takes from the same seed.
    drawn = np.random.default_rng([seed, 1]).permutation(num_rows)
    drawn = drawn[reason[drawn] == ELIGIBLE][:count]
    held_out = np.zeros(num_rows, np.bool_)
    held_out[drawn] = True
    if duplicate_ids is not None:
        ids = duplicate_ids[drawn]
        held_out |= np.isin(duplicate_ids, ids[ids >= 0])
    return held_out


def count_reasons(reason: Reasons) -> dict[str, int]:
    """Count the rows of each reason that occurs, in the order of `REASONS`.

    >>> count_reasons(np.array([0, 1, 1], np.uint8))
    {'kept': 1, 'outranked': 2}
    """
    counts = np.bincount(reason, minlength=len(REASONS)).tolist()
    return {name: count for name, count in zip(REASONS, counts, strict=True) if count}
