"""A prefix that many records share, computed once: its keys and values stand before those of every record.

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
    """One layer's keys and values of a prefix, [1, heads, P, width]; what follows is seen after them, not stored."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of prefix and records together: [B, heads, P + T, width]."""
        keys, values = (
            torch.cat([ours.expand(len(theirs), *ours.shape[1:]), theirs], dim=-2)
            for ours, theirs in ((self.keys, key_states), (self.values, value_states))
        )
        return keys, values


@torch.inference_mode()
def compute_prefix_cache(parts: DecoderParts, prefix: Prefix) -> Cache:
    """What the decoder keeps of a prefix, for any number of batches of records that go on from it.

    All of its keys are kept, also where a layer attends to a window: the model's own mask sees to that.
    """
    cache, ids_1P = DynamicCache(), torch.from_numpy(prefix.astype(np.int64))[None]
    parts.backbone(input_ids=ids_1P.to(parts.device), past_key_values=cache, use_cache=True)
    return Cache(layers=[_PrefixLayer(layer.keys, layer.values) for layer in cache.layers])
