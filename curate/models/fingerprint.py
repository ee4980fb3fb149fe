"""Where a model's files are, and what tells them from the files of another model."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

from curate.types import CurateError

# A weight file up to this size is hashed whole; of a larger one the header and three blocks of a mebibyte.
_HASHED_WHOLE = 64 << 20
_BLOCK = 1 << 20
_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def locate(name: str) -> str:
    """A model's local folder where there is one (~ is expanded), else its name as a hub id.

    Raises:
        CurateError: no name, a file, or what can only be a folder and does not exist.
    """
    if not name:
        raise CurateError("expected a hub id or a local folder as the model's name, got nothing")
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_file():
        raise CurateError(f"expected a model's folder, got the file {name}; try {path.parent}")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CurateError(f"no model folder {name}{nearest(path)}")
    return name


def nearest(path: Path) -> str:
    """A question to add to a message: the folder beside it with the most similar name, or nothing."""
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def weight_fingerprint(name: str, revision: str | None = None) -> str:
    """What tells these weights from others: a hub model's commit, or a SHA-256 (hex) over a local folder.

    A folder is hashed over its configuration, its own code, and its safetensors: up to 64 MiB whole; of a larger
    file its size, its header and a mebibyte at its start, middle and end. Two models that differ only elsewhere in
    a large file have the same fingerprint: that is the price of not reading terabytes.
    """
    folder = Path(locate(name))
    if not folder.is_dir():
        return _hub_commit(name, revision)
    files = [folder / "config.json", *sorted(folder.glob("*.py")), *sorted(folder.glob("*.safetensors"))]
    return _hash_files(files)


def tokenizer_fingerprint(name: str, revision: str | None = None) -> str:
    """What tells this tokenizer from others: a hub model's commit, or a SHA-256 (hex) over its files."""
    folder = Path(locate(name))
    if not folder.is_dir():
        return _hub_commit(name, revision)
    return _hash_files([folder / file for file in _TOKENIZER_FILES])


def _hub_commit(name: str, revision: str | None) -> str:
    try:
        file = hf_hub_download(name, "config.json", revision=revision)
    except (OSError, HFValidationError) as error:
        raise CurateError(
            f"{name} is no local folder{nearest(Path(name))} and cannot be had from the Hugging Face hub: "
            "download it first and give its folder"
        ) from error
    return Path(file).parent.name  # the cache keeps snapshots/COMMIT/config.json


def _hash_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
                for start, length in _sampled(stream, file.stat().st_size):
                    stream.seek(start)
                    digest.update(stream.read(length))
    return digest.hexdigest()


def _sampled(stream: BinaryIO, size: int) -> list[tuple[int, int]]:
    """(start, length) of the spans to hash. A safetensors file starts with the length of its header, 8 bytes."""
    if size <= _HASHED_WHOLE:
        return [(0, size)]
    header = min(int.from_bytes(stream.read(8), "little") + 8, size)
    return [(0, header + _BLOCK), (size // 2, _BLOCK), (size - _BLOCK, _BLOCK)]
