"""Refuses models of which no file holds some weight, without reading any weights.

transformers builds the model on PyTorch's device `meta`, where tensors have shapes but no values, and reports which
weights the files lack. That takes about a second, whatever the size of the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig

from curate.models.checks import refuse_incomplete
from curate.models.explain import LIBRARY_ERRORS, explain, first_line
from curate.models.files import read_json
from curate.models.load import NO_ADAPTER, quiet_library
from curate.models.locate import kind_of, locate
from curate.types import CurateError

_UNUSED_HEAD = "pooler."  # often missing in files, harmless: sentence-transformers pools the hidden states by itself


def refuse_unbuildable(
    name: str, config: PreTrainedConfig, *, attention: str | None = None, trust_remote_code: bool = False
) -> None:
    """Refuse a configuration of which the library cannot build a model, or not with this attention.

    The library builds every model without numbers before it reads its weights, so what fails here fails there.

    Raises:
        CurateError: what the library says.
    """
    try:
        with quiet_library(), torch.device("meta"):
            AutoModelForCausalLM.from_config(config, attn_implementation=attention, trust_remote_code=trust_remote_code)
    except LIBRARY_ERRORS as error:
        if attention is not None and attention in str(error):
            raise CurateError(
                f"model.attention={attention} cannot be used for {name}: {first_line(str(error))}"
            ) from error
        raise explain(name, error, file="config.json") from error


def refuse_missing_weights(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Refuse a causal language model with missing weights, weights of another shape, or unused layers.

    GGUF files, quantised weights, and models that the library cannot read are left to `load_model`.

    Raises:
        CurateError: the model is incomplete; the message names a weight.
    """
    place = locate(name)
    if place.gguf or (place.folder and _is_quantised(place.folder)):
        return
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    if found := _outline(AutoModelForCausalLM, place.source, options):
        refuse_incomplete(name, found[1], found[0], warn=False)


def refuse_missing_encoder_weights(
    folder: Path, name: str, *, model_class: Any = None, trust_remote_code: bool = False
) -> None:
    """Refuse an embedder's transformer with missing weights, weights of another shape, or unused layers.

    Args:
        folder: the transformer's module inside the embedder.
        name: the embedder, as the person wrote it.
        model_class: the transformers class that the embedder loads it as; None if that is not known yet.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        CurateError: the transformer is incomplete; the message names a weight.
    """
    options = {"trust_remote_code": trust_remote_code}
    if model_class is None and _is_encoder_decoder(folder, options):
        return  # the embedder may load the encoder alone, and that is not known before it is loaded
    if found := _outline(model_class or AutoModel, str(folder), options):
        model, info = found
        missing = {key for key in info["missing_keys"] if _UNUSED_HEAD not in key}
        refuse_incomplete(f"the embedder {name}", {**info, "missing_keys": missing}, model, what="embedder", warn=False)


def _outline(model_class: Any, source: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Return the model on `meta` and the library's report on its weights; None if the library cannot read the model."""
    try:
        with quiet_library():
            model, info = model_class.from_pretrained(
                source,
                device_map="meta",
                use_safetensors=True,
                adapter_kwargs=NO_ADAPTER,
                ignore_mismatched_sizes=True,  # else the library raises, and does not name the weight
                output_loading_info=True,
                **options,
            )
    except LIBRARY_ERRORS:
        return None
    return model, info


def _is_quantised(folder: Path) -> bool:
    path = folder / "config.json"
    return kind_of(path) is not None and read_json(path, dict).get("quantization_config") is not None


def _is_encoder_decoder(folder: Path, options: dict[str, Any]) -> bool:
    try:
        with quiet_library():
            return bool(AutoConfig.from_pretrained(str(folder), **options).is_encoder_decoder)
    except LIBRARY_ERRORS:
        return True
