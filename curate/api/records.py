"""Records in memory, one by one: lists of dicts, Datasets, DataFrames."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from curate.types import CurateError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


def rows(records: Any) -> Iterable[Mapping[str, Any]]:
    """Return records in memory one by one; a DataFrame by itself would give its columns.

    Raises:
        CurateError: they are nothing that holds records.
    """
    pandas = sys.modules.get("pandas")  # who has a DataFrame has imported it
    if pandas is not None and isinstance(records, pandas.DataFrame):
        return _rows_of_frame(records)
    if isinstance(records, Mapping) or not isinstance(records, Iterable):
        raise CurateError(
            f"records: expected a list of dicts, a Dataset, a DataFrame or a path, got {type(records).__name__}; "
            'of several splits give one: records["train"]'
        )
    return records


def _rows_of_frame(frame: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    names = list(frame.columns)
    if len(set(names)) < len(names):
        raise CurateError("records: expected a DataFrame with every column once")
    cells = frame.astype(object)
    for values in cells.where(frame.notna(), None).itertuples(index=False, name=None):
        yield dict(zip(names, values, strict=True))
