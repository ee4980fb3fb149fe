"""Estimates the seconds and the memory of selecting, embedding, training and evaluating, from probes of a sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from curate.config import Data, Model
from curate.pipeline.cost_of_scores import StageCosts
from curate.pipeline.features import trained_model
from curate.pipeline.needed import needs_embeddings
from curate.pipeline.probe_sample import MOST_READ, MOST_SAMPLED, Sample, tokens_of
from curate.pipeline.probe_scores import (
    FullPlan,
    full_plan,
    pass_seconds,
)
from curate.pipeline.probe_stages import (
    TrainingCost,
    clustering_seconds,
    measure_embedding,
    measure_training,
    training_batches,
)
from curate.probe.estimate import PROCESSES, StageEstimate, seconds_by_processes
from curate.probe.spread import spread
from curate.read.examples import read_examples
from curate.read.files import open_source
from curate.selection import keep_count
from curate.tokens.labels import training_labels
from curate.tokens.lengths import length_limit
from curate.tokens.store import stored_tokens
from curate.training.features import Feature
from curate.types import STATUSES, TokenStore


def estimate_selection(sample: Sample, folder: Path) -> StageCosts:
    """Return what selecting will take, and embedding and clustering if the selection needs them.

    Selecting takes as long as reading the input once more.
    """
    recipe = sample.recipe
    select = StageEstimate("select", (sample.records * sample.read_seconds,) * len(PROCESSES))
    if not needs_embeddings(recipe.select):
        return StageCosts((select,))
    rows = np.flatnonzero(sample.store.rows["status"] == STATUSES.index("scored"))
    records = round(len(rows) * sample.records_per_row)
    cost = measure_embedding(sample.texts.read(rows), recipe.embed)
    clustering = clustering_seconds(records, cost.dimension, recipe.cluster)
    seconds = seconds_by_processes(cost.load_seconds + clustering, records * cost.seconds_per_text)
    return StageCosts((StageEstimate("embed", seconds), select), (cost.memory,))


def estimate_training(sample: Sample, folder: Path) -> StageCosts:
    """Return what training on the kept records will take, and evaluating the adapter beside the untuned model."""
    recipe, trained = sample.recipe, trained_model(sample.recipe)
    # Loaded as `adapter` loads it, with the quantisation of training and without a device map.
    model = recipe.model.model_copy(
        update={
            "name": trained.name,
            "revision": trained.revision,
            "quantization": recipe.train.quantization,
            "device_map": None,
        }
    )
    store = sample.store
    if not trained.is_scoring_model:
        store = tokens_of(sample, sample.examples, model, folder / "tokens-train")
    features = _features(sample, store, model)
    size, factor = recipe.evaluate.tokens_per_batch, sample.records_per_row
    full = full_plan(store, factor, size, reuse_prefixes=False)
    cost = measure_training(features, store, full, model=model, train=recipe.train, folder=folder)
    kept = keep_count(recipe.select.keep, sample.records)
    seconds = []
    for count in PROCESSES:
        batches = training_batches(kept, recipe.train, count)[1]
        seconds.append(cost.load_seconds + cost.setup_seconds + batches * cost.seconds_per_batch)
    stages = [StageEstimate("train", tuple(seconds))]
    references = list(_references(sample, store, model, folder))
    if references:
        # The model is loaded twice: untuned, and with the adapter. Evaluating is not divided among processes.
        one = 2 * cost.load_seconds + sum(_loss_seconds(cost, full, store) for full, store in references)
        stages.append(StageEstimate("evaluate", (one,) * len(PROCESSES)))
    return StageCosts(tuple(stages), (cost.memory,))


def _loss_seconds(cost: TrainingCost, full: FullPlan, store: TokenStore) -> float:
    """Return the seconds to measure the loss on a set, of the untuned model and of the adapter."""
    return (1 + cost.adapter_factor) * pass_seconds(cost.scoring, full, store, cost.scorer)


def _references(sample: Sample, store: TokenStore, model: Model, folder: Path) -> Iterator[tuple[FullPlan, TokenStore]]:
    """Yield batches and a sample of every set that is evaluated on. For the held-out part it is the input's sample."""
    recipe, size = sample.recipe, sample.recipe.evaluate.tokens_per_batch
    if recipe.evaluate.holdout and recipe.data.holdout != 0:
        held_out = keep_count(recipe.data.holdout, sample.records)
        yield full_plan(store, held_out / len(store), size, reuse_prefixes=True), store
    for number, wanted in enumerate(recipe.evaluate.sets):
        data = Data(**wanted.model_dump(exclude={"name"}), on_error="fail")
        found = spread(islice(read_examples(data, open_source(data)), MOST_READ), MOST_SAMPLED)
        examples = [replace(example, row=i) for i, example in enumerate(found.items)]
        own = tokens_of(sample, examples, model, folder / f"tokens-set-{number}")
        yield full_plan(own, found.count / len(own), size, reuse_prefixes=True), own


def _features(sample: Sample, store: TokenStore, model: Model) -> list[Feature]:
    """Return input ids and labels of the sample's records, from short to long; of the method longest only those."""
    rows = np.flatnonzero(store.rows["status"] == STATUSES.index("scored"))
    rows = rows[np.argsort(store.rows["scored"][rows], kind="stable")]
    if sample.recipe.select.method == "longest":
        rows = rows[-max(1, round(keep_count(sample.recipe.select.keep, sample.records) / sample.records_per_row)) :]
    tokenizer = sample.loaded.tokenizer(model.name, model.revision)
    limit = length_limit(tokenizer, sample.loaded.config(model.name, model.revision))
    ids_and_labels = (training_labels(record, tokenizer.eos_token_id) for record in stored_tokens(store, rows))
    features = [(np.array(ids)[:limit], np.array(labels)[:limit]) for ids, labels in ids_and_labels]
    return sorted(features, key=lambda feature: len(feature[0]))
