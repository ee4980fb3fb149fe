"""Takes an even sample of a stream of unknown length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread(Generic[T]):
    """Every k-th item of a stream, from the first on.

    items  the sample
    count  number of items of the stream
    """

    items: list[T]
    count: int


def spread(stream: Iterable[T], most: int) -> Spread[T]:
    """Return every k-th item of a stream: k is the smallest power of two that gives at most `most` items.

    A stream of no more than `most` items is returned whole. It takes one pass and holds about `most` items. The same
    stream always gives the same sample.

    >>> spread(range(10), 4)
    Spread(items=[0, 4, 8], count=10)
    """
    assert most >= 2
    items: list[T] = []
    step, count = 1, 0
    for item in stream:
        if count % step == 0:
            items.append(item)
            if len(items) > most:  # too many: keep every second one, and from now on take half as many
                items = items[::2]
                step *= 2
        count += 1
    return Spread(items, count)
