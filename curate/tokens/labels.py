"""What a model is trained to say: the scored tokens of a record, and the end token after each response."""

from __future__ import annotations

import numpy as np

from curate.types import CONTEXT, END, SCORED, Tokens

IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""


def training_labels(tokens: Tokens, eos_token_id: int | None) -> tuple[list[int], list[int]]:
    """Give (input_ids, labels) to train on: the scored tokens and their end tokens; -100 elsewhere.

    Where the template writes no end token, the sequence ends after its last response, and eos_token_id is added with a
    label (one token beyond max_length is possible), unless the response was truncated: its end is not known.

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
