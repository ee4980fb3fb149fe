"""Reads the columns of a run and of one of its selections, joined by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.runs.folder import RunFolder
from curate.tables.parquet import by_row, open_table
from curate.tables.score_columns import lists_by_row, read_about, read_column, score_columns
from curate.types import CurateError, FloatArray, IntArray

Codes = npt.NDArray[np.int32]
LENGTH = "response_tokens"


@dataclass(frozen=True, slots=True)
class Labels:
    """A text column as codes.

    codes  int32 [N], index into `names`; -1 where null
    names  the distinct texts, in the order of their first occurrence
    """

    codes: Codes
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunTable:
    """What a run and one selection say of every input record; N rows, E exits.

    selection        name of the selection
    settings         its settings select.*, from the manifest
    by               the score that the selection went by; complexity if it went by none (random); the response length
                     if the run does not have that score
    scores           columns by name, float64 [N], NaN where null; `by` is one of them
    confidence       float32 [N, E], NaN where not scored
    exits            the layers of the E exits; empty if complexity was not scored
    num_layers       layers of the scoring model; 0 if complexity was not scored
    prompt_tokens    int32 [N], 0 where not scored
    response_tokens  int32 [N], 0 where not scored
    kept             bool [N]
    reason           why a row is kept or not
    cluster          int32 [N], -1 where a row has none
    rank             int32 [N], place from 0 among the eligible rows of its stratum; -1 where not eligible
    group            groups of the rows; all codes are -1 if the selection has no groups
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
        """Return N, the number of input records."""
        return len(self.kept)

    @property
    def score(self) -> FloatArray:
        """The column `by`."""
        return self.scores[self.by]


def read_run(folder: Path, selection: str) -> RunTable:
    """Return the columns of a run and of one of its selections.

    Raises:
        CurateError: no such run or selection, a damaged file, or a selection that was made from other records.
    """
    scores, chosen = folder / "scores.parquet", folder / "selections" / selection / "selection.parquet"
    if not chosen.exists():
        raise CurateError(f"{folder} has no selection {selection}; it has {_selections(folder)}")
    about, num_rows = read_about(scores), open_table(scores, "score").metadata.num_rows
    # Files are joined by row: a selection from another input would be shown with wrong scores.
    if num_rows != (got := open_table(chosen, "select").metadata.num_rows):
        raise CurateError(f"selection {selection} has {got} rows, scores.parquet {num_rows}: run curate select again")
    stage = RunFolder(folder).stage(f"selections/{selection}") or {}
    key = stage.get("key", {})
    settings = {name.removeprefix("select."): value for name, value in key.items() if name.startswith("select.")}
    by, columns = _scores(scores, settings)
    return RunTable(
        selection,
        settings,
        by,
        columns,
        _confidence(scores, num_rows, len(about.exits)),
        about.exits,
        about.num_layers,
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
    """Return the name of the score that the selection went by, and the columns of all scores."""
    columns = {name: read_column(path, name) for name in score_columns(path) if not name.endswith("_tokens")}
    by = "complexity"  # also shown for a random selection, which goes by no score
    if settings.get("method") == "longest":
        by = LENGTH
    elif exits := settings.get("exits"):  # such a score is in no file, and is computed again
        by = f"complexity of exits {', '.join(map(str, exits))}"
        columns[by] = read_column(path, "complexity", exits=exits)
    elif settings.get("by") in columns:
        by = str(settings["by"])
    if by not in columns:
        by = LENGTH
        columns[by] = read_column(path, LENGTH)
    return by, columns


def _blocks(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[tuple[IntArray, pa.RecordBatch]]:
    return by_row(path, "score" if path.name == "scores.parquet" else "select", columns)


def _whole(path: Path, name: str, missing: int) -> Codes:
    """Return a column of integers; `missing` where null, and everywhere if there is no such column."""
    file = open_table(path, "select")
    out = np.full(file.metadata.num_rows, missing, np.int32)
    for rows, batch in _blocks(path, {name: pa.int32()}) if name in file.schema_arrow.names else ():
        out[rows] = batch[name].fill_null(missing)
    return out


def _confidence(path: Path, num_rows: int, num_exits: int) -> npt.NDArray[np.float32]:
    """Return the confidence at every exit: float32 [N, E], NaN where null."""
    values = np.full((num_rows, num_exits), np.nan, np.float32)
    for rows, confidence in lists_by_row(path, "confidence", num_exits) if num_exits else ():
        values[rows] = confidence
    return values


def _labels(path: Path, name: str) -> Labels:
    """Return a text column as codes; without a column `group`, which is newer than the others, all codes are -1."""
    file = open_table(path, "select")
    codes = np.full(file.metadata.num_rows, -1, np.int32)
    names: dict[str, int] = {}
    there = name != "group" or name in file.schema_arrow.names
    for rows, batch in _blocks(path, {name: pa.string()}) if there else ():
        texts = batch[name].to_pylist()
        codes[rows] = [-1 if text is None else names.setdefault(text, len(names)) for text in texts]
    return Labels(codes, tuple(names))
