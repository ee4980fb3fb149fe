"""Progress in words: how far a stage is, how fast it is, and how long it will take."""

from __future__ import annotations

import time


class Rates:
    """Remembers when each stage began, and with how much done, to tell its rate."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}

    def line(self, stage: str, done: int, total: int | None, unit: str) -> str:
        """Return a line such as "scores: 1,200 of 2,000 records, 310 records/s, about 3 s left"."""
        now = time.monotonic()
        # What an earlier call had finished does not count: the rate is that of this call.
        started, at = self._begun.setdefault(stage, (now, done))
        rate = (done - at) / (now - started) if now > started else 0.0
        of = f" of {total:,}" if total else ""
        left = f", about {_duration((total - done) / rate)} left" if total and rate else ""
        speed = f", {speed_of(rate, unit)}" if rate else ""
        return f"{stage}: {done:,}{of} {unit}{speed}{left}"


def speed_of(rate: float, unit: str) -> str:
    """Return a rate in words: units per second, or seconds per unit where it is below one.

    >>> speed_of(1234.5, "tokens"), speed_of(2.5, "steps"), speed_of(0.04, "steps")
    ('1,234 tokens/s', '2.5 steps/s', '25 s per step')
    """
    if rate < 1:
        return f"{_duration(1 / rate)} per {unit.removesuffix('s')}"
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:,.1f} {unit}/s"


def _duration(seconds: float) -> str:
    """Return seconds in the unit in which people say them.

    >>> _duration(42), _duration(400), _duration(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
