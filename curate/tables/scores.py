"""Writes scores.parquet: one row per input record, in input order; joined to other files by `row`, never by position.

The first columns describe the record (id, status, lengths). Each score adds its own columns; columns that are there
already do not change. The file is written in row groups, so that memory does not grow with the number of records.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.scoring.confidence import complexity, perplexity
from curate.tables.digests import digest_of_ids
from curate.tables.parquet import ROW_GROUP, by_row, count_rows, open_table
from curate.tables.score_columns import METADATA, read_about, read_column, read_rows, score_columns
from curate.types import STATUSES, BatchScores, CurateError, FloatArray, TokenStore

_BASE = [
    ("row", pa.int64()),
    ("id", pa.string()),
    ("status", pa.string()),
    ("truncated", pa.bool_()),
    ("prompt_tokens", pa.int32()),
    ("response_tokens", pa.int32()),
]
_COMPLEXITY = [
    ("complexity", pa.float64()),
    ("confidence", pa.list_(pa.float32())),
    ("log_prob", pa.list_(pa.float32())),
    ("perplexity", pa.float64()),
]


def scores_schema(layers: Sequence[int], num_layers: int) -> pa.Schema:
    """Return the schema of scores.parquet with complexity; exits, direction and definitions are in its metadata."""
    about = {
        "exits": list(layers),
        "num_layers": num_layers,
        "complexity": "1 - mean over exits of confidence; low = easy",
        "confidence": "mean over response tokens of p(token), one per exit",
        "log_prob": "mean over response tokens of log p(token), nats per token, one per exit",
        "perplexity": "exp(-log_prob) of the full model; null unless the last layer is an exit",
    }
    return pa.schema([*_BASE, *_COMPLEXITY], metadata={METADATA: json.dumps(about)})


def write_rows(path: Path, store: TokenStore) -> None:
    """Write scores.parquet without any score: enough for selecting by length or at random."""
    with pq.ParquetWriter(path, pa.schema(_BASE), use_dictionary=["status"], compression="zstd") as writer:
        for start in range(0, len(store), ROW_GROUP):
            status = store.rows["status"][start : start + ROW_GROUP]
            writer.write_table(pa.table(_base_group(store, start, status), schema=pa.schema(_BASE)))


def write_scores(
    path: Path,
    store: TokenStore,
    chunks: Iterable[BatchScores],
    *,
    layers: Sequence[int],
    num_layers: int,
    earlier: Path | None = None,
) -> Counter[str]:
    """Write scores.parquet with complexity; return how many records have each status.

    The chunks may come in any order. Together they must cover every row to score exactly once; this is asserted before
    anything is written.

    Args:
        path: the file to write.
        store: the tokens of all records.
        chunks: the scores.
        layers: the exits.
        num_layers: layers of the model.
        earlier: a scores.parquet whose columns of other scores are copied; None if there is none.
    """
    schema = scores_schema(layers, num_layers)
    further = _further_columns(earlier, store) if earlier is not None else {}
    with _scratch_folder(path) as folder:
        scores = gather(store, chunks, len(layers), folder)
        counts: Counter[str] = Counter()
        # With columns of other scores the file is written twice: complexity alone, then all of it.
        own = folder / "scores.parquet" if further else path
        with pq.ParquetWriter(own, schema, use_dictionary=["status"], compression="zstd") as writer:
            for start in range(0, len(store), ROW_GROUP):
                part = slice(start, start + ROW_GROUP)
                status, confidence, log_prob = (a[part] for a in scores)
                group = _base_group(store, start, status)
                counts.update(group["status"])
                group |= _complexity_group(status, confidence, log_prob, full_model=layers[-1] == num_layers)
                writer.write_table(pa.table(group, schema=schema))
        del scores  # unmaps the scratch files, so that their space is free before the file is written once more
        if further:
            about = {name: definition for name, (_, definition) in further.items()}
            add_columns(own, path, {name: values for name, (values, _) in further.items()}, about)
    return counts


def count_scored_rows(path: Path) -> int:
    """Return how many rows scores.parquet has; raise if it is missing or damaged, or does not describe the records."""
    return count_rows(path, "score", [name for name, _ in _BASE])


def holds_complexity(path: Path) -> bool:
    """Say whether scores.parquet has the columns of the complexity pass: it may have been removed, and begun anew."""
    return {name for name, _ in _COMPLEXITY} <= set(open_table(path, "score").schema_arrow.names)


def add_columns(
    old: Path,
    new: Path,
    columns: Mapping[str, FloatArray],
    about: Mapping[str, str],
    *,
    drop: Collection[str] = (),
) -> None:
    """Copy the scores.parquet `old` to `new` and append columns; NaN and infinity become null.

    A column of the same name is replaced. Nothing else changes.

    Args:
        old: the file to copy.
        new: the file to write.
        columns: name -> float64 [N].
        about: name -> definition of the column, and which direction is easy; for the metadata.
        drop: columns of `old` that are left out.
    """
    stored, schema = read_about(old), open_table(old, "score").schema_arrow
    kept = [field for field in schema if field.name not in columns and field.name not in drop]
    exits = {"exits": stored.exits, "num_layers": stored.num_layers} if stored.exits else {}
    fields = [*kept, *(pa.field(name, pa.float64()) for name in columns)]
    metadata = {METADATA: json.dumps({**exits, **stored.definitions, **about})}
    schema = pa.schema(fields, metadata=metadata)
    with pq.ParquetWriter(new, schema, use_dictionary=["status"], compression="zstd") as writer:
        for rows, batch in by_row(old, "score", {field.name: field.type for field in kept}):
            own = [batch[field.name] for field in kept]
            more = [pa.array(values[rows], mask=~np.isfinite(values[rows])) for values in columns.values()]
            writer.write_table(pa.table([*own, *more], schema=schema))


def _further_columns(earlier: Path, store: TokenStore) -> dict[str, tuple[FloatArray, str]]:
    """Read the columns of other scores in `earlier` and their definitions; none if it is damaged or not of `store`."""
    try:
        own = {name for name, _ in (*_BASE, *_COMPLEXITY)}
        names = [name for name in score_columns(earlier) if name not in own]
        # The ids must be those of the store, in order: a file of another run has other records in its rows.
        if not names or read_rows(earlier).digest != digest_of_ids(store.rows["id"]):
            return {}
        about = read_about(earlier).definitions
        return {name: (read_column(earlier, name), about.get(name, "")) for name in names}
    except CurateError:
        return {}


@contextmanager
def _scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, and remove it afterwards."""
    # A killed run leaves it behind: the next run knows it by the ending of its name and removes it.
    folder = path.with_name(f".scores.{secrets.token_hex(4)}.curate-tmp")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def gather(
    store: TokenStore, chunks: Iterable[BatchScores], num_exits: int, folder: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Put chunks into row order: status uint8 [N], confidence and log-probability float32 [N, E].

    The last two are memory-mapped scratch files in `folder`: chunks come in any order, and N * E numbers may not fit
    into memory.
    """
    status = np.array(store.rows["status"])
    confidence, log_prob = (_scratch(folder / name, (len(store), num_exits)) for name in ("confidence", "log_prob"))
    missing = status == STATUSES.index("scored")
    for chunk in chunks:
        assert missing[chunk.rows].all(), "a row was scored twice"
        missing[chunk.rows] = False
        status[chunk.rows] = chunk.status
        confidence[chunk.rows], log_prob[chunk.rows] = chunk.confidence, chunk.log_prob
    assert not missing.any(), f"{missing.sum()} rows were never scored"
    return status, confidence, log_prob


def _scratch(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Map a new file of zeros into memory."""
    # Zeros are written out: on a full disk that raises an error, where writing to a sparse map kills the process.
    with open(path, "wb") as file:
        for start in range(0, shape[0], ROW_GROUP):
            file.write(bytes(4 * shape[1] * min(ROW_GROUP, shape[0] - start)))
    return np.memmap(path, np.float32, "r+", shape=shape) if shape[0] else np.zeros(shape, np.float32)


def _base_group(store: TokenStore, start: int, status: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the columns that describe the records of one row group; lengths are null where not scored."""
    rows = store.rows[start : start + len(status)]
    previous_end = int(store.rows["end"][start - 1]) if start else 0
    tokens = np.diff(rows["end"], prepend=previous_end)
    unscored = status != STATUSES.index("scored")
    return {
        "row": np.arange(start, start + len(rows)),
        "id": [item.hex() for item in rows["id"].tolist()],
        "status": [STATUSES[code] for code in status],
        "truncated": rows["truncated"],
        "prompt_tokens": pa.array((tokens - rows["scored"]).astype(np.int32), mask=unscored),
        "response_tokens": pa.array(rows["scored"], mask=unscored),
    }


def _complexity_group(
    status: npt.NDArray[Any], confidence: npt.NDArray[Any], log_prob: npt.NDArray[Any], *, full_model: bool
) -> dict[str, Any]:
    """Return the columns of complexity of one row group; null where not scored, perplexity also without last layer."""
    unscored = status != STATUSES.index("scored")
    full = perplexity(log_prob[:, -1]) if full_model else np.zeros(len(status))
    return {
        "complexity": pa.array(complexity(confidence), mask=unscored),
        "confidence": _lists(confidence, unscored),
        "log_prob": _lists(log_prob, unscored),
        "perplexity": pa.array(full, mask=unscored | (not full_model)),
    }


def _lists(values: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_]) -> pa.Array:
    """Make a list column, null where `missing`."""
    # A null list has length 0 and a null offset of its own.
    lengths = np.where(missing, 0, values.shape[1])
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), mask=np.append(missing, False))
    return pa.ListArray.from_arrays(offsets, pa.array(values[~missing].ravel(), pa.float32()))
