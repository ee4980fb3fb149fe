"""Progress in words: how far a stage is, how fast it is, and how long it will take."""

from __future__ import annotations

import time


class Rates:
    """Remembers when the present stage began, and with how much done: what an earlier call did is no speed of this."""

    def __init__(self) -> None:
        self._stage = ""
        self._begun = self._last = (time.monotonic(), 0)

    def update(self, stage: str, done: int) -> None:
        """Hear what is at work now, and how much of it is done."""
        self._last = (time.monotonic(), done)
        if stage != self._stage or done < self._begun[1]:  # a stage of the same name may begin anew
            self._stage, self._begun = stage, self._last

    def facts(self, total: int | None, unit: str) -> list[str]:
        """Return how much is done, of what, how fast, and the time: what is left if it can be known, else what it took.

        ["60%", "1,200/2,000 records", "310 records/s", "3 s left"], or ["12 s"] where nothing can be counted.
        """
        (started, at), (last, done), now = self._begun, self._last, time.monotonic()
        rate = (done - at) / (last - started) if last > started else 0.0
        facts = []
        if total:
            facts = [f"{done / total:.0%}", f"{done:,}/{total:,} {unit}"]
        elif done:
            facts = [f"{done:,} {unit}"]
        if rate:
            facts.append(speed_of(rate, unit))
        left = max((total - done) / rate - (now - last), 0) if total and rate else None
        return [*facts, _duration(now - started) if left is None else f"{_duration(left)} left"]

    def line(self, total: int | None, unit: str) -> str:
        """Return a line such as "scores: 60%, 1,200/2,000 records, 310 records/s, 3 s left"."""
        return f"{self._stage}: {', '.join(self.facts(total, unit))}"


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
