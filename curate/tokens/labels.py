"""Makes training labels: the scored tokens of a record, and the end token after each response."""

from __future__ import annotations

import numpy as np

from curate.types import CONTEXT, END, SCORED, Tokens

IGNORED = -100
"""The label that PyTorch's cross-entropy ignores."""


def training_labels(tokens: Tokens, eos_token_id: int | None) -> tuple[list[int], list[int]]:
    """Return (input_ids, labels) to train on: labels are the scored tokens and their end tokens, -100 elsewhere.

    Where the template writes no end token, `eos_token_id` is added after the last response and trained on; the sequence
    may then have one token more than max_length. It is not added if the response was truncated, since its end is not
    known.

    >>> record = Tokens(0, "", "scored", False, np.int32([5, 6, 7]), np.uint8([CONTEXT, SCORED, CONTEXT]))
    >>> training_labels(record, 2)
    ([5, 6, 2], [-100, 6, 2])
    """
    assert tokens.status == "scored"
    ids = tokens.input_ids.tolist()
    labels = np.where(tokens.marks == CONTEXT, IGNORED, tokens.input_ids).tolist()
    if eos_token_id is None or tokens.truncated or np.any(tokens.marks == END):
        return ids, labels
    stop = int(np.flatnonzero(tokens.marks == SCORED)[-1]) + 1  # what follows is another turn, or a template's words
    return [*ids[:stop], eos_token_id], [*labels[:stop], eos_token_id]
