"""The manifest of a run: what manifest.json says of the run and of every stage that is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from curate.runs.keys import fingerprint
from curate.runs.special import refuse_special
from curate.types import CurateError

# Written as a call, not as a class, because "in" is a keyword of Python.
StageRecord = TypedDict(
    "StageRecord",
    {
        "fingerprint": str,
        "key": dict[str, Any],
        "in": int,
        "out": int,
        "dropped": dict[str, int],
        "seconds": float,
        "peak_memory": int,
        "processes": int,
        "columns": list[str],
        "file": str,
        "files": list[str],
        "tokens": int,
        "ids": str,
        "digest": str,
        "digests": dict[str, str],
        "lengths": str,
        "remarks": dict[str, dict[str, Any]],
    },
    total=False,
)
"""What the manifest says of one finished stage. The first six are there for every stage:

fingerprint  SHA-256 (hex) of the key
key          what the result depends on, by name
in, out      records that the stage was given, and that it passed on: in = out + the sum of dropped
dropped      records that it did not pass on, by reason
seconds      how long it took

Further names that other stages read; some stages store more, which only people read:

peak_memory  the most memory of the main process in this stage, bytes: of a GPU, else with Python and its libraries
processes    how many processes computed it (passes)
columns      the columns that it added to scores.parquet (further passes)
file, files  the file of kept records, and all files that a selection holds
tokens       tokens of all records (tokens)
ids          digest of the record ids, by which scores.parquet is known to be of these records (tokens)
lengths      digest of the lengths of all responses, as they are before anything is scored (tokens)
digest       digest of the table that was written (embeddings, clusters, selections)
digests      digests of the columns of scores.parquet (passes), or of the files (others), by name
remarks      why records are not scored, or what a person should know of them, with counts (tokens)
"""


_KINDS = {
    **dict.fromkeys(("key", "dropped", "remarks", "digests"), dict),
    **dict.fromkeys(("in", "out", "tokens", "peak_memory"), int),
    **dict.fromkeys(("fingerprint", "file"), str),
    **dict.fromkeys(("columns", "files"), list),
    "seconds": int | float,
}


class Manifest(TypedDict, total=False):
    """manifest.json: the finished stages by name, and facts about the whole run (`curate.pipeline.environment`)."""

    stages: dict[str, StageRecord]
    versions: dict[str, str | None]
    git_commit: str | None
    model: dict[str, str | None]
    seed: int
    device: str
    threads: int
    estimate: dict[str, Any]
    comparison: dict[str, str]


def read_manifest(path: Path) -> Manifest:
    """Return what manifest.json holds; a manifest without stages if there is no such file yet.

    Raises:
        CurateError: the file cannot be read, or is not the manifest of a run.
    """
    refuse_special(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {"stages": {}}
    except (OSError, UnicodeDecodeError) as error:
        raise CurateError(f"cannot read {path}: {error}") from None
    try:
        manifest: Manifest = json.loads(text)
        if not isinstance(manifest["stages"], dict):
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError):  # RecursionError: arrays nested thousands deep
        raise CurateError(f"{path} is not the manifest of a run; use another run.dir") from None
    return manifest


def stage_record(manifest: Manifest, name: str, path: Path) -> StageRecord | None:
    """Return what a manifest says of a stage; None if the stage is not finished.

    Raises:
        CurateError: that part of the manifest is damaged; `path` is the file to name.
    """
    record = manifest["stages"].get(name)
    return None if record is None else _sound(record, name, path)


def stage_records(manifest: Manifest, path: Path) -> dict[str, StageRecord]:
    """Return what a manifest says of all finished stages, in its order.

    Raises:
        CurateError: a part of the manifest is damaged; `path` is the file to name.
    """
    return {name: _sound(record, name, path) for name, record in manifest["stages"].items()}


def facts_of(manifest: Manifest, name: Literal["model", "versions"], path: Path) -> dict[str, str | None]:
    """Return what a manifest says of the model, or of versions; empty if it says nothing.

    Raises:
        CurateError: that part of the manifest is damaged; `path` is the file to name.
    """
    facts = manifest.get(name, {})
    if not isinstance(facts, dict):
        raise CurateError(f"{path}: what it says of {name} is damaged; remove that part")
    return facts


class _Facts(dict[str, Any]):
    """Facts by name. One that is asked for and missing is `damaged`, an error for a person."""

    def __init__(self, facts: Mapping[str, Any], damaged: CurateError) -> None:
        super().__init__(facts)
        self._damaged = damaged

    def __missing__(self, name: str) -> Any:
        raise self._damaged


def _sound(record: Any, name: str, path: Path) -> StageRecord:
    """Return the record of a stage, if every fact is of its kind and the key is that of the fingerprint."""
    damaged = CurateError(f"{path}: what it says of {name} is damaged; remove that part, and the stage is done again")
    if not isinstance(record, dict) or any(
        fact in record and not isinstance(record[fact], kind) for fact, kind in _KINDS.items()
    ):
        raise damaged
    if any(isinstance(value, int | float) and not abs(value) < 2**63 for value in record.values()):  # NaN too
        raise damaged
    if {"key", "fingerprint"} <= record.keys() and fingerprint(record["key"]) != record["fingerprint"]:
        raise damaged
    return cast("StageRecord", _Facts(record, damaged))
