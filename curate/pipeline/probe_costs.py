"""From probes of a sample to the seconds and the memory of every stage of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from curate.config import Data, Model
from curate.pipeline.compute import fitting_tokens_per_batch, may_reuse_prefixes, settled_tokens_per_batch
from curate.pipeline.features import trained_model
from curate.pipeline.loaded import Loaded
from curate.pipeline.needed import needs_embeddings, passes_to_run
from curate.pipeline.probe_sample import MOST_READ, MOST_SAMPLED, Sample, tokens_of
from curate.pipeline.probe_scores import (
    FullPlan,
    ScoringCost,
    dropout_factor,
    full_plan,
    imbalances,
    measure_scoring,
    pass_seconds,
    seconds_to_mask,
)
from curate.pipeline.probe_stages import (
    TrainingCost,
    bytes_of,
    clustering_seconds,
    measure_embedding,
    measure_training,
    training_batches,
)
from curate.pipeline.subnets import dropout_settings, ifd_model, masked_settings
from curate.probe.estimate import PROCESSES, MemoryEstimate, StageEstimate, seconds_by_processes
from curate.probe.spread import spread
from curate.read.examples import read_examples
from curate.read.files import open_source
from curate.scoring.ifd import alone
from curate.scoring.score import ScoringModel, full_model
from curate.selection import keep_count
from curate.tokens.control import make_codec
from curate.tokens.labels import training_labels
from curate.tokens.lengths import length_limit
from curate.tokens.store import stored_tokens
from curate.training.features import Feature
from curate.types import STATUSES, TokenStore


@dataclass(frozen=True, slots=True)
class Priced:
    """Some stages and their memory; `tokens_per_batch` is what score.tokens_per_batch=auto came to, if it was tried."""

    stages: tuple[StageEstimate, ...] = ()
    memory: tuple[MemoryEstimate, ...] = ()
    tokens_per_batch: int | None = None


@dataclass(frozen=True, slots=True)
class _Probed:
    """A scoring model that was probed.

    scorer        the model
    store         the sample in its tokens
    full          batches of the whole input; prefixes are not reused
    cost          of its batches
    load_seconds  to load and confirm it
    base          seconds of one forward pass over everything, last exit only
    taken_over    the model's own log-probabilities are those of complexity, and not computed again
    """

    scorer: ScoringModel
    store: TokenStore
    full: FullPlan
    cost: ScoringCost
    load_seconds: float
    base: float
    taken_over: bool = False


def price_scores(sample: Sample, folder: Path) -> Priced:
    """Price every pass of the language model that a run would make; one that shares a model loads it once."""
    recipe = sample.recipe
    names = [name for name in passes_to_run(recipe, [recipe.select], complexity=False) if name != "columns"]
    small = ifd_model(recipe).name != recipe.model.name
    own = [name for name in names if name != "ifd" or not small]
    priced = [_price_own_model(sample, folder, own)] if own else []
    if small and "ifd" in names:
        priced.append(_price_small_model(sample, folder))
    stages = {stage.name: stage for part in priced for stage in part.stages}
    memory = tuple(peak for part in priced for peak in part.memory)
    tokens_per_batch = priced[0].tokens_per_batch if priced else None
    return Priced(tuple(stages[name] for name in names), memory, tokens_per_batch)


def _price_own_model(sample: Sample, folder: Path, names: list[str]) -> Priced:
    recipe, store = sample.recipe, sample.store
    # Not the sample's: it lets go of the model, whose memory is none of what training is then seen to take.
    loaded = Loaded(trust_remote_code=recipe.model.trust_remote_code, offload_folder=folder / "offload")
    started = time.perf_counter()
    scorer = loaded.scoring_model(recipe.model, recipe.score.exits)
    load_seconds, size = time.perf_counter() - started, settled_tokens_per_batch(recipe)
    reuse = "complexity" in names and may_reuse_prefixes(lambda: scorer, store, size)
    if sample.fit_batches:
        size = fitting_tokens_per_batch(lambda: scorer, store, size, reuse_prefixes=reuse)
    shares_prefixes = full_plan(store, sample.records_per_row, size, reuse_prefixes=reuse)
    whole = full_plan(store, sample.records_per_row, size, reuse_prefixes=False) if reuse else shares_prefixes
    cost = measure_scoring(scorer, store, shares_prefixes.plan, folder)
    base = pass_seconds(cost, whole, store, full_model(scorer))
    taken_over = "complexity" in names and scorer.layers[-1] == scorer.parts.num_layers
    probed = _Probed(scorer, store, whole, cost, load_seconds, base, taken_over)
    stages = []
    for number, name in enumerate(names):
        if name == "complexity":
            seconds, plan = pass_seconds(cost, shares_prefixes, store, scorer), shares_prefixes
        else:
            seconds, plan = _seconds_of_pass(sample, probed, name), whole
        alone_seconds = load_seconds if number == 0 else 0.0
        stages.append(_stage(name, alone_seconds, seconds, plan, base))
    memory = tuple(MemoryEstimate(name, bytes_of(scorer.parts.model), cost.activations) for name in names)
    return Priced(tuple(stages), memory, size)


def _price_small_model(sample: Sample, folder: Path) -> Priced:
    """IFD with a small model: it reads the records in tokens of its own."""
    recipe, model = sample.recipe, ifd_model(sample.recipe)
    loaded = Loaded(trust_remote_code=model.trust_remote_code, offload_folder=folder / "offload")
    started = time.perf_counter()
    store = tokens_of(sample, sample.examples, model, folder / "tokens-ifd")
    records = sample.records * (sample.read_seconds + (time.perf_counter() - started) / len(store))
    started = time.perf_counter()
    scorer = full_model(loaded.scoring_model(model, recipe.score.exits))
    load_seconds = time.perf_counter() - started
    full = full_plan(store, sample.records_per_row, settled_tokens_per_batch(recipe), reuse_prefixes=False)
    cost = measure_scoring(scorer, store, full.plan, folder)
    probed = _Probed(scorer, store, full, cost, load_seconds, pass_seconds(cost, full, store, scorer))
    stage = _stage("ifd", records + load_seconds, _seconds_of_pass(sample, probed, "ifd"), full, probed.base)
    return Priced((stage,), (MemoryEstimate("ifd", bytes_of(scorer.parts.model), cost.activations),))


def _seconds_of_pass(sample: Sample, probed: _Probed, name: str) -> float:
    """Seconds of a further score in one process, the model loaded."""
    score, scorer, store = sample.recipe.score, full_model(probed.scorer), probed.store
    if name == "ifd":
        model = ifd_model(sample.recipe)
        opening = make_codec(sample.loaded.tokenizer(model.name, model.revision), ()).opening
        responses = alone(store, opening).tokens
        size = settled_tokens_per_batch(sample.recipe)
        without = full_plan(responses, sample.records_per_row, size, reuse_prefixes=False)
        given = 0.0 if probed.taken_over else probed.base
        return given + pass_seconds(probed.cost, without, responses, scorer)
    if name == "masked":
        sparsity = [
            fraction for fraction in masked_settings(score.masked).sparsity if fraction or not probed.taken_over
        ]
        return sum(probed.base + seconds_to_mask(scorer, fraction) for fraction in sparsity)
    assert name == "dropout"
    rates = dropout_settings(score.dropout).rates
    factor = dropout_factor(scorer, probed.cost, store, probed.full.plan, float(np.median(rates)))
    return len(rates) * factor * probed.base


def _stage(name: str, alone_seconds: float, seconds: float, full: FullPlan, base: float) -> StageEstimate:
    divided = seconds_by_processes(alone_seconds, seconds, imbalances(full.plan, PROCESSES))
    return StageEstimate(name, divided, seconds / base if base else None)


def price_selection(sample: Sample, folder: Path) -> Priced:
    """Price embedding and clustering, where the selection needs them, and selecting: one more pass over the input."""
    recipe = sample.recipe
    select = StageEstimate("select", (sample.records * sample.read_seconds,) * len(PROCESSES))
    if not needs_embeddings(recipe.select):
        return Priced((select,))
    rows = np.flatnonzero(sample.store.rows["status"] == STATUSES.index("scored"))
    records = round(len(rows) * sample.records_per_row)
    cost = measure_embedding(sample.texts.read(rows), recipe.embed)
    clustering = clustering_seconds(records, cost.dimension, recipe.cluster)
    seconds = seconds_by_processes(cost.load_seconds + clustering, records * cost.seconds_per_text)
    memory = MemoryEstimate("embed", cost.weights, cost.activations)
    return Priced((StageEstimate("embed", seconds), select), (memory,))


def price_training(sample: Sample, folder: Path) -> Priced:
    """Price training on the records that are kept, and evaluating the adapter beside the untuned model."""
    recipe, trained = sample.recipe, trained_model(sample.recipe)
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
        one = 2 * cost.load_seconds + sum(_loss_seconds(cost, full, store) for full, store in references)
        stages.append(StageEstimate("evaluate", (one,) * len(PROCESSES)))
    return Priced(tuple(stages), (MemoryEstimate("train", cost.weights, cost.activations),))


def _loss_seconds(cost: TrainingCost, full: FullPlan, store: TokenStore) -> float:
    """Of the untuned model and of the adapter."""
    return (1 + cost.adapter_factor) * pass_seconds(cost.scoring, full, store, cost.scorer)


def _references(sample: Sample, store: TokenStore, model: Model, folder: Path) -> Iterator[tuple[FullPlan, TokenStore]]:
    """Batches and sample of every set that is evaluated on; of the held-out part the sample is that of the input."""
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
    """The records of the sample that may be trained on, from short to long; of select.method=longest the longest."""
    rows = np.flatnonzero(store.rows["status"] == STATUSES.index("scored"))
    rows = rows[np.argsort(store.rows["scored"][rows], kind="stable")]
    if sample.recipe.select.method == "longest":
        rows = rows[-max(1, round(keep_count(sample.recipe.select.keep, sample.records) / sample.records_per_row)) :]
    tokenizer = sample.loaded.tokenizer(model.name, model.revision)
    limit = length_limit(tokenizer, sample.loaded.config(model.name, model.revision))
    ids_and_labels = (training_labels(record, tokenizer.eos_token_id) for record in stored_tokens(store, rows))
    features = [(np.array(ids)[:limit], np.array(labels)[:limit]) for ids, labels in ids_and_labels]
    return sorted(features, key=lambda feature: len(feature[0]))
