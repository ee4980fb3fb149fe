"""Takes a sample of the input, read and tokenised as in a run, and counts the whole input by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from curate.config import Model, Recipe
from curate.diversity.texts import Texts, open_texts, recording
from curate.models.device import resolve_device, resolve_dtype
from curate.pipeline.loaded import Loaded
from curate.pipeline.settle import adopt, known_key, settle_prompt
from curate.pipeline.tokens import tokenize_as_settled, warn_unused_split
from curate.probe.estimate import Counts
from curate.probe.spread import spread
from curate.read.examples import read_examples
from curate.read.files import Source, open_source, read_records
from curate.runs.folder import RunFolder
from curate.scoring.batches import auto_tokens_per_batch
from curate.tokens.control import make_codec
from curate.tokens.lengths import length_limit
from curate.tokens.saved import save_tokenizer
from curate.tokens.store import open_tokens, write_tokens
from curate.types import STATUSES, Example, TokenStore

MOST_SAMPLED = 4_000
"""Records that are tokenised at most."""
MOST_READ = 50_000
"""Records that are read at most, except to count those of compressed files."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A part of the input, tokenised.

    recipe         settled
    loaded         tokenizers and configurations
    examples       the records, with new row numbers from 0
    store          their tokens
    texts          their texts to embed
    records        how many records the whole input has
    read_seconds   seconds to read a record
    token_seconds  seconds to tokenise a record
    fixed_seconds  seconds that tokenising takes once, for any number of records
    fit_batches    whether score.tokens_per_batch is auto and no run has settled it
    """

    recipe: Recipe
    loaded: Loaded
    examples: list[Example]
    store: TokenStore
    texts: Texts
    records: int
    read_seconds: float
    token_seconds: float
    fixed_seconds: float
    fit_batches: bool

    @property
    def records_per_row(self) -> float:
        """How many records of the input a record of the sample stands for."""
        return self.records / len(self.store)


def take_sample(recipe: Recipe, folder: Path) -> Sample:
    """Return up to 4,000 records, evenly spaced over the first 50,000 of the input, tokenised.

    Args:
        recipe: as the person wrote it.
        folder: takes what is written.

    Raises:
        CurateError: data, model or settings that a run would refuse too.
    """
    source, run = open_source(recipe.data), RunFolder(Path(recipe.run.dir))
    warn_unused_split(recipe.data, source)
    loaded = Loaded(trust_remote_code=recipe.model.trust_remote_code, offload_folder=folder / "offload")
    recipe, fit_batches = _settled(recipe, source, loaded, run)
    started = time.perf_counter()
    found = spread(islice(read_examples(recipe.data, source), MOST_READ), MOST_SAMPLED)
    read_seconds = (time.perf_counter() - started) / found.count
    records = found.count if found.count < MOST_READ else count_records(recipe, source)
    examples = [replace(example, row=i) for i, example in enumerate(found.items)]

    # What a run does once before the first record: load the tokenizer, prepare its codec, save a copy.
    started, model = time.perf_counter(), recipe.model
    tokenizer = loaded.tokenizer(model.name, model.revision)
    make_codec(tokenizer, model.allow_tokens)
    limit = length_limit(tokenizer, loaded.config(model.name, model.revision))
    save_tokenizer(tokenizer, folder / "tokenizer", length_limit=limit)
    fixed_seconds = time.perf_counter() - started
    recorded = recording(examples, folder / "texts", recipe.embed.text)
    for _ in write_tokens(tokenize_as_settled(recipe, loaded, recorded, model), folder / "tokens"):
        pass
    whole = time.perf_counter() - started - fixed_seconds
    # `tokenize` prepares the codec once more, so that is taken off; at least half is left, should it be fast this time.
    token_seconds = max(whole - fixed_seconds, whole / 2) / len(examples)
    store, texts = open_tokens(folder / "tokens"), open_texts(folder / "texts")
    return Sample(
        recipe, loaded, examples, store, texts, records, read_seconds, token_seconds, fixed_seconds, fit_batches
    )


def tokens_of(sample: Sample, examples: list[Example], model: Model, folder: Path) -> TokenStore:
    """Return the tokens of examples in the vocabulary of another model; they are written to `folder`."""
    for _ in write_tokens(tokenize_as_settled(sample.recipe, sample.loaded, examples, model), folder):
        pass
    return open_tokens(folder)


def count(store: TokenStore, records: int) -> Counts:
    """Return the counts of an input of `records` records, scaled up from its sample `store`."""
    rows, factor = store.rows, records / len(store)
    codes = np.bincount(rows["status"], minlength=len(STATUSES))
    by_status = {str(name): round(int(n) * factor) for name, n in zip(STATUSES, codes, strict=True) if n}
    scored = by_status.pop("scored", 0)
    return Counts(
        records=records,
        exact=records == len(store),
        sampled=len(store),
        scored=scored,
        tokens=round(len(store.input_ids) * factor),
        response_tokens=round(int(rows["scored"].sum()) * factor),
        truncated=round(int(rows["truncated"].sum()) * factor),
        dropped=by_status,
    )


def _settled(recipe: Recipe, source: Source, loaded: Loaded, run: RunFolder) -> tuple[Recipe, bool]:
    """Return the recipe without `auto`, as a run would settle it, and whether the batch size may still be halved."""
    known = known_key(run) if run.holds_run() else {}
    recipe = settle_prompt(adopt(recipe, known), source, loaded, known)
    device, score = resolve_device(), recipe.score
    fit_batches = score.tokens_per_batch == "auto"
    if fit_batches:
        score = score.model_copy(update={"tokens_per_batch": auto_tokens_per_batch(device_type=device.type)})
    dtype = str(resolve_dtype(recipe.model.dtype, device)).removeprefix("torch.")
    return recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"dtype": dtype}), "score": score}
    ), fit_batches


def count_records(recipe: Recipe, source: Source) -> int:
    """Return the number of records of a large input.

    For plain text files it is estimated: the size of all files over the mean size of the first records. Other files
    (compressed, Parquet) are read to the end and counted.
    """
    data, limit = recipe.data, recipe.data.limit
    plain = source.files and all(file.compression is None for file in source.files)
    sizes = [] if not plain else list(_sizes(recipe, source))
    if not sizes or 0 in sizes:
        return sum(1 for _ in read_records(source, data))
    total = sum(file.path.stat().st_size for file in source.files)
    records = max(len(sizes), round(total / (sum(sizes) / len(sizes))))
    return records if limit is None else min(records, limit)


def _sizes(recipe: Recipe, source: Source) -> Iterator[int]:
    """Yield the bytes of the first records, each with its separator; 0 where the file is no text file."""
    for record in islice(read_records(source, recipe.data), MOST_READ):
        # Two bytes between records: a comma and a line end, or CRLF.
        yield len(record.raw) + 2 if record.raw else 0
