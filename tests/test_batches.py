"""The division of work: every row once, within the budget, the same whoever works it out."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real import real

from curate.runs.processes import chunks_of_rank
from curate.scoring.batches import MAX_CHUNKS, BatchPlan, auto_tokens_per_batch, imbalance, plan_batches

lengths_of_all = st.lists(st.integers(1, 60), min_size=0, max_size=150).map(lambda lengths: np.array(lengths, np.int32))
budgets = st.integers(1, 200)


def some_rows(lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Two rows in three, as if the others were not to be scored."""
    return np.array([row for row in range(len(lengths)) if row % 3], np.int64)


def batches_of(plan: BatchPlan) -> list[list[int]]:
    return [plan.rows_of_batch(batch).tolist() for batch in range(len(plan.batches) - 1)]


@settings(deadline=None)
@given(lengths_of_all, budgets)
def test_every_row_is_in_exactly_one_batch_and_no_other_row_is(lengths: npt.NDArray[np.int32], budget: int) -> None:
    rows = some_rows(lengths)
    batches = batches_of(plan_batches(rows, lengths[rows], budget))
    assert sorted(row for batch in batches for row in batch) == rows.tolist()
    assert all(batches)


@settings(deadline=None)
@given(lengths_of_all, budgets)
def test_rows_come_longest_first_and_ties_by_row(lengths: npt.NDArray[np.int32], budget: int) -> None:
    order = plan_batches(some_rows(lengths), lengths[some_rows(lengths)], budget).order.tolist()
    assert order == sorted(order, key=lambda row: (-lengths[row], row))


@settings(deadline=None)
@given(lengths_of_all, budgets)
def test_a_batch_keeps_the_budget_and_the_padding_low_and_could_not_be_larger(
    lengths: npt.NDArray[np.int32], budget: int
) -> None:
    batches = batches_of(plan_batches(some_rows(lengths), lengths[some_rows(lengths)], budget))
    for number, batch in enumerate(batches):
        longest = max(lengths[batch])
        assert len(batch) == 1 or len(batch) * longest <= budget
        padding = len(batch) * longest - sum(lengths[batch])
        assert padding <= len(batch) * longest / 16 or len(batch) * longest <= budget // 4
        if number < len(batches) - 1:
            longer = [*batch, batches[number + 1][0]]
            padding = len(longer) * longest - sum(lengths[longer])
            full, padded = len(longer) * longest > budget, padding > len(longer) * longest / 16
            assert full or (padded and len(longer) * longest > budget // 4)


@settings(deadline=None)
@given(lengths_of_all, budgets, st.integers(0, 9))
def test_the_order_in_which_rows_are_given_does_not_matter(
    lengths: npt.NDArray[np.int32], budget: int, seed: int
) -> None:
    rows = some_rows(lengths)
    shuffled = np.random.default_rng(seed).permutation(rows)
    assert batches_of(plan_batches(shuffled, lengths[shuffled], budget)) == batches_of(
        plan_batches(rows, lengths[rows], budget)
    )


@settings(deadline=None)
@given(lengths_of_all, budgets)
def test_chunks_cover_all_batches_in_order_and_cost_their_padded_tokens(
    lengths: npt.NDArray[np.int32], budget: int
) -> None:
    plan = plan_batches(some_rows(lengths), lengths[some_rows(lengths)], budget)
    batches = batches_of(plan)
    chunks = [range(plan.chunks[c], plan.chunks[c + 1]) for c in range(plan.num_chunks)]
    assert [b for chunk in chunks for b in chunk] == list(range(len(batches)))
    assert all(len(chunk) for chunk in chunks)
    for c, chunk in enumerate(chunks):
        assert plan.rows_of_chunk(c).tolist() == [row for b in chunk for row in batches[b]]
        assert plan.chunk_costs[c] == sum(len(batches[b]) * max(lengths[batches[b]]) for b in chunk)


@pytest.mark.parametrize("num_rows", [MAX_CHUNKS - 1, MAX_CHUNKS, MAX_CHUNKS + 1, 5 * MAX_CHUNKS + 7])
def test_there_are_never_more_than_the_largest_number_of_chunks(num_rows: int) -> None:
    plan = plan_batches(np.arange(num_rows), np.full(num_rows, 10), 10)
    assert len(plan.batches) - 1 == num_rows
    assert plan.num_chunks <= MAX_CHUNKS
    assert (plan.num_chunks == num_rows) == (num_rows <= MAX_CHUNKS)


def test_a_plan_of_nothing_is_empty() -> None:
    plan = plan_batches(np.zeros(0, np.int64), np.zeros(0, np.int64), 100)
    assert (len(plan.order), plan.num_chunks, len(plan.chunk_costs)) == (0, 0, 0)
    assert imbalance(plan.chunk_costs, 3) == 1.0


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 400))
def test_the_processes_divide_the_chunks_between_them(num_chunks: int, num_processes: int) -> None:
    shares = [chunks_of_rank(num_chunks, rank, num_processes) for rank in range(num_processes)]
    assert sorted(chunk for share in shares for chunk in share) == list(range(num_chunks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_imbalance_by_hand() -> None:
    costs = np.array([8.0, 6.0, 4.0, 2.0])
    assert imbalance(costs, 1) == 1.0
    assert imbalance(costs, 2) == 1.2  # 12 and 8
    assert imbalance(costs, 3) == 1.5  # 10, 6 and 4
    assert imbalance(costs, 8) == 3.2  # four have nothing to do


@settings(deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=80), st.integers(1, 12))
def test_strides_of_sorted_chunks_differ_by_at_most_the_dearest(costs: list[int], num_processes: int) -> None:
    sorted_costs = np.array(sorted(costs, reverse=True), float)
    shares = [sorted_costs[list(chunks_of_rank(len(costs), r, num_processes))].sum() for r in range(num_processes)]
    assert max(shares) - min(shares) <= sorted_costs[0]
    assert imbalance(sorted_costs, num_processes) == pytest.approx(max(shares) / np.mean(shares))


@pytest.mark.parametrize(("num_processes", "most"), [(2, 1.02), (4, 1.03), (8, 1.06), (16, 1.15), (64, 1.6)])
def test_real_records_are_divided_evenly(num_processes: int, most: float) -> None:
    records = json.loads(real("data/alpaca_9k.json").read_text(encoding="utf-8"))
    characters = np.array([sum(len(record[key]) for key in ("instruction", "input", "output")) for record in records])
    tokens = 60 + characters // 3  # a template and a small tokenizer
    plan = plan_batches(np.arange(len(tokens)), tokens, auto_tokens_per_batch(device_type="cpu"))
    assert 1.0 <= imbalance(plan.chunk_costs, num_processes) <= most
