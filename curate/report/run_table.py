"""Reads the columns of a run and of one of its selections, joined by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.types import CurateError, FloatArray

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Labels:
    """A text column as codes.

    codes  int32 [N], index into `names`; -1 where null
    names  the distinct texts, in the order of their first row
    """

    codes: Codes
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunTable:
    """What a run and one selection say of every input record; N rows, E exits.

    selection        its name
    settings         select.* of the selection by the names of the recipe, from the manifest
    scores           score columns by name, float64 [N], NaN where null; `complexity` is always there
    confidence       float32 [N, E], NaN where not scored
    exits            the E layers
    num_layers       of the model
    prompt_tokens    int32 [N], 0 where not scored, as is response_tokens
    kept             bool [N]
    reason           why a row is kept or not
    cluster          int32 [N], -1 where none
    rank             int32 [N], place among the eligible rows of its stratum from 0; -1 where not eligible
    group            codes are -1 throughout where the selection has no groups
    """

    selection: str
    settings: Mapping[str, Any]
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
    def by(self) -> str:
        """The score column that the selection went by; complexity where it went by none."""
        by = str(self.settings.get("by", "complexity"))
        return by if by in self.scores else "complexity"


def read_run(folder: Path, selection: str) -> RunTable:
    """Return the columns of a run folder and of the selection of that name.

    Raises:
        CurateError: no such run or selection; a selection made from other records than the scores.
    """
    scores = _table(folder / "scores.parquet", "scores: run curate score first")
    chosen = _table(folder / "selections" / selection / "selection.parquet", _known_selections(folder))
    if len(scores) != len(chosen):
        raise CurateError(
            f"selection {selection} has {len(chosen)} rows and scores.parquet {len(scores)}; run curate select again"
        )
    about = json.loads((scores.schema.metadata or {})[b"curate"])
    stage = read_manifest(folder)["stages"].get(f"selections/{selection}", {})
    # Exits that were recomputed for this selection are not in the stored columns: those show what was scored.
    settings = {name.removeprefix("select."): value for name, value in stage.get("key", {}).items()}
    return RunTable(
        selection,
        settings,
        _scores(scores),
        _confidence(scores, len(about["exits"])),
        tuple(about["exits"]),
        int(about["num_layers"]),
        _whole(scores, "prompt_tokens", 0),
        _whole(scores, "response_tokens", 0),
        _placed(chosen, chosen["kept"].to_numpy()),
        _labels(chosen, "reason"),
        _whole(chosen, "cluster", -1),
        _whole(chosen, "rank", -1),
        _labels(chosen, "group"),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a run.

    Raises:
        CurateError: there is none.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CurateError(f"{folder} is not a run: expected its manifest.json") from None
    return manifest


def _table(path: Path, missing: str) -> pa.Table:
    try:
        return pq.read_table(path, memory_map=True)
    except FileNotFoundError:
        raise CurateError(f"{path.parent} holds no {missing}") from None


def _known_selections(folder: Path) -> str:
    names = sorted(path.parent.name for path in folder.glob("selections/*/selection.parquet"))
    return f"selection; this run has {', '.join(names) or 'none: run curate select first'}"


def _placed(table: pa.Table, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values in the order of rows: tables are joined by `row`, never by position."""
    out = np.empty_like(values)
    out[table["row"].to_numpy()] = values
    return out


def _scores(table: pa.Table) -> dict[str, FloatArray]:
    return {
        field.name: _placed(table, table[field.name].cast(pa.float64()).to_numpy())
        for field in table.schema
        if pa.types.is_floating(field.type)
    }


def _whole(table: pa.Table, name: str, missing: int) -> Codes:
    if name not in table.column_names:
        return np.full(len(table), missing, np.int32)
    values = table[name].cast(pa.int32()).fill_null(missing).to_numpy()
    placed: Codes = _placed(table, values)
    return placed


def _confidence(table: pa.Table, num_exits: int) -> npt.NDArray[np.float32]:
    values = np.full((len(table), num_exits), np.nan, np.float32)
    column = table["confidence"].combine_chunks()
    there = table["row"].to_numpy()[column.is_valid().to_numpy(zero_copy_only=False)]
    values[there] = column.flatten().to_numpy().reshape(len(there), num_exits)
    return values


def _labels(table: pa.Table, name: str) -> Labels:
    if name not in table.column_names:
        return Labels(np.full(len(table), -1, np.int32), ())
    column = table[name].combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    codes = column.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
    return Labels(_placed(table, codes), tuple(column.dictionary.cast(pa.string()).to_pylist()))
