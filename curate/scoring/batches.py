"""The batch plan: which records are computed together, in which order, and by which process.

The plan depends only on the tokens and on one number, the budget of a batch. So every process computes the same plan by
itself, and a resumed run finds the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.scoring.prefixes import Prefix, shared_prefixes
from curate.types import STATUSES, FloatArray, IntArray, TokenStore

MAX_CHUNKS = 1024
# Among few records, neighbours in length still differ much. So a batch ends before more than 1/16 of it is padding, but
# not before it has used 1/4 of its budget.
_MOST_PADDING = 1 / 16
_LEAST_FILLED = 4
# Tokens that a batch may attend to, prefixes included, in budgets: attention copies the prefix's keys and values for
# every record, one layer at a time.
_MOST_SEEN = 8
_AUTO = {"cuda": 16_384, "cpu": 2_048}


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Batches of records of similar length, grouped into chunks; a chunk is stored, and resumed, as a whole.

    order        int32 [R]: the rows to score, prefix by prefix, longest first, ties by row
    batches      int64 [B + 1]: batch b is order[batches[b]:batches[b + 1]]
    prefix_ids   int16 [B]: index into `prefixes` of the prefix that all rows of a batch begin with, -1 for none
    costs        int64 [B], padded tokens of each batch, prefixes not counted
    chunks       int64 [C + 1]: chunk c is made of batches chunks[c] to chunks[c + 1] - 1
    chunk_costs  float64 [C], padded tokens of each chunk
    prefixes     the shared prefixes, int32 token ids each
    """

    order: npt.NDArray[np.int32]
    batches: IntArray
    prefix_ids: npt.NDArray[np.int16]
    costs: IntArray
    chunks: IntArray
    chunk_costs: FloatArray
    prefixes: tuple[Prefix, ...] = ()

    @property
    def num_chunks(self) -> int:
        """C, the number of chunks."""
        return len(self.chunks) - 1

    def rows_of_batch(self, batch: int) -> IntArray:
        """Return the rows of a batch, longest first: int64."""
        return self.order[self.batches[batch] : self.batches[batch + 1]].astype(np.int64)

    @property
    def heaviest(self) -> int:
        """The batch that attends to the most tokens, prefixes included: it needs the most memory."""
        prefix_lengths = np.array([*map(len, self.prefixes), 0])[self.prefix_ids]  # index -1, no prefix, is the last
        return int(np.argmax(self.costs + np.diff(self.batches) * prefix_lengths))

    def rows_of_chunk(self, chunk: int) -> IntArray:
        """Return the rows of all batches of a chunk: int64."""
        return self.order[self.batches[self.chunks[chunk]] : self.batches[self.chunks[chunk + 1]]].astype(np.int64)


def plan_batches_of(store: TokenStore, tokens_per_batch: int, *, reuse_prefixes: bool) -> BatchPlan:
    """Plan the batches for all records of a token store that are to be scored.

    With `reuse_prefixes`, records that share a prefix are batched together, so that the prefix is computed once.
    """
    rows = np.flatnonzero(store.rows["status"] == STATUSES.index("scored"))
    if not reuse_prefixes:
        return plan_batches(rows, store.rows["needed"][rows], tokens_per_batch)
    prefixes, prefix_ids = shared_prefixes(store, rows)
    skipped = np.array([*map(len, prefixes), 0], np.int32)  # prefix_id -1 is the last
    lengths = store.rows["needed"][rows] - skipped[prefix_ids]
    return plan_batches(rows, lengths, tokens_per_batch, prefix_ids=prefix_ids, prefixes=prefixes)


