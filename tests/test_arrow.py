"""Arrow tables: every row is counted before it is made, and work grows with the rows, not with their square."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config import Data
from curate.publish.kept import write_kept
from curate.read import arrow, arrow_files
from curate.read.examples import open_examples
from curate.read.files import open_source, read_records
from curate.read.kinds import File, inspect_file
from curate.types import CurateError, Record

LONG = 2_000_000


def read(path: Path, **settings: Any) -> list[Record]:
    data = Data(path=str(path), **settings)
    return list(read_records(open_source(data), data))


def repeated(text: str, count: int) -> pa.Array:
    """An array that holds a text once and names it many times."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))


def bomb(path: Path, count: int = 1000) -> Path:
    """A few hundred bytes that are `count` rows of LONG bytes."""
    table = pa.table({"instruction": ["a"] * count, "output": repeated("x" * LONG, count)})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1000
    return path


class Peak:
    """How many bytes Arrow holds at most, above what it held at the start."""

    def __init__(self) -> None:
        self.start, self.most = pa.total_allocated_bytes(), 0

    def look(self) -> None:
        self.most = max(self.most, pa.total_allocated_bytes() - self.start)


def test_a_small_file_that_expands_to_gigabytes_is_read_a_few_megabytes_at_a_time(tmp_path: Path) -> None:
    data, count = Data(path=str(bomb(tmp_path / "a.parquet"))), 0
    peak = Peak()
    for record in read_records(open_source(data), data):
        assert record.fields is not None
        assert len(record.fields["output"]) == LONG
        count += 1
        peak.look()
    assert count == 1000
    assert peak.most < 4 * LONG + 1_000_000, "2 GB expanded"


def test_its_rows_are_refused_before_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(tmp_path / "a.parquet")
    monkeypatch.setattr(arrow, "_records", None)  # nothing is made
    with pytest.raises(CurateError, match=r"a\.parquet: row 0: a record of more than 1,000,000 bytes; raise data\.max"):
        read(path, max_record_bytes=1_000_000)
    records = read(path, max_record_bytes=1_000_000, on_error="skip")
    assert [record.fields for record in records] == [None] * 1000


def test_what_is_kept_of_it_is_written_a_few_megabytes_at_a_time(tmp_path: Path) -> None:
    data = Data(path=str(bomb(tmp_path / "a.parquet")))
    mask = np.zeros(1000, bool)
    mask[[3, 999]] = True
    before = pa.default_memory_pool().max_memory()
    kept = write_kept(open_source(data), data, mask, tmp_path)
    assert pa.default_memory_pool().max_memory() < max(before, pa.total_allocated_bytes() + 20 * LONG)
    table = pq.read_table(kept)
    assert table.schema.equals(pq.read_schema(tmp_path / "a.parquet"))
    assert [len(value) for value in table["output"].to_pylist()] == [LONG, LONG]


def test_one_row_of_a_list_that_expands_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    messages = pa.StructArray.from_arrays([pa.array(["user"] * 1000), repeated("x" * LONG, 1000)], ["role", "content"])
    column = pa.ListArray.from_arrays(pa.array([0, 1, 3, 1000], pa.int32()), messages)
    pq.write_table(pa.table({"messages": column}), tmp_path / "a.parquet", compression="zstd", store_schema=False)
    peak = Peak()
    records = read(tmp_path / "a.parquet", on_error="skip")
    peak.look()
    assert [record.fields and len(record.fields["messages"]) for record in records] == [1, 2, None]
    data = Data(path=str(tmp_path / "a.parquet"))
    kept = write_kept(open_source(data), data, np.array([True, True, False]), tmp_path)
    peak.look()
    assert [len(row) for row in pq.read_table(kept)["messages"].to_pylist()] == [1, 2]
    assert peak.most < 10 * LONG


def test_text_that_shares_its_beginning_is_decoded_a_row_at_a_time(tmp_path: Path) -> None:
    table = pa.table({"output": [f"{'x' * LONG}{i}" for i in range(30)]})
    encoding = {"output": "DELTA_BYTE_ARRAY"}
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=encoding)
    assert path.stat().st_size < 3000
    del table
    data, peak, ends = Data(path=str(path)), Peak(), []
    for record in read_records(open_source(data), data):
        assert record.fields is not None
        ends.append(record.fields["output"][LONG:])
        peak.look()
    assert ends == [str(i) for i in range(30)]
    assert peak.most < 25 * LONG


