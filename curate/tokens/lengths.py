"""Finds how many tokens a model can take: what its configuration says, and where it would fail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curate.types import CurateError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

DEFAULT_MAX_LENGTH = 2048


def default_max_length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """Return the default of prompt.max_length: 2048, or what the model, its tokenizer or its rotary embedding allow."""
    return int(min(DEFAULT_MAX_LENGTH, own_max_length(tokenizer, config), fixed_rotary_length(config)))


def own_max_length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> float:
    """Return how many tokens the model and its tokenizer say they can take; infinite where neither says.

    Raises:
        CurateError: one of them says something that is no number.
    """
    text_config = config.get_text_config()
    # Architectures have different names for it.
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
    limits = {name: getattr(text_config, name, None) for name in names} | {
        "model_max_length": tokenizer.model_max_length
    }
    for name, limit in limits.items():
        if limit is not None and not isinstance(limit, int | float):
            whose = tokenizer.name_or_path or "the tokenizer"
            raise CurateError(
                f"{whose} is damaged: expected a number as {name}, got {limit!r}; download or copy it again"
            )
    return min([limit for limit in limits.values() if limit is not None and limit > 1], default=math.inf)


def fixed_rotary_length(config: PretrainedConfig) -> float:
    """Return the longest sequence whose rotary embedding does not depend on its batch; usually infinite.

    Rotary embeddings of the types dynamic and longrope (Phi-3's for 128k tokens) change for a whole batch once one of
    its records is longer than what the model was first trained on.
    """
    text_config = config.get_text_config()
    rotary = getattr(text_config, "rope_parameters", None) or {}
    by_layer = [rotary] if "rope_type" in rotary else [part for part in rotary.values() if isinstance(part, dict)]
    trained = {
        "dynamic": lambda part: text_config.max_position_embeddings,
        "longrope": lambda part: part["original_max_position_embeddings"],
    }
    return min(
        (trained[kind](part) for part in by_layer if (kind := part.get("rope_type")) in trained), default=math.inf
    )


def learned_positions(config: PretrainedConfig) -> float:
    """Return how many positions the model's position table holds; infinite where it has no table.

    A rotary embedding works beyond the length it was trained on, and layers that pass on a state (Mamba, RWKV, linear
    attention) need no positions. Every other model that states a number of positions looks them up in a table (GPT-2,
    OPT, GPT-J): one token more is an index error.
    """
    text_config = config.get_text_config()
    # Layers with a state are known by names of settings: no field of a configuration says it for all architectures.
    signs = ("mamba", "ssm", "conv", "linear", "layer_types", "block_type", "attention_hidden_size")
    has_state = any(sign in name for name in vars(text_config) for sign in signs)
    if getattr(text_config, "rope_parameters", None) or has_state:
        return math.inf
    stated = (getattr(text_config, name, None) for name in ("n_positions", "max_position_embeddings"))
    return min((number for number in stated if isinstance(number, int) and number > 1), default=math.inf)


def check_max_length(max_length: int, config: PretrainedConfig, name: str) -> None:
    """Refuse a prompt.max_length that the position table of model `name` cannot serve.

    Raises:
        CurateError: names the largest value that works.
    """
    if max_length > (limit := learned_positions(config)):
        raise CurateError(
            f"prompt.max_length: expected at most {limit:.0f}, the positions that {name} has, got {max_length}; "
            f"give prompt.max_length={limit:.0f}"
        )


def length_limit(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """Return `own_max_length` as a whole number, at most 2**31."""
    return int(min(own_max_length(tokenizer, config), 1 << 31))