def plan_batches(
    rows: IntArray,
    lengths: npt.NDArray[np.integer],
    tokens_per_batch: int,
    *,
    prefix_ids: npt.NDArray[np.integer] | None = None,
    prefixes: Sequence[Prefix] = (),
) -> BatchPlan:
    """Sort rows by length and cut them into batches of at most `tokens_per_batch` padded tokens (or one record).

    R records whose longest has T tokens make R * T padded tokens. A batch ends earlier where more than 1/16 of it would
    be padding, unless less than 1/4 of the budget is used. The batches form at most MAX_CHUNKS chunks, each of the same
    number of batches but the last.

    Args:
        rows: int [R], the rows to score.
        lengths: int [R], tokens to compute for each row, its prefix not counted.
        tokens_per_batch: the budget of a batch, in padded tokens.
        prefix_ids: int [R], each row's index into `prefixes`, -1 for none; None: no row has a prefix. A batch never
            holds rows with different prefixes.
        prefixes: the shared prefixes. A batch may attend to 8 budgets of tokens, prefixes included.

    With a budget of 9 tokens, the record of 9 tokens fills a batch, and two records of 4 (or of 3) share one:

    >>> plan = plan_batches(np.arange(5), np.array([3, 9, 4, 3, 4]), 9)
    >>> [plan.rows_of_batch(b).tolist() for b in range(3)]
    [[1], [2, 4], [0, 3]]
    """
    top = int(lengths.max(initial=0))
    place = _packed_sort(rows, lengths, prefix_ids, top)
    order = place.astype(np.int32)  # the lower half: the rows
    place >>= 32  # the upper half: prefix and length
    cuts, costs, prefix_of = _cut_all(place, top, tokens_per_batch, prefixes)
    num_batches = len(costs)
    # A chunk is a file: few files for ten million records, a batch a chunk (little work to lose) for ten thousand.
    per_chunk = max(1, -(-num_batches // MAX_CHUNKS))
    chunks = np.append(np.arange(0, num_batches, per_chunk), num_batches).astype(np.int64)
    chunk_costs = np.add.reduceat(np.array(costs, float), chunks[:-1]) if num_batches else np.zeros(0)
    return BatchPlan(
        order,
        np.array(cuts, np.int64),
        np.array(prefix_of, np.int16),
        np.array(costs, np.int64),
        chunks,
        chunk_costs,
        tuple(prefixes),
    )


def _packed_sort(
    rows: IntArray, lengths: npt.NDArray[np.integer], prefix_ids: npt.NDArray[np.integer] | None, top: int
) -> IntArray:
    """Return the rows in the order of the plan, packed with their sort keys: int64 [R]; `top` is the largest length."""
    # The three sort keys (prefix, then longest first, then row) are packed into one int64 each and sorted in place,
    # since np.lexsort takes three times the memory. With top = 9, row 2 of prefix 0 and length 4 becomes
    # ((0 + 1) * 10 + 9 - 4) << 32 | 2; without a prefix the factor is 0.
    place = np.zeros(len(rows), np.int64) if prefix_ids is None else prefix_ids.astype(np.int64) + 1
    place *= top + 1
    place += top
    place -= lengths
    assert place.max(initial=0) < 1 << 31
    place <<= 32
    place |= rows
    place.sort()
    return place


def _cut_all(
    place: IntArray, top: int, tokens_per_batch: int, prefixes: Sequence[Prefix]
) -> tuple[list[int], list[int], list[int]]:
    """Return where batches start and end, their padded tokens, and their prefix ids; `place` is prefix and length."""
    cuts, costs, prefix_of = [0], list[int](), list[int]()
    while cuts[-1] < len(place):
        prefix_id, less = divmod(int(place[cuts[-1]]), top + 1)
        end = int(np.searchsorted(place, (prefix_id + 1) * (top + 1)))
        longest_first = top - place[cuts[-1] : min(cuts[-1] + tokens_per_batch, end)] % (top + 1)
        prefix_length = len(prefixes[prefix_id - 1]) if prefix_id else 0
        cuts.append(cuts[-1] + _cut(longest_first, tokens_per_batch, prefix_length))
        costs.append((top - less) * (cuts[-1] - cuts[-2]))
        prefix_of.append(prefix_id - 1)
    return cuts, costs, prefix_of


def _cut(longest_first: IntArray, tokens_per_batch: int, prefix_length: int) -> int:
    """Return how many of these records make the next batch: as many as the budget and the padding allow."""
    longest = max(int(longest_first[0]), 1)
    seen = min(tokens_per_batch // longest, _MOST_SEEN * tokens_per_batch // (longest + prefix_length))
    most, least = (
        max(1, min(count, len(longest_first))) for count in (seen, tokens_per_batch // _LEAST_FILLED // longest)
    )
    padded = longest * np.arange(1, most + 1)
    filled = int(np.count_nonzero(padded - np.cumsum(longest_first[:most]) <= _MOST_PADDING * padded))
    return max(min(least, most), filled)


def auto_tokens_per_batch(*, device_type: str) -> int:
    """Return the budget of a batch, in padded tokens, for score.tokens_per_batch=auto.

    The values are fixed and not timed on the spot: a timing is noisy, and other batches change the last bits of the
    scores. On a CPU throughput was measured to be flat from 1,024 to 4,096 tokens for models of 0.3 to 70 million
    parameters and to fall beyond (tests/benchmarks/bench_score.py --batches). A GPU is busy long before its memory is
    full.
    """
    return _AUTO.get(device_type, _AUTO["cpu"])


def imbalance(chunk_costs: FloatArray, num_processes: int) -> float:
    """Divide the cost of the busiest process by the mean cost of a process: 1.0 is perfect.

    Process r of n computes the chunks r, r + n, r + 2n, ... An empty plan gives 1.0.

    >>> imbalance(np.array([4.0, 2.0]), 2)
    1.3333333333333333
    """
    total = float(chunk_costs.sum())
    busiest = max(float(chunk_costs[rank::num_processes].sum()) for rank in range(num_processes))
    return busiest * num_processes / total if total else 1.0
