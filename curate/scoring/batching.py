"""The batch plan: which records are computed together, in which order, and by which process.

The plan follows from the lengths and one number, so every process works it out for itself and comes to the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.types import FloatArray, IntArray

MAX_CHUNKS = 1024


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Batches of records of like length, grouped into chunks that are stored and resumed as one.

    order        int64 [R]: the rows to score, longest first, ties by row
    batches      int64 [B + 1]: batch b is order[batches[b]:batches[b + 1]]
    chunks       int64 [C + 1]: chunk c is made of batches chunks[c] to chunks[c + 1] - 1
    chunk_costs  float64 [C], in padded tokens
    """

    order: IntArray
    batches: IntArray
    chunks: IntArray
    chunk_costs: FloatArray

    @property
    def num_chunks(self) -> int:
        """C."""
        return len(self.chunks) - 1

    def rows_of_batch(self, batch: int) -> IntArray:
        """Rows of a batch, longest first."""
        return self.order[self.batches[batch] : self.batches[batch + 1]]

    def rows_of_chunk(self, chunk: int) -> IntArray:
        """Rows of all batches of a chunk."""
        return self.order[self.batches[self.chunks[chunk]] : self.batches[self.chunks[chunk + 1]]]


def plan_batches(rows: IntArray, lengths: IntArray, tokens_per_batch: int) -> BatchPlan:
    """Sort rows by length and cut them into batches of at most `tokens_per_batch` padded tokens (or one record).

    A batch of R records whose longest has T tokens has R * T padded tokens. At most MAX_CHUNKS chunks of equally
    many batches: few files for ten million records, one batch a chunk for ten thousand.

    >>> plan = plan_batches(np.arange(4), np.array([3, 9, 4, 3]), 9)
    >>> [plan.rows_of_batch(b).tolist() for b in range(3)]
    [[1], [2, 0], [3]]
    """
    order = rows[np.lexsort((rows, -lengths[rows]))]
    sorted_lengths = lengths[order]
    cuts, costs = [0], []
    while cuts[-1] < len(order):
        longest = int(sorted_lengths[cuts[-1]])
        count = max(1, tokens_per_batch // max(longest, 1))
        cuts.append(min(cuts[-1] + count, len(order)))
        costs.append(float(longest * (cuts[-1] - cuts[-2])))
    num_batches = len(costs)
    per_chunk = max(1, -(-num_batches // MAX_CHUNKS))
    chunks = np.append(np.arange(0, num_batches, per_chunk), num_batches).astype(np.int64)
    chunk_costs = np.add.reduceat(np.array(costs), chunks[:-1]) if num_batches else np.zeros(0)
    return BatchPlan(order, np.array(cuts, np.int64), chunks, chunk_costs)


def auto_tokens_per_batch(*, device_type: str) -> int:
    """Padded tokens in a batch when nobody says: the same on every machine with that type of device.

    Throughput is flat around these values (tests/benchmarks), and a batch that does not fit is halved; a value that
    was measured on the spot would change the batches, and with them the last bits, from run to run.
    """
    return 32_768 if device_type == "cuda" else 4_096


def chunks_of_rank(num_chunks: int, rank: int, num_processes: int) -> range:
    """The chunks a process computes: every num_processes-th of the whole plan, never of what is still to be done.

    Neighbouring chunks cost almost the same (they are sorted by length), so the processes finish together.
    """
    return range(rank, num_chunks, num_processes)


def imbalance(chunk_costs: FloatArray, num_processes: int) -> float:
    """Cost of the busiest process over the mean: 1.0 is perfect; 1.0 for an empty plan.

    >>> imbalance(np.array([4.0, 2.0]), 2)
    1.3333333333333333
    """
    total = float(chunk_costs.sum())
    busiest = max(float(chunk_costs[rank::num_processes].sum()) for rank in range(num_processes))
    return busiest * num_processes / total if total else 1.0
