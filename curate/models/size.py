"""Counts the parameters of a model before its weights are read."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from curate.models.load import quiet_library


def count_parameters(config: PreTrainedConfig, *, trust_remote_code: bool = False) -> int:
    """Return the number of parameters of a model, from its configuration alone.

    The model is built on PyTorch's device `meta`, which takes no memory for the weights.
    """
    with torch.device("meta"), quiet_library():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return int(model.num_parameters())
