"""Which records are kept: exact counts, no randomness but the seed's, no input or output, numpy only.

`reasons` says why a row cannot be kept, `quotas` how many each cluster may keep, `rules` which rows those are.
"""

from curate.selection.pool import REASONS, count_reasons, reason_codes
from curate.selection.quotas import keep_count
from curate.selection.select import Selection, select

__all__ = ["REASONS", "Selection", "count_reasons", "keep_count", "reason_codes", "select"]
