"""selection.parquet: kept or not, and why, for every input record; in input order, joined to other files by `row`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.selection import REASONS, Candidates, Selection
from curate.tables.parquet import by_row, count_rows, open_table

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),
        ("cluster", pa.int32()),
        ("rank", pa.int32()),
        ("group", pa.string()),
    ]
)


def write_selection(path: Path, selection: Selection, candidates: Candidates, *, scores_path: Path) -> None:
    """Write the columns row, id, kept, reason, cluster, rank and group; ids are copied from scores.parquet.

    rank is the place in the order among the eligible rows of the same stratum, from 0; null where a row was not
    eligible. cluster is null where there are no clusters or the row has no embedding. group is null where there are no
    groups or the record lacks the field.
    """
    names = np.array(REASONS, dtype=object)
    groups = np.array([*candidates.group_names, None], dtype=object)  # index -1 is the last: None
    with pq.ParquetWriter(path, SCHEMA, use_dictionary=["reason", "group"], compression="zstd") as writer:
        for rows, ids in by_row(scores_path, "score", {"id": pa.string()}, whole=["id"]):
            rank = selection.rank[rows]
            cluster = np.full(len(rows), -1, np.int32) if candidates.clusters is None else candidates.clusters[rows]
            group = np.full(len(rows), -1) if candidates.groups is None else candidates.groups[rows]
            columns = [
                ids["row"],
                ids["id"],
                pa.array(selection.kept[rows]),
                pa.array(names[selection.reason[rows]], pa.string()),
                pa.array(cluster, pa.int32(), mask=cluster < 0),
                pa.array(rank, mask=rank < 0),
                pa.array(groups[group], pa.string()),
            ]
            writer.write_table(pa.table(columns, schema=SCHEMA))


def count_selected_rows(path: Path) -> int:
    """Return how many rows selection.parquet has; raise if it is missing or damaged, or lacks a column."""
    return count_rows(path, "select", SCHEMA.names)


def read_kept(path: Path) -> npt.NDArray[np.bool_]:
    """Read which rows a selection keeps: bool [N].

    Raises:
        CurateError: the file is missing or damaged.
    """
    kept = np.zeros(open_table(path, "select").metadata.num_rows, bool)
    for rows, batch in by_row(path, "select", {"kept": pa.bool_()}, whole=["kept"]):
        kept[rows] = batch["kept"]
    return kept
