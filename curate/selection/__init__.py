"""Chooses which records are kept. Counts are exact, and the same candidates, rule and seed give the same selection.

Only numpy is used, and no file is read or written. A selection is four steps; in reading order:

    rule.py    holds what a selection is made from (candidates) and how (a rule)
    pool.py    1. the pool: says which rows may be kept, and why the others may not
    bins.py    cuts a column of numbers into ranges, to be used as groups
    strata.py  2. the strata: divides the pool into parts that each get a quota
    quotas.py  3. the quotas: says how many records each stratum keeps
    orders.py  4. the order: says which rows of a stratum come first
    near.py    passes over near-duplicates of rows that are kept
    select.py  does all of it: candidates and a rule in, a selection out
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
