"""Measures what embedding, clustering, training and evaluating cost on this machine, with a few texts and steps."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.config import Cluster, Embed, Model, Train
from curate.diversity.cluster import MAX_TRAINING_POINTS, auto_count, cluster
from curate.diversity.embed import count_truncated, embed, load_embedder
from curate.models.device import resolve_device
from curate.models.load import load_model
from curate.models.memory import memory_growth, process_memory
from curate.pipeline.probe_scores import FullPlan, ScoringCost, measure_scoring, pass_seconds
from curate.probe.estimate import MemoryEstimate
from curate.scoring.confidence import head_rows
from curate.scoring.parts import find_parts
from curate.scoring.score import ScoringModel
from curate.scoring.selftest import confirm
from curate.training.features import Feature
from curate.training.lora import train_adapter
from curate.types import TokenStore

_MOST_BLOCKS = 4  # of embed.batch_size texts each
_MOST_CLUSTERED = 8_192
_BUDGET_SECONDS = 4.0
_LEAST_STEPS, _MOST_STEPS = 3, 8
_BACKWARD = 3  # forward and backward pass together, in forward passes


@dataclass(frozen=True, slots=True)
class EmbeddingCost:
    """What embedding costs.

    load_seconds      to load the embedder
    seconds_per_text  to embed a text
    dimension         length of a vector
    memory            its peak
    """

    load_seconds: float
    seconds_per_text: float
    dimension: int
    memory: MemoryEstimate


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What training a LoRA adapter costs.

    load_seconds       to load the model and run the self-test
    setup_seconds      before the first step and after the last
    seconds_per_batch  of train.batch_size records, forward and backward, with its part of the optimizer's step
    adapter_factor     seconds of a forward pass with the adapter over those without
    scoring            what a forward pass without the adapter costs
    scorer             the model, which holds the adapter when this is returned
    memory             the peak of training
    """

    load_seconds: float
    setup_seconds: float
    seconds_per_batch: float
    adapter_factor: float
    scoring: ScoringCost
    scorer: ScoringModel
    memory: MemoryEstimate


