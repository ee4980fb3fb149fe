"""Tokens on disk: what was written comes back, and what follows from it is worked out right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.tokens.store import open_tokens, write_tokens
from curate.types import CONTEXT, END, SCORED, STATUSES, Tokens


def tokens(row: int, marks: Sequence[int], status: str = "scored") -> Tokens:
    """A record whose token ids tell row and position."""
    ids = 1000 * row + np.arange(len(marks))
    digest = hashlib.sha256(str(row).encode()).hexdigest()
    return Tokens(row, digest, status, row % 2 == 1, ids.astype(np.int32), np.array(marks, np.uint8), 3 * row)


marks_of_all = st.lists(
    st.lists(st.sampled_from([CONTEXT, SCORED, END]), max_size=12).map(lambda marks: [CONTEXT, *marks]), max_size=12
)


@settings(deadline=None)
@given(marks_of_all)
def test_what_was_written_comes_back(marks: list[list[int]]) -> None:
    records = [
        tokens(row, m, "scored") if SCORED in m else tokens(row, [], STATUSES[1 + row % 3])
        for row, m in enumerate(marks)
    ]
    with TemporaryDirectory() as folder:
        assert list(write_tokens(iter(records), Path(folder, "a", "b"))) == list(range(1, len(records) + 1))
        table = open_tokens(Path(folder, "a", "b"))
        assert len(table) == len(records)
        for record in records:
            found, span = table.rows[record.row], table.span(record.row)
            np.testing.assert_array_equal(table.input_ids[span], record.input_ids)
            np.testing.assert_array_equal(table.marks[span], record.marks)
            assert found["id"].item().hex() == record.id
            assert STATUSES[found["status"]] == record.status
            assert (found["truncated"], found["control_hits"]) == (record.truncated, record.control_hits)
            scored = [i for i, mark in enumerate(record.marks) if mark == SCORED]
            assert found["scored"] == len(scored)
            assert found["needed"] == (scored[-1] if scored else 0)
        del table  # unmaps the files


@pytest.mark.parametrize(
    ("marks", "needed", "scored"),
    [
        ([CONTEXT, SCORED], 1, 1),  # the one token before it
        ([CONTEXT, CONTEXT, SCORED, SCORED, END], 3, 2),  # the last scored token is only a target
        ([CONTEXT, SCORED, END, CONTEXT, CONTEXT, SCORED, END, CONTEXT], 5, 2),
    ],
)
def test_a_model_must_see_all_before_the_last_scored_token(
    marks: list[int], needed: int, scored: int, tmp_path: Path
) -> None:
    list(write_tokens([tokens(0, marks)], tmp_path / "tokens"))
    table = open_tokens(tmp_path / "tokens")
    assert table.rows[["needed", "scored", "end"]].tolist() == [(needed, scored, len(marks))]


def test_no_records_make_an_empty_table(tmp_path: Path) -> None:
    assert list(write_tokens([], tmp_path / "tokens")) == []
    table = open_tokens(tmp_path / "tokens")
    assert (len(table), len(table.input_ids), len(table.marks)) == (0, 0, 0)


def test_records_without_tokens_have_empty_spans(tmp_path: Path) -> None:
    list(write_tokens([tokens(0, [], "bad_record"), tokens(1, [0, 1]), tokens(2, [], "too_long")], tmp_path / "tokens"))
    table = open_tokens(tmp_path / "tokens")
    assert [table.span(row) for row in range(3)] == [slice(0, 0), slice(0, 2), slice(2, 2)]


def test_our_own_mistakes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="in order"):
        list(write_tokens([tokens(1, [0, 1])], tmp_path / "a"))
    with pytest.raises(AssertionError, match="nothing predicts the first token"):
        list(write_tokens([tokens(0, [SCORED, SCORED])], tmp_path / "b"))
