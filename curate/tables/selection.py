"""clusters.parquet and selection.parquet: a row per input record, in input order, joined by `row`.

Files are read through a memory map: otherwise Arrow holds on to every row group that it is done with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.selection import REASONS, Selection
from curate.tables.parquet import by_row, open_table


def write_selection(
    path: Path, selection: Selection, *, scores_path: Path, labels: npt.NDArray[np.int32] | None
) -> None:
    """Columns row, id, kept, reason, cluster and rank (place among the eligible rows of its cluster, from 0).

    cluster is null without clusters or embedding, rank is null where the row was not eligible.
    """
    schema = pa.schema(
        [
            ("row", pa.int64()),
            ("id", pa.string()),
            ("kept", pa.bool_()),
            ("reason", pa.string()),
            ("cluster", pa.int32()),
            ("rank", pa.int32()),
        ]
    )
    names = np.array(REASONS, dtype=object)
    with pq.ParquetWriter(path, schema, use_dictionary=["reason"], compression="zstd") as writer:
        for rows, ids in by_row(scores_path, "score", ["id"]):
            rank = selection.rank[rows]
            cluster = np.full(len(rows), -1, np.int32) if labels is None else labels[rows]
            columns = [
                ids["row"],
                ids["id"],
                pa.array(selection.kept[rows]),
                pa.array(names[selection.reason[rows]], pa.string()),
                pa.array(cluster, mask=cluster < 0),
                pa.array(rank, mask=rank < 0),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def read_kept(path: Path) -> npt.NDArray[np.bool_]:
    """Read which rows a selection keeps, bool [N].

    Raises:
        CurateError: the file is missing or damaged.
    """
    kept = np.zeros(open_table(path, "select").metadata.num_rows, bool)
    for rows, batch in by_row(path, "select", ["kept"]):
        kept[rows] = batch["kept"]
    return kept
