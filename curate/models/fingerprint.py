"""What tells a model, a tokenizer or an embedder from others: one way to hash the files that are loaded."""

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

# A file up to this size is hashed whole; of a larger one its header and 17 blocks of a mebibyte.
_HASHED_WHOLE = 64 << 20
_BLOCK, _NUM_BLOCKS = 1 << 20, 17
# Vocabulary and metadata of a GGUF file stand at its start; those of today's models take up to 10 MB.
_GGUF_HEADER = 16 << 20
_LONGEST_HEADER = 100_000_000  # the safetensors library refuses longer ones
_TOKENIZER_FILES = (
    "tokenizer*.json",
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
    """What tells these weights from others: a hub model's commit, or a SHA-256 (hex) over a local model's files.

    Hashed are config.json, the model's own code, the index of shards, and every weight file that is loaded: up to
    64 MiB whole; of a larger file its size, its header, and 17 evenly spaced mebibytes, the first and last among
    them. Two models that differ only elsewhere in a large file have the same fingerprint: that is the price of not
    reading terabytes.

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
    """What tells this tokenizer from others: a hub model's commit, or a SHA-256 (hex) over its files.

    Named chat templates (chat_templates/*.jinja) are among them, and of config.json the two values by which
    transformers picks the class of a tokenizer.

    Raises:
        CurateError: no such model, or an adapter.
    """
    place = locate(name)
    if place.folder is None:
        return cached_folder(name, revision).name
    if place.gguf:
        return hash_files([place.gguf], place.folder)
    refuse_adapter(place.folder, name)
    files = {file for pattern in _TOKENIZER_FILES for file in place.folder.glob(pattern)} | {*_code(place.folder)}
    return hash_files(files, place.folder, extra=_tokenizer_class(place))


def hash_files(files: Iterable[Path], folder: Path, *, extra: str = "") -> str:
    """Return a SHA-256 (hex) over the names, sizes and contents (of large files, samples) of the files that exist.

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
    """Python files that a model brings, those of subfolders too; hidden folders (.git) are none of its."""
    files = folder.rglob("*.py")
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _tokenizer_class(place: Location) -> str:
    config = place.folder / "config.json" if place.folder else None
    if config is None or not kind_of(config):
        return ""
    content = read_json(config, dict)
    return json.dumps([content.get("model_type"), content.get("tokenizer_class")])


def _sampled(stream: BinaryIO, size: int, suffix: str) -> list[tuple[int, int]]:
    """(start, length) of the spans to hash. A safetensors file starts with the length of its header, 8 bytes."""
    if size <= _HASHED_WHOLE:
        return [(0, size)]
    header = _GGUF_HEADER
    if suffix == ".safetensors":
        header = min(int.from_bytes(stream.read(8), "little") + 8, _LONGEST_HEADER)
    starts = [(size - _BLOCK) * block // (_NUM_BLOCKS - 1) for block in range(_NUM_BLOCKS)]
    return [(0, header + _BLOCK), *((start, _BLOCK) for start in starts)]
