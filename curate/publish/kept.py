"""Writes the chosen records exactly as they came in, in the format of the input."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.config import Data
from curate.read import arrow, arrow_files, csv_text
from curate.read.files import Source, load_hub, place, read_records, record_limit
from curate.read.kinds import File, open_file
from curate.types import CurateError, Record

# A Parquet row group is written when it has so many rows or bytes: it is held in memory until then.
_GROUP_ROWS = 16_384
_GROUP_BYTES = 64_000_000

Kept = npt.NDArray[np.bool_]


def write_kept(source: Source, data: Data, kept: Kept, folder: Path) -> Path:
    """Write the chosen records in input order and return the file: kept.json, .jsonl, .csv or .parquet.

    Records of a text file are copied byte for byte, those of a CSV file under the same header line. Rows of a Parquet
    file keep their schema and its metadata. A folder, saved data set or hub data set becomes one kept.parquet. If Arrow
    cannot hold the rows of a folder exactly, they become kept.jsonl instead: Arrow fills absent keys with null, and a
    column has one type. Compressed input is written uncompressed. A CSV file with another delimiter is written with
    commas, which all programs read. Memory does not grow with the number of records.

    Args:
        source: the input.
        data: the settings the input was read with.
        kept: bool [N], true for the chosen records.
        folder: where to write.

    Raises:
        CurateError: the input no longer has N records, or cannot be read.
    """
    if source.kind == "hub":
        dataset = load_hub(source)
        tables = dataset.with_format("arrow").iter(batch_size=arrow.BATCH_ROWS)
        batches = itertools.chain.from_iterable(table.to_batches() for table in tables)
        return _write_batches(batches, dataset.features.arrow_schema, source, data, kept, folder)
    if all(file.kind in ("parquet", "arrow") for file in source.files):
        schema = arrow_files.schema(source.files[0])
        if all(arrow_files.schema(file).equals(schema) for file in source.files[1:]):
            batches = itertools.chain.from_iterable(map(arrow_files.batches, source.files))
            try:
                return _write_batches(batches, schema, source, data, kept, folder)
            except pa.ArrowNotImplementedError:  # a type that Parquet does not have, such as an object without keys
                (folder / "kept.parquet").unlink(missing_ok=True)
                return _write_lines(source, data, kept, folder)
    if source.kind == "folder":
        return _write_table(source, data, kept, folder) or _write_lines(source, data, kept, folder)
    return _write_text(source.files[0], _chosen(source, data, kept), data, folder)


def _write_text(file: File, records: Iterable[Record], data: Data, folder: Path) -> Path:
    """Write the raw bytes of the records to kept.json, .jsonl or .csv, with what the format needs around them."""
    if file.delimiter != ",":
        return _write_commas(file, records, data, folder)
    opening, between, closing = b"", b"\n", b"\n"
    if file.kind == "json":
        opening, between, closing = b"[\n", b",\n", b"\n]\n"
    elif file.kind == "csv":
        with open_file(file) as stream:
            opening = csv_text.read_header(stream, file.name, limit=record_limit(data))
        # The header keeps its line end, so the file has one kind of line end throughout.
        between = closing = b"\r\n" if opening.endswith(b"\r\n") else b"\n"
    path = folder / f"kept.{file.kind}"
    with path.open("wb") as out:
        out.write(opening)
        for i, record in enumerate(records):
            assert record.raw is not None
            out.write((between if i else b"") + record.raw)
        out.write(closing)
    return path


def _write_commas(file: File, records: Iterable[Record], data: Data, folder: Path) -> Path:
    """Write the records of a CSV file with another delimiter to kept.csv, with commas."""
    path = folder / "kept.csv"
    with open_file(file) as stream, path.open("w", encoding="utf-8", newline="") as out:
        header = csv_text.read_header(stream, file.name, limit=record_limit(data), delimiter=file.delimiter)
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(next(csv.reader([header.decode("utf-8-sig")], delimiter=file.delimiter)))
        writer.writerows((record.fields or {}).values() for record in records)
    return path


def _write_lines(source: Source, data: Data, kept: Kept, folder: Path) -> Path:
    """Write kept.jsonl: JSON records keep their bytes (line ends between keys become spaces), others become JSON."""
    json_files = {file.name for file in source.files if file.kind in ("json", "jsonl")}
    path = folder / "kept.jsonl"
    with path.open("wb") as out:
        for record in _chosen(source, data, kept):
            if record.file in json_files and record.raw is not None:
                out.write(b" ".join(record.raw.splitlines()) + b"\n")
            else:
                out.write(_as_json(record) + b"\n")
    return path


def _as_json(record: Record) -> bytes:
    try:
        return json.dumps(record.fields, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise CurateError(
            f"{place(record.file, record.line, record.row)}: cannot leave as JSON ({error}), and the files of this "
            "folder have no common schema: convert them to one kind"
        ) from None


def _write_table(source: Source, data: Data, kept: Kept, folder: Path) -> Path | None:
    """Write kept.parquet from rows of any kind; return None, and leave no file, if it would not hold them exactly."""
    path = folder / "kept.parquet"
    try:
        schema = pa.unify_schemas([pa.Table.from_pylist(chunk).schema for chunk in _chunks(source, data, kept)])
        with pq.ParquetWriter(path, schema) as writer:
            for chunk in _chunks(source, data, kept):
                table = pa.Table.from_pylist(chunk, schema=schema)
                # Arrow converts silently, such as 1 to 1.0: only reading the rows back shows whether they are the same.
                if _spelled(table.to_pylist()) != _spelled(chunk):
                    break
                writer.write_table(table)
            else:
                return path
    except (pa.ArrowException, OverflowError):
        pass  # Arrow has no common type for the rows
    path.unlink(missing_ok=True)
    return None


def _chunks(source: Source, data: Data, kept: Kept) -> Iterator[list[dict[str, Any]]]:
    rows = (dict(record.fields or {}) for record in _chosen(source, data, kept))
    while chunk := list(itertools.islice(rows, arrow.BATCH_ROWS)):
        yield chunk


def _spelled(rows: list[dict[str, Any]]) -> str:
    """Return rows as text to compare: 1, 1.0 and true differ in it, and so does another order of keys."""
    return json.dumps(rows, default=repr)


def _write_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, source: Source, data: Data, kept: Kept, folder: Path
) -> Path:
    """Write the chosen rows of Arrow batches to kept.parquet, under the schema of the input."""
    path = folder / "kept.parquet"
    row = 0  # rows read so far
    rows = size = 0  # rows and bytes of the group
    group: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema) as writer:
        for batch in batches:
            mask = kept[row : row + len(batch)]
            row += len(batch)
            for part in arrow.expand(batch.slice(0, len(mask)).filter(pa.array(mask)), schema):
                group.append(part)
                rows, size = rows + len(part), size + part.nbytes
                if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(group, schema))
                    group, rows, size = [], 0, 0
            if data.limit and row >= data.limit:
                break
        writer.write_table(pa.Table.from_batches(group, schema))
    _check_count(source, min(row, data.limit or row), kept)
    return path


def _chosen(source: Source, data: Data, kept: Kept) -> Iterator[Record]:
    """Yield the chosen records of the input, read a second time; refuse an input that has changed in length."""
    row = -1
    for row, record in enumerate(read_records(source, data.model_copy(update={"on_error": "skip"}))):
        if row < len(kept) and kept[row]:
            assert record.problem is None, "a bad record is never kept"
            yield record
    _check_count(source, row + 1, kept)


def _check_count(source: Source, count: int, kept: Kept) -> None:
    if count != len(kept):
        raise CurateError(f"{source.path} has changed: {len(kept)} records were read before, now {count}")
