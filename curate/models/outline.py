"""Models without their numbers: whether the files hold every weight, seen from their headers before any is read.

The library itself says what it would make up: it builds the model on PyTorch's device `meta`, where nothing has a
value. That takes a moment for any size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from curate.models.checks import refuse_incomplete
from curate.models.explain import LIBRARY_ERRORS
from curate.models.files import read_json
from curate.models.load import NO_ADAPTER, quiet_library
from curate.models.locate import kind_of, locate

_NOT_USED = "pooler."  # of an encoder's further head: sentence-transformers pools the hidden states by itself


def refuse_missing_weights(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Refuse a causal language model of whose weights some would be random, of another shape, or unused layers.

    GGUF files, weights that are stored quantised, and what the library cannot read are left to `load_model`.

    Raises:
        CurateError: naming a weight.
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
    """Refuse an embedder's transformer of whose weights some would be random, of another shape, or unused layers.

    Args:
        folder: of the module in the embedder.
        name: of the embedder, as the person wrote it.
        model_class: as which it is loaded; left out where that is not known yet.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        CurateError: naming a weight.
    """
    options = {"trust_remote_code": trust_remote_code}
    if model_class is None and _is_encoder_decoder(folder, options):
        return  # of which only the encoder may be loaded
    if found := _outline(model_class or AutoModel, str(folder), options):
        model, info = found
        missing = {key for key in info["missing_keys"] if _NOT_USED not in key}
        refuse_incomplete(f"the embedder {name}", {**info, "missing_keys": missing}, model, what="embedder", warn=False)


def _outline(model_class: Any, source: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """The model without numbers and what the library says of its weights; None where it cannot tell."""
    try:
        with quiet_library():
            model, info = model_class.from_pretrained(
                source,
                device_map="meta",
                use_safetensors=True,
                adapter_kwargs=NO_ADAPTER,
                ignore_mismatched_sizes=True,
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
