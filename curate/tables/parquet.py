"""Opens the Parquet files of a run and reads them by `row`; a damaged or missing file is named in the error.

Files are read through a memory map: otherwise Arrow keeps every row group in memory that it has read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.types import CurateError, IntArray

ROW_GROUP = 65_536  # rows; one group is in memory at a time


@contextmanager
def errors_naming(path: Path, verb: str) -> Iterator[None]:
    """Replace errors of reading a file by one that names the file and the command that makes it again.

    Raises:
        CurateError: code inside the context raised an error because the file is missing, unreadable or damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise CurateError(f"{path} is missing: curate {verb} makes it again") from None
    except PermissionError as error:
        raise CurateError(f"cannot read {path}: {error.strerror}") from None
    except (pa.ArrowException, OSError, LookupError, ValueError, EOFError, RecursionError) as error:
        what = " ".join(str(error).split())[:120]
        raise CurateError(f"{path} is damaged ({what}): remove it, and curate {verb} makes it again") from None


def open_table(path: Path, verb: str) -> pq.ParquetFile:
    """Open a Parquet file of a run; `verb` is the command that makes it.

    Raises:
        CurateError: it is missing or damaged.
    """
    with errors_naming(path, verb):
        return pq.ParquetFile(path, memory_map=True)


def count_rows(path: Path, verb: str, columns: Collection[str]) -> int:
    """Return how many rows a table of a run has, by its footer.

    Raises:
        CurateError: it is missing or damaged, or one of `columns` is not there.
    """
    file = open_table(path, verb)
    with errors_naming(path, verb):
        if missing := [name for name in columns if name not in file.schema_arrow.names]:
            raise ValueError(f"the column {missing[0]} is missing")
    return int(file.metadata.num_rows)


def by_row(
    path: Path, verb: str, columns: Mapping[str, pa.DataType], *, whole: Collection[str] = ()
) -> Iterator[tuple[IntArray, pa.RecordBatch]]:
    """Yield blocks of a table: the values of its column `row`, int64, and a batch with `columns`.

    The rows may stand in any order in the file. Join by the yielded row numbers, never by position.

    Args:
        path: the table.
        verb: the command that makes it.
        columns: the columns to read, and the type of each: another program may have written a wider one.
        whole: those of them in which no value may be null.

    Raises:
        CurateError: the file is missing or damaged, a column is missing or of another kind, or `row` is not 0 to N - 1,
            each once.
    """
    num_rows = count_rows(path, verb, ["row", *columns])
    seen = np.zeros(num_rows, bool)
    batches = open_table(path, verb).iter_batches(ROW_GROUP, columns=["row", *columns])
    types = {"row": pa.int64(), **columns}
    while True:
        # Only the read is inside: an error of the caller, raised at the `yield`, is no damage of the file.
        with errors_naming(path, verb):
            batch = next(batches, None)
            if batch is None:
                break
            batch = pa.record_batch({name: batch[name].cast(kind) for name, kind in types.items()})
            if empty := [name for name in ("row", *whole) if batch[name].null_count]:
                raise ValueError(f"the column {empty[0]} lacks values")
            rows: IntArray = batch["row"].to_numpy()
            if len(rows) and (rows.min() < 0 or rows.max() >= num_rows):
                raise ValueError("the column row goes beyond the number of records")
            seen[rows] = True
        yield rows, batch
    with errors_naming(path, verb):
        if not seen.all():
            raise ValueError(f"row {int(np.argmin(seen))} is missing")
