"""Which records are kept: exact counts, no randomness but the seed's, no input or output, numpy only.

In reading order: `rule` (what a selection is made from, and how), `pool` (which rows may be kept), `strata` (the parts
that are filled on their own), `quotas` (how many each keeps), `orders` (which come first), `near` (an order walked past
near-duplicates), `select` (all of it together).
"""

from curate.selection.pool import REASONS, count_reasons, holdout_rows
from curate.selection.quotas import keep_count
from curate.selection.rule import Candidates, Rule
from curate.selection.select import Selection, overlap, select

__all__ = [
    "REASONS",
    "Candidates",
    "Rule",
    "Selection",
    "count_reasons",
    "holdout_rows",
    "keep_count",
    "overlap",
    "select",
]
