"""The sets that a model is evaluated on, as tokens: the held-out part of the input, and the files of evaluate.sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.config import Data, EvaluationSet, Model
from curate.models.fingerprint import tokenizer_fingerprint
from curate.pipeline.candidates import held_out
from curate.pipeline.features import tokens_to_train_on, trained_model
from curate.pipeline.job import Job
from curate.pipeline.settle import token_settings
from curate.pipeline.tokens import tokenize_as_settled, warn_unused_split
from curate.pipeline.verified import verified_rows
from curate.read.examples import expected_count, read_examples
from curate.read.files import Source, open_source, source_sha256
from curate.runs.atomic import replacing
from curate.runs.keys import Key, fingerprint, read_key, write_key
from curate.tokens.store import open_tokens, write_tokens
from curate.types import CurateError, Example, IntArray, Tokens, TokenStore

HOLDOUT = "holdout"
"""The name of the held-out part in tables."""


@dataclass(frozen=True, slots=True)
class References:
    """One set of records with reference responses, whose loss is measured.

    name    its name in tables
    key     what its tokens depend on, by name
    folder  the folder of its tokens
    data    how its records are read; None for the held-out part of the input
    """

    name: str
    key: Key
    folder: Path
    data: Data | None

    def open(self) -> TokenStore:
        """Return its tokens, memory-mapped."""
        return open_tokens(self.folder)


def references(job: Job) -> list[References]:
    """Return the sets; missing tokens are made. Called by the main process.

    Raises:
        CurateError: there is nothing to evaluate on, or a set cannot be read.
    """
    sets = references_in_files(job)
    if job.recipe.evaluate.holdout and job.recipe.data.holdout != 0:
        sets = [_held_out(job), *sets]
    if not sets:
        raise CurateError(
            "there is nothing to evaluate on: set data.holdout, or evaluate.sets=[{name: NAME, path: FILE}]"
        )
    if len({wanted.name for wanted in sets}) < len(sets):
        raise CurateError("evaluate.sets: expected a different name for every set (holdout is the held-out part)")
    return sets


def references_in_files(job: Job) -> list[References]:
    """Return the sets of evaluate.sets, which can be had before anything is scored; missing tokens are made.

    Raises:
        CurateError: a set cannot be read.
    """
    return [_from_file(job, wanted) for wanted in job.recipe.evaluate.sets]


def examples_of(job: Job, wanted: References) -> Iterator[Example]:
    """Return an iterator over the records of a set as conversations, in the order of their tokens."""
    if wanted.data is not None:
        return read_examples(wanted.data, open_source(wanted.data))
    rows = set(_held_out_rows(job).tolist())
    return (example for example in read_examples(job.recipe.data, job.settled.source) if example.row in rows)


def _held_out(job: Job) -> References:
    """Return the held-out part of the input as a set of references."""
    # Of the model only its tokenizer is in the key: tokens do not depend on the weights.
    model, rows = trained_model(job.recipe), _held_out_rows(job)
    key = {
        "tokens": fingerprint(job.settled.tokens_key),
        "data.holdout": job.recipe.data.holdout,
        "run.seed": job.recipe.run.seed,
        "tokenizer": tokenizer_fingerprint(model.name, revision=model.revision),
    }
    # A token store holds rows 0, 1, 2, ...; the held-out rows get new numbers.
    tokens = (replace(record, row=i) for i, record in enumerate(tokens_to_train_on(job, rows, model)))
    return References(HOLDOUT, key, _with_tokens(job, HOLDOUT, key, tokens, len(rows)), None)


def _held_out_rows(job: Job) -> IntArray:
    """Return the held-out rows, ascending; of exact duplicates only the first, or they would count twice in a mean."""
    rows = verified_rows(job.folder)
    mask = held_out(job, rows)
    assert mask is not None
    seen: set[int] = set()
    chosen = []
    for row in np.flatnonzero(mask).tolist():
        number = int(rows.duplicate_ids[row])
        if number < 0 or number not in seen:  # negative: the record has no duplicate
            chosen.append(row)
            seen.add(number)
    return np.array(chosen, np.int64)


def _from_file(job: Job, wanted: EvaluationSet) -> References:
    """Return a set of evaluate.sets, read like the input but in the vocabulary of the model to train."""
    data = Data(
        path=wanted.path,
        split=wanted.split,
        format=wanted.format,
        columns=wanted.columns,
        limit=wanted.limit,
        on_error="fail",  # a record that is left out would silently change what is measured
    )
    model, source = trained_model(job.recipe), open_source(data)
    settings: dict[str, Any] = token_settings(job.recipe.model_copy(update={"data": data}))
    key = {
        "data": source_sha256(source),
        **settings,
        "tokenizer": tokenizer_fingerprint(model.name, revision=model.revision),
    }
    tokens = _tokens_of(job, data, source, Model(name=model.name, revision=model.revision))
    return References(wanted.name, key, _with_tokens(job, wanted.name, key, tokens, expected_count(data, source)), data)


def _tokens_of(job: Job, data: Data, source: Source, model: Model) -> Iterator[Tokens]:
    """Yield the tokens of a file of references. Nothing is said or read before the first is asked for."""
    warn_unused_split(data, source)
    yield from tokenize_as_settled(job.recipe, job.loaded, read_examples(data, source), model)


def _with_tokens(job: Job, name: str, key: Key, tokens: Iterator[Tokens], expected: int | None) -> Path:
    """Return the folder of a set's tokens; they are written if there are none with this key.

    About `expected` records are shown as the total; None where nobody knows.
    """
    folder = job.folder.work / "references" / name
    if read_key(folder) != key:
        with replacing(folder) as part:
            for count in write_tokens(tokens, part):
                total = expected if expected and count <= expected else None
                job.launch.advance(f"references: {name}", count, total, "records")
            write_key(part, key, with_files=True)
    return folder
