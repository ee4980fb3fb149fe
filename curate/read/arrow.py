"""Turns Arrow tables into records: those of Parquet and Arrow files, and those of hub data sets.

The bytes of a row are counted before it becomes a Python object. A row that is too large is refused without being made,
and the others are made a few megabytes at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.read.arrow_files import BATCH_BYTES, batches
from curate.read.json_text import one_line, parse
from curate.read.kinds import File
from curate.types import CurateError

BATCH_ROWS = 1024  # rows made into Python objects at once; fewer if together they are larger than BATCH_BYTES
TOO_LARGE = "too large"
_TEXT = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_NARROW = (pa.float16(), pa.float32())
_LIST = (pa.ListType, pa.LargeListType, pa.MapType)

Sizes = npt.NDArray[np.int64]


def rows(file: File, *, limit: int) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Yield each row of a Parquet or Arrow file: its fields and "", or None and what is wrong with it.

    Arrow maps become dictionaries, and values are as in JSON (`_as_in_json`). A row of more than `limit` bytes is not
    made; its problem is TOO_LARGE.

    Raises:
        CurateError: the file cannot be read: see `curate.read.arrow_files.batches`.
    """
    for batch in batches(file):
        rewritten = _rewritten_columns(batch.schema)
        sizes = row_sizes(batch)
        for start, stop in _parts(sizes):
            if not (sizes[start:stop] > limit).any():
                yield from _records(batch.slice(start, stop - start), rewritten)
                continue
            for row in range(start, stop):
                if sizes[row] > limit:
                    yield None, TOO_LARGE
                else:
                    yield from _records(batch.slice(row, 1), rewritten)


