"""Weights and tokenizers: where they come from, in which precision, on which device, and what is refused.

Only safetensors are read and only library code is run, unless the person trusts the model's own. A model with a
missing weight, or whose earlier predictions can see later tokens, is refused: it would be scored, but wrongly.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Literal

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
from curate.models.explain import LIBRARY_ERRORS, explain
from curate.models.files import find_sound, holds_tokenizer
from curate.models.locate import kind_of
from curate.models.quantize import Quantization, stored_form, use_portable_4bit_kernel
from curate.models.weights import read_shapes
from curate.types import CurateError

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
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
"""Where transformers is told to look for an adapter beside the weights: in no folder that exists."""


def resolve_device() -> torch.device:
    """The device of this process: the GPU of its local rank, else Apple's, else the CPU.

    Raises:
        CurateError: more processes than GPUs on this machine.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}:
        return torch.device("cpu")
    if torch.cuda.is_available():
        local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= gpus:
            raise CurateError(f"expected at most one process per GPU, got process {local_rank + 1} on {gpus} GPU(s)")
        return torch.device("cuda", local_rank)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """The precision of the weights; auto is float32 on a CPU, bfloat16 on a GPU that has it, else float16."""
    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def text_config(model: PreTrainedModel | PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the text decoder, also where it is a part of a multimodal one."""
    return getattr(model, "config", model).get_text_config()


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The configuration of a model, without its weights.

    Raises:
        CurateError: no such model, an unknown architecture, or one that brings code which is not trusted.
    """
    place = find_sound(name, _MODEL_JSON)
    if place.folder and not place.gguf and not kind_of(place.folder / "config.json"):
        raise CurateError(f"{name} holds no config.json: expected a model's folder, as save_pretrained writes it")
    try:
        with quiet_library():
            config = AutoConfig.from_pretrained(
                place.source, revision=revision, trust_remote_code=trust_remote_code, **place.options
            )
            config.get_text_config()
    except LIBRARY_ERRORS as error:
        raise explain(name, error, file="config.json") from error
    return config


def refuse_encoder_decoder(name: str, config: PreTrainedConfig) -> None:
    """Refuse a model that is no language model by itself.

    Raises:
        CurateError: naming its type.
    """
    if config.is_encoder_decoder:
        raise CurateError(f"expected a decoder-only language model, got the encoder-decoder {config.model_type} {name}")


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model (fast: it knows at which character each token ends).

    Raises:
        CurateError: no such model, a broken tokenizer, a slow one, or one that brings code which is not trusted.
    """
    place = find_sound(name, _TOKENIZER_JSON)
    if place.folder and not place.gguf and not holds_tokenizer(place.folder):
        raise CurateError(f"{name} has no tokenizer: expected tokenizer.json in it, as it comes with the model")
    try:
        with quiet_library():
            tokenizer = AutoTokenizer.from_pretrained(
                place.source, revision=revision, trust_remote_code=trust_remote_code, use_fast=True, **place.options
            )
    except Exception as error:
        # tokenizers raises a plain Exception for a tokenizer.json that it cannot read.
        if type(error) is not Exception and not isinstance(error, LIBRARY_ERRORS):
            raise
        raise explain(name, error, file="tokenizer.json" if type(error) is Exception else "its tokenizer") from error
    template = tokenizer.chat_template
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
    """A complete causal language model in eval mode.

    Args:
        name: hub id or local folder.
        revision: commit, tag or branch on the hub.
        dtype: precision of the weights (of those left unquantised, and of the arithmetic, if quantised).
        quantization: through bitsandbytes; 4bit is NF4 with double quantisation.
        device_map: "auto", or module names with devices: one model over devices, RAM and disk, in one process.
        offload_folder: where weights go that a device map sends to disk and that cannot be read from the checkpoint.
        attention: transformers' attn_implementation; None leaves it the choice.
        trust_remote_code: run Python code that comes with the model.
        device: where the model goes if there is no device map; default: `resolve_device()`.

    Raises:
        CurateError: not found, not safetensors, damaged or incomplete weights, untrusted code, not a causal
            language model, attention not available, bitsandbytes missing, or no memory for it.
    """
    config = load_config(name, revision=revision, trust_remote_code=trust_remote_code)
    refuse_encoder_decoder(name, config)
    place = find_sound(name, _MODEL_JSON)
    if place.folder:
        read_shapes(place)  # says which file is missing or damaged; the library only that something is
        if kind_of(place.folder / "adapter_config.json"):
            logger.warning("%s: the adapter beside the weights (adapter_config.json) is not loaded", name)
    torch_dtype = resolve_dtype(dtype, device := device or resolve_device())
    # The library's loader of GGUF files shows a bar of its own, which has no switch.
    bar = redirect_stderr(io.StringIO()) if place.gguf else nullcontext()
    with quiet_library(), bar:
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                place.source,
                config=config,
                revision=revision,
                trust_remote_code=trust_remote_code,
                dtype=torch_dtype,
                quantization_config=stored_form(place, quantization, torch_dtype),
                device_map=_placement(device_map, device),
                offload_folder=offload_folder,
                attn_implementation=attention,
                use_safetensors=True,
                adapter_kwargs=NO_ADAPTER,
                ignore_mismatched_sizes=True,  # refused below, by name; the library's own error names nothing
                output_loading_info=True,
                **place.options,
            )
        except LIBRARY_ERRORS as error:
            raise explain(name, error) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise CurateError(f"{name}: an adapter beside the weights was loaded: move adapter_config.json elsewhere")
    refuse_incomplete(name, info, model)
    use_portable_4bit_kernel(model)
    model.eval()
    if not sharded_by_launcher():
        refuse_bidirectional(name, model)
    return model


@contextmanager
def quiet_library() -> Iterator[None]:
    """Within it transformers shows no progress bar (the command line shows its own) and warns of nothing.

    What it would warn of (a table of missing weights) is an error of ours, by name.
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


def sharded_by_launcher() -> bool:
    """Under FSDP and DeepSpeed the launcher places the weights, later than here."""
    switches = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "").lower() == "true" for name in switches)


def _placement(
    device_map: str | Mapping[str, str | int] | None, device: torch.device
) -> str | dict[str, str | int] | None:
    if device_map is None:
        return None if sharded_by_launcher() else {"": str(device)}
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CurateError(
            f"device_map={device_map} spreads one model over all devices: launch one process, or unset it"
        )
    return device_map if isinstance(device_map, str) else dict(device_map)
