"""Chooses which records are kept: exact counts, no randomness but the seed's, no files, numpy only.

In reading order:

    rule.py    what a selection is made from, and how
    pool.py    which rows may be kept, and why the others may not
    bins.py    numbers cut into ranges, to be groups
    strata.py  the parts that are filled on their own
    quotas.py  how many records each part keeps
    orders.py  which rows of a part come first
    near.py    passes over near-duplicates of what is kept
    select.py  all of it together
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
