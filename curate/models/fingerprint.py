"""Computes fingerprints of models, tokenizers and embedders: one hash over the files that are loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from curate.models.files import read_json, refuse_adapter, weight_files
from curate.models.hub import cached_folder
from curate.models.locate import Location, kind_of, locate
from curate.types import CurateError

IN_MEMORY = "in memory: "
"""What the fingerprint of a model or tokenizer that a caller has loaded begins with (`curate.models.in_memory`)."""

# Files of up to 64 MiB are hashed whole, larger ones by their header and 17 blocks of a mebibyte.
_HASHED_WHOLE = 64 << 20
_BLOCK, _NUM_BLOCKS = 1 << 20, 17
# The vocabulary and metadata of a GGUF file are at its start, and take up to 10 MB in today's models.
_GGUF_HEADER = 16 << 20
_LONGEST_HEADER = 100_000_000  # the safetensors library refuses longer ones
_TOKENIZER_FILES = (
    "*tokenizer*.json",
    "*.model",
    "*.model.*",
    "*.tiktoken",
    "*.jinja",
    "added_tokens.json",
    "chat_template.json",
    "chat_templates/*.jinja",
    "additional_chat_templates/*.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tekken.json",
    "vocab.*",
)


def weight_fingerprint(name: str, revision: str | None = None) -> str:
    """Return the fingerprint of a model's weights: the commit of a hub model, or a SHA-256 (hex) over local files.

    Hashed are config.json, the model's own code, the index of shards, and every weight file that is loaded. A file of
    more than 64 MiB is sampled: its size, its header, and 17 evenly spaced mebibytes, the first and the last included.
    Two models that differ only between these samples have the same fingerprint; hashing all of a large model would take
    minutes in every run.

    Raises:
        CurateError: no such model, an adapter, or weights that would not be loaded (see `weight_files`).
    """
    place = locate(name)
    if place.folder is None:
        return cached_folder(name, revision).name
    if place.gguf:
        return hash_files([place.gguf], place.folder)
    folder = place.folder
    refuse_adapter(folder, name)
    return hash_files([folder / "config.json", *_code(folder), *weight_files(folder, name)], folder)


def tokenizer_fingerprint(name: str, revision: str | None = None) -> str:
    """Return the fingerprint of a tokenizer: the commit of a hub model, or a SHA-256 (hex) over local files.

    Named chat templates (chat_templates/*.jinja) are hashed too, and the two values of config.json by which
    transformers picks the class of the tokenizer.

    Raises:
        CurateError: no such model, or an adapter.
    """
    place = locate(name)
    if place.folder is None:
        return cached_folder(name, revision).name
    files = {file for pattern in _TOKENIZER_FILES for file in place.folder.glob(pattern)}
    if place.gguf:  # the library also reads a tokenizer.json and chat templates that lie beside it
        return hash_files({place.gguf, *files}, place.folder)
    refuse_adapter(place.folder, name)
    return hash_files({*files, *_code(place.folder)}, place.folder, extra=_tokenizer_class(place))


def hash_files(files: Iterable[Path], folder: Path, *, extra: str = "") -> str:
    """Return a SHA-256 (hex) over names, sizes and contents of files; large files are sampled, missing ones skipped.

    Names are relative to the folder, links are followed, and the order of the files does not matter.

    Raises:
        CurateError: a file cannot be read.
    """
    digest = hashlib.sha256(extra.encode())
    for file in sorted(files):
        if kind_of(file) != "file":
            continue
        try:
            with file.open("rb") as stream:
                size = file.stat().st_size
                digest.update(f"{file.relative_to(folder).as_posix()}\0{size}\0".encode())
                for start, length in _sampled(stream, size, file.suffix.lower()):
                    stream.seek(start)
                    digest.update(stream.read(length))
        except OSError as error:
            raise CurateError(f"cannot read {file}: {error.strerror}") from error
    return digest.hexdigest()


def _code(folder: Path) -> list[Path]:
    """Return the Python files of a model, those in subfolders too, without hidden folders such as .git."""
    # Code is named by one of these. A folder without them is no model, and may be a whole disk.
    if not any(kind_of(folder / name) for name in ("config.json", "tokenizer_config.json")):
        return []
    files = folder.rglob("*.py")
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _tokenizer_class(place: Location) -> str:
    """Return the two values of config.json that decide the class of the tokenizer, as JSON; "" without the file."""
    config = place.folder / "config.json" if place.folder else None
    if config is None or not kind_of(config):
        return ""
    content = read_json(config, dict)
    return json.dumps([content.get("model_type"), content.get("tokenizer_class")])


def _sampled(stream: BinaryIO, size: int, suffix: str) -> list[tuple[int, int]]:
    """Return (start, length) of the spans to hash, in bytes: the whole of a small file, samples of a large one."""
    if size <= _HASHED_WHOLE:
        return [(0, size)]
    header = _GGUF_HEADER
    if suffix == ".safetensors":
        # The first 8 bytes are the length of the header.
        header = min(int.from_bytes(stream.read(8), "little") + 8, _LONGEST_HEADER)
    starts = [(size - _BLOCK) * block // (_NUM_BLOCKS - 1) for block in range(_NUM_BLOCKS)]
    return [(0, header + _BLOCK), *((start, _BLOCK) for start in starts)]
