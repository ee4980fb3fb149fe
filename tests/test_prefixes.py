"""Beginnings that records share: what is found is really shared, holds nothing scored, and is worth a group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from real import real
from transformers import AutoTokenizer

from curate.config import Data
from curate.read.examples import read_examples
from curate.read.files import open_source
from curate.scoring.batches import BatchPlan, plan_batches_of
from curate.scoring.prefixes import common_prefixes, shared_prefixes
from curate.tokens.store import open_tokens, write_tokens
from curate.tokens.tokenize import tokenize
from curate.types import CONTEXT, SCORED, STATUSES, Status, Tokens, TokenStore

Row = tuple[list[int], list[int]]  # prompt, response


def table_of(rows: Sequence[Row], folder: Path, *, status: Sequence[Status] = ()) -> TokenStore:
    statuses = [*status, *["scored"] * (len(rows) - len(status))]
    records = []
    for number, ((prompt, response), its) in enumerate(zip(rows, statuses, strict=True)):
        marks = [CONTEXT] * len(prompt) + [SCORED] * len(response)
        ids = np.array([*prompt, *response], np.int32) if its == "scored" else np.zeros(0, np.int32)
        records.append(Tokens(number, f"{number:064x}", its, False, ids, np.array(marks[: len(ids)], np.uint8)))
    list(write_tokens(records, folder / "tokens"))
    return open_tokens(folder / "tokens")


def found(rows: Sequence[Row]) -> tuple[list[list[int]], list[int]]:
    with TemporaryDirectory() as folder:
        prefixes, chosen = shared_prefixes(table_of(rows, Path(folder)), np.arange(len(rows)))
    return [b.tolist() for b in prefixes], chosen.tolist()


HEADER, OTHER = list(range(10, 30)), list(range(50, 62))


def rows_with(header: list[int], count: int, *, response: int = 3) -> list[Row]:
    return [([*header, 100 + row, 7], [5] * response) for row in range(count)]


def test_two_templates_by_hand() -> None:
    rows = [*rows_with(HEADER, 30), *rows_with(OTHER, 20), *[([9, 8, 3], [4, 4])] * 5]
    prefixes, chosen = found(rows)
    assert prefixes == [HEADER, OTHER]
    assert chosen == [0] * 30 + [1] * 20 + [-1] * 5


def test_a_longer_beginning_that_many_share_is_preferred_and_the_rest_keep_the_shorter() -> None:
    longer = [*HEADER, *OTHER]
    prefixes, chosen = found([*rows_with(longer, 20), *rows_with(HEADER, 20)])
    assert prefixes == [longer, HEADER]
    assert chosen == [0] * 20 + [1] * 20


def test_a_few_more_tokens_are_not_worth_another_group() -> None:
    prefixes, _ = found([*rows_with([*HEADER, 1, 2, 3], 20), *rows_with([*HEADER, 4, 5, 6], 20)])
    assert prefixes == [HEADER]


def test_what_few_records_share_or_is_short_is_left_alone() -> None:
    assert found(rows_with(HEADER, 15))[0] == []
    assert found(rows_with(HEADER[:7], 40))[0] == []
    assert found([*rows_with(HEADER, 16), *(([row % 90, row], [1, 2]) for row in range(600))])[0] == []  # 1 in 38
    assert found([]) == ([], [])


def test_the_position_that_predicts_the_first_scored_token_is_never_in_a_beginning() -> None:
    same = [(HEADER, [row, row]) for row in range(30)]  # the prompts are equal to the last token
    prefixes, chosen = found(same)
    assert prefixes == [HEADER[:-1]]
    assert set(chosen) == {0}
    short = [(HEADER[:9], [*HEADER[9:], row]) for row in range(10)]  # these begin so too, but score some of it
    assert found([*same, *short])[1][-10:] == [-1] * 10


def test_a_record_much_longer_than_its_beginning_is_computed_whole() -> None:
    assert set(found(rows_with(OTHER, 30, response=8 * len(OTHER) - len(OTHER) - 1))[1]) == {0}
    assert set(found(rows_with(OTHER, 30, response=8 * len(OTHER) - len(OTHER)))[1]) == {-1}


small = st.lists(st.integers(0, 2), max_size=4)
some_rows = st.lists(
    st.tuples(st.sampled_from([HEADER, OTHER, HEADER[:9], [*HEADER, *OTHER], []]), small, small, small), max_size=120
)


@settings(deadline=None, max_examples=60)
@given(some_rows, st.data())
def test_what_is_found_is_shared_unscored_and_worth_it_whatever_the_records(
    made: list[Any], data: st.DataObject
) -> None:
    rows = [([*header, *a, 1], [*b, 2, *c]) for header, a, b, c in made]
    skipped = data.draw(st.sets(st.integers(0, len(rows) - 1))) if rows else set()
    statuses: list[Status] = ["too_long" if row in skipped else "scored" for row in range(len(rows))]
    with TemporaryDirectory() as folder:
        table = table_of(rows, Path(folder), status=statuses)
        scored = np.flatnonzero(table.rows["status"] == STATUSES.index("scored"))
        prefixes, chosen = shared_prefixes(table, scored)
        plan = plan_batches_of(table, 64, reuse_prefixes=True)
    for row, group in zip(scored, chosen, strict=True):
        prompt, _ = rows[row]
        if group >= 0:
            prefix = prefixes[group].tolist()
            assert prompt[: len(prefix)] == prefix
            assert len(prefix) < len(prompt)
    sizes = np.bincount(chosen[chosen >= 0], minlength=len(prefixes))
    assert all(len(b) >= 8 for b in prefixes)
    assert (sizes >= max(16, len(scored) // 32)).all()
    assert [len(b) for b in prefixes] == sorted((len(b) for b in prefixes), reverse=True)
    planned = [(b, int(row)) for b in range(len(plan.costs)) for row in plan.rows_of_batch(b)]
    assert sorted(row for _, row in planned) == scored.tolist()
    group_of = dict(zip(scored.tolist(), chosen.tolist(), strict=True))
    assert all(plan.prefix_ids[b] == group_of[row] for b, row in planned), "a batch is of one group"
    assert_within_budget(table, plan, 64)


def assert_within_budget(table: TokenStore, plan: BatchPlan, budget: int) -> None:
    """What is computed keeps the budget, and with what is attended to it keeps eight times the budget."""
    for batch, group in enumerate(plan.prefix_ids):
        rows = plan.rows_of_batch(batch)
        before = len(plan.prefixes[group]) if group >= 0 else 0
        longest = int(table.rows["needed"][rows].max())
        assert plan.costs[batch] == len(rows) * (longest - before)
        assert len(rows) == 1 or (plan.costs[batch] <= budget and len(rows) * longest <= 8 * budget)


def test_a_long_beginning_does_not_make_batches_that_do_not_fit(tmp_path: Path) -> None:
    long = list(range(600))
    table = table_of([*rows_with(long, 400, response=1), *rows_with([], 50, response=40)], tmp_path)
    plan = plan_batches_of(table, 2_048, reuse_prefixes=True)
    assert [len(b) for b in plan.prefixes] == [600]
    assert_within_budget(table, plan, 2_048)
    sizes = np.diff(plan.batches)[plan.prefix_ids == 0]
    assert sizes.max() == 8 * 2_048 // 602
    assert plan.prefix_ids[plan.heaviest] == 0
    alone = plan_batches_of(table, 2_048, reuse_prefixes=False)
    assert (alone.prefix_ids == -1).all()
    assert alone.prefixes == ()
    assert_within_budget(table, alone, 2_048)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), max_size=20).map(tuple), max_size=12), st.integers(1, 4))
def test_common_beginnings_are_common_and_as_long_as_they_can_be(sequences: list[Any], at_least: int) -> None:
    for prefix in common_prefixes(sorted(sequences), at_least=at_least):
        sharers = [s for s in sequences if s[: len(prefix)] == prefix]
        assert len(sharers) >= at_least
        following = {s[len(prefix)] if len(s) > len(prefix) else None for s in sharers}
        assert len(following) > 1 or following == {None}, "all go on in the same way"
        assert len(prefix) >= 8


def test_every_long_common_beginning_of_all_is_found() -> None:
    for tail in itertools.product((1, 2), repeat=3):
        sequences = sorted([(*HEADER, *tail), (*HEADER, 9)])
        assert list(common_prefixes(sequences, at_least=2)) == [tuple(HEADER)]


def test_a_fifth_of_the_tokens_of_real_records_is_shared(tmp_path: Path) -> None:
    data = Data(path=str(real("data/alpaca_9k.json")), format="alpaca", limit=2_000)
    tokenizer = AutoTokenizer.from_pretrained(real("models/base-7m"))
    options = {"template": "alpaca", "system": None, "max_length": 1024, "too_long": "drop", "allow_tokens": ()}
    list(write_tokens(tokenize(read_examples(data, open_source(data)), tokenizer, **options), tmp_path / "tokens"))
    table = open_tokens(tmp_path / "tokens")
    plan = plan_batches_of(table, 2_048, reuse_prefixes=True)
    assert len(plan.prefixes) == 2, "with and without input"
    needed, computed = int(table.rows["needed"].sum()), int(plan.costs.sum())
    assert computed < 0.8 * needed, "padding included"