def bytes_of(model: Any) -> int:
    """Return the bytes of a model's weights and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def measure_embedding(texts: Sequence[str], settings: Embed) -> EmbeddingCost:
    """Return what embedding texts costs, from up to four batches of texts of similar length, as a run makes them."""
    device, started = resolve_device(), time.perf_counter()
    process = process_memory(device)
    embedder = load_embedder(settings.model, device=str(device))
    loaded = time.perf_counter()
    by_length = sorted(texts, key=len, reverse=True)
    size = min(settings.batch_size, len(texts))
    num_blocks = min(_MOST_BLOCKS, len(texts) // size) if texts else 0
    middles = [len(texts) * (2 * i + 1) // (2 * num_blocks) for i in range(num_blocks)]
    blocks = [by_length[max(0, min(m - size // 2, len(texts) - size)) :][:size] for m in middles]
    with memory_growth(device) as grown:  # of the longest texts, which need most memory
        embed(by_length[:size] or ["a"], embedder, batch_size=settings.batch_size)  # also warms up
    begun = time.perf_counter()
    for block in blocks:
        embed(block, embedder, batch_size=settings.batch_size)
        count_truncated(block, embedder)
    seconds = (time.perf_counter() - begun) / max(size * num_blocks, 1)
    dimension = embedder.get_embedding_dimension()
    assert dimension is not None
    memory = MemoryEstimate("embed", bytes_of(embedder), grown(), process)
    return EmbeddingCost(loaded - started, seconds, dimension, memory)


def clustering_seconds(num_rows: int, dimension: int, settings: Cluster) -> float:
    """Return the seconds of k-means, scaled up from a smaller k-means by the number of multiplications.

    Args:
        num_rows: vectors to cluster.
        dimension: their length.
        settings: of the clustering.
    """
    if num_rows == 0:
        return 0.0
    rows = min(num_rows, _MOST_CLUSTERED)
    wanted = auto_count(num_rows) if settings.count == "auto" else min(settings.count, num_rows)
    count = min(wanted, max(1, rows // 8))
    # Random vectors will do: the number of iterations is fixed, and so the time does not depend on their values.
    vectors = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    started = time.perf_counter()
    cluster(vectors, count=count, spherical=settings.spherical, iterations=settings.iterations, seed=0)
    seconds = time.perf_counter() - started
    trained_on = min(num_rows, max(MAX_TRAINING_POINTS, 256 * wanted))  # `cluster` trains on a sample of a large input
    work = wanted * (trained_on * settings.iterations + num_rows)
    return seconds * work / (count * rows * (settings.iterations + 1))


def measure_training(
    features: Sequence[Feature],
    store: TokenStore,
    full: FullPlan,
    *,
    model: Model,
    train: Train,
    folder: Path,
) -> TrainingCost:
    """Return what training costs: load the model, time a few forward passes, a few steps of LoRA, and both together.

    Args:
        features: records to train on, from short to long.
        store: records whose forward passes are timed.
        full: their batches.
        model: where the model is and how it is loaded.
        train: settings of the adapter.
        folder: takes what is written on the way.
    """
    started, process = time.perf_counter(), process_memory(resolve_device())
    loaded = load_model(**model.model_dump(exclude={"allow_tokens"}))
    parts = find_parts(loaded)
    confirm(parts)
    load_seconds = time.perf_counter() - started
    weights, vocabulary = bytes_of(loaded), loaded.get_input_embeddings().weight.shape[0]
    rows = head_rows(vocabulary, on_gpu=parts.device.type == "cuda")
    scorer = ScoringModel(parts, (parts.num_layers,), rows)
    scoring = measure_scoring(scorer, store, full.plan, folder, budget=_BUDGET_SECONDS / 2)
    chosen, settings = _few_steps(features, train, scoring.batch.per_token)
    with memory_growth(parts.device) as grown:
        setup_seconds, step_seconds = _time_steps(chosen, loaded, settings, folder)
    loaded.eval()  # training has put the adapter into the model, and switched dropout on
    adapted = measure_scoring(scorer, store, full.plan, folder, budget=_BUDGET_SECONDS / 2)
    factor = pass_seconds(adapted, full, store, scorer) / max(pass_seconds(scoring, full, store, scorer), 1e-9)
    per_batch = step_seconds / settings.accumulation()
    memory = MemoryEstimate("train", weights, grown(), process)
    return TrainingCost(load_seconds, setup_seconds, per_batch, factor, scoring, scorer, memory)


def training_batches(kept: int, train: Train, processes: int) -> tuple[int, int]:
    """Return the optimizer steps of a run, and the batches that each process computes for them.

    Args:
        kept: records to train on.
        train: settings of the adapter.
        processes: how many train together.

    50 batches of 4 records are 2 epochs of 100 records; 4 batches make a step, and the last step of an epoch has one:

    >>> training_batches(100, Train(batch_size=4, epochs=2), 1)
    (14, 50)
    >>> training_batches(100, Train(batch_size=4, max_steps=8), 1)
    (8, 29)
    """
    accumulation = train.accumulation(processes)
    an_epoch = math.ceil(math.ceil(kept / train.batch_size) / processes)
    steps_an_epoch = math.ceil(an_epoch / accumulation)
    if train.max_steps is not None:
        epochs, more = divmod(train.max_steps, steps_an_epoch)
        return train.max_steps, epochs * an_epoch + more * accumulation
    return math.ceil(train.epochs * steps_an_epoch), math.ceil(train.epochs * an_epoch)


def _few_steps(features: Sequence[Feature], train: Train, seconds_per_token: float) -> tuple[list[Feature], Train]:
    """Return records for a few training steps, and settings that end after these.

    There are 3 to 8 steps, as many as take a few seconds. Their records are spread from the shortest to the longest,
    and so are of average length.
    """
    records = train.batch_size * train.accumulation()
    tokens = float(np.mean([len(ids) for ids, _ in features])) * records
    expected = max(_BACKWARD * seconds_per_token * tokens, 1e-9)
    steps = int(np.clip(_BUDGET_SECONDS / expected, _LEAST_STEPS, _MOST_STEPS))
    # Where even three steps take too long, a step is one batch; `measure_training` counts by the batch.
    accumulation = train.accumulation() if expected * _LEAST_STEPS < 2 * _BUDGET_SECONDS else 1
    wanted = steps * train.batch_size * accumulation
    which = (np.arange(wanted) + 0.5) * len(features) / wanted
    changed = {"max_steps": steps, "gradient_accumulation": accumulation, "save_steps": 1_000_000, "report_to": "none"}
    return [features[int(i)] for i in which], train.model_copy(update=changed)


def _time_steps(features: Sequence[Feature], model: Any, settings: Train, folder: Path) -> tuple[float, float]:
    """Return the seconds around the steps, and of one step. The first step warms up, and counts as around."""
    ends: list[float] = []

    def note(entry: Mapping[str, float]) -> None:
        ends.append(time.perf_counter())

    started = time.perf_counter()
    train_adapter(
        features,
        model,
        settings=settings,
        seed=0,
        checkpoint_dir=folder / "checkpoints",
        output_dir=folder / "adapter",
        on_log=note,
    )
    whole = time.perf_counter() - started
    step = (ends[-1] - ends[0]) / (len(ends) - 1)
    return max(whole - step * len(ends), 0.0), step
