"""Checks token ids and labels before training, and pads them into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curate.types import CurateError

# input_ids [T] and labels [T]; a label of -100 is context, which the loss leaves out.
Ids = Sequence[int] | npt.NDArray[np.integer[Any]]
Feature = tuple[Ids, Ids]
IGNORED = -100


def refuse_unusable(features: Sequence[Feature], vocab_size: int) -> None:
    """Refuse features that cannot be trained on.

    Raises:
        CurateError: there are none, a record has no token to learn, or a token id is outside the vocabulary.
    """
    if not len(features):
        raise CurateError("there is nothing to train on: expected at least one kept record with a response")
    for index in range(len(features)):
        ids, labels = (np.asarray(part) for part in features[index])
        assert ids.shape == labels.shape, "a label per token"
        # The label of the first token does not count: no position before it predicts it.
        if not (labels[1:] != IGNORED).any():
            raise CurateError(f"record {index} of those to train on has no response token to learn")
        # An id outside the embedding ends the process on a GPU, with an error that names no record.
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise CurateError(
                f"record {index} has the token id {int(ids.max())}, the model's vocabulary ends at {vocab_size - 1}: "
                "expected the tokenizer of the model that is trained"
            )


def collate(batch: Sequence[Feature]) -> dict[str, torch.Tensor]:
    """Return input_ids, attention_mask and labels of a batch: int64 [B, T], padded on the right.

    The padding id is 0, whatever the tokenizer's is: the attention mask hides it, and its label is ignored.

    >>> batch = collate([([5, 6, 7], [-100, 6, 7]), ([8], [8])])
    >>> batch["input_ids"].tolist(), batch["labels"].tolist()
    ([[5, 6, 7], [8, 0, 0]], [[-100, 6, 7], [8, -100, -100]])
    """
    shape = len(batch), max(len(ids) for ids, _ in batch)
    input_ids = torch.zeros(shape, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for i, (ids, targets) in enumerate(batch):
        input_ids[i, : len(ids)] = torch.from_numpy(np.asarray(ids, dtype=np.int64))
        labels[i, : len(ids)] = torch.from_numpy(np.asarray(targets, dtype=np.int64))
        attention_mask[i, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
