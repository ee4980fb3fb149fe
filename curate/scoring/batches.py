"""The batch plan: which records are computed together, in which order, and by which process.

The plan follows from the lengths and one number, so every process works it out for itself and comes to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.scoring.prefixes import Prefix, shared_prefixes
from curate.types import STATUSES, FloatArray, IntArray, TokenStore

MAX_CHUNKS = 1024
# Where records are few, their lengths differ within a batch: it ends before more than a sixteenth is padding, unless it
# is not a quarter full by then.
_MOST_PADDING = 1 / 16
_LEAST_FILLED = 4
# Every record's attention sees the keys of what it begins with, and holds a copy of them for one layer at a time.
_MOST_SEEN = 8
_AUTO = {"cuda": 16_384, "cpu": 2_048}


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Batches of records of like length, grouped into chunks that are stored and resumed as one.

    order        int32 [R]: the rows to score, prefix by prefix, longest first, ties by row
    batches      int64 [B + 1]: batch b is order[batches[b]:batches[b + 1]]
    prefix_ids   int16 [B]: the prefix that all rows of a batch begin with, -1 for none
    costs        int64 [B], in padded tokens
    chunks       int64 [C + 1]: chunk c is made of batches chunks[c] to chunks[c + 1] - 1
    chunk_costs  float64 [C], in padded tokens
    prefixes     what all rows with prefix 0, 1, ... begin with; not counted in costs
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
        """C."""
        return len(self.chunks) - 1

    def rows_of_batch(self, batch: int) -> IntArray:
        """Rows of a batch, longest first."""
        return self.order[self.batches[batch] : self.batches[batch + 1]].astype(np.int64)

    @property
    def heaviest(self) -> int:
        """The batch whose records see most tokens, prefixes included."""
        prefix_lengths = np.array([*map(len, self.prefixes), 0])[self.prefix_ids]
        return int(np.argmax(self.costs + np.diff(self.batches) * prefix_lengths))

    def rows_of_chunk(self, chunk: int) -> IntArray:
        """Rows of all batches of a chunk."""
        return self.order[self.batches[self.chunks[chunk]] : self.batches[self.chunks[chunk + 1]]].astype(np.int64)


def plan_batches_of(store: TokenStore, tokens_per_batch: int, *, reuse_prefixes: bool) -> BatchPlan:
    """The plan for all records of a token store that are to be scored.

    With `reuse_prefixes`, records that begin alike are batched together, so that their prefix may be computed once.
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

    A batch of R records whose longest has T tokens has R * T padded tokens; it is cut short where more than a sixteenth
    of them, beyond the first quarter of the budget, would be padding. At most MAX_CHUNKS chunks of equally
    many batches: few files for ten million records, one batch a chunk for ten thousand.

    Args:
        rows: int [R], the rows to score.
        lengths: int [R], how many tokens of each are to be computed: without its prefix.
        tokens_per_batch: the budget.
        prefix_ids: int [R] from -1, of each row; a batch never holds rows of two prefixes. None: no prefix is shared.
        prefixes: number 0, 1, ...; their tokens, which every record of a batch attends to, may be 8 times the
            budget together with those that are computed.

    >>> plan = plan_batches(np.arange(5), np.array([3, 9, 4, 3, 4]), 9)
    >>> [plan.rows_of_batch(b).tolist() for b in range(3)]
    [[1], [2, 4], [0, 3]]
    """
    top = int(lengths.max(initial=0))
    # Prefix, then length from the longest, then row, in one number each, sorted in place: a sort by several keys would
    # hold three times as much.
    place = np.zeros(len(rows), np.int64) if prefix_ids is None else prefix_ids.astype(np.int64) + 1
    place *= top + 1
    place += top
    place -= lengths
    assert place.max(initial=0) < 1 << 31
    place <<= 32
    place |= rows
    place.sort()
    order = place.astype(np.int32)  # the lower half
    place >>= 32
    cuts, costs, prefix_of = [0], [], []
    while cuts[-1] < len(place):
        prefix_id, less = divmod(int(place[cuts[-1]]), top + 1)
        end = int(np.searchsorted(place, (prefix_id + 1) * (top + 1)))
        longest_first = top - place[cuts[-1] : min(cuts[-1] + tokens_per_batch, end)] % (top + 1)
        prefix_length = len(prefixes[prefix_id - 1]) if prefix_id else 0
        cuts.append(cuts[-1] + _cut(longest_first, tokens_per_batch, prefix_length))
        costs.append((top - less) * (cuts[-1] - cuts[-2]))
        prefix_of.append(prefix_id - 1)
    num_batches = len(costs)
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


def _cut(longest_first: IntArray, tokens_per_batch: int, prefix_length: int) -> int:
    """How many of these records make the next batch: as many as the budget and the padding allow."""
    longest = max(int(longest_first[0]), 1)
    seen = min(tokens_per_batch // longest, _MOST_SEEN * tokens_per_batch // (longest + prefix_length))
    most, least = (
        max(1, min(count, len(longest_first))) for count in (seen, tokens_per_batch // _LEAST_FILLED // longest)
    )
    padded = longest * np.arange(1, most + 1)
    filled = int(np.count_nonzero(padded - np.cumsum(longest_first[:most]) <= _MOST_PADDING * padded))
    return max(min(least, most), filled)


def auto_tokens_per_batch(*, device_type: str) -> int:
    """Padded tokens in a batch when nobody says.

    On a CPU throughput is flat from 1,024 to 4,096 tokens for models of 0.3 to 70 million parameters, and falls
    beyond (tests/benchmarks/bench_score.py --batches); a value timed on the spot would be noise, and would change the
    batches, and with them the last bits, from run to run. A GPU is busy long before its memory is full.
    """
    return _AUTO.get(device_type, _AUTO["cpu"])


def imbalance(chunk_costs: FloatArray, num_processes: int) -> float:
    """Cost of the busiest process over the mean: 1.0 is perfect; 1.0 for an empty plan.

    >>> imbalance(np.array([4.0, 2.0]), 2)
    1.3333333333333333
    """
    total = float(chunk_costs.sum())
    busiest = max(float(chunk_costs[rank::num_processes].sum()) for rank in range(num_processes))
    return busiest * num_processes / total if total else 1.0