def expand(batch: pa.RecordBatch, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch under the schema of their file, dictionaries expanded, in parts of a few megabytes."""
    if batch.schema.equals(schema):
        yield batch
        return
    for start, stop in _parts(row_sizes(batch)):
        # `take` copies the rows. With `slice`, cast would expand the values of all other lists too.
        part = batch.take(pa.array(np.arange(start, stop)))
        columns = [column.cast(field.type) for column, field in zip(part.columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def row_sizes(batch: pa.RecordBatch) -> Sizes:
    """Return how many bytes each row has when its dictionaries are expanded: int64 [rows].

    Counted are the bytes of its texts and numbers, and 8 for each element of a list.

    >>> row_sizes(pa.record_batch({"a": ["abc", None], "n": [1, 2]})).tolist()
    [11, 8]
    """
    return sum((_sizes(column) for column in batch.columns), np.zeros(len(batch), np.int64))


def _sizes(array: pa.Array) -> Sizes:
    """Return how many bytes each value of a column has, with all that is nested in it: int64 [rows]."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sizes(array.storage)
    if isinstance(kind, pa.DictionaryType):
        return _look_up(_sizes(array.dictionary), array.indices)
    if isinstance(kind, pa.StructType):
        return sum((_sizes(child) for child in array.flatten()), np.zeros(len(array), np.int64))
    if isinstance(kind, _LIST):
        offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        values = pa.StructArray.from_arrays([array.keys, array.items], ["k", "v"]) if pa.types.is_map(kind) else None
        # ends[i] is the size of all elements before element i, so a list's size is the difference of two ends.
        ends = np.concatenate([[0], np.cumsum(_sizes(array.values if values is None else values) + 8)])
        return np.asarray(ends[offsets[1:]] - ends[offsets[:-1]])
    if kind in _TEXT:
        return np.asarray(pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False)).astype(np.int64)
    try:
        return np.full(len(array), -(-kind.bit_width // 8), np.int64)
    except ValueError:  # no fixed width: views, unions and other rare types
        return np.array([array.slice(i, 1).nbytes for i in range(len(array))], np.int64)


def _look_up(lengths: Sizes, indices: pa.Array) -> Sizes:
    """Return the length of the dictionary entry that each index points to, 0 for null: int64 [rows]."""
    found = indices.to_numpy(zero_copy_only=False) if not indices.null_count else indices.fill_null(0).to_numpy()
    taken = lengths[found] if len(lengths) else np.zeros(len(indices), np.int64)
    return np.where(indices.is_valid().to_numpy(zero_copy_only=False), taken, 0)


def _parts(sizes: Sizes) -> Iterator[tuple[int, int]]:
    """Cut rows into parts of at most BATCH_ROWS rows and BATCH_BYTES bytes; a larger row is a part of its own."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(ends[start] - sizes[start])
        fitting = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        stop = min(max(fitting, start + 1), start + BATCH_ROWS)
        yield start, stop
        start = stop


def _records(batch: pa.RecordBatch, rewritten: dict[str, pa.DataType]) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Yield the rows of a batch as `rows` does. A row that Arrow cannot convert does not take the others with it."""
    try:
        records = batch.to_pylist(maps_as_pydicts="strict")
    except (pa.ArrowException, ValueError, OverflowError, KeyError) as error:
        if len(batch) == 1:
            yield None, f"it cannot be read: {one_line(error)}"
            return
        for i in range(len(batch)):  # Arrow does not say which row it was
            yield from _records(batch.slice(i, 1), rewritten)
        return
    for fields in records:
        for name, kind in rewritten.items():
            fields[name] = _as_in_json(fields[name], kind)
        yield fields, ""


def _rewritten_columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the columns in which `_as_in_json` may change values, with their types.

    `datasets` writes columns in which values have several types as JSON text.
    """
    return {field.name: field.type for field in schema if re.search("arrow.json|float", str(field.type))}


def _as_in_json(value: Any, kind: pa.DataType) -> Any:
    """Return a value as JSONL would have given it, at any depth: JSON text parsed, narrow floats as they were written.

    Text that is not JSON stays text. In 32 bits 0.1 is 0.10000000149011612; the shortest number that means the same
    there is 0.1.
    """
    if isinstance(value, str) and isinstance(kind, pa.BaseExtensionType):
        try:
            return parse(value.encode())
        except ValueError:
            return value
    if isinstance(value, float) and kind in _NARROW:
        return float(str(kind.to_pandas_dtype()(value)))
    if isinstance(value, dict) and isinstance(kind, pa.StructType):
        return {field.name: _as_in_json(value[field.name], field.type) for field in kind}
    if isinstance(value, dict) and isinstance(kind, pa.MapType):
        return {key: _as_in_json(inner, kind.item_type) for key, inner in value.items()}
    if isinstance(value, list) and isinstance(inner_kind := getattr(kind, "value_type", None), pa.DataType):
        return [_as_in_json(inner, inner_kind) for inner in value]
    return value


def load_hub(name: str, split: str | None, revision: str | None, *, what: str) -> Any:
    """Load a split of a hub data set as a `datasets.Dataset`.

    Raises:
        CurateError: it cannot be loaded; `what` is the start of the message.
    """
    import datasets  # takes about a second, and only hub data sets need it

    try:
        return datasets.load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise CurateError(f"{what}; as a hub data set (split {split}) it cannot be loaded: {one_line(error)}") from None


def as_dataset(records: Sequence[Mapping[str, Any]], *, name: str) -> Any:
    """Return records as a `datasets.Dataset`. A field that a record lacks is None.

    Raises:
        CurateError: a field holds values of several types; the message names the records by `name`.
    """
    import datasets

    # All fields of all records: `Dataset.from_list` would take the columns of the first record only.
    fields = dict.fromkeys(field for record in records for field in record)
    columns = {field: [record.get(field) for record in records] for field in fields}
    try:
        return datasets.Dataset.from_dict(columns)
    except (pa.ArrowException, OverflowError) as error:
        raise CurateError(f"{name} cannot be a Dataset ({one_line(error)}): read it as it is") from None


def version(dataset: Any) -> str:
    """Return what identifies the version of a hub data set: its files with their commit, or else its fingerprint."""
    return "\n".join(sorted(dataset.info.download_checksums or {})) or str(dataset._fingerprint)
