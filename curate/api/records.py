"""Yields records in memory one by one: those of lists, Datasets and DataFrames."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from curate.types import CurateError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


def rows(records: Any) -> Iterable[Mapping[str, Any]]:
    """Return records in memory as an iterable of dicts.

    Raises:
        CurateError: the value holds no records, or is a DataFrame with two columns of one name.
    """
    pandas = sys.modules.get("pandas")  # not imported here: whoever has a DataFrame has imported it
    if pandas is not None and isinstance(records, pandas.DataFrame):
        return _rows_of_frame(records)
    # A DatasetDict is a mapping of splits: iterating it would give their names as records.
    if isinstance(records, Mapping) or not isinstance(records, Iterable):
        raise CurateError(
            f"records: expected a list of dicts, a Dataset, a DataFrame or a path, got {type(records).__name__}; "
            'of several splits give one: records["train"]'
        )
    return records


def _rows_of_frame(frame: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a DataFrame as dicts, missing values as None."""
    names = list(frame.columns)
    # A dict can hold only one of two columns with the same name.
    if len(set(names)) < len(names):
        raise CurateError("records: expected a DataFrame with every column once")
    cells = frame.astype(object)  # a column of numbers cannot hold None
    for values in cells.where(frame.notna(), None).itertuples(index=False, name=None):
        yield dict(zip(names, values, strict=True))