def test_lists_that_nobody_wrote_out_are_refused(tmp_path: Path) -> None:
    count = (1 << 24) + 1
    column = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count, pa.int8()))
    pq.write_table(pa.table({"instruction": ["a"], "output": column}), tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(
        CurateError, match=r"a\.parquet: the lists of column 'output' expand from \d+ bytes to 16,777,217"
    ):
        read(tmp_path / "a.parquet", on_error="skip")


def test_a_row_that_states_hundreds_of_megabytes_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"output": ["x" * (300 << 20)]}), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    with pytest.raises(CurateError, match=r"a\.parquet: 1 rows expand to 3\d\d,\d{3},\d{3} bytes, more than 268"):
        read(path)
    assert pa.total_allocated_bytes() == before


def test_rows_that_are_all_null_and_files_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.nulls(200_000, pa.string()), "b": pa.nulls(200_000)}), tmp_path / "a.parquet")
    assert sum(1 for _ in read(tmp_path / "a.parquet")) == 200_000
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "b.parquet")
    with pytest.raises(CurateError, match=r"b\.parquet holds no records"):
        read(tmp_path / "b.parquet")


def test_one_bad_row_is_skipped_alone(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"\xff", b"fine"]).buffers())
    pq.write_table(pa.table({"a": bad}), tmp_path / "a.parquet")
    assert [r.fields for r in read(tmp_path / "a.parquet", on_error="skip")] == [{"a": "ok"}, None, {"a": "fine"}]
    with pytest.raises(CurateError, match=r"a\.parquet: row 1: it cannot be read: .*0xff"):
        read(tmp_path / "a.parquet")
    twice = pa.array([[("k", 1)], [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int32()))
    pq.write_table(pa.table({"a": twice}), tmp_path / "b.parquet")
    assert [r.fields for r in read(tmp_path / "b.parquet", on_error="skip")] == [{"a": {"k": 1}}, None]


# Sizes --------------------------------------------------------------------------------------------------------------


def size(value: Any, kind: pa.DataType) -> int:
    """What `row_sizes` counts, of one Python value: slowly and plainly."""
    if pa.types.is_dictionary(kind):
        return size(value, kind.value_type) if value is not None else 0
    if pa.types.is_struct(kind):
        return sum(size(value[field.name] if value else None, field.type) for field in kind)
    if pa.types.is_map(kind):
        return sum(8 + size(k, kind.key_type) + size(v, kind.item_type) for k, v in value or ())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return sum(8 + size(inner, kind.value_type) for inner in value or ())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return len((value or "").encode())
    return -(-int(kind.bit_width) // 8)


text = st.none() | st.text("aé😀", max_size=5)
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), text),
    (pa.large_string(), text),
    (pa.int16(), st.none() | st.integers(-9, 9)),
    (pa.bool_(), st.none() | st.booleans()),
    (pa.dictionary(pa.int8(), pa.string()), text),
    (pa.list_(pa.string()), st.none() | st.lists(text, max_size=3)),
    (pa.large_list(pa.list_(pa.int32())), st.none() | st.lists(st.none() | st.lists(st.integers(0, 3)), max_size=3)),
    (pa.map_(pa.string(), pa.string()), st.none() | st.lists(st.tuples(st.sampled_from("xy"), text), max_size=2)),
    (
        pa.list_(pa.struct([("role", pa.string()), ("n", pa.list_(pa.string()))])),
        st.none()
        | st.lists(st.fixed_dictionaries({"role": text, "n": st.none() | st.lists(text, max_size=2)}), max_size=3),
    ),
]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=[str(kind)[:20] for kind, _ in KINDS])
def test_the_size_of_a_row_is_that_of_its_values(kind: pa.DataType, values: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(values, max_size=6), st.integers(0, 3), st.integers(0, 6))
    def check(rows: list[Any], start: int, length: int) -> None:
        batch = pa.record_batch({"a": pa.array(rows, kind)}).slice(start, length)
        assert arrow.row_sizes(batch).tolist() == [size(value, kind) for value in rows[start:][:length]]

    check()


def test_other_types_have_sizes_too() -> None:
    columns = {
        "fixed": pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)),
        "view": pa.array(["a", "b"], pa.string_view()),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", '"abc"'])),
        "null": pa.nulls(2),
        "bytes": pa.array([b"1234", None], pa.binary()),
    }
    for name, column in columns.items():
        sizes = arrow.row_sizes(pa.record_batch({name: column}))
        assert sizes.shape == (2,), name
        assert (sizes >= 0).all()
    assert arrow.row_sizes(pa.record_batch({"a": columns["json"]})).tolist() == [2, 5]
    assert arrow.row_sizes(pa.record_batch({"a": columns["bytes"]})).tolist() == [4, 0]


