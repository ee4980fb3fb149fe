"""Embeds texts as unit vectors, with sentence-transformers; the only module that imports it."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curate.models.embedder import check_embedder, embedder_modules
from curate.types import CurateError, EmbeddingText, Example, Turn

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Words in several scripts: a tokenizer without a vocabulary encodes all of them as the unknown token.
_PROBE = ("a", "7", "red", "house", "maison", "дом", "家", "منزل")

logger = logging.getLogger(__name__)


def embedding_text(example: Example, text: EmbeddingText) -> str:
    r"""Return the text to embed of an example; "" for a bad record.

    instruction  the first user turn without its input
    full         the first user turn, with its input after a blank line
    prompt       all turns before the last assistant turn, the system turn included, with blank lines between

    Without a user turn, the prompt is embedded in every case.

    >>> example = Example(0, "", (Turn("user", "Translate.", input="Hund"), Turn("assistant", "dog")))
    >>> embedding_text(example, "instruction"), embedding_text(example, "full")
    ('Translate.', 'Translate.\n\nHund')
    """
    first = next((turn for turn in example.turns if turn.role == "user"), None)
    if text == "prompt" or first is None:
        last = max((i for i, turn in enumerate(example.turns) if turn.role == "assistant"), default=len(example.turns))
        return "\n\n".join(_with_input(turn) for turn in example.turns[:last])
    return _with_input(first) if text == "full" else first.content


def _with_input(turn: Turn) -> str:
    return f"{turn.content}\n\n{turn.input}" if turn.input else turn.content


def load_embedder(name: str, *, device: str | None = None, trust_remote_code: bool = False) -> SentenceTransformer:
    """Return a sentence-transformers model from a local folder or the hub.

    Weights are read from safetensors only. A folder with a plain transformers model is accepted with a warning, since
    the library then chooses the pooling.

    Args:
        name: local folder or hub id.
        device: "cpu", "cuda", ...; None lets the library choose.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        CurateError: the model is neither on this machine nor to be had from the hub; its weights are pickled, damaged
            or missing; its settings are damaged; it has no tokenizer, or one that gives all words the same vector; or
            it brings code of its own and `trust_remote_code` is false.
    """
    folder = check_embedder(name, trust_remote_code=trust_remote_code)
    if not (folder / "modules.json").exists():
        logger.warning("%s is not a sentence-transformers model; its pooling is the library's guess", name)

    from sentence_transformers import SentenceTransformer

    from curate.models.explain import LIBRARY_ERRORS
    from curate.models.load import quiet_library

    try:
        with quiet_library():
            embedder = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=trust_remote_code,
                model_kwargs={"use_safetensors": True},
            )
        _refuse_random(embedder, folder, name, trust_remote_code)
        vectors = embedder.encode(list(_PROBE), show_progress_bar=False, convert_to_numpy=True)
    except CurateError:
        raise
    except Exception as error:
        # The tokenizers library raises a plain Exception for a tokenizer.json that it cannot read.
        if type(error) is not Exception and not isinstance(error, LIBRARY_ERRORS):
            raise
        raise CurateError(f"cannot load the embedder {name}: {_one_line(error)}") from error
    if np.ptp(vectors, axis=0).max() == 0:
        raise CurateError(
            f"the embedder {name} gives {len(_PROBE)} different words the same vector: its tokenizer is not the one "
            "it was trained with; copy the tokenizer from where the model is from"
        )
    return embedder


def _refuse_random(embedder: SentenceTransformer, folder: Path, name: str, trust_remote_code: bool) -> None:
    """Refuse an embedder if the library has filled missing weights with random numbers."""
    # Only now is the class known that the library loads; of T5, for example, it is the encoder alone.
    from curate.models.outline import refuse_missing_encoder_weights

    places = [str(module["path"]) for module in embedder_modules(folder, name)] or [""]
    for place, module in zip(places, embedder.children(), strict=False):
        if hasattr(module, "auto_model") and (folder / place / "config.json").is_file():
            model_class = type(module.auto_model)
            refuse_missing_encoder_weights(
                folder / place, name, model_class=model_class, trust_remote_code=trust_remote_code
            )


def embed(
    texts: Sequence[str],
    embedder: SentenceTransformer,
    *,
    batch_size: int,
    on_progress: Callable[[float], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Return texts as unit vectors: float32 [len(texts), D]; a zero row where the embedder returns the zero vector.

    On one machine, the same texts in one call give the same bits, and equal texts give equal rows. The library batches
    texts by length, so the last bits depend on the other texts of the call: a caller that resumes must use the same
    chunks. `on_progress` is called after every batch with the fraction that is done.

    Raises:
        CurateError: the embedder returns NaN or infinity.
    """
    if not texts:  # the dimension D is known only from a vector
        return embed([""], embedder, batch_size=batch_size)[:0]
    # Each distinct text is embedded once: that saves time, and equal texts get exactly the same vector.
    position = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    with _watched(embedder, -(-len(position) // batch_size), on_progress):
        vectors = embedder.encode(list(position), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
    # In float64, so that rows are unit vectors to the last bit of float32.
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise CurateError("the embedder gives NaN or infinity; set embed.model to another, or to a float32 copy of it")
    unit = (vectors / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
    return np.asarray(unit[[position[text] for text in texts]], np.float32)


@contextmanager
def _watched(
    embedder: SentenceTransformer, num_batches: int, on_progress: Callable[[float], None] | None
) -> Iterator[None]:
    """Tell of every batch, where somebody listens: the library itself would only draw a bar on the terminal."""
    if on_progress is None:
        yield
        return
    batches = itertools.count(1)
    hook = embedder[0].register_forward_hook(lambda *_: on_progress(next(batches) / num_batches))
    try:
        yield
    finally:
        hook.remove()


def count_truncated(texts: Sequence[str], embedder: SentenceTransformer) -> int:
    """Return how many texts are longer than the embedder reads; it ignores the rest of such a text."""
    limit = embedder.max_seq_length
    if not texts or limit is None or math.isinf(limit):
        return 0
    token_ids = embedder.tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
    return sum(len(ids) > limit for ids in token_ids)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
