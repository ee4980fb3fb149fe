"""scores.parquet: one row per input record, in input order; joined to other files by `row`, never by position.

Written in row duplicate_ids, so that memory does not grow with the number of records.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.scoring.confidence import complexity, perplexity
from curate.types import STATUSES, BatchScores, CurateError, FloatArray, TokenStore

_ROW_GROUP = 65_536
_METADATA = b"curate"
_ID = np.dtype([("head", "S16"), ("row", ">u4")])  # half of a SHA-256; as bytes these sort by head, then by row


def scores_schema(layers: Sequence[int], num_layers: int) -> pa.Schema:
    """Columns of scores.parquet; exits, direction and definitions stand in the metadata."""
    about = {
        "exits": list(layers),
        "num_layers": num_layers,
        "complexity": "1 - mean over exits of confidence; low = easy",
        "confidence": "mean over response tokens of p(token), one per exit",
        "log_prob": "mean over response tokens of log p(token), nats per token, one per exit",
        "perplexity": "exp(-log_prob) of the full model; null unless the last layer is an exit",
    }
    columns = [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("status", pa.string()),
        ("truncated", pa.bool_()),
        ("prompt_tokens", pa.int32()),
        ("response_tokens", pa.int32()),
        ("complexity", pa.float64()),
        ("confidence", pa.list_(pa.float32())),
        ("log_prob", pa.list_(pa.float32())),
        ("perplexity", pa.float64()),
    ]
    return pa.schema(columns, metadata={_METADATA: json.dumps(about)})


def write_scores(
    path: Path, store: TokenStore, chunks: Iterable[BatchScores], *, layers: Sequence[int], num_layers: int
) -> Counter[str]:
    """Write scores.parquet from chunks in any order; returns how many records have each status.

    Every row to score is covered exactly once; that is asserted before anything is written.
    """
    schema = scores_schema(layers, num_layers)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".scores.", suffix=".curate-tmp") as folder:
        scores = _gather(store, chunks, len(layers), Path(folder))
        counts: Counter[str] = Counter()
        with pq.ParquetWriter(path, schema, use_dictionary=["status"], compression="zstd") as writer:
            for start in range(0, len(store), _ROW_GROUP):
                part = slice(start, start + _ROW_GROUP)
                status, confidence, log_prob = (a[part] for a in scores)
                group = _score_group(store, start, status, confidence, log_prob, layers, num_layers)
                counts.update(group["status"])
                writer.write_table(pa.table(group, schema=schema))
        del scores  # unmaps the scratch files
    return counts


def _gather(
    store: TokenStore, chunks: Iterable[BatchScores], num_exits: int, folder: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Status, confidence and log-probability in row order, in scratch files rather than in memory."""
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
    """Zeros in a file. They are written out: on a full disk that is an error, where a sparse map would be a SIGBUS."""
    with open(path, "wb") as file:
        for start in range(0, shape[0], _ROW_GROUP):
            file.write(bytes(4 * shape[1] * min(_ROW_GROUP, shape[0] - start)))
    return np.memmap(path, np.float32, "r+", shape=shape) if shape[0] else np.zeros(shape, np.float32)


def _score_group(
    store: TokenStore,
    start: int,
    status: npt.NDArray[Any],
    confidence: npt.NDArray[Any],
    log_prob: npt.NDArray[Any],
    layers: Sequence[int],
    num_layers: int,
) -> dict[str, Any]:
    rows = store.rows[start : start + len(status)]
    before = int(store.rows["end"][start - 1]) if start else 0
    tokens = np.diff(rows["end"], prepend=before)
    unscored = status != STATUSES.index("scored")
    full = perplexity(log_prob[:, -1]) if layers[-1] == num_layers else np.zeros(len(rows))
    return {
        "row": np.arange(start, start + len(rows)),
        "id": [item.hex() for item in rows["id"].tolist()],
        "status": [STATUSES[code] for code in status],
        "truncated": rows["truncated"],
        "prompt_tokens": pa.array((tokens - rows["scored"]).astype(np.int32), mask=unscored),
        "response_tokens": pa.array(rows["scored"], mask=unscored),
        "complexity": pa.array(complexity(confidence), mask=unscored),
        "confidence": _lists(confidence, unscored),
        "log_prob": _lists(log_prob, unscored),
        "perplexity": pa.array(full, mask=unscored | (layers[-1] != num_layers)),
    }


def _lists(values: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_]) -> pa.Array:
    """A list column, null where missing."""
    lengths = np.where(missing, 0, values.shape[1])
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), mask=np.append(missing, False))
    return pa.ListArray.from_arrays(offsets, pa.array(values[~missing].ravel(), pa.float32()))


@dataclass(frozen=True, slots=True)
class Scores:
    """What a selection needs of scores.parquet.

    status           uint8 [N], index into STATUSES
    score            float64 [N], NaN where null
    response_tokens  int32 [N], 0 where null
    duplicate_ids    int32 [N], from 0 and equal for records with the same id (exact duplicates); -1 where no
                     other record has the id
    """

    status: npt.NDArray[np.uint8]
    score: FloatArray
    response_tokens: npt.NDArray[np.int32]
    duplicate_ids: npt.NDArray[np.int32]


