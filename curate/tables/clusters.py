"""clusters.parquet: row, cluster and distance of every input record; joined to other files by `row`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.tables.parquet import ROW_GROUP, by_row, count_rows, open_table


def write_clusters(path: Path, labels: npt.NDArray[np.int32], distance: npt.NDArray[np.float32]) -> None:
    """Write the columns row, cluster and distance (to the cluster's centroid); null where a record has no embedding.

    Args:
        path: the file to write.
        labels: int32 [N], cluster of every row; negative where it has no embedding.
        distance: float32 [N].
    """
    schema = pa.schema([("row", pa.int64()), ("cluster", pa.int32()), ("distance", pa.float32())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(labels), ROW_GROUP):
            part = slice(start, start + ROW_GROUP)
            missing = labels[part] < 0  # null for other programs: -1 would look like a cluster of its own
            columns = [
                pa.array(np.arange(start, start + len(missing))),
                pa.array(labels[part], mask=missing),
                pa.array(distance[part], mask=missing),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def count_clustered_rows(path: Path) -> int:
    """Return how many rows clusters.parquet has; raise if it is missing or damaged, or lacks a column."""
    return count_rows(path, "embed", ["row", "cluster", "distance"])


def read_clusters(path: Path) -> npt.NDArray[np.int32]:
    """Read the cluster of every row: int32 [N], -1 where it has none.

    Raises:
        CurateError: the file is missing or damaged.
    """
    labels = np.empty(open_table(path, "embed").metadata.num_rows, np.int32)
    for rows, batch in by_row(path, "embed", {"cluster": pa.int32()}):
        labels[rows] = batch["cluster"].fill_null(-1)
    return labels
