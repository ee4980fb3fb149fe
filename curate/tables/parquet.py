"""Opening the Parquet files of a run: joined by `row`, and a damaged or missing one is told by name.

Files are read through a memory map: otherwise Arrow holds on to every row group that it is done with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.types import CurateError, IntArray

ROW_GROUP = 65_536


@contextmanager
def told_by_name(path: Path, verb: str) -> Iterator[None]:
    """Turn what Arrow says of a missing or damaged file into a line that names the file and the verb that makes it.

    Raises:
        CurateError: so.
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
    """Open a Parquet file of a run; `verb` makes it.

    Raises:
        CurateError: it is missing or damaged.
    """
    with told_by_name(path, verb):
        return pq.ParquetFile(path, memory_map=True)


def by_row(path: Path, verb: str, columns: Sequence[str]) -> Iterator[tuple[IntArray, pa.RecordBatch]]:
    """Yield the rows of a table, block by block, with the columns asked for, whatever order they stand in.

    Raises:
        CurateError: the file is missing or damaged, a column is missing, or `row` is not 0 to N - 1, each once.
    """
    file = open_table(path, verb)
    seen = np.zeros(file.metadata.num_rows, bool)
    batches = file.iter_batches(ROW_GROUP, columns=["row", *columns])
    while True:
        with told_by_name(path, verb):
            batch = next(batches, None)
            if batch is None:
                break
            rows: IntArray = batch["row"].to_numpy()
            if len(rows) and (rows.min() < 0 or rows.max() >= len(seen)):
                raise ValueError("the column row goes beyond the number of records")
            seen[rows] = True
            for name in columns:
                batch[name]
        yield rows, batch
    with told_by_name(path, verb):
        if not seen.all():
            raise ValueError(f"row {int(np.argmin(seen))} is missing")