def read_scores(path: Path, *, by: str = "complexity", exits: Sequence[int] | None = None) -> Scores:
    """Read what a selection needs; `exits` recomputes complexity from a subset of the stored exits.

    Raises:
        CurateError: no score column of that name; exits that were not stored.
    """
    file = pq.ParquetFile(path, memory_map=True)
    column = "confidence" if exits is not None else by
    _check_column(file.schema_arrow, column, by, exits)
    keep = [stored_exits(file.schema_arrow).index(k) for k in exits] if exits is not None else []
    rows, numbers = _duplicates(file)  # first, before other columns take memory too
    duplicate_ids = np.full(file.metadata.num_rows, -1, np.int32)
    duplicate_ids[rows] = numbers
    status, score, tokens = (
        np.empty(len(duplicate_ids), np.uint8),
        np.empty(len(duplicate_ids)),
        np.empty(len(duplicate_ids), np.int32),
    )
    codes = {name: code for code, name in enumerate(STATUSES)}
    for part, batch in _parts(file, ["status", "response_tokens", column]):
        status[part] = [codes[s] for s in batch["status"].to_pylist()]
        tokens[part] = batch["response_tokens"].fill_null(0)
        score[part] = _scores_of(batch[column], keep)
    return Scores(status, score, tokens, duplicate_ids)


def read_scored(path: Path) -> npt.NDArray[np.bool_]:
    """Which rows have a score, bool [N]."""
    parts = _parts(pq.ParquetFile(path, memory_map=True), ["status"])
    return np.concatenate([np.zeros(0, bool), *(pc.equal(batch["status"], "scored") for _, batch in parts)])


def _parts(file: pq.ParquetFile, columns: list[str]) -> Iterator[tuple[slice, pa.RecordBatch]]:
    """Batches and their rows. The file is memory-mapped: else Arrow holds on to every row group it is done with."""
    start = 0
    for batch in file.iter_batches(_ROW_GROUP, columns=columns):
        yield slice(start, start + len(batch)), batch
        start += len(batch)


def _duplicates(file: pq.ParquetFile) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32]]:
    """The rows that share their id with another row, and the number from 0 of that id for each of them.

    Sorted in place, 20 bytes a row: `np.unique` with its inverse would take three times that.
    """
    ids = np.empty(file.metadata.num_rows, _ID)
    for part, batch in _parts(file, ["id"]):
        ids["head"][part] = np.frombuffer(bytes.fromhex("".join(batch["id"].to_pylist())), "S32")
        ids["row"][part] = np.arange(part.start, part.stop)
    ids.view("S20").sort()
    repeats = np.append(False, ids["head"][1:] == ids["head"][:-1])
    shared = np.flatnonzero(repeats | np.append(repeats[1:], False))
    return ids["row"][shared], np.cumsum(~repeats[shared], dtype=np.int32) - 1


def stored_exits(schema: pa.Schema) -> list[int]:
    """The layers whose confidence scores.parquet holds."""
    exits: list[int] = json.loads(schema.metadata[_METADATA])["exits"]
    return exits


def _scores_of(values: pa.Array, keep: Sequence[int]) -> FloatArray:
    if not keep:
        numbers: FloatArray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return numbers
    scored = values.is_valid().to_numpy(zero_copy_only=False)
    out = np.full(len(values), np.nan)
    out[scored] = complexity(values.flatten().to_numpy().reshape(int(scored.sum()), -1)[:, list(keep)])
    return out


def _check_column(schema: pa.Schema, column: str, by: str, exits: Sequence[int] | None) -> None:
    numeric = [f.name for f in schema if pa.types.is_floating(f.type) or f.name.endswith("_tokens")]
    if exits is not None:
        if by != "complexity":
            raise CurateError(f"select.exits recomputes complexity; it does not go with select.by={by}")
        if unknown := sorted(set(exits) - set(stored_exits(schema))) or not exits:
            raise CurateError(f"select.exits: the stored exits are {stored_exits(schema)}, got {unknown}")
    elif column not in numeric:
        raise CurateError(f"select.by: the score columns are {', '.join(numeric)}, got {column}")


def write_chunk(path: Path, scores: BatchScores) -> None:
    """Store the scores of a chunk until all are there."""
    with open(path, "wb") as file:  # given a name, savez would append .npz
        np.savez(
            file,
            rows=scores.rows,
            status=scores.status,
            confidence=scores.confidence,
            log_prob=scores.log_prob,
            split=np.array(scores.split),
        )


def read_chunk(path: Path) -> BatchScores:
    """Read what `write_chunk` stored."""
    with np.load(path, allow_pickle=False) as arrays:
        return BatchScores(
            arrays["rows"], arrays["status"], arrays["confidence"], arrays["log_prob"], bool(arrays["split"])
        )
