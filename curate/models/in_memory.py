"""Checks and fingerprints a model and a tokenizer that the caller has loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, get_args

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from curate.models.device import Dtype
from curate.models.fingerprint import IN_MEMORY
from curate.models.load import refuse_encoder_decoder, text_config
from curate.models.weights import WeightFacts
from curate.types import CurateError

# Weights of up to 2**18 numbers are hashed whole, larger ones by samples: the fingerprint is computed at every call,
# and copying a whole model from the GPU would take seconds each time.
_HASHED_WHOLE = 1 << 18
_BLOCK, _NUM_BLOCKS = 1 << 14, 17
_IGNORED_KEYS = ("_name_or_path", "transformers_version")  # where it was, what wrote it: neither changes a score


@dataclass(frozen=True, slots=True)
class InMemory:
    """A loaded model with its tokenizer, checked by `in_memory`.

    name   where they were loaded from, or "in-memory" where the model does not say
    dtype  precision of the weights, as model.dtype calls it
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    dtype: Dtype


def in_memory(model: object, tokenizer: object) -> InMemory:
    """Return a loaded model with its tokenizer after checking that they can be used for scoring.

    Raises:
        CurateError: not a transformers model, no fast tokenizer, an encoder-decoder, weights that are not in memory,
            or a precision other than float32, bfloat16 and float16.
    """
    if not isinstance(model, PreTrainedModel):
        merge = "; merge the adapter first: model.merge_and_unload()" if hasattr(model, "merge_and_unload") else ""
        raise CurateError(f"model: expected a hub id, a folder or a transformers model, got {_type(model)}{merge}")
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
        raise CurateError(f"tokenizer: a model in memory needs its fast tokenizer beside it, got {_type(tokenizer)}")
    name = model.name_or_path or "in-memory"
    refuse_encoder_decoder(name, model.config)
    away = next((key for key, weight in model.named_parameters() if weight.device.type == "meta"), None)
    if away is not None:
        raise CurateError(
            f"model: expected one whose weights are all in memory, got one without {away}; give its name instead, "
            "with model.device_map=auto among the settings"
        )
    dtype: Any = str(model.dtype).removeprefix("torch.")
    if dtype not in get_args(Dtype):
        raise CurateError(f"model: expected float32, bfloat16 or float16 weights, got {dtype}")
    return InMemory(model, tokenizer, name, dtype)


@torch.no_grad()
def weights_in_memory(model: PreTrainedModel) -> str:
    """Return the fingerprint of a loaded model: "in memory: " and a SHA-256 (hex).

    Hashed are the configuration, the attention implementation, and every weight and buffer: name, shape, precision and
    numbers. A weight of more than 262,144 numbers is sampled: 17 evenly spaced blocks of 16,384, the first and the last
    block included. Two models that differ only between these blocks have the same fingerprint. The fingerprint never
    equals that of a folder.
    """
    config = {key: value for key, value in model.config.to_dict().items() if key not in _IGNORED_KEYS}
    attention = getattr(model.config, "_attn_implementation", None)  # changes the last bits of a score
    digest = hashlib.sha256(json.dumps([config, attention], sort_keys=True, default=str).encode())
    # Buffers too: model.to(torch.bfloat16) also rounds the rotary frequencies, which no state_dict holds.
    for key, weight in sorted({**model.state_dict(), **dict(model.named_buffers())}.items()):
        digest.update(f"{key}\0{tuple(weight.shape)}\0{weight.dtype}\0".encode())
        sample = _sample(weight.reshape(-1)).cpu().contiguous()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return f"{IN_MEMORY}{digest.hexdigest()}"


def tokenizer_in_memory(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the fingerprint of a loaded tokenizer: "in memory: " and a SHA-256 (hex).

    Hashed are the tokenizer itself, its class, chat template, special tokens and maximum length. Padding and truncation
    are left out: every call of a fast tokenizer changes them.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    own = [type(tokenizer).__name__, tokenizer.chat_template, tokenizer.special_tokens_map, tokenizer.model_max_length]
    text = json.dumps([backend, *own], sort_keys=True, default=str)
    return f"{IN_MEMORY}{hashlib.sha256(text.encode()).hexdigest()}"


def facts_in_memory(model: PreTrainedModel) -> WeightFacts:
    """Return for a loaded model what `weight_facts` reads from files."""
    weights = model.state_dict().values()
    return WeightFacts(
        parameters=sum(weight.numel() for weight in weights),
        bytes=sum(weight.nbytes for weight in weights),
        embedding_rows=model.get_input_embeddings().weight.shape[0],
        num_layers=text_config(model).num_hidden_layers,
    )


def _sample(weight_N: torch.Tensor) -> torch.Tensor:
    count = weight_N.numel()
    if count <= _HASHED_WHOLE:
        return weight_N
    starts = ((count - _BLOCK) * block // (_NUM_BLOCKS - 1) for block in range(_NUM_BLOCKS))
    return torch.cat([weight_N[start : start + _BLOCK] for start in starts])


def _type(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
