"""Computes one part of a score: sequences through one or several subnets, in chunks that the processes share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.pipeline.job import Job
from curate.runs.processes import chunks_of_rank
from curate.scoring.batches import BatchPlan
from curate.scoring.score import join_scores
from curate.tables.chunks import read_chunk, write_chunk
from curate.types import STATUSES, BatchScores, CurateError, TokenStore

logger = logging.getLogger(__name__)

MAX_NON_FINITE = 0.01
"""The fraction of records whose scores may be NaN or infinite before a pass is refused."""
_NON_FINITE = STATUSES.index("non_finite")

BatchFunction = Callable[[int], BatchScores]
"""From the number of a batch to its scores."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is computed: every batch of a plan, once in every subnet.

    A subnet is the scoring model itself, or a part of it: with masked weights, or with dropout.

    name         name of its progress bar
    folder       where its chunks are until they are published
    store        the sequences
    plan         their batches; C chunks
    num_subnets  S; chunk s * C + c of this part holds the records of chunk c of the plan, computed in subnet s
    subnet       opens subnet s, and gives a function from the number of a batch to its scores
    columns      how many numbers each subnet gives a record: more than 1 where one subnet call computes several
    """

    name: str
    folder: Path
    store: TokenStore
    plan: BatchPlan
    num_subnets: int
    subnet: Callable[[int], AbstractContextManager[BatchFunction]]
    columns: int = 1

    @property
    def forwards(self) -> int:
        """How many forward passes every record takes."""
        return self.num_subnets * self.columns

    @property
    def num_tokens(self) -> int:
        """Tokens of the records, as often as there are forward passes; padding does not count, shared prefixes do."""
        return int(self.store.rows["needed"][self.plan.order].sum(dtype=np.int64)) * self.forwards

    @property
    def num_chunks(self) -> int:
        """How many chunks there are in all subnets together."""
        return self.num_subnets * self.plan.num_chunks


def finished_chunks(job: Job, part: Part) -> list[int]:
    """Return the numbers of the chunks that an earlier call finished and that hold the records of this plan."""

    # The plan is not stored but made again by every call. Another version of this package may plan other chunks.
    def read(path: Path) -> None:
        number = int(path.stem)
        if number >= part.num_chunks:
            raise ValueError("no such chunk")
        if not np.array_equal(read_chunk(path).rows, part.plan.rows_of_chunk(number % part.plan.num_chunks)):
            raise ValueError("not the records of this chunk")

    return job.launch.finished_chunks(part.folder, read)


def compute_part(job: Job, part: Part, finished: Collection[int]) -> list[Path]:
    """Compute the chunks of this process that are not finished, and return the files of all chunks.

    Args:
        job: the job.
        part: what is computed.
        finished: the numbers of the chunks that an earlier call finished.

    Raises:
        CurateError: more than 1 % of the scores are not finite.
    """
    plan, processes = part.plan, job.launch.processes
    # Progress is shown in tokens of the records, as the closing line counts them. How much of them is done follows from
    # padded tokens without prefixes, which take the time, and from those of this process: the others do as many.
    own = chunks_of_rank(part.num_chunks, processes.rank, processes.count)
    work, done = (
        int(sum(plan.chunk_costs[chunk % plan.num_chunks] for chunk in chunks))
        for chunks in (own, [chunk for chunk in own if chunk in finished])
    )
    non_finite, warned, opened, num_tokens = 0, False, -1, part.num_tokens
    scores_of: BatchFunction | None = None
    with ExitStack() as stack:

        def compute(chunk: int) -> BatchScores:
            nonlocal done, non_finite, warned, opened, scores_of
            subnet, number = divmod(chunk, plan.num_chunks)
            # Opening a subnet may mask all weights of the model. Chunks are numbered subnet by subnet, so every subnet
            # is opened at most once.
            if subnet != opened or scores_of is None:
                stack.close()
                scores_of, opened = stack.enter_context(part.subnet(subnet)), subnet
            parts = []
            for batch in range(plan.chunks[number], plan.chunks[number + 1]):
                scores = scores_of(batch)
                parts.append(scores)
                done, non_finite = done + int(plan.costs[batch]), non_finite + int((scores.status == _NON_FINITE).sum())
                job.launch.advance(part.name, round(num_tokens * done / work), num_tokens, "tokens")
            # After every chunk, not at the end: a wrong dtype shows in the first minutes of hours.
            refuse_non_finite(job, part.folder, non_finite, part.num_subnets * len(part.store))
            joined = join_scores(parts)
            if joined.split and not warned:
                warned = True
                logger.warning("out of memory: batches that do not fit are halved (score.tokens_per_batch)")
            return joined

        return job.launch.compute_chunks(part.folder, part.num_chunks, compute, write_chunk, finished=finished)


def stored_chunks(job: Job, paths: list[Path], split: list[int]) -> Iterator[BatchScores]:
    """Yield the content of chunks, one by one, and append to `split` the numbers of those that ran out of memory."""
    for number, path in enumerate(paths):
        scores = read_chunk(path)
        if scores.split:
            split.append(number)
        job.launch.heartbeat.beat()
        yield scores


def refuse_non_finite(job: Job, folder: Path, count: int, total: int) -> None:
    """Refuse a pass if more than 1 % of its scores are not finite.

    Args:
        job: the job.
        folder: where the chunks of the pass are.
        count: scores that are not finite.
        total: all scores.

    Raises:
        CurateError: more than 1 % are not finite; it advises another dtype.
    """
    if count <= MAX_NON_FINITE * total:
        return
    # Only the key is removed, so that the next call may use another dtype. The chunks stay, since other processes may
    # still be writing there; without a key the next call discards them.
    (folder / "key.json").unlink(missing_ok=True)
    raise CurateError(
        f"{count} of {total} records have scores that are not finite (at most {MAX_NON_FINITE:.0%} are allowed): "
        f"model.dtype={job.recipe.model.dtype} overflows; use model.dtype=bfloat16 or float32"
    )
