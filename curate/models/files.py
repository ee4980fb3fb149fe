"""Lists the files of a model that are loaded, and refuses damaged and unsafe ones.

The same list is fingerprinted and loaded, so that a fingerprint always describes what was loaded.
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
# What a Trainer writes into its checkpoints beside the weights.
_NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"}

# Upper limits of counts in a configuration; no model comes near them.
_COUNTS = {"num_labels": 10**6, **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 2000)}
# Any of these files holds a tokenizer's vocabulary.
_VOCABULARIES = ("tokenizer.json", "tokenizer.*.json", "*.model", "*.model.*", "*.tiktoken", "tekken.json", "vocab.*")

T = TypeVar("T", dict[str, Any], list[Any])


def locate_checked(name: str, json_files: tuple[str, ...]) -> Location:
    """Return where a model is, after checks of its files that need no model library.

    Args:
        name: hub id, local folder or .gguf file.
        json_files: names of the JSON files that must hold an object where they exist.

    Raises:
        CurateError: no such model, an adapter, a damaged JSON file, or a GGUF file without the package that reads it.
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
        _refuse_pointers(place.folder)
    return place


def _refuse_absurd(path: Path) -> None:
    """Refuse a configuration with impossible counts of layers or labels."""
    # The library makes a list of that length: a damaged number would take all memory before any error is raised.
    config = read_json(path, dict) if kind_of(path) else {}
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for key, value in ((key, part.get(key)) for part in parts for key in _COUNTS):
        if isinstance(value, int | float) and value > _COUNTS[key]:
            raise CurateError(f"{path} is damaged: {key} is {value:,}; download or copy it again")


def _refuse_pointers(folder: Path) -> None:
    """Refuse settings that send the library, by its version, to files that are not checked and fingerprinted here."""
    for file, key in (("config.json", "configuration_files"), ("tokenizer_config.json", "fast_tokenizer_files")):
        names = read_json(folder / file, dict).get(key) if kind_of(folder / file) else None
        in_folder = isinstance(names, list) and all(PureWindowsPath(str(name)).name == name for name in names)
        if names and not (in_folder and key == "fast_tokenizer_files"):  # those are fingerprinted, if they lie here
            raise CurateError(f"{folder / file} names other files to be read ({key}), which are not: remove {key}")


def read_json(path: Path, kind: type[T]) -> T:
    """Return the JSON object (`dict`) or array (`list`) in a file of a model.

    Raises:
        CurateError: the file cannot be read, is no JSON in UTF-8, or holds something else.
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
    kind_of(path)  # raises for a pipe
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CurateError(f"cannot read {path}: {error.strerror}") from error


def is_there(path: Path) -> bool:
    """Say whether a folder has an entry of this name; a broken link counts, since it is a damaged file."""
    return kind_of(path) is not None or path.is_symlink()


def refuse_damaged(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse a folder in which one of the named files is no JSON object, or a chat template is no text.

    Raises:
        CurateError: a file is damaged; the message names it.
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
    """Say whether a folder has a vocabulary. Some tokenizers load without one, and encode every word as unknown."""
    return any(kind_of(file) == "file" for pattern in _VOCABULARIES for file in folder.glob(pattern))


def refuse_adapter(folder: Path, name: str) -> None:
    """Refuse a folder that holds a LoRA adapter but no model.

    Raises:
        CurateError: it is an adapter; the message names its base model.
    """
    settings = folder / "adapter_config.json"
    if kind_of(settings) and not any(kind_of(folder / file) for file in (WEIGHTS, INDEX)):
        raise adapter_error(name, settings)


def adapter_error(name: str, settings: Path) -> CurateError:
    """Return the error for a name that leads to an adapter; `settings` is its adapter_config.json."""
    base = read_json(settings, dict).get("base_model_name_or_path") or "another model"
    return CurateError(
        f"{name} is an adapter of {base}, not a model: give {base}, or merge the two first "
        "(train.merge=true, or peft's merge_and_unload) and give the merged folder"
    )


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the files of a folder from which transformers would read the weights; an index of shards comes first.

    Raises:
        CurateError: an adapter, no safetensors, a missing shard, or an index that names a file outside the folder or
            one of another format.
    """
    if any(folder.glob("shard-*-model-*-of-*.safetensors")):
        # transformers prefers these to model.safetensors, and no index says which of them belong together.
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
    """Return the file names under which transformers looks for weights, in its order; config.json may name another."""
    path = folder / "config.json"
    named = read_json(path, dict).get("transformers_weights") if kind_of(path) else None
    if named is not None and not isinstance(named, str):
        raise CurateError(f"{path}: expected the name of a file as transformers_weights, got {type(named).__name__}")
    return [named] if named else [WEIGHTS, INDEX]


def _shards(index: Path, name: str) -> list[Path]:
    """Return the files that an index of shards names; refuse a damaged index and missing files."""
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
    """Refuse the name of a weight file that leads out of its folder or is not in safetensors format."""
    windows = PureWindowsPath(file)  # takes both / and \ as separators, so ".." is seen in either form
    if PurePosixPath(file).is_absolute() or windows.drive or ".." in windows.parts:
        raise CurateError(f"{named_by} names weights outside its folder, which are not read: {file}")
    if not file.endswith((".safetensors", ".safetensors.index.json")):
        raise CurateError(
            f"{named_by} names {file}, no safetensors file; pickle weights (.bin, .pt) are refused, they can run code: "
            "convert them to safetensors first"
        )


def _no_weights(folder: Path, name: str) -> CurateError:
    """Return the error for a folder without usable weights: shards without an index, pickles only, or nothing."""
    if shards := sorted(folder.glob("*-of-*.safetensors")):
        return CurateError(f"{name} holds {shards[0].name} but no {INDEX} that names its shards: download it again")
    if any(p.name not in _NOT_WEIGHTS for pattern in _PICKLES for p in folder.glob(pattern)):
        return CurateError(
            f"{name} has no safetensors weights; pickle weights (.bin, .pt) are refused, they can run code: "
            "convert them to safetensors first"
        )
    return CurateError(f"{name} holds no weights: expected {WEIGHTS} or {INDEX}; download it again")
