"""Counts the reasons why records are not scored, and the notes on those that are, each kind once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from curate.types import Status, Tokens

MAX_KINDS = 50
"""Most texts that are counted separately: a template may put the record's own words into its refusal."""
_FURTHER = "further reasons"


@dataclass(frozen=True, slots=True)
class Remark:
    """How often a reason or note occurs.

    status  status of these records; "scored" for a note
    count   number of these records
    row     row of the first of them
    """

    status: Status
    count: int
    row: int


def count_remarks(tokens: Iterable[Tokens], remarks: dict[str, Remark]) -> Iterator[Tokens]:
    """Yield the tokens unchanged, counting their reasons and notes in `remarks`: text -> Remark.

    Beyond MAX_KINDS texts, further ones are counted together.

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
            if text not in remarks and len(remarks) >= MAX_KINDS:  # bounds memory, and what a person has to read
                text = f"{_FURTHER} ({status})"
            known = remarks.get(text)
            remarks[text] = replace(known, count=known.count + 1) if known else Remark(status, 1, record.row)
        yield record
