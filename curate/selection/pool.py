"""Why a row is kept or not, as one byte a row: an index into `REASONS`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from curate.types import STATUSES

Reasons = npt.NDArray[np.uint8]

KEPT, OUTRANKED, DUPLICATE, SHORT_RESPONSE, NO_SCORE, NOT_EMBEDDED = range(6)
ELIGIBLE = KEPT  # before the rule has run, nothing speaks against the row

REASONS: tuple[str, ...] = (
    "kept",
    "outranked",  # eligible, but others came first
    "duplicate",
    "short_response",
    "no_score",  # scored, but the column that is sorted by has no finite value
    "not_embedded",
    *STATUSES[1:],
)
"""Names of the codes: what the rule did, what it refused, and then the statuses of rows that have no score."""


def reason_codes(
    statuses: npt.NDArray[np.integer], response_tokens: npt.NDArray[np.integer], *, min_response_tokens: int
) -> Reasons:
    """What speaks against every row before a rule has run: `ELIGIBLE` (0), its status, or a too short response.

    Args:
        statuses: int [N], positions in `curate.types.STATUSES`.
        response_tokens: int [N]; only read where the row was scored.
        min_response_tokens: a scored row with fewer is `short_response`.
    """
    codes = np.where(statuses > 0, statuses + (len(REASONS) - len(STATUSES)), ELIGIBLE)
    codes[(statuses == 0) & (response_tokens < min_response_tokens)] = SHORT_RESPONSE
    return codes.astype(np.uint8, copy=False)


def count_reasons(reason: Reasons) -> dict[str, int]:
    """How many rows have each reason, those that occur only, in the order of `REASONS`.

    >>> count_reasons(np.array([0, 1, 1], np.uint8))
    {'kept': 1, 'outranked': 2}
    """
    counts = np.bincount(reason, minlength=len(REASONS)).tolist()
    return {name: count for name, count in zip(REASONS, counts, strict=True) if count}
