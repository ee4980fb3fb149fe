"""Arrow tables as records: Parquet files, and hub data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.data.json_text import one_line
from curate.types import CurateError

BATCH_ROWS = 1024  # rows decoded at once ...
_BATCH_BYTES = 16_000_000  # ... fewer if they are so large together


def rows(path: Path, name: str, *, limit: int) -> Iterator[dict[str, Any] | None]:
    """Each row of a Parquet file as a mapping; None for one of more than `limit` bytes.

    Raises:
        CurateError: not a Parquet file, damaged, or a column name that stands twice.
    """
    seen = 0
    for batch in batches(path, name):
        large = batch.nbytes > limit
        try:
            records = batch.to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise _damaged(name, error) from None
        for i, fields in enumerate(records):
            yield None if large and batch.slice(i, 1).nbytes > limit else fields
        seen += len(records)
    stated = schema_and_rows(path, name)[1]
    if seen != stated:
        raise CurateError(f"{name} states {stated} rows and holds {seen}: the file is damaged")


def batches(path: Path, name: str) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file, at most BATCH_ROWS at a time."""
    schema = schema_and_rows(path, name)[0]
    twice = [column for i, column in enumerate(schema.names) if column in schema.names[:i]]
    if twice:
        raise CurateError(f"{name}: the column {twice[0]!r} stands twice")
    try:
        with pq.ParquetFile(path) as parquet:
            facts = parquet.metadata
            size = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
            fitting = _BATCH_BYTES * facts.num_rows // max(size, 1)
            yield from parquet.iter_batches(batch_size=max(1, min(BATCH_ROWS, fitting)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, error) from None


def schema_and_rows(path: Path, name: str) -> tuple[pa.Schema, int]:
    """The schema of a Parquet file, with its metadata, and the number of rows that it states."""
    try:
        with pq.ParquetFile(path) as parquet:
            return parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, error) from None


def load_hub(name: str, split: str | None, revision: str | None, *, what: str) -> Any:
    """A split of a hub data set as a `datasets.Dataset`; `what` opens the message if that fails."""
    import datasets  # slow to import, and needed for nothing else

    try:
        return datasets.load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise CurateError(f"{what}; as a hub data set (split {split}) it cannot be loaded: {one_line(error)}") from None


def commit(dataset: Any) -> str:
    """What says which version of a hub data set this is: its files with their commit, else its fingerprint."""
    return "\n".join(sorted(dataset.info.download_checksums or {})) or str(dataset._fingerprint)


def _damaged(name: str, error: Exception) -> CurateError:
    return CurateError(f"{name} is not a sound Parquet file: {one_line(error)}")
