"""Arrow tables as records: Parquet files, and hub data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.read.json_text import excerpt, one_line
from curate.types import CurateError

BATCH_ROWS = 1024  # rows decoded at once ...
_BATCH_BYTES = 16_000_000  # ... fewer if they are so large together


def rows(path: Path, name: str, *, limit: int) -> Iterator[dict[str, Any] | None]:
    """Each row of a Parquet file as a mapping; None for one of more than `limit` bytes.

    Raises:
        CurateError: as `batches` says.
    """
    for batch in batches(path, name):
        large = batch.nbytes > limit
        try:
            records = batch.to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise _damaged(name, error) from None
        for i, fields in enumerate(records):
            yield None if large and batch.slice(i, 1).nbytes > limit else fields


def batches(path: Path, name: str) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file, at most BATCH_ROWS at a time.

    Raises:
        CurateError: not a Parquet file, a damaged one, or a column name that stands twice.
    """
    seen = 0
    try:
        with pq.ParquetFile(path) as parquet:
            fitting = _check(parquet, name)
            for group in range(parquet.num_row_groups):  # of several at once Arrow keeps those it is done with
                for batch in parquet.iter_batches(batch_size=min(BATCH_ROWS, fitting), row_groups=[group]):
                    seen += len(batch)
                    yield batch
            if seen != parquet.metadata.num_rows:
                raise ValueError(f"it states {parquet.metadata.num_rows} rows and holds {seen}")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, error) from None


def schema(path: Path, name: str) -> pa.Schema:
    """The schema of a Parquet file, with its metadata."""
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, error) from None


def _check(parquet: pq.ParquetFile, name: str) -> int:
    """How many rows fit into a batch; refuses a footer that contradicts itself, on which the C++ reader may abort."""
    columns = parquet.schema_arrow.names
    twice = [column for i, column in enumerate(columns) if column in columns[:i]]
    if twice:
        raise CurateError(f"{name}: the column {excerpt(twice[0])} stands twice")
    stated = int(parquet.metadata.num_rows)
    groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != stated or any(group.num_rows < 0 for group in groups):
        raise ValueError(f"its parts do not add up to the {stated} rows that it states")
    size = sum(int(group.total_byte_size) for group in groups)
    return max(1, _BATCH_BYTES * stated // max(size, 1))


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
