"""Finds prefixes: tokens that many records begin with (a template's preamble, a system prompt, a chat header).

A causal decoder's keys and values for a prefix do not depend on what follows. So they can be computed once instead of
once a record. A quarter of all tokens of an Alpaca-style data set stand in such a prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from curate.types import SCORED, IntArray, TokenStore

Prefix = npt.NDArray[np.int32]

# A prefix pays if it is 8 tokens longer than the one that it extends and one record in 32 (and 16 records) has it.
_LEAST_TOKENS = 8
_LEAST_FRACTION = 32
_LEAST_RECORDS = 16
_MOST_TOKENS = 1024  # longer ones are cut there
# A record more than 8 times as long as its prefix gains little, and with a prefix cache attention needs a mask, which
# rules out its fastest kernel.
_MOST_TIMES = 8
_SAMPLE = 2_048  # records that candidates are taken from
_BLOCK = 8_192  # records that are compared with a prefix in one go


def shared_prefixes(store: TokenStore, rows: IntArray) -> tuple[list[Prefix], npt.NDArray[np.int16]]:
    """Find the prefixes that many of `rows` share, longest first, and the index of each row's: int16 [R], -1 for none.

    A prefix ends before the first position that predicts a scored token, so no score depends on its logits. The
    candidates come from a sample evenly spaced over the rows, so the same store and rows give the same result.
    """
    chosen = np.full(len(rows), -1, np.int16)
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.int64)] if len(rows) else rows
    sequences = sorted(_usable(store, int(row)) for row in sample)
    found: list[Prefix] = []
    least = max(_LEAST_RECORDS, len(rows) // _LEAST_FRACTION)
    candidates = set(common_prefixes(sequences, at_least=max(2, len(sequences) // (2 * _LEAST_FRACTION))))
    for candidate in sorted(candidates, key=lambda tokens: (-len(tokens), tokens)):
        prefix = np.array(candidate, np.int32)
        matching = _begin_with(store, rows, chosen < 0, prefix)
        if np.count_nonzero(matching) >= least:
            chosen[matching] = len(found)
            found.append(prefix)
    return found, chosen


def common_prefixes(sequences: Sequence[tuple[int, ...]], *, at_least: int) -> Iterator[tuple[int, ...]]:
    """Yield the prefixes that `at_least` of the sorted sequences share, each 8 tokens longer than the one it extends.

    Where the sequences part, each branch that `at_least` of them take is followed further.

    Four sequences begin with the same 8 tokens; two of them go on with the same 8:

    >>> header, system = (1, 2, 3, 4, 5, 6, 7, 8), (9,) * 8
    >>> sequences = sorted([header, (*header, 1), (*header, *system, 2), (*header, *system, 3)])
    >>> [len(prefix) for prefix in common_prefixes(sequences, at_least=2)]
    [8, 16]
    >>> [len(prefix) for prefix in common_prefixes(sequences, at_least=3)]
    [8]
    """
    open_branches = [(list(sequences), 0)]
    while open_branches:
        branch, known_length = open_branches.pop()
        if len(branch) < at_least:
            continue
        common = _common(branch[0], branch[-1])  # sorted: what the first and the last share, all between share
        if len(common) - known_length >= _LEAST_TOKENS:
            yield common
            known_length = len(common)
        longer = [s for s in branch if len(s) > len(common)]
        for _, part in groupby(longer, key=itemgetter(len(common))):
            open_branches.append((list(part), known_length))


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the longest prefix of both."""
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:length]


def _usable(store: TokenStore, row: int) -> tuple[int, ...]:
    """Return the tokens of a row that may stand in a prefix."""
    span = store.span(row)
    # The position just before the first scored token predicts it: its hidden state is needed, so it is left out too.
    first_scored = int(np.argmax(store.marks[span] == SCORED))
    ids = store.input_ids[span.start : span.start + min(max(first_scored - 1, 0), _MOST_TOKENS)]
    return tuple(ids.tolist())


def _begin_with(
    store: TokenStore, rows: IntArray, free: npt.NDArray[np.bool_], prefix: Prefix
) -> npt.NDArray[np.bool_]:
    """Mark the free rows that begin with the prefix, have no scored token predicted by it, and gain by it: bool [R]."""
    length, needed = len(prefix), store.rows["needed"]
    out = np.zeros(len(rows), bool)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        fits = free[start : start + _BLOCK] & (needed[part] > length) & (needed[part] <= _MOST_TIMES * length)
        part = part[fits]
        starts = np.where(part > 0, store.rows["end"][part - 1], 0)
        at = starts[:, None] + np.arange(length + 1)
        same = (store.input_ids[at[:, :-1]] == prefix).all(1) & (store.marks[at] != SCORED).all(1)
        out[start : start + _BLOCK][fits] = same
    return out
