"""The Parquet files between stages: what is written is read back, nulls are nulls, and no row is lost or doubled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.selection import REASONS, Candidates, Selection
from curate.tables.chunks import read_chunk, write_chunk
from curate.tables.clusters import read_clusters, write_clusters
from curate.tables.score_columns import read_about, read_column, read_rows
from curate.tables.scores import add_columns, write_rows, write_scores
from curate.tables.selection import read_kept, write_selection
from curate.types import CONTEXT, ROW, SCORED, STATUSES, BatchScores, CurateError, TokenStore

LAYERS, NUM_LAYERS = (1, 3), 3
STATUS = {name: code for code, name in enumerate(STATUSES)}
MANY = 70_000  # more than one row group of 65,536


def table_of(statuses: Sequence[str], *, ids: Sequence[int] | None = None) -> TokenStore:
    """Two context tokens and three scored ones for every row to score; row i has the id of ids[i]."""
    rows = np.zeros(len(statuses), ROW)
    scored = np.array([status == "scored" for status in statuses], bool)
    rows["end"] = np.cumsum(5 * scored)
    rows["scored"], rows["needed"] = 3 * scored, 4 * scored
    rows["status"] = [STATUS[status] for status in statuses]
    rows["truncated"] = np.arange(len(statuses)) % 2 == 1
    rows["id"] = [int(i).to_bytes(4, "big") + bytes(28) for i in (range(len(statuses)) if ids is None else ids)]
    marks = np.tile(np.array([CONTEXT] * 2 + [SCORED] * 3, np.uint8), int(scored.sum()))
    return TokenStore(np.zeros(len(marks), np.int32), marks, rows)


def scores_of(rows: Sequence[int] | npt.NDArray[np.int64], status: str = "scored") -> BatchScores:
    """Confidence (row % 8 + 1) / 16 at the first exit and twice that at the second; log_prob -row and -2 row % 100."""
    index = np.asarray(rows, np.int64)
    low = ((index % 8 + 1) / 16).astype(np.float32)
    confidence = np.stack([low, 2 * low], axis=1)
    log_prob = -np.stack([index % 100, 2 * index % 100], axis=1).astype(np.float32)
    if status != "scored":
        confidence, log_prob = np.full_like(confidence, np.nan), np.full_like(log_prob, np.nan)
    return BatchScores(index, np.full(len(index), STATUS[status], np.uint8), confidence, log_prob)


def small(folder: Path) -> Path:
    """Six rows: three scored (0, 2, 5), one not finite (3), one empty (1) and one over-long (4)."""
    table = table_of(["scored", "empty_response", "scored", "scored", "too_long", "scored"])
    chunks = [scores_of([5]), scores_of([3], "non_finite"), scores_of([2, 0])]
    counts = write_scores(folder / "scores.parquet", table, chunks, layers=LAYERS, num_layers=NUM_LAYERS)
    assert counts == {"scored": 3, "non_finite": 1, "empty_response": 1, "too_long": 1}
    return folder / "scores.parquet"


def test_rows_stand_in_input_order_whatever_the_order_of_the_chunks(tmp_path: Path) -> None:
    rows = pq.read_table(small(tmp_path)).to_pylist()
    assert [row["row"] for row in rows] == list(range(6))
    assert [row["id"] for row in rows] == [f"{i:08x}" + 56 * "0" for i in range(6)]
    assert [row["truncated"] for row in rows] == [False, True] * 3
    assert rows[2]["confidence"] == [3 / 16, 6 / 16]
    assert rows[2]["log_prob"] == [-2, -4]
    assert rows[2]["complexity"] == 1 - 9 / 32
    assert rows[2]["perplexity"] == pytest.approx(np.exp(4), rel=1e-15)
    assert (rows[2]["prompt_tokens"], rows[2]["response_tokens"]) == (2, 3)


def test_what_was_not_scored_is_null_and_never_a_number(tmp_path: Path) -> None:
    for row in pq.read_table(small(tmp_path)).to_pylist():
        values = {name: row[name] for name in row if name not in ("row", "id", "status", "truncated")}
        assert len(values) == 6
        assert all((value is not None) == (row["status"] == "scored") for value in values.values()), row


def test_the_metadata_says_which_exits_and_which_direction(tmp_path: Path) -> None:
    schema = pq.read_schema(small(tmp_path))
    about = json.loads(schema.metadata[b"curate"])
    assert list(read_about(tmp_path / "scores.parquet").exits) == about["exits"] == [1, 3]
    assert about["num_layers"] == 3
    assert "low = easy" in about["complexity"]


def test_perplexity_is_null_where_the_full_model_is_no_exit(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_scores(path, table_of(["scored"]), [scores_of([0])], layers=(1, 2), num_layers=3)
    assert pq.read_table(path)["perplexity"].null_count == 1
    assert np.isnan(read_column(path, "perplexity")).all()


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([[0, 1]], "1 rows were never scored"),
        ([[0, 1], [2, 1]], "a row was scored twice"),
        ([[0, 1], [2], [3]], "a row was scored twice"),  # row 3 was not to be scored at all
        ([], "3 rows were never scored"),
    ],
)
def test_a_row_that_is_missing_or_doubled_stops_publication(
    tmp_path: Path, chunks: list[list[int]], message: str
) -> None:
    path = tmp_path / "scores.parquet"
    table = table_of(["scored", "scored", "scored", "too_long"])
    with pytest.raises(AssertionError, match=message):
        write_scores(path, table, map(scores_of, chunks), layers=LAYERS, num_layers=NUM_LAYERS)
    assert list(tmp_path.iterdir()) == []


def test_what_a_selection_needs_is_read_back(tmp_path: Path) -> None:
    path = small(tmp_path)
    scores = read_rows(path)
    assert [STATUSES[code] for code in scores.status] == [
        "scored",
        "empty_response",
        "scored",
        "non_finite",
        "too_long",
        "scored",
    ]
    np.testing.assert_array_equal(
        read_column(path, "complexity"), [1 - 3 / 32, np.nan, 1 - 9 / 32, np.nan, np.nan, 1 - 18 / 32]
    )
    assert scores.response_tokens.tolist() == [3, 0, 3, 0, 0, 3]


def test_complexity_is_recomputed_from_a_subset_of_the_exits(tmp_path: Path) -> None:
    path = small(tmp_path)
    np.testing.assert_array_equal(
        read_column(path, "complexity", exits=[3]), [7 / 8, np.nan, 5 / 8, np.nan, np.nan, 1 / 4]
    )
    np.testing.assert_array_equal(read_column(path, "complexity", exits=(1, 3)), read_column(path, "complexity"))


@pytest.mark.parametrize("column", ["perplexity", "response_tokens", "prompt_tokens"])
def test_any_number_can_be_sorted_by(tmp_path: Path, column: str) -> None:
    path = small(tmp_path)
    expected = [np.nan if v is None else v for v in pq.read_table(path)[column].to_pylist()]
    np.testing.assert_array_equal(read_column(path, column), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "ifd"}, "the score columns are prompt_tokens, response_tokens, complexity, perplexity, got ifd"),
        ({"name": "confidence"}, "got confidence"),
        ({"name": "status"}, "got status"),
        ({"exits": [2]}, r"the stored exits are \[1, 3\], got \[2\]"),
        ({"exits": []}, "the stored exits are"),
        ({"exits": [1], "name": "perplexity"}, "does not go with select.by=perplexity"),
    ],
)
def test_a_column_or_exit_that_is_not_there_is_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = small(tmp_path)
    with pytest.raises(CurateError, match=message):
        read_column(path, **{"name": "complexity", **options})  # type: ignore[arg-type]


@given(st.lists(st.sampled_from([0, 1, 2, 255, 256, 65_536, 2**24, 2**31]), min_size=1, max_size=12))
@settings(deadline=None)
def test_records_with_one_id_form_a_group_and_others_none(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int]
) -> None:
    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    table, rows = table_of(["scored"] * len(ids), ids=ids), range(len(ids))
    write_scores(path, table, [scores_of(rows)], layers=LAYERS, num_layers=NUM_LAYERS)
    duplicate_ids = read_rows(path).duplicate_ids.tolist()
    for row in rows:
        same = [other for other in rows if ids[other] == ids[row]]
        assert [other for other in rows if duplicate_ids[other] == duplicate_ids[row] >= 0] == (
            same if len(same) > 1 else []
        )
    assert set(duplicate_ids) - {-1} == set(range(len({group for group in duplicate_ids if group >= 0})))


def test_more_rows_than_a_row_group_holds(tmp_path: Path) -> None:
    ids = np.arange(MANY)
    ids[[10, 66_000]] = 7  # two later copies of row 7, the second in another row group
    statuses = ["empty_response" if row % 7 == 3 else "scored" for row in range(MANY)]
    table = table_of(statuses, ids=ids.tolist())
    rows = np.flatnonzero(table.rows["status"] == 0)
    parts = np.array_split(np.random.default_rng(0).permutation(rows), 9)
    path = tmp_path / "scores.parquet"
    write_scores(path, table, map(scores_of, parts), layers=LAYERS, num_layers=NUM_LAYERS)
    assert pq.ParquetFile(path).num_row_groups == 2
    assert list(tmp_path.iterdir()) == [path]

    scores = read_rows(path)
    expected = np.where(table.rows["status"] == 0, 1 - 1.5 * (np.arange(MANY) % 8 + 1) / 16, np.nan)
    np.testing.assert_array_equal(read_column(path, "complexity"), expected)
    np.testing.assert_array_equal(scores.response_tokens, table.rows["scored"])
    np.testing.assert_array_equal(scores.status == 0, table.rows["status"] == 0)
    np.testing.assert_array_equal(scores.duplicate_ids, np.where(ids == 7, 0, -1))

    selection = Selection(ids % 3 == 0, (ids % 100 - 1).astype(np.int32), (ids % len(REASONS)).astype(np.uint8))
    labels = (ids % 11 - 1).astype(np.int32)
    table = Candidates(
        scores.status, scores.response_tokens, {}, clusters=labels, groups=ids % 3 - 1, group_names=("code", "chat")
    )
    write_selection(tmp_path / "selection.parquet", selection, table, scores_path=path)
    written = pq.read_table(tmp_path / "selection.parquet")
    assert written["row"].to_pylist() == list(range(MANY))
    assert written["id"].equals(pq.read_table(path)["id"])
    np.testing.assert_array_equal(read_kept(tmp_path / "selection.parquet"), selection.kept)
    assert written["reason"].to_pylist() == [REASONS[code] for code in selection.reason]
    np.testing.assert_array_equal(written["cluster"].fill_null(-1).to_numpy(), labels)
    np.testing.assert_array_equal(written["rank"].fill_null(-1).to_numpy(), selection.rank)
    assert written["cluster"].null_count == int((labels < 0).sum())
    assert written["group"].to_pylist() == [(None, "code", "chat")[i % 3] for i in ids.tolist()]


def test_a_selection_without_clusters_has_null_clusters(tmp_path: Path) -> None:
    path = small(tmp_path)
    selection = Selection(np.ones(6, bool), np.arange(6, dtype=np.int32), np.zeros(6, np.uint8))
    table = Candidates(np.zeros(6, np.uint8), np.ones(6, np.int32), {})
    write_selection(tmp_path / "selection.parquet", selection, table, scores_path=path)
    assert pq.read_table(tmp_path / "selection.parquet")["cluster"].null_count == 6


def test_clusters_go_out_and_come_back(tmp_path: Path) -> None:
    labels = (np.arange(MANY) % 12 - 1).astype(np.int32)
    distance = np.where(labels < 0, np.nan, labels / 16).astype(np.float32)
    write_clusters(tmp_path / "clusters.parquet", labels, distance)
    np.testing.assert_array_equal(read_clusters(tmp_path / "clusters.parquet"), labels)
    written = pq.read_table(tmp_path / "clusters.parquet")
    assert written["row"].to_pylist() == list(range(MANY))
    assert written["cluster"].null_count == written["distance"].null_count == int((labels < 0).sum())


def test_one_row_without_an_embedding_is_read_too(tmp_path: Path) -> None:
    write_clusters(tmp_path / "clusters.parquet", np.array([-1], np.int32), np.array([np.nan], np.float32))
    assert read_clusters(tmp_path / "clusters.parquet").tolist() == [-1]


@pytest.mark.parametrize("split", [False, True])
def test_a_chunk_is_stored_bit_by_bit(tmp_path: Path, split: bool) -> None:
    scores = scores_of([3, 1])
    chunk = BatchScores(scores.rows, scores.status, scores.confidence, scores.log_prob, split)
    write_chunk(tmp_path / "000000.chunk", chunk)
    assert [path.name for path in tmp_path.iterdir()] == ["000000.chunk"]
    again = read_chunk(tmp_path / "000000.chunk")
    assert again.split is split
    for name in ("rows", "status", "confidence", "log_prob"):
        ours, theirs = getattr(again, name), getattr(chunk, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_rows_in_another_order_are_joined_by_row(tmp_path: Path) -> None:
    path = small(tmp_path)
    rows, complexity = read_rows(path), read_column(path, "complexity")
    table = pq.read_table(path)
    pq.write_table(table.take([3, 1, 5, 0, 2, 4]), path)
    np.testing.assert_array_equal(read_column(path, "complexity"), complexity)
    again = read_rows(path)
    for name in ("status", "response_tokens", "duplicate_ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 4], [1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, -1]])
def test_a_row_that_is_missing_doubled_or_foreign_is_damage(tmp_path: Path, rows: list[int]) -> None:
    path = small(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "row", pa.array(rows)), path)
    with pytest.raises(CurateError, match=r"scores\.parquet is damaged .* remove it, and curate score makes it again"):
        read_column(path, "complexity")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", None])
def test_a_damaged_or_missing_file_is_told_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "scores.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CurateError, match=r"scores\.parquet is (damaged|missing).*curate score makes it again"):
        read_rows(path)


@pytest.mark.parametrize(
    "about", [b"", b"[]", b"{", b'{"exits": ["a"]}', b'{"exits": {"1": 2}}', b'{"num_layers": "x"}']
)
def test_damaged_metadata_are_told_by_name(tmp_path: Path, about: bytes) -> None:
    path = small(tmp_path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"curate": about}), path)
    with pytest.raises(CurateError, match=r"scores\.parquet is damaged .*curate score makes it again"):
        read_column(path, "complexity", exits=[1])


def test_a_further_score_adds_its_columns_and_changes_nothing(tmp_path: Path) -> None:
    path = small(tmp_path)
    before = pq.read_table(path)
    ifd = np.array([0.5, np.nan, 2.0, np.inf, np.nan, 1.0])
    add_columns(path, tmp_path / "more.parquet", {"ifd": ifd}, {"ifd": "high = hard"})
    after = pq.read_table(tmp_path / "more.parquet")
    assert after.select(before.column_names).equals(before)
    assert after["ifd"].to_pylist() == [0.5, None, 2.0, None, None, 1.0]
    assert json.loads(after.schema.metadata[b"curate"]) == {
        **json.loads(before.schema.metadata[b"curate"]),
        "ifd": "high = hard",
    }


def test_complexity_joins_scores_that_were_there_before_it(tmp_path: Path) -> None:
    path, store = tmp_path / "scores.parquet", table_of(["scored", "too_long", "scored"])
    write_rows(path, store)
    assert read_about(path).exits == ()
    assert pq.read_table(path)["response_tokens"].to_pylist() == [3, None, 3]
    add_columns(path, tmp_path / "own.parquet", {"mine": np.array([1.0, 2.0, 3.0])}, {"mine": "a person's"})
    chunks = [scores_of([0, 2])]
    write_scores(path, store, chunks, layers=LAYERS, num_layers=NUM_LAYERS, earlier=tmp_path / "own.parquet")
    assert read_column(path, "mine").tolist() == [1, 2, 3]
    assert np.isfinite(read_column(path, "complexity")).tolist() == [True, False, True]
    assert json.loads(pq.read_schema(path).metadata[b"curate"])["mine"] == "a person's"
