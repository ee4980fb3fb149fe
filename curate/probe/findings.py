"""What a doctor finds: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["pass", "fail", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    level  pass; fail: scores, training or the tokens would be wrong; note: to be known
    name   what was looked at
    text   what was seen
    """

    level: Level
    name: str
    text: str


def verdict(passed: bool, name: str, text: str) -> Finding:
    """Return a finding that passed or failed."""
    return Finding("pass" if passed else "fail", name, text)


def bar(value: float, low: float, high: float, *, width: int = 24) -> str:
    """Return a bar of `#` as long as `value` lies between `low` (nothing) and `high` (full width).

    >>> bar(-3, -6, 0, width=8)
    '####    '
    """
    share = 0.0 if high <= low else min(max((value - low) / (high - low), 0.0), 1.0)
    return ("#" * round(share * width)).ljust(width)
