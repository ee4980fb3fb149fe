"""Turns values into what JSON can hold, for evaluation.json and comparison.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


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
