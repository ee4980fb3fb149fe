"""Reads the columns of a run and of one of its selections, joined by row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.runs.folder import RunFolder
from curate.tables.parquet import by_row, open_table
from curate.tables.score_columns import METADATA, read_column, score_columns, stored_exits
from curate.types import CurateError, FloatArray, IntArray

Codes = npt.NDArray[np.int32]
LENGTH = "response_tokens"


@dataclass(frozen=True, slots=True)
class Labels:
    """A text column as codes.

    codes  int32 [N], index into `names`; -1 where null
    names  the distinct texts, in the order in which they were met
    """

    codes: Codes
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunTable:
    """What a run and one selection say of every input record; N rows, E exits.

    selection        its name
    settings         select.* of the selection by the names of the recipe, from the manifest
    by               the score that the selection went by; where it went by none (random), complexity; where the run
                     has no such score, the response length
    scores           columns by name, float64 [N], NaN where null; `by` is among them
    confidence       float32 [N, E], NaN where not scored
    exits            the E layers; none where complexity was not scored, and then num_layers is 0
    prompt_tokens    int32 [N], 0 where not scored, as is response_tokens
    kept             bool [N]
    reason           why a row is kept or not
    cluster          int32 [N], -1 where none
    rank             int32 [N], place among the eligible rows of its stratum from 0; -1 where not eligible
    group            codes are -1 throughout where the selection has no groups
    """

    selection: str
    settings: Mapping[str, Any]
    by: str
    scores: Mapping[str, FloatArray]
    confidence: npt.NDArray[np.float32]
    exits: tuple[int, ...]
    num_layers: int
    prompt_tokens: Codes
    response_tokens: Codes
    kept: npt.NDArray[np.bool_]
    reason: Labels
    cluster: Codes
    rank: Codes
    group: Labels

    def __len__(self) -> int:
        """N, the number of input records."""
        return len(self.kept)

    @property
    def score(self) -> FloatArray:
        """The column `by`."""
        return self.scores[self.by]


def read_run(folder: Path, selection: str) -> RunTable:
    """Return the columns of a run folder and of the selection of that name.

    Raises:
        CurateError: no such run or selection; a damaged file; a selection made from other records than the scores.
    """
    scores, chosen = folder / "scores.parquet", folder / "selections" / selection / "selection.parquet"
    if not chosen.exists():
        raise CurateError(f"{folder} has no selection {selection}; it has {_selections(folder)}")
    schema, num_rows = open_table(scores, "score").schema_arrow, open_table(scores, "score").metadata.num_rows
    if num_rows != (got := open_table(chosen, "select").metadata.num_rows):
        raise CurateError(f"selection {selection} has {got} rows, scores.parquet {num_rows}: run curate select again")
    stage = RunFolder(folder).stage(f"selections/{selection}") or {}
    key = stage.get("key", {})
    settings = {name.removeprefix("select."): value for name, value in key.items() if name.startswith("select.")}
    by, columns = _scores(scores, settings)
    exits = tuple(stored_exits(schema))
    return RunTable(
        selection,
        settings,
        by,
        columns,
        _confidence(scores, num_rows, len(exits)),
        exits,
        int(json.loads((schema.metadata or {}).get(METADATA, b"{}")).get("num_layers", 0)),
        _whole(scores, "prompt_tokens", 0),
        _whole(scores, LENGTH, 0),
        _whole(chosen, "kept", 0).astype(bool),
        _labels(chosen, "reason"),
        _whole(chosen, "cluster", -1),
        _whole(chosen, "rank", -1),
        _labels(chosen, "group"),
    )


def _selections(folder: Path) -> str:
    names = sorted(path.parent.name for path in folder.glob("selections/*/selection.parquet"))
    return ", ".join(names) or "none: run curate select first"


def _scores(path: Path, settings: Mapping[str, Any]) -> tuple[str, dict[str, FloatArray]]:
    """What the selection went by, and all columns."""
    columns = {name: read_column(path, name) for name in score_columns(path) if not name.endswith("_tokens")}
    by = "complexity"
    if settings.get("method") == "longest":
        by = LENGTH
    elif exits := settings.get("exits"):  # such a score is recomputed, and stands in no file
        by = f"complexity of exits {', '.join(map(str, exits))}"
        columns[by] = read_column(path, "complexity", exits=exits)
    elif settings.get("by") in columns:
        by = str(settings["by"])
    if by not in columns:
        by = LENGTH
        columns[by] = read_column(path, LENGTH)
    return by, columns


def _blocks(path: Path, columns: Sequence[str]) -> Iterator[tuple[IntArray, pa.RecordBatch]]:
    return by_row(path, "score" if path.name == "scores.parquet" else "select", columns)


def _whole(path: Path, name: str, missing: int) -> Codes:
    """A column of whole numbers; `missing` where null, and throughout where there is no such column."""
    file = open_table(path, "select")
    out = np.full(file.metadata.num_rows, missing, np.int32)
    for rows, batch in _blocks(path, [name] if name in file.schema_arrow.names else []):
        if name in batch.schema.names:
            out[rows] = batch[name].cast(pa.int32()).fill_null(missing)
    return out


def _confidence(path: Path, num_rows: int, num_exits: int) -> npt.NDArray[np.float32]:
    values = np.full((num_rows, num_exits), np.nan, np.float32)
    for rows, batch in _blocks(path, ["confidence"]) if num_exits else ():
        there = rows[batch["confidence"].is_valid().to_numpy(zero_copy_only=False)]
        values[there] = batch["confidence"].flatten().to_numpy().reshape(len(there), num_exits)
    return values


def _labels(path: Path, name: str) -> Labels:
    file = open_table(path, "select")
    codes = np.full(file.metadata.num_rows, -1, np.int32)
    names: dict[str, int] = {}
    for rows, batch in _blocks(path, [name]) if name in file.schema_arrow.names else ():
        texts = batch[name].cast(pa.string()).to_pylist()
        codes[rows] = [-1 if text is None else names.setdefault(text, len(names)) for text in texts]
    return Labels(codes, tuple(names))
