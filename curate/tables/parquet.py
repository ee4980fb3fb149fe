"""Opens the Parquet files of a run and reads them by `row`; a damaged or missing file is named in the error.

Files are read through a memory map: otherwise Arrow keeps every row group in memory that it has read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    except (pa.ArrowException, OSError, KeyError, ValueError, EOFError) as error:
        what = " ".join(str(error).split())[:120]
        raise CurateError(f"{path} is damaged ({what}): remove it, and curate {verb} makes it again") from None


def open_table(path: Path, verb: str) -> pq.ParquetFile:
    """Open a Parquet file of a run; `verb` is the command that makes it.

    Raises:
        CurateError: it is missing or damaged.
    """
    with errors_naming(path, verb):
        return pq.ParquetFile(path, memory_map=True)


def by_row(path: Path, verb: str, columns: Sequence[str]) -> Iterator[tuple[IntArray, pa.RecordBatch]]:
    """Yield blocks of a table: the values of its column `row`, int64, and a batch with `columns`.

    The rows may stand in any order in the file. Join by the yielded row numbers, never by position.

    Raises:
        CurateError: the file is missing or damaged, a column is missing, or `row` is not 0 to N - 1, each once.
    """
    file = open_table(path, verb)
    seen = np.zeros(file.metadata.num_rows, bool)
    batches = file.iter_batches(ROW_GROUP, columns=["row", *columns])
    while True:
        # Only the read is inside: an error of the caller, raised at the `yield`, is no damage of the file.
        with errors_naming(path, verb):
            batch = next(batches, None)
            if batch is None:
                break
            rows: IntArray = batch["row"].to_numpy()
            if len(rows) and (rows.min() < 0 or rows.max() >= len(seen)):
                raise ValueError("the column row goes beyond the number of records")
            seen[rows] = True
            for name in columns:
                batch[name]  # raises KeyError where a column is missing
        yield rows, batch
    with errors_naming(path, verb):
        if not seen.all():
            raise ValueError(f"row {int(np.argmin(seen))} is missing")
