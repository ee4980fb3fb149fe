"""A model and its tokenizer that the caller has loaded: what tells them from others, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, get_args

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from curate.models.load import Dtype, refuse_encoder_decoder, text_config
from curate.models.weights import WeightFacts
from curate.types import CurateError

# A weight of up to this many numbers is hashed whole; of a larger one so many evenly spaced blocks.
_HASHED_WHOLE = 1 << 18
_BLOCK, _NUM_BLOCKS = 1 << 14, 17
_OF_NO_MATTER = ("_name_or_path", "transformers_version")  # in a configuration: where it was, what wrote it


@dataclass(frozen=True, slots=True)
class InMemory:
    """A loaded model with its tokenizer; made by `in_memory`.

    name   where they were loaded from, or "in-memory" where the model does not say
    dtype  precision of the weights, as model.dtype calls it
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    dtype: Dtype


def in_memory(model: object, tokenizer: object) -> InMemory:
    """Return a loaded model with its tokenizer, once it is seen that they can be scored with.

    Raises:
        CurateError: no transformers model or no fast tokenizer, an encoder-decoder, weights that are not in memory, or
            a precision that scores are not computed in.
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
    """Return what tells these weights from others: a SHA-256 (hex) over configuration and weights, marked as such.

    Hashed are the configuration, the kind of attention, and of every weight and buffer its name, shape, precision and
    numbers: up to 262,144 of them whole; of a larger one 17 evenly spaced blocks of 16,384, the first and last among
    them. Two models that differ only elsewhere have the same fingerprint. It is never equal to that of a folder.
    """
    config = {key: value for key, value in model.config.to_dict().items() if key not in _OF_NO_MATTER}
    attention = getattr(model.config, "_attn_implementation", None)  # decides the last bits of a score
    digest = hashlib.sha256(json.dumps([config, attention], sort_keys=True, default=str).encode())
    # model.to(torch.bfloat16) rounds rotary frequencies too, which are in no state_dict.
    for key, weight in sorted({**model.state_dict(), **dict(model.named_buffers())}.items()):
        digest.update(f"{key}\0{tuple(weight.shape)}\0{weight.dtype}\0".encode())
        sample = _sample(weight.reshape(-1)).cpu().contiguous()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return f"in memory: {digest.hexdigest()}"


def tokenizer_in_memory(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what tells this tokenizer from others: a SHA-256 (hex) over what it is made of, marked as such.

    How it was last asked to pad and truncate does not matter.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    own = [type(tokenizer).__name__, tokenizer.chat_template, tokenizer.special_tokens_map, tokenizer.model_max_length]
    text = json.dumps([backend, *own], sort_keys=True, default=str)
    return f"in memory: {hashlib.sha256(text.encode()).hexdigest()}"


def facts_in_memory(model: PreTrainedModel) -> WeightFacts:
    """Return what `weight_facts` reads from files."""
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
