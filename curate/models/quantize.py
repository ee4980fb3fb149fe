"""Chooses how weights are quantised: by bitsandbytes, or unpacked from a GGUF file."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any, Literal

import torch
import transformers
from transformers import BitsAndBytesConfig, PreTrainedModel

from curate.models.locate import Location
from curate.types import CurateError

Quantization = Literal["none", "8bit", "4bit"]


def quantization_config(place: Location, quantization: Quantization, dtype: torch.dtype) -> Any:
    """Return the `quantization_config` for `from_pretrained`; None keeps the weights as the files hold them.

    The weights of a GGUF file are unpacked to `dtype`, so that the model is then an ordinary one.

    Raises:
        CurateError: bitsandbytes is not installed, or a GGUF file is to be quantised once more.
    """
    if place.gguf is None:
        return _bitsandbytes(quantization, dtype)
    if quantization != "none":
        raise CurateError(f"{place.name}: a GGUF file is unpacked as it is loaded: expected quantization=none")
    packed = getattr(transformers, "GgufConfig", None)  # older versions of transformers always unpack
    return packed(dequantize=True) if packed else None


def _bitsandbytes(quantization: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return the configuration of bitsandbytes; 4bit is NF4 with double quantisation (QLoRA, arXiv 2305.14314)."""
    if quantization == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise CurateError(f'quantization={quantization} needs bitsandbytes: pip install "lc-curate[quantization]"')
    # bitsandbytes warns once per layer that inputs are cast, and of optional kernels that are not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def use_portable_4bit_kernel(model: PreTrainedModel) -> None:
    """Make 4-bit layers compute alike on all CPUs; other layers stay as they are.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 swaps in a kernel that rounds to bfloat16 whatever the compute dtype
    and fails on widths that are no multiple of 32.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
