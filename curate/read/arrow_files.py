"""Parquet and Arrow files, a part of a row group at a time, without unfolding what is stored once.

A Parquet file of a few hundred bytes may unfold to gigabytes: a long text stands once in a dictionary and a million
rows point to it. So text with a dictionary is left as one; `arrow` unfolds it when it knows how large each row is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from curate.read.json_text import excerpt, one_line
from curate.read.kinds import File
from curate.types import CurateError

BATCH_BYTES = 16_000_000  # rows of about so many bytes together are decoded at once
_MANY_ROWS = 65_536  # rows decoded at once, at most
_MANY_VALUES = 1 << 24  # values of a list column in a row group, beyond which they must take some room in the file
_MOST_ROW_BYTES = 1 << 28  # a row is decoded before its size is known; more than this each is no text to train on
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def batches(file: File) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet or Arrow file, a part of a row group at a time.

    Columns of text may come as dictionaries, whatever the schema of the file says: see `unfolded`.

    Raises:
        CurateError: not such a file, a damaged one, a column name that stands twice, or a row group of lists that
            would unfold beyond all measure.
    """
    try:
        yield from (_parquet_batches if file.kind == "parquet" else _arrow_batches)(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(file, error) from None


def schema(file: File) -> pa.Schema:
    """The schema of a Parquet or Arrow file, with its metadata."""
    try:
        if file.kind == "parquet":
            return pq.read_schema(file.path)
        with pa.memory_map(str(file.path)) as stream:
            return _open_arrow(stream).schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(file, error) from None


def _parquet_batches(file: File) -> Iterator[pa.RecordBatch]:
    footer = pq.read_metadata(file.path)
    _check(footer, file.name)
    seen = 0
    with pq.ParquetFile(file.path, metadata=footer, read_dictionary=_dictionaries(footer)) as parquet:
        for i in range(footer.num_row_groups):  # of several at once Arrow keeps those it is done with
            for batch in parquet.iter_batches(batch_size=_fitting_rows(footer.row_group(i)), row_groups=[i]):
                seen += len(batch)
                yield batch
    if seen != footer.num_rows:
        raise ValueError(f"it states {footer.num_rows} rows and holds {seen}")


def _check(footer: pq.FileMetaData, name: str) -> None:
    """Refuse a footer that contradicts itself, on which the C++ reader may abort, or lists that nobody wrote out."""
    _check_columns(footer.schema.to_arrow_schema(), name)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    if sum(group.num_rows for group in groups) != footer.num_rows or any(group.num_rows < 0 for group in groups):
        raise ValueError(f"its parts do not add up to the {footer.num_rows} rows that it states")
    for group in groups:
        if group.total_byte_size > _MOST_ROW_BYTES * max(group.num_rows, 1):
            raise CurateError(
                f"{name}: {group.num_rows} rows unfold to {group.total_byte_size:,} bytes, more than "
                f"{_MOST_ROW_BYTES:,} each: it is not read"
            )
        values: dict[str, int] = {}
        stored: dict[str, int] = {}
        for i in range(group.num_columns):
            if footer.schema.column(i).max_repetition_level:
                column = group.column(i)
                top = column.path_in_schema.partition(".")[0]
                values[top] = max(values.get(top, 0), column.num_values)
                stored[top] = stored.get(top, 0) + column.total_uncompressed_size
        for top, count in values.items():
            if count > _MANY_VALUES and 8 * stored[top] < count:  # less than a bit for each value
                raise CurateError(
                    f"{name}: the lists of column {excerpt(top)} unfold from {stored[top]:,} bytes to {count:,} values "
                    "in one row group: it is not read"
                )


def _check_columns(schema: pa.Schema, name: str) -> None:
    twice = [column for i, column in enumerate(schema.names) if column in schema.names[:i]]
    if twice:
        raise CurateError(f"{name}: the column {excerpt(twice[0])} stands twice")


def _columns(group: pq.RowGroupMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    """The columns of a row group that may hold more text than their bytes in the file."""
    for i in range(group.num_columns):
        column = group.column(i)
        may_unfold = column.num_values * column.total_uncompressed_size > BATCH_BYTES
        if column.physical_type == "BYTE_ARRAY" and may_unfold:
            yield column


def _dictionaries(footer: pq.FileMetaData) -> list[str]:
    """The columns to be read as dictionaries."""
    groups = (footer.row_group(i) for i in range(footer.num_row_groups))
    found = itertools.chain.from_iterable(map(_columns, groups))
    return sorted({column.path_in_schema for column in found if column.has_dictionary_page})


def _fitting_rows(group: pq.RowGroupMetaData) -> int:
    """How many rows of a row group are decoded at once."""
    fitting = BATCH_BYTES * int(group.num_rows) // max(int(group.total_byte_size), 1)
    # the other encoding that shares text between values: each may be as long as all that is stored
    shared = [
        int(column.total_uncompressed_size) for column in _columns(group) if "DELTA_BYTE_ARRAY" in column.encodings
    ]
    return max(1, min(fitting, _MANY_ROWS, *(BATCH_BYTES // max(size, 1) for size in shared)))


def _arrow_batches(file: File) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(file.path)) as stream:
        reader = _open_arrow(stream)
        _check_columns(reader.schema, file.name)
        if isinstance(reader, pa.RecordBatchFileReader):
            found = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            stream.seek(max(stream.size() - len(_END_OF_STREAM), 0))
            if stream.read() != _END_OF_STREAM:
                raise ValueError("it ends before the end that its writer wrote")
            stream.seek(0)
            found = iter(_open_arrow(stream))
        for batch in found:
            batch.validate(full=True)  # offsets beyond their buffers would be read
            yield batch


def _open_arrow(stream: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """An Arrow file, or an Arrow stream (as `datasets` saves it)."""
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    return pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)


def _damaged(file: File, error: Exception) -> CurateError:
    what = "Parquet" if file.kind == "parquet" else "Arrow"
    return CurateError(f"{file.name} is not a sound {what} file: {one_line(error)}")