# What comes back ----------------------------------------------------------------------------------------------------


def varied(count: int) -> pa.Table:
    """Columns of every kind that people have, large enough to be read as dictionaries."""
    words = [f"{i % 50}-" + "w" * 300 for i in range(count)]
    calls = [{"name": word[:2], "arguments": [(word[:1], word)]} for word in words]
    kind = pa.struct([("name", pa.string()), ("arguments", pa.map_(pa.string(), pa.string()))])
    return pa.table(
        {
            "plain": words,
            "large": pa.array(words, pa.large_string()),
            "category": pa.array(words).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
            "unique": [f"{i}" + "u" * 200 for i in range(count)],
            "messages": pa.array([[call, None] for call in calls], pa.list_(kind)),
            "n": pa.array(range(count), pa.int16()),
        }
    )


def test_tables_come_back_as_arrow_reads_them_and_leave_under_their_schema(tmp_path: Path) -> None:
    table = varied(5000)
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=3000)
    file = inspect_file(path, "a.parquet")
    assert any(pa.types.is_dictionary(kind) for kind in next(arrow_files.batches(file)).schema.types)
    records = read(path)
    assert [record.fields for record in records] == table.to_pylist(maps_as_pydicts="strict")
    mask = np.arange(5000) % 3 == 0
    data = Data(path=str(path))
    kept = write_kept(open_source(data), data, mask, tmp_path)
    assert pq.read_schema(kept).equals(pq.read_schema(path), check_metadata=True)
    assert pq.read_table(kept).equals(pq.read_table(path).filter(pa.array(mask)))


def test_a_column_of_json_holds_what_its_text_says(tmp_path: Path) -> None:
    values = ["1", '"b"', '{"a": [1, null]}', "not JSON", None]
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(values))
    nested = pa.StructArray.from_arrays([column], ["x"])
    pq.write_table(pa.table({"a": column, "b": nested}), tmp_path / "a.parquet")
    fields = [record.fields for record in read(tmp_path / "a.parquet")]
    expected = [1, "b", {"a": [1, None]}, "not JSON", None]
    assert fields == [{"a": value, "b": {"x": value}} for value in expected]


def test_an_arrow_file_with_offsets_beyond_its_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"a": ["abcdefgh"] * 4})
    with pa.ipc.new_stream(str(path), table.schema) as out:
        out.write_table(table)
    content = path.read_bytes()
    offsets = np.arange(0, 40, 8, dtype=np.int32).tobytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, np.array([0, 8, 16, 24, 1 << 30], np.int32).tobytes()))
    with pytest.raises(CurateError, match=r"a\.arrow is not a sound Arrow file"):
        read(path)


# Work in proportion -------------------------------------------------------------------------------------------------


def calls_of(work: Any) -> int:
    """How many functions are called, which no other process can change."""
    count = 0

    def look(_frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_the_work_grows_with_the_number_of_shards_not_with_its_square(tmp_path: Path) -> None:
    counts = []
    for shards in (100, 400):
        folder = tmp_path / str(shards)
        folder.mkdir()
        for i in range(shards):
            pq.write_table(
                pa.Table.from_pylist([{"instruction": f"{i}", "output": "b"}] * 3), folder / f"{i:05}.parquet"
            )
        data = Data(path=str(folder))

        def work(data: Data = data, shards: int = shards) -> None:
            source = open_source(data)
            assert sum(1 for _ in open_examples(data, source)[1]) == 3 * shards
            write_kept(source, data, np.ones(3 * shards, bool), tmp_path)

        counts.append(calls_of(work))
    assert counts[1] < 4.5 * counts[0]


def test_format_and_records_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"instruction": str(i), "output": "b"}) for i in range(300)))
    opened: list[str] = []

    def counting(file: File) -> Any:
        opened.append(file.name)
        return file.path.open("rb")

    data = Data(path=str(path))
    source = open_source(data)
    monkeypatch.setattr("curate.read.files.open_file", counting)
    format, examples = open_examples(data, source)
    assert format == "alpaca"
    assert [e.row for e in examples] == list(range(300))
    assert opened == [str(path)]
