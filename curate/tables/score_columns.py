"""Reads scores.parquet: statuses, exact duplicates and columns of numbers, joined by `row`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from curate.scoring.confidence import complexity
from curate.tables.digests import digest_of_ids
from curate.tables.parquet import by_row, errors_naming, open_table
from curate.types import STATUSES, CurateError, FloatArray, IntArray

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
    columns = {"status": pa.string(), "response_tokens": pa.int32()}
    for part, batch in by_row(path, _VERB, columns, whole=["status"]):
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
    stored = read_about(path).exits
    _check_column(path, name, exits, stored)
    if exits is None:
        return _read_numbers(path, name)
    out = np.full(open_table(path, _VERB).metadata.num_rows, np.nan)
    for rows, confidence in lists_by_row(path, "confidence", len(stored)):
        out[rows] = complexity(confidence[:, [stored.index(k) for k in exits]])
    return out


def read_exit(path: Path, name: str, layer: int) -> FloatArray:
    """Read confidence or log_prob (`name`) at the exit after `layer`: float64 [N], NaN where null.

    Raises:
        CurateError: that exit was not stored; the file is missing or damaged.
    """
    stored = read_about(path).exits
    if layer not in stored:
        raise CurateError(f"the stored exits are {list(stored)}, got {layer}")
    out = np.full(open_table(path, _VERB).metadata.num_rows, np.nan)
    for rows, values in lists_by_row(path, name, len(stored)):
        out[rows] = values[:, stored.index(layer)]
    return out


def lists_by_row(path: Path, name: str, num_exits: int) -> Iterator[tuple[IntArray, npt.NDArray[np.float32]]]:
    """Yield blocks of confidence or log_prob (`name`) without the null rows: row numbers [n], values float32 [n, E].

    Raises:
        CurateError: the file is missing or damaged; a list has another length.
    """
    for rows, batch in by_row(path, _VERB, {name: pa.list_(pa.float32())}):
        with errors_naming(path, _VERB):
            there = batch[name].is_valid().to_numpy(zero_copy_only=False)
            lengths = batch[name].value_lengths().drop_null()
            if not pc.all(pc.equal(lengths, num_exits)).as_py():
                raise ValueError(f"the column {name} has lists that do not hold {num_exits} exits")
            # flatten() leaves out the null rows.
            values = batch[name].flatten().to_numpy(zero_copy_only=False).reshape(int(there.sum()), num_exits)
        yield rows[there], values


@dataclass(frozen=True, slots=True)
class About:
    """What the metadata of scores.parquet say of its columns.

    exits        layers whose confidence is stored; none before complexity was scored
    num_layers   layers of the scoring model; 0 before complexity was scored
    definitions  of each score: what it is, and which direction is easy
    """

    exits: tuple[int, ...]
    num_layers: int
    definitions: Mapping[str, str]


def read_about(path: Path) -> About:
    """Return what the metadata of scores.parquet say.

    Raises:
        CurateError: the file is missing or damaged.
    """
    schema = open_table(path, _VERB).schema_arrow
    with errors_naming(path, _VERB):
        stored = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
        return TypeAdapter(About).validate_python(
            {
                "exits": stored.pop("exits", ()),
                "num_layers": stored.pop("num_layers", 0),
                "definitions": stored,
            }
            if isinstance(stored, dict)
            else stored
        )


def score_columns(path: Path) -> list[str]:
    """Return the names of the numeric columns that hold one number a record."""
    schema = open_table(path, _VERB).schema_arrow
    return [f.name for f in schema if pa.types.is_floating(f.type) or f.name.endswith("_tokens")]


def column_names(path: Path) -> list[str]:
    """Return the names of all columns."""
    names: list[str] = open_table(path, _VERB).schema_arrow.names
    return names


def _duplicates(path: Path, num_rows: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], str]:
    """Return the rows that share their id with another row, the number (from 0) of that id, and a digest of all ids."""
    # Sorted in place, 20 bytes a row: `np.unique` with its inverse would take three times that.
    ids = np.empty(num_rows, _ID)
    for part, batch in by_row(path, _VERB, {"id": pa.string()}, whole=["id"]):
        with errors_naming(path, _VERB):
            ids["head"][part] = np.frombuffer(bytes.fromhex("".join(batch["id"].to_pylist())), "S32")
        ids["row"][part] = part
    digest = digest_of_ids(ids["head"])
    ids.view("S20").sort()
    repeats = np.append(False, ids["head"][1:] == ids["head"][:-1])
    shared = np.flatnonzero(repeats | np.append(repeats[1:], False))
    return ids["row"][shared], np.cumsum(~repeats[shared], dtype=np.int32) - 1, digest


def _read_numbers(path: Path, name: str) -> FloatArray:
    out = np.full(open_table(path, _VERB).metadata.num_rows, np.nan)
    for rows, batch in by_row(path, _VERB, {name: pa.float64()}):
        out[rows] = batch[name].to_numpy(zero_copy_only=False)
    return out


def _check_column(path: Path, name: str, exits: Sequence[int] | None, stored: Sequence[int]) -> None:
    """Refuse a column that does not exist or has no numbers, and exits that were not stored."""
    if exits is not None:
        if name != "complexity":
            raise CurateError(f"select.exits recomputes complexity; it does not go with select.by={name}")
        if unknown := sorted(set(exits) - set(stored)) or not exits:
            raise CurateError(f"select.exits: the stored exits are {list(stored)}, got {unknown}")
    elif name not in score_columns(path):
        raise CurateError(f"select.by: the score columns are {', '.join(score_columns(path))}, got {name}")
