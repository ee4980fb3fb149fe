"""Records and a model that a caller hands in from memory, in place of files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.runs.atomic import replacing
from curate.runs.digests import sha256_of
from curate.runs.folder import RECORDS, RunFolder
from curate.types import CurateError

if TYPE_CHECKING:
    from curate.models.in_memory import InMemory


@dataclass(frozen=True, slots=True)
class Given:
    """What a caller hands in with a recipe.

    records  written to records.jsonl of the run folder, which the recipe must name as data.path; None: data of a file
    model    used in place of the model that the recipe names; None: that model is loaded
    """

    records: Iterable[Mapping[str, Any]] | None = None
    model: InMemory | None = None


def put_records(folder: RunFolder, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records to records.jsonl of a run folder, one JSON object a line.

    Raises:
        CurateError: the run was begun with other records, or JSON cannot hold one of them as it is.
    """
    path = folder.path / RECORDS
    begun_with = sha256_of(path) if path.exists() else None
    with replacing(path) as temporary:
        with temporary.open("wb") as stream:
            stream.writelines(_lines(records))
        # Compared by their bytes: an iterator can be read only once, so the records cannot be compared themselves.
        if begun_with not in (None, sha256_of(temporary)):
            raise CurateError(f"{folder.path} was begun with other records: give those again, or another dir")


def _lines(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield records as lines of JSON; refuse one that JSON cannot hold, and an input without any."""
    row = -1
    for row, record in enumerate(records):
        if not isinstance(record, Mapping) or not all(isinstance(name, str) for name in record):
            raise CurateError(f"record {row}: expected a dict with texts as keys, got {_excerpt(record)}")
        try:
            # allow_nan=False: Python would write NaN, which is no JSON and is refused when the file is read.
            text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_plain)
            yield f"{text}\n".encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CurateError(
                f"record {row}: expected values that JSON can hold ({error}); "
                "what else there is goes into a Parquet file, whose path can be given instead"
            ) from None
    if row < 0:
        raise CurateError("records: expected at least one, got none")


def _plain(value: Any) -> Any:
    """Return a numpy array or number as plain Python values; pandas keeps lists as arrays."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}")


def _excerpt(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
