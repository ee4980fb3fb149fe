"""Loads configurations, tokenizers and models, and refuses models that would be scored wrongly.

Only safetensors and GGUF files are read. Python code that comes with a model is run only if the person trusts it. A
model with a missing weight is refused, and a model whose predictions can see later tokens.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from curate.models.checks import refuse_bidirectional, refuse_incomplete
from curate.models.device import Dtype, resolve_device, resolve_dtype, sharded_by_launcher
from curate.models.explain import LIBRARY_ERRORS, explain
from curate.models.files import holds_tokenizer, locate_checked
from curate.models.locate import Location, kind_of
from curate.models.quantize import Quantization, quantization_config, use_portable_4bit_kernel
from curate.models.weights import read_shapes
from curate.types import CurateError

logger = logging.getLogger(__name__)

_MODEL_JSON = ("config.json", "generation_config.json")
_TOKENIZER_JSON = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "vocab.json",
)
NO_ADAPTER = {"subfolder": ".no-adapter"}
"""Keeps `from_pretrained` from loading an adapter beside the weights: it looks in this folder, which does not exist."""


def text_config(model: PreTrainedModel | PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of the text decoder, which in a multimodal model is one part of the whole."""
    return getattr(model, "config", model).get_text_config()


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Return the configuration of a model, without its weights.

    Raises:
        CurateError: no such model, an unknown architecture, or one that brings code which is not trusted.
    """
    place = locate_checked(name, _MODEL_JSON)
    if place.folder and not place.gguf and not kind_of(place.folder / "config.json"):
        raise CurateError(f"{name} holds no config.json: expected a model's folder, as save_pretrained writes it")
    try:
        with quiet_library():
            config = AutoConfig.from_pretrained(
                place.source, revision=revision, trust_remote_code=trust_remote_code, **place.options
            )
            config.get_text_config()  # raises for a configuration with several text decoders
    except LIBRARY_ERRORS as error:
        raise explain(name, error, file="config.json") from error
    return config


def refuse_encoder_decoder(name: str, config: PreTrainedConfig) -> None:
    """Refuse an encoder-decoder such as T5.

    Raises:
        CurateError: it is one; the message names its type.
    """
    if config.is_encoder_decoder:
        raise CurateError(f"expected a decoder-only language model, got the encoder-decoder {config.model_type} {name}")


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer of a model; fast tokenizers know at which characters each token begins and ends.

    Raises:
        CurateError: no such model, a broken tokenizer, a slow one, or one that brings code which is not trusted.
    """
    place = locate_checked(name, _TOKENIZER_JSON)
    if place.folder and not place.gguf and not holds_tokenizer(place.folder):
        raise CurateError(f"{name} has no tokenizer: expected tokenizer.json in it, as it comes with the model")
    if revision is not None and place.folder:
        logger.warning("revision=%s is not used: %s is on this disk", revision, name)
    try:
        with quiet_library():
            tokenizer = AutoTokenizer.from_pretrained(
                place.source, revision=revision, trust_remote_code=trust_remote_code, use_fast=True, **place.options
            )
    except Exception as error:
        # The tokenizers library raises a plain Exception for a tokenizer.json that it cannot read.
        if type(error) is not Exception and not isinstance(error, LIBRARY_ERRORS):
            raise
        raise explain(name, error, file="tokenizer.json" if type(error) is Exception else "its tokenizer") from error
    template = tokenizer.chat_template  # text, or several texts by name
    if not all(
        isinstance(text, str) for text in (template.values() if isinstance(template, dict) else [template or ""])
    ):
        raise CurateError(f"{name}: expected its chat_template to be text, got {type(template).__name__}")
    if not tokenizer.is_fast:
        raise CurateError(
            f"the tokenizer of {name} does not tell where tokens end in the text: expected a fast one (tokenizer.json)"
        )
    return tokenizer


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    device_map: str | Mapping[str, str | int] | None = None,
    offload_folder: Path | None = None,
    attention: str | None = None,
    trust_remote_code: bool = False,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Return a complete causal language model in eval mode.

    Args:
        name: hub id, local folder or .gguf file.
        revision: commit, tag or branch on the hub.
        dtype: precision of the weights; with quantization, of the other weights and of the arithmetic.
        quantization: by bitsandbytes; 4bit is NF4 with double quantisation.
        device_map: "auto", or devices by module name: one model over devices, RAM and disk, in one process.
        offload_folder: for weights that a device map sends to disk and that cannot be read from the checkpoint.
        attention: `attn_implementation` of transformers; None lets it choose.
        trust_remote_code: run Python code that comes with the model.
        device: where the model goes if there is no device map; default: `resolve_device()`.

    Raises:
        CurateError: not found, no safetensors, damaged or incomplete weights, untrusted code, not a causal language
            model, attention not available, bitsandbytes missing, or too little memory.
    """
    config = load_config(name, revision=revision, trust_remote_code=trust_remote_code)
    refuse_encoder_decoder(name, config)
    place = _find_weights(name)
    torch_dtype = resolve_dtype(dtype, device := device or resolve_device())
    # The loader of GGUF files shows a progress bar that cannot be switched off.
    bar = redirect_stderr(io.StringIO()) if place.gguf else nullcontext()
    with quiet_library(), bar:
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                place.source,
                config=config,
                revision=revision,
                trust_remote_code=trust_remote_code,
                dtype=torch_dtype,
                quantization_config=quantization_config(place, quantization, torch_dtype),
                device_map=_placement(device_map, device),
                offload_folder=offload_folder,
                attn_implementation=attention,
                use_safetensors=True,
                adapter_kwargs=NO_ADAPTER,
                ignore_mismatched_sizes=True,  # else the library raises, and does not name the weight
                output_loading_info=True,
                **place.options,
            )
        except LIBRARY_ERRORS as error:
            raise explain(name, error) from error
    use_portable_4bit_kernel(model)
    model.eval()
    _refuse_wrong(name, info, model)
    return model


def _find_weights(name: str) -> Location:
    """Return where a model is, after reading the headers of its weights; warn of an adapter beside them."""
    place = locate_checked(name, _MODEL_JSON)
    if place.folder:
        read_shapes(place)  # its errors name the damaged or missing file; the library's do not
        if kind_of(place.folder / "adapter_config.json"):
            logger.warning("%s: the adapter beside the weights (adapter_config.json) is not loaded", name)
    return place


def _refuse_wrong(name: str, info: Mapping[str, Any], model: PreTrainedModel) -> None:
    """Refuse a loaded model with an adapter on it, with incomplete weights, or that can see later tokens."""
    # `NO_ADAPTER` relies on how transformers looks for adapters. If that changes, this keeps scores from being wrong.
    if getattr(model, "_hf_peft_config_loaded", False):
        raise CurateError(f"{name}: an adapter beside the weights was loaded: move adapter_config.json elsewhere")
    refuse_incomplete(name, info, model)
    if not sharded_by_launcher():  # else the weights are not in place yet, and the model cannot compute
        refuse_bidirectional(name, model)


@contextmanager
def quiet_library() -> Iterator[None]:
    """Silence transformers' progress bar and warnings inside a `with` block.

    The command line shows its own bar, and the missing weights that transformers warns of are refused by name.
    """
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def _placement(
    device_map: str | Mapping[str, str | int] | None, device: torch.device
) -> str | dict[str, str | int] | None:
    """Return the `device_map` for `from_pretrained`: one device, or the map that the person gave."""
    if device_map is None:
        return None if sharded_by_launcher() else {"": str(device)}
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CurateError(
            f"device_map={device_map} spreads one model over all devices: launch one process, or unset it"
        )
    return device_map if isinstance(device_map, str) else dict(device_map)
