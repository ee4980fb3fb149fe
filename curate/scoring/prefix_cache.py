"""Computes the KV cache of a prefix once, for all records that share it.

Shape letters: B batch, P tokens of the prefix, T tokens that follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from curate.scoring.parts import DecoderParts
from curate.scoring.prefixes import Prefix


class _PrefixLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer's keys and values of a prefix, [1, heads, P, width]; a batch attends to them and leaves them as is."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the keys and values of prefix and records together: [B, heads, P + T, width]."""
        # transformers' own update would store the result; these must be the same for the next batch.
        keys, values = (
            torch.cat([ours.expand(len(theirs), *ours.shape[1:]), theirs], dim=-2)
            for ours, theirs in ((self.keys, key_states), (self.values, value_states))
        )
        return keys, values


@torch.inference_mode()
def compute_prefix_cache(parts: DecoderParts, prefix: Prefix) -> Cache:
    """Compute the KV cache of a prefix; any number of batches whose records follow the prefix can use it.

    All keys are kept, also in a layer with a sliding window: the model's own mask hides those outside the window.
    """
    cache, ids_1P = DynamicCache(), torch.from_numpy(prefix.astype(np.int64))[None]
    parts.backbone(input_ids=ids_1P.to(parts.device), past_key_values=cache, use_cache=True)
    return Cache(layers=[_PrefixLayer(layer.keys, layer.values) for layer in cache.layers])
