"""Turns values into what JSON can hold, for evaluation.json and comparison.json, and reads such files again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter

from curate.tables.parquet import errors_naming

T = TypeVar("T")


def read_json(path: Path, kind: type[T], verb: str) -> T:
    """Read a JSON file of a run; every field is checked against `kind`, a dataclass. `verb` is what makes the file.

    Raises:
        CurateError: it is missing, or is no such JSON: somebody has changed it.
    """
    with errors_naming(path, verb):
        return TypeAdapter(kind).validate_json(path.read_bytes())


def as_json(value: Any) -> Any:
    """Return a value as objects, lists, strings and numbers; dataclasses become objects, NaN and infinity None.

    >>> as_json({"mean": np.float64(3), "median": float("nan"), "quantiles": (1.0, 2.0)})
    {'mean': 3.0, 'median': None, 'quantiles': [1.0, 2.0]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        return as_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # Python would write NaN, which is not JSON: other programs refuse the file
    return value
