"""What there is to say about records that are not scored, or not as their owner may think: each kind once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from curate.types import Status, Tokens

MAX_KINDS = 50
"""Texts that are kept apart; a template that puts the record's own words into its refusal makes no more than these."""
_FURTHER = "further reasons"


@dataclass(frozen=True, slots=True)
class Remark:
    """One reason or note.

    status  what became of these records; "scored" for a note
    count   how many records it is about
    row     the first of them
    """

    status: Status
    count: int
    row: int


def count_remarks(tokens: Iterable[Tokens], remarks: dict[str, Remark]) -> Iterator[Tokens]:
    """Pass tokens through, and count in `remarks` every reason and note among them: text -> Remark, in order of rows.

    >>> import numpy as np
    >>> none = np.int32([]), np.uint8([])
    >>> found: dict[str, Remark] = {}
    >>> _ = list(count_remarks((Tokens(i, "", "too_long", False, *none, reason="long") for i in (3, 5)), found))
    >>> found
    {'long': Remark(status='too_long', count=2, row=3)}
    """
    for record in tokens:
        for text in (record.reason, *record.notes):
            if not text:
                continue
            status = record.status if text == record.reason else "scored"
            if text not in remarks and len(remarks) >= MAX_KINDS:
                text = f"{_FURTHER} ({status})"
            known = remarks.get(text)
            remarks[text] = replace(known, count=known.count + 1) if known else Remark(status, 1, record.row)
        yield record
