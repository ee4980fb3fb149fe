"""What a caller hands in from memory in place of files: records, and a model with its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.runs.atomic import replacing, sha256_of
from curate.runs.folder import RECORDS, RunFolder
from curate.types import CurateError

if TYPE_CHECKING:
    from curate.models.memory import InMemory


@dataclass(frozen=True, slots=True)
class Given:
    """What is handed in with a recipe.

    records  are written to records.jsonl of the run folder, which the recipe names as data.path; None: its own data
    model    stands for the model that the recipe names; None: it is loaded
    """

    records: Iterable[Mapping[str, Any]] | None = None
    model: InMemory | None = None


def put_records(folder: RunFolder, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records to records.jsonl of a run folder, an object a line; the same ones are left as they stand.

    Raises:
        CurateError: the run was begun with other records, or JSON cannot hold one of them as it is.
    """
    path = folder.path / RECORDS
    begun_with = sha256_of(path) if path.exists() else None
    with replacing(path) as temporary:
        with temporary.open("wb") as stream:
            stream.writelines(_lines(records))
        if begun_with not in (None, sha256_of(temporary)):
            raise CurateError(f"{folder.path} was begun with other records: give those again, or another dir")


def _lines(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    row = -1
    for row, record in enumerate(records):
        if not isinstance(record, Mapping) or not all(isinstance(name, str) for name in record):
            raise CurateError(f"record {row}: expected a dict with texts as keys, got {_excerpt(record)}")
        try:
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
    """Arrays, in which pandas keeps lists, and numbers of numpy as JSON has them."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}")


def _excerpt(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
