"""Findings of `curate doctor`, one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["pass", "fail", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    level  pass; fail (scores, training or tokens would be wrong); note (good to know)
    name   what was checked
    text   what was seen
    """

    level: Level
    name: str
    text: str


def verdict(passed: bool, name: str, text: str) -> Finding:
    """Make a finding that passed or failed."""
    return Finding("pass" if passed else "fail", name, text)


def bar(value: float, low: float, high: float, *, width: int = 24) -> str:
    """Draw a bar of `#`: empty for `low`, full width for `high`, in proportion between them.

    >>> bar(-3, -6, 0, width=8)
    '####    '
    """
    # Where all values are equal there is nothing to compare: the bar stays empty.
    fraction = 0.0 if high <= low else min(max((value - low) / (high - low), 0.0), 1.0)
    return ("#" * round(fraction * width)).ljust(width)
