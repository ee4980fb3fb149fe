"""Which files of a model are loaded, and what is refused by their look alone.

Only files that this module names are fingerprinted and loaded: one list, so that the two cannot differ.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from curate.models.gguf import read_gguf_header
from curate.models.locate import Location, kind_of, locate
from curate.types import CurateError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
_NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"}

_COUNTS = {"num_labels": 10**6, **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 2000)}
_VOCABULARIES = ("tokenizer.json", "tokenizer.*.json", "*.model", "*.model.*", "*.tiktoken", "tekken.json", "vocab.*")

T = TypeVar("T", dict[str, Any], list[Any])


def find_sound(name: str, json_files: tuple[str, ...]) -> Location:
    """Find a model, and refuse what its files give away before a library reads them.

    Raises:
        CurateError: no such model, an adapter, one of these JSON files is damaged, or a GGUF file without the package
            that reads it.
    """
    place = locate(name)
    if place.gguf:
        if importlib.util.find_spec("gguf") is None:
            raise CurateError(f'{name}: a GGUF file needs the package gguf: pip install "lc-curate[gguf]"')
        read_gguf_header(place.gguf)
    elif place.folder:
        refuse_adapter(place.folder, name)
        refuse_damaged(place.folder, json_files)
        _refuse_absurd(place.folder / "config.json")
    return place


def _refuse_absurd(path: Path) -> None:
    """Refuse a configuration of more layers or labels than any model has: the library writes a list of them."""
    config = read_json(path, dict) if kind_of(path) else {}
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for key, value in ((key, part.get(key)) for part in parts for key in _COUNTS):
        if isinstance(value, int | float) and value > _COUNTS[key]:
            raise CurateError(f"{path} is damaged: {key} is {value:,}; download or copy it again")


def read_json(path: Path, kind: type[T]) -> T:
    """Return the JSON object (`dict`) or array (`list`) in a file of a model.

    Raises:
        CurateError: it cannot be read, is no JSON in UTF-8, or holds something else.
    """
    wanted = "an object" if kind is dict else "an array"
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0][:100]
        raise CurateError(f"{path} is not a valid JSON file ({reason}): download or copy it again") from error
    if not isinstance(value, kind):
        got = "null" if value is None else type(value).__name__
        raise CurateError(f"{path} is damaged: expected {wanted}, got {got}; download or copy it again")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CurateError(f"cannot read {path}: {error.strerror}") from error


def is_there(path: Path) -> bool:
    """Say whether a folder has an entry of this name, also one that leads nowhere."""
    return kind_of(path) is not None or path.is_symlink()


def refuse_damaged(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse a folder in which one of these files holds no JSON object, or a chat template no text.

    Raises:
        CurateError: naming the file.
    """
    for path in (folder / name for name in names):
        if is_there(path):
            read_json(path, dict)
    for path in (*folder.glob("*.jinja"), *folder.glob("*chat_templates/*.jinja")):
        try:
            _read_text(path)
        except ValueError as error:
            raise CurateError(f"{path} is no text in UTF-8: download or copy it again") from error


def holds_tokenizer(folder: Path) -> bool:
    """Say whether a folder has a vocabulary. Without one some tokenizers load all the same, and know no word."""
    return any(kind_of(file) == "file" for pattern in _VOCABULARIES for file in folder.glob(pattern))


def refuse_adapter(folder: Path, name: str) -> None:
    """Refuse a folder that holds a LoRA adapter and no weights of a model.

    Raises:
        CurateError: naming the model that the adapter belongs to.
    """
    settings = folder / "adapter_config.json"
    if kind_of(settings) and not any(kind_of(folder / file) for file in (WEIGHTS, INDEX)):
        raise adapter_error(name, settings)


def adapter_error(name: str, settings: Path) -> CurateError:
    """What to say about a model's name that leads to an adapter; `settings` is its adapter_config.json."""
    base = read_json(settings, dict).get("base_model_name_or_path") or "another model"
    return CurateError(
        f"{name} is an adapter of {base}, not a model: give {base}, or merge the two first "
        "(train.merge=true, or peft's merge_and_unload) and give the merged folder"
    )


def weight_files(folder: Path, name: str) -> list[Path]:
    """The files that transformers would read the weights of a folder from; the index of shards first, if there is one.

    Raises:
        CurateError: an adapter instead of a model, no safetensors, a shard is missing, or the index names what is no
            safetensors file inside the folder.
    """
    if any(folder.glob("shard-*-model-*-of-*.safetensors")):
        # transformers prefers these to model.safetensors, and their names follow from no index.
        raise CurateError(
            f"{name} holds a distributed checkpoint (shard-*.safetensors): write it with save_pretrained first"
        )
    for file in weight_names(folder):
        _refuse_outside(file, folder / "config.json")
        if kind_of(folder / file):
            shards = _shards(folder / file, name) if file.endswith(".index.json") else []
            return [folder / file, *shards]
    refuse_adapter(folder, name)
    raise _no_weights(folder, name)


def weight_names(folder: Path) -> list[str]:
    """The names under which transformers looks for weights, in its order; config.json may name another file."""
    path = folder / "config.json"
    named = read_json(path, dict).get("transformers_weights") if kind_of(path) else None
    if named is not None and not isinstance(named, str):
        raise CurateError(f"{path}: expected the name of a file as transformers_weights, got {type(named).__name__}")
    return [named] if named else [WEIGHTS, INDEX]


def _shards(index: Path, name: str) -> list[Path]:
    content = read_json(index, dict)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places or not isinstance(content.get("metadata"), dict):
        raise CurateError(f"{index} is damaged: expected metadata and a weight_map; download or copy it again")
    shards = sorted({str(shard) for shard in places.values()})
    for number, shard in enumerate(shards, 1):
        _refuse_outside(shard, index)
        if not kind_of(index.parent / shard):
            raise CurateError(
                f"{name} lacks {shard}, file {number} of {len(shards)} that {index.name} names: download it again"
            )
    return [index.parent / shard for shard in shards]


def _refuse_outside(file: str, named_by: Path) -> None:
    """Refuse a name of weights that leads out of the folder or is no safetensors file."""
    windows = PureWindowsPath(file)
    if PurePosixPath(file).is_absolute() or windows.drive or ".." in windows.parts:
        raise CurateError(f"{named_by} names weights outside its folder, which are not read: {file}")
    if not file.endswith((".safetensors", ".safetensors.index.json")):
        raise CurateError(
            f"{named_by} names {file}, no safetensors file; pickle weights (.bin, .pt) are refused, they can run code: "
            "convert them to safetensors first"
        )


def _no_weights(folder: Path, name: str) -> CurateError:
    if shards := sorted(folder.glob("*-of-*.safetensors")):
        return CurateError(f"{name} holds {shards[0].name} but no {INDEX} that names its shards: download it again")
    if any(p.name not in _NOT_WEIGHTS for pattern in _PICKLES for p in folder.glob(pattern)):
        return CurateError(
            f"{name} has no safetensors weights; pickle weights (.bin, .pt) are refused, they can run code: "
            "convert them to safetensors first"
        )
    return CurateError(f"{name} holds no weights: expected {WEIGHTS} or {INDEX}; download it again")
