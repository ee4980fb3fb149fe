"""Reads scores.parquet: statuses, exact duplicates and columns of numbers, joined by `row`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.scoring.confidence import complexity
from curate.tables.digests import digest_of_ids
from curate.tables.parquet import by_row, errors_naming, open_table
from curate.types import STATUSES, CurateError, FloatArray

METADATA = b"curate"
_VERB = "score"
_ID = np.dtype([("head", "S16"), ("row", ">u4")])  # half of a SHA-256; as bytes these sort by head, then by row


@dataclass(frozen=True, slots=True)
class Rows:
    """The columns of scores.parquet that are there whatever was scored.

    status           uint8 [N], index into STATUSES
    response_tokens  int32 [N], 0 where null
    duplicate_ids    int32 [N], from 0 and equal for records with the same id (exact duplicates); -1 where no
                     other record has the id
    digest           digest of all ids in order of row, see `digest_of_ids`
    """

    status: npt.NDArray[np.uint8]
    response_tokens: npt.NDArray[np.int32]
    duplicate_ids: npt.NDArray[np.int32]
    digest: str = ""


def read_rows(path: Path) -> Rows:
    """Read statuses, response lengths, and which records are exact duplicates.

    Raises:
        CurateError: the file is missing or damaged.
    """
    num_rows = open_table(path, _VERB).metadata.num_rows
    rows, numbers, digest = _duplicates(path, num_rows)  # first, before other columns take memory too
    duplicate_ids = np.full(num_rows, -1, np.int32)
    duplicate_ids[rows] = numbers
    status, tokens = np.empty(num_rows, np.uint8), np.empty(num_rows, np.int32)
    codes = {name: code for code, name in enumerate(STATUSES)}
    for part, batch in by_row(path, _VERB, ["status", "response_tokens"]):
        with errors_naming(path, _VERB):  # a status that is unknown raises KeyError: the file is damaged
            status[part] = [codes[s] for s in batch["status"].to_pylist()]
        tokens[part] = batch["response_tokens"].fill_null(0)
    return Rows(status, tokens, duplicate_ids, digest)


def read_column(path: Path, name: str, *, exits: Sequence[int] | None = None) -> FloatArray:
    """Read a column of numbers: float64 [N], NaN where null.

    With `exits`, complexity is computed again from the stored confidence at these layers, without the model.

    Raises:
        CurateError: there is no numeric column of that name; an exit was not stored; the file is missing or damaged.
    """
    column = "confidence" if exits is not None else name
    _check_column(path, name, exits)
    keep = [stored_exits(path).index(k) for k in exits] if exits is not None else []
    out = np.full(open_table(path, _VERB).metadata.num_rows, np.nan)
    for part, batch in by_row(path, _VERB, [column]):
        out[part] = _numbers_of(batch[column], keep)
    return out


def read_exit(path: Path, name: str, layer: int) -> FloatArray:
    """Read confidence or log_prob (`name`) at the exit after `layer`: float64 [N], NaN where null.

    Raises:
        CurateError: that exit was not stored; the file is missing or damaged.
    """
    if layer not in (exits := stored_exits(path)):
        raise CurateError(f"the stored exits are {exits}, got {layer}")
    place = exits.index(layer)
    out = np.full(open_table(path, _VERB).metadata.num_rows, np.nan)
    for part, batch in by_row(path, _VERB, [name]):
        out[part] = pc.list_element(batch[name], place).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return out


def score_columns(path: Path) -> list[str]:
    """Return the names of the numeric columns that hold one number a record."""
    schema = open_table(path, _VERB).schema_arrow
    return [f.name for f in schema if pa.types.is_floating(f.type) or f.name.endswith("_tokens")]


def column_names(path: Path) -> list[str]:
    """Return the names of all columns."""
    names: list[str] = open_table(path, _VERB).schema_arrow.names
    return names


def about_scores(path: Path) -> dict[str, Any]:
    """Return what the metadata of scores.parquet say: exits, num_layers, definitions; empty before anything is scored.

    Raises:
        CurateError: the file is missing or damaged.
    """
    schema = open_table(path, _VERB).schema_arrow
    with errors_naming(path, _VERB):
        about = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
        if not isinstance(about, dict):
            raise ValueError("its metadata are no object")
        if not all(isinstance(layer, int) for layer in [*about.get("exits", []), about.get("num_layers", 0)]):
            raise ValueError("the exits in its metadata are no numbers")
    return about


def stored_exits(path: Path) -> list[int]:
    """Return the layers whose confidence is in scores.parquet; none before complexity was scored."""
    exits: list[int] = about_scores(path).get("exits", [])
    return exits


def _duplicates(path: Path, num_rows: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], str]:
    """Return the rows that share their id with another row, the number (from 0) of that id, and a digest of all ids."""
    # Sorted in place, 20 bytes a row: `np.unique` with its inverse would take three times that.
    ids = np.empty(num_rows, _ID)
    for part, batch in by_row(path, _VERB, ["id"]):
        with errors_naming(path, _VERB):
            ids["head"][part] = np.frombuffer(bytes.fromhex("".join(batch["id"].to_pylist())), "S32")
        ids["row"][part] = part
    digest = digest_of_ids(ids["head"])
    ids.view("S20").sort()
    repeats = np.append(False, ids["head"][1:] == ids["head"][:-1])
    shared = np.flatnonzero(repeats | np.append(repeats[1:], False))
    return ids["row"][shared], np.cumsum(~repeats[shared], dtype=np.int32) - 1, digest


def _numbers_of(values: pa.Array, keep: Sequence[int]) -> FloatArray:
    """Return a column as floats; of lists of confidence, the complexity over the exits at the places `keep`."""
    if not keep:
        numbers: FloatArray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return numbers
    scored = values.is_valid().to_numpy(zero_copy_only=False)
    out = np.full(len(values), np.nan)
    # flatten() leaves out null lists, so what is left is E numbers for every scored row.
    out[scored] = complexity(values.flatten().to_numpy().reshape(int(scored.sum()), -1)[:, list(keep)])
    return out


def _check_column(path: Path, name: str, exits: Sequence[int] | None) -> None:
    """Refuse a column that does not exist or has no numbers, and exits that were not stored."""
    numeric = score_columns(path)
    if exits is not None:
        if name != "complexity":
            raise CurateError(f"select.exits recomputes complexity; it does not go with select.by={name}")
        if unknown := sorted(set(exits) - set(stored_exits(path))) or not exits:
            raise CurateError(f"select.exits: the stored exits are {stored_exits(path)}, got {unknown}")
    elif name not in numeric:
        raise CurateError(f"select.by: the score columns are {', '.join(numeric)}, got {name}")
