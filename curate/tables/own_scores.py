"""Reads a person's own scores: a Parquet, JSONL or CSV file with a column `row` or `id` and columns of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from curate.tables.parquet import by_row
from curate.types import CurateError, FloatArray, IntArray

_READERS = {".parquet": pq.read_table, ".jsonl": pa.json.read_json, ".csv": pa.csv.read_csv}


def read_own_scores(path: Path, scores: Path, *, taken: set[str]) -> dict[str, FloatArray]:
    """Read a person's columns, name -> float64 [N], joined by `row` or `id`; NaN where a record has no value.

    Args:
        path: the person's file.
        scores: scores.parquet, for the number of records and their ids.
        taken: names of columns that exist already.

    Raises:
        CurateError: the file cannot be read, has neither `row` nor `id`, names a record twice or one that does not
            exist; a column is not numeric, or its name is taken.
    """
    table = _read(path)
    join = "row" if "row" in table.column_names else "id"
    if join not in table.column_names:
        raise CurateError(f"score.columns={path}: expected a column row or id, got {', '.join(table.column_names)}")
    names = [name for name in table.column_names if name not in ("row", "id")]
    if clash := sorted(set(names) & taken):
        raise CurateError(f"score.columns={path}: the column {clash[0]} is there already; give it another name")
    if not names:
        raise CurateError(f"score.columns={path}: expected columns of numbers beside {join}, got none")
    lines = _lines(path, table[join], join, scores)
    return {name: _column(path, name, table[name], lines) for name in names}


def _read(path: Path) -> pa.Table:
    """Read the file by its ending; raise with its path where Arrow cannot."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CurateError(f"score.columns={path}: expected a file that ends in {', '.join(_READERS)}")
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise CurateError(f"score.columns={path}: expected a file, got a folder, a pipe or a device")
    try:
        return reader(str(path))
    except (pa.ArrowException, OSError) as error:
        raise CurateError(f"score.columns={path}: cannot be read: {' '.join(str(error).split())[:200]}") from None


def _lines(path: Path, joined: pa.ChunkedArray, join: str, scores: Path) -> IntArray:
    """Return for every record the line of the person's file that holds its scores: int64 [N], -1 for none."""
    ids = by_row(scores, "score", {"id": pa.string()}, whole=["id"])
    blocks = [(rows, batch["id"].to_pylist()) for rows, batch in ids]
    num_rows = sum(len(rows) for rows, _ in blocks)
    if join == "row":
        if not pa.types.is_integer(joined.type) or joined.null_count:
            raise CurateError(f"score.columns={path}: expected whole numbers in the column row, got {joined.type}")
        rows = joined.to_numpy()
    else:
        return _lines_of_ids(path, joined.to_pylist(), blocks, num_rows)
    if len(rows) and (rows.min() < 0 or rows.max() >= num_rows):
        raise CurateError(f"score.columns={path}: expected rows from 0 to {num_rows - 1}, got {int(rows.max())}")
    if len(np.unique(rows)) != len(rows):
        raise CurateError(f"score.columns={path}: a record stands there twice; expected every row once")
    lines = np.full(num_rows, -1)
    lines[rows] = np.arange(len(rows))
    return lines


def _lines_of_ids(path: Path, ids: list[str], blocks: list[tuple[IntArray, list[str]]], num_rows: int) -> IntArray:
    """Do the same by id. Exact duplicates have the same id, and so the same value."""
    # A file keyed by id survives an input whose rows were sorted or filtered since; one keyed by row does not.
    line_of = {id_: line for line, id_ in enumerate(ids)}
    if len(line_of) != len(ids):
        raise CurateError(f"score.columns={path}: a record stands there twice; expected every id once")
    lines = np.full(num_rows, -1)
    found: set[str] = set()
    for rows, own in blocks:
        lines[rows] = [line_of.get(id_, -1) for id_ in own]
        found.update(own)
    if unknown := sorted(line_of.keys() - found):
        raise CurateError(f"score.columns={path}: there is no record with the id {unknown[0]}")
    return lines


def _column(path: Path, name: str, values: pa.ChunkedArray, lines: IntArray) -> FloatArray:
    # null: a column without any value has that type. Text that looks like numbers is refused, never guessed at.
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_null(values.type)):
        raise CurateError(f"score.columns={path}: expected numbers in the column {name}, got {values.type}")
    numbers = np.append(pc.cast(values, pa.float64()).to_numpy(), np.nan)  # line -1 is the last entry: NaN
    out: FloatArray = numbers[lines]
    return out
