"""Reads Parquet and Arrow files a part of a row group at a time, without expanding what is stored once.

A Parquet file of a few hundred bytes can expand to gigabytes: its dictionary holds a long text once, and a million rows
point to it. Text that could expand so is therefore left in its dictionary. `curate.read.arrow` then counts the bytes of
each row, and expands a few megabytes of rows at a time.
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
_MAX_BATCH_ROWS = 65_536
_MANY_VALUES = 1 << 24  # values of a list column in a row group; more of them must take some room in the file
_MAX_ROW_BYTES = 1 << 28  # on average; Arrow decodes a row before its size is known, and no such row is training text
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # continuation mark and length 0: Arrow IPC format, streaming


def batches(file: File) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet or Arrow file, a part of a row group at a time.

    Text columns may come as dictionaries, whatever the schema of the file says. `curate.read.arrow.expand` undoes that.

    Raises:
        CurateError: the file is not of its kind or is damaged; two columns have the same name; its rows or its lists
            expand to far more than the file holds.
    """
    try:
        yield from (_parquet_batches if file.kind == "parquet" else _arrow_batches)(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(file, error) from None


def num_rows(file: File) -> int:
    """Return the number of rows that the footer of a Parquet file states."""
    try:
        return int(pq.read_metadata(file.path).num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(file, error) from None


def schema(file: File) -> pa.Schema:
    """Return the schema of a Parquet or Arrow file, with its metadata.

    Raises:
        CurateError: the file is not of its kind or is damaged.
    """
    try:
        if file.kind == "parquet":
            return pq.read_schema(file.path)
        with pa.memory_map(str(file.path)) as stream:
            return _open_arrow(stream).schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(file, error) from None


def _parquet_batches(file: File) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a Parquet file, and check at the end that it holds the rows that its footer states."""
    footer = pq.read_metadata(file.path)
    _check_footer(footer, file.name)
    seen = 0
    with pq.ParquetFile(file.path, metadata=footer, read_dictionary=_dictionary_columns(footer)) as parquet:
        # One row group a call: given several, Arrow keeps in memory those that it has already read.
        for i in range(footer.num_row_groups):
            for batch in parquet.iter_batches(batch_size=_batch_rows(footer.row_group(i)), row_groups=[i]):
                seen += len(batch)
                yield batch
    if seen != footer.num_rows:
        raise ValueError(f"it states {footer.num_rows} rows and holds {seen}")


def _check_footer(footer: pq.FileMetaData, name: str) -> None:
    """Refuse a Parquet footer that contradicts itself, and row groups that expand beyond measure."""
    _check_columns(footer.schema.to_arrow_schema(), name)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    # Arrow's C++ reader trusts these counts and may abort the whole process.
    if sum(group.num_rows for group in groups) != footer.num_rows or any(group.num_rows < 0 for group in groups):
        raise ValueError(f"its parts do not add up to the {footer.num_rows} rows that it states")
    for group in groups:
        if group.total_byte_size > _MAX_ROW_BYTES * max(group.num_rows, 1):
            raise CurateError(
                f"{name}: {group.num_rows} rows expand to {group.total_byte_size:,} bytes, more than "
                f"{_MAX_ROW_BYTES:,} each: it is not read"
            )
        _check_lists(footer, group, name)


def _check_lists(footer: pq.FileMetaData, group: pq.RowGroupMetaData, name: str) -> None:
    """Refuse a list column of many values that the file stores in less than a bit each.

    Only long runs of equal values, mostly nulls, take so little. Arrow writes such a list out in memory before the size
    of its row is known.
    """
    values: dict[str, int] = {}
    stored: dict[str, int] = {}
    for i in range(group.num_columns):
        if footer.schema.column(i).max_repetition_level:  # above 0 inside lists only
            column = group.column(i)
            top = column.path_in_schema.partition(".")[0]
            values[top] = max(values.get(top, 0), column.num_values)
            stored[top] = stored.get(top, 0) + column.total_uncompressed_size
    for top, count in values.items():
        if count > _MANY_VALUES and 8 * stored[top] < count:
            raise CurateError(
                f"{name}: the lists of column {excerpt(top)} expand from {stored[top]:,} bytes to {count:,} values "
                "in one row group: it is not read"
            )


def _check_columns(schema: pa.Schema, name: str) -> None:
    twice = [column for i, column in enumerate(schema.names) if column in schema.names[:i]]
    if twice:
        raise CurateError(f"{name}: the column {excerpt(twice[0])} stands twice")


def _large_text_columns(group: pq.RowGroupMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    """Yield the text columns of a row group that could expand to more than BATCH_BYTES.

    In the worst case each of its values is as long as all that the column stores.
    """
    for i in range(group.num_columns):
        column = group.column(i)
        may_expand = column.num_values * column.total_uncompressed_size > BATCH_BYTES
        if column.physical_type == "BYTE_ARRAY" and may_expand:
            yield column


def _dictionary_columns(footer: pq.FileMetaData) -> list[str]:
    """Return the names of the columns to be read as dictionaries, sorted."""
    groups = (footer.row_group(i) for i in range(footer.num_row_groups))
    found = itertools.chain.from_iterable(map(_large_text_columns, groups))
    return sorted({column.path_in_schema for column in found if column.has_dictionary_page})


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """Return how many rows of a row group are decoded at once."""
    fitting = BATCH_BYTES * int(group.num_rows) // max(int(group.total_byte_size), 1)
    # DELTA_BYTE_ARRAY stores what a text shares with the one before it only once, and has no dictionary to leave it
    # in. Each text may be as long as all that is stored.
    shared = [
        int(column.total_uncompressed_size)
        for column in _large_text_columns(group)
        if "DELTA_BYTE_ARRAY" in column.encodings
    ]
    return max(1, min(fitting, _MAX_BATCH_ROWS, *(BATCH_BYTES // max(size, 1) for size in shared)))


def _arrow_batches(file: File) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow file or stream, and check each before its values are read."""
    with pa.memory_map(str(file.path)) as stream:
        reader = _open_arrow(stream)
        _check_columns(reader.schema, file.name)
        if isinstance(reader, pa.RecordBatchFileReader):
            found = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            # A stream has no footer. Arrow takes one that was cut off between two batches for a whole one.
            stream.seek(max(stream.size() - len(_END_OF_STREAM), 0))
            if stream.read() != _END_OF_STREAM:
                raise ValueError("it ends before the end that its writer wrote")
            stream.seek(0)
            found = iter(_open_arrow(stream))
        for batch in found:
            batch.validate(full=True)  # Arrow itself follows offsets that point outside of their buffer
            yield batch


def _open_arrow(stream: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """Open an Arrow file, or an Arrow stream (the form in which `datasets` saves)."""
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    return pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)


def _damaged(file: File, error: Exception) -> CurateError:
    what = "Parquet" if file.kind == "parquet" else "Arrow"
    return CurateError(f"{file.name} is not a sound {what} file: {one_line(error)}")
