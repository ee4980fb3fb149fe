"""An even sample of a stream whose length nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread(Generic[T]):
    """Every k-th item of a stream, from the first on.

    items  the sample
    count  items of the stream
    """

    items: list[T]
    count: int


def spread(stream: Iterable[T], most: int) -> Spread[T]:
    """Return all items of a stream of at most `most`; of a longer one every 2nd, 4th, 8th, ..., more than `most` / 2.

    It needs one pass and holds at most `most` items. The same stream gives the same sample.

    >>> spread(range(10), 4)
    Spread(items=[0, 4, 8], count=10)
    """
    assert most >= 2
    items: list[T] = []
    step, count = 1, 0
    for item in stream:
        if count % step == 0:
            items.append(item)
            if len(items) > most:
                items = items[::2]
                step *= 2
        count += 1
    return Spread(items, count)
