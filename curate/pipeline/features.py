"""Input ids and labels of chosen records, in the vocabulary of the model to train."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from curate.config import Model, Recipe
from curate.models.fingerprint import IN_MEMORY, tokenizer_fingerprint, weight_fingerprint
from curate.pipeline.job import Job
from curate.pipeline.settle import known_key
from curate.pipeline.tokens import TOKENIZER, make_tokens, tokenize_as_settled
from curate.read.examples import read_examples
from curate.runs.atomic import disk_full_as_oserror, replacing
from curate.runs.keys import Key
from curate.tokens.labels import training_labels
from curate.tokens.lengths import length_limit
from curate.tokens.prompts import resolve_template
from curate.tokens.saved import SavedTokenizer, open_tokenizer, save_tokenizer
from curate.tokens.store import open_tokens, stored_tokens
from curate.types import CurateError, IntArray, Status, Tokens

if TYPE_CHECKING:
    from curate.training.features import Feature


@dataclass(frozen=True, slots=True)
class Trained:
    """The model to train: train.model, or else the scoring model.

    name              hub id or folder
    revision          of the hub
    is_scoring_model  whether the tokens that were scored can be trained on as they are
    """

    name: str
    revision: str | None
    is_scoring_model: bool


def trained_model(recipe: Recipe) -> Trained:
    """Return the model to train."""
    if recipe.train.model:
        return Trained(recipe.train.model, recipe.train.revision, False)
    return Trained(recipe.model.name, recipe.model.revision, True)


def base_key(job: Job) -> Key:
    """Return what the model below an adapter is, and how it is loaded: an adapter fits no other.

    Raises:
        CurateError: the scoring model is to be trained, and it is not the one any more that was scored with.
    """
    model = trained_model(job.recipe)
    weights = weight_fingerprint(model.name, revision=model.revision)
    tokenizer = tokenizer_fingerprint(model.name, revision=model.revision)
    if model.is_scoring_model:
        known = known_key(job.folder)
        for name, now in {"model": weights, "tokenizer": tokenizer}.items():
            if name in known and not known[name].startswith(IN_MEMORY):  # of that only the name is left
                job.folder.require_same("scores", {name: known[name]}, {name: now})
    return {
        "model.dtype": job.recipe.model.dtype,
        "train.model": weights,
        "train.tokenizer": tokenizer,
        "train.quantization": job.recipe.train.quantization,
    }


def features_of(job: Job, rows: IntArray) -> tuple[list[Feature], dict[str, int]]:
    """Return input ids and labels of `rows`, in their order, and how many rows have none, by status.

    A row has none if the model to train cannot take it, for example because it is too long for that model.

    Raises:
        CurateError: none of the rows has any.
    """
    features: list[Feature] = []
    dropped: Counter[str] = Counter()
    for status, feature in training_features(job, rows):
        if feature is not None:
            features.append(feature)
        else:
            dropped[status] += 1
        job.launch.advance("training examples", len(features), len(rows), "records")
    if not features:
        name = trained_model(job.recipe).name
        raise CurateError(f"{name} can be trained on none of the kept records ({dict(dropped)})")
    return features, dict(dropped)


def write_features(job: Job, rows: IntArray, path: Path) -> None:
    """Store what `features_of` returns as an .npz file, the sequences one after the other."""
    features, dropped = features_of(job, rows)
    np.savez(
        path,
        lengths=np.array([len(ids) for ids, _ in features]),
        ids=np.concatenate([ids for ids, _ in features]),
        labels=np.concatenate([labels for _, labels in features]),
        dropped=np.frombuffer(json.dumps(dropped).encode(), np.uint8),  # JSON as bytes: objects would need pickle
    )


def training_features(job: Job, rows: IntArray) -> Iterator[tuple[Status, Feature | None]]:
    """Yield the status of each of `rows`, in their order, with its input ids and labels if it can be trained on."""
    model = trained_model(job.recipe)
    records = tokens_to_train_on(job, rows, model)
    tokenizer = saved_tokenizer(job, model)
    end, limit = tokenizer.end_id, tokenizer.length_limit
    for record in records:
        feature: Feature | None = None
        if record.status == "scored":
            # Cut again, because the end token that training adds may be one too many.
            ids, labels = (np.array(part)[:limit] for part in training_labels(record, end))
            feature = (ids, labels)
        yield record.status, feature


def tokens_to_train_on(job: Job, rows: IntArray, model: Trained) -> Iterator[Tokens]:
    """Yield the tokens of `rows`: those that were scored, or for another model new ones, from the records."""
    if model.is_scoring_model:
        yield from stored_tokens(make_tokens(job) if job.is_main else open_tokens(job.folder.work / "tokens"), rows)
        return
    chosen = np.zeros(int(rows.max(initial=-1)) + 1, bool)
    chosen[rows] = True
    # `chosen` ends with the last chosen row, and `compress` ends with it: the rest of the input is not read.
    examples = compress(read_examples(job.recipe.data, job.settled.source), chosen)
    yield from tokenize_as_settled(
        job.recipe,
        job.loaded,
        (replace(example, row=i) for i, example in enumerate(examples)),
        Model(name=model.name, revision=model.revision),
    )


def saved_tokenizer(job: Job, model: Trained) -> SavedTokenizer:
    """Return the tokenizer of the model to train, as a saved copy that is read without transformers and torch.

    For the scoring model it is the copy beside the tokens. For another model one is made, and transformers is loaded.

    Raises:
        CurateError: the model cannot be read, or its tokenizer lacks the chat template that was scored with.
    """
    if model.is_scoring_model and (made := open_tokenizer(job.folder.work / "tokens" / TOKENIZER)):
        return made
    tokenizer, config = job.loaded.tokenizer(model.name, model.revision), job.loaded.config(model.name, model.revision)
    resolve_template(job.recipe.prompt.template, tokenizer)
    folder = job.folder.work / "trained-tokenizer"
    with replacing(folder) as part, disk_full_as_oserror(folder):
        save_tokenizer(tokenizer, part, length_limit=length_limit(tokenizer, config))
    saved = open_tokenizer(folder)
    assert saved is not None, "just written"
    return saved


def read_features(path: Path) -> list[Feature]:
    """Read what `write_features` stored."""
    with np.load(path, allow_pickle=False) as arrays:
        cuts = np.cumsum(arrays["lengths"])[:-1]
        return list(zip(np.split(arrays["ids"], cuts), np.split(arrays["labels"], cuts), strict=True))


def read_dropped(path: Path) -> dict[str, int]:
    """Read how many records `write_features` could not store, by status."""
    with np.load(path, allow_pickle=False) as arrays:
        return TypeAdapter(dict[str, int]).validate_json(arrays["dropped"].tobytes())
