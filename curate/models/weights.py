"""Reads the headers of a model's weights; of a model on the hub, fetches the weights first."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.models.files import read_json, refuse_adapter, weight_files
from curate.models.gguf import read_gguf_header
from curate.models.hub import fetch_weights
from curate.models.locate import Location, locate
from curate.types import CurateError

Shapes = Mapping[str, tuple[int, ...]]

# In this order: Llama and most others, GPT-2, GPT-NeoX, BLOOM and Falcon, InternLM, GGUF, Mamba, others.
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|token_embd|embeddings|embedding)\.weight$"
)
# Other stacks of layers than the text decoder's: for images, for sound, for drafts of several tokens ahead.
_NOT_TEXT = re.compile(r"vis|image|audio|speech|encoder|tower|mtp|nextn|draft|talker|qformer|resampler")
_STACK = re.compile(r"(^|\.)(layers?|h|blocks?|blk)$")


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """What the headers of a model's weights say.

    parameters      numbers stored; fewer than the model has where quantised weights are packed
    bytes           size of the weight files
    embedding_rows  rows of the input embedding, so valid token ids are below it; None if it is not known
    num_layers      layers of the text decoder; None if the names of the weights do not tell
    """

    parameters: int
    bytes: int
    embedding_rows: int | None
    num_layers: int | None


def weight_facts(name: str, revision: str | None = None) -> WeightFacts:
    """Return parameters, bytes, embedding rows and layers of a model, from the headers of its files.

    The files of a hub model are fetched if they are not in the cache yet.

    Raises:
        CurateError: no such model, an adapter, a shard is missing, a header is damaged, or there are no weights.
    """
    place = _local(name, revision)
    files = [place.gguf] if place.gguf else weight_files(place.folder or Path(), name)
    shapes = read_shapes(place)
    return WeightFacts(
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        bytes=sum(file.stat().st_size for file in files if file.suffix != ".json"),
        embedding_rows=_embedding_rows(shapes),
        num_layers=count_layers(shapes),
    )


def embedding_rows(name: str, revision: str | None = None) -> int | None:
    """Return the rows of the input embedding, from the headers; None if no weight has a known name for it."""
    return weight_facts(name, revision).embedding_rows


def read_shapes(place: Location) -> Shapes:
    """Return the shape of every weight of a local model, by name.

    Raises:
        CurateError: a file is damaged, lacks weights that the index lists, or there are no weights at all.
    """
    if place.gguf:
        shapes = dict(read_gguf_header(place.gguf).shapes)
    else:
        folder = place.folder or Path()
        refuse_adapter(folder, place.name)
        files = weight_files(folder, place.name)
        shapes = read_safetensors(files, place.name)
        if files[0].suffix == ".json":
            _refuse_unplaced(place.name, files[0], shapes)
    if not shapes:
        raise CurateError(f"{place.name}: its weight files hold no weights at all: download it again")
    return shapes


def read_safetensors(files: Iterable[Path], name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights in the safetensors files among `files`.

    Raises:
        CurateError: a file is damaged; the message names the first.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        if file.suffix != ".safetensors":
            continue
        try:
            file.open("rb").close()  # the library says "not found" for a file that may not be read
        except OSError as error:
            raise CurateError(f"cannot read {file}: {error.strerror}") from None
        try:
            with safe_open(file, framework="numpy") as stream:
                shapes |= {key: tuple(stream.get_slice(key).get_shape()) for key in stream.keys()}  # noqa: SIM118
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).split("\n")[0].rstrip(" .:")
            raise CurateError(
                f"the weights of {name} are damaged ({file.name}: {reason}): download or copy them again"
            ) from error
    return shapes


def count_layers(names: Iterable[str]) -> int | None:
    """Return the number of layers of a text decoder, from the names of its weights; None if none of them has a number.

    >>> count_layers(["model.layers.0.mlp.weight", "model.layers.1.mlp.weight", "visual.blocks.7.mlp.weight"])
    2
    """
    layers = [
        layer
        for stack, layer in filter(None, map(split_layer, names))
        if _STACK.search(stack) and not _NOT_TEXT.search(stack)
    ]
    return max(layers) + 1 if layers else None


def split_layer(name: str) -> tuple[str, int] | None:
    """Split the name of a weight at its first number: the stack of layers, and the layer; None without a number.

    >>> split_layer("model.layers.3.mlp.experts.7.up.weight")
    ('model.layers', 3)
    """
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal() and place:
            return ".".join(parts[:place]), int(part)
    return None


def _embedding_rows(shapes: Shapes) -> int | None:
    """Return the rows of the input embedding; None if no weight has its name, or several of different sizes do."""
    found = {
        shape[0]
        for name, shape in shapes.items()
        if len(shape) == 2 and _EMBEDDING.search(name) and not _NOT_TEXT.search(name)
    }
    return found.pop() if len(found) == 1 else None


def _refuse_unplaced(name: str, index: Path, shapes: Shapes) -> None:
    unplaced = sorted(read_json(index, dict)["weight_map"].keys() - shapes.keys())
    if unplaced:
        raise CurateError(
            f"{name} lacks {len(unplaced)} weight(s) that {index.name} names, {unplaced[0]} among them: "
            "download it again"
        )


def _local(name: str, revision: str | None) -> Location:
    place = locate(name)
    return place if place.folder else Location(name, fetch_weights(name, revision))
